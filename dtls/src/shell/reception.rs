//! What happens to a datagram at the listening socket: first hellos are answered without state,
//! verified peers handed off, and what belongs to a connection goes there.
//!
//! Each datagram takes one of four ways: to a connection's inbox (it is its peer's), to
//! `DTLSv1_listen` (a hello), to the caller (a hello with a good cookie), or nowhere (noise,
//! counted). Runs on the listener's thread: the one that calls
//! [`DtlsListener::accept`](super::listener::DtlsListener::accept), or where connections share the
//! listening socket one of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::{self, PortSharing, Safeguard, ServerConfig, Successor, unix_now};
use crate::core::limits::{HelloRate, Limits, Prefix};
use crate::core::record::{client_hello_has_cookie, client_hello_id, client_hello_sequence};
use crate::core::{HelloOutcome, HelloVerifier, VerifiedHello};
use crate::error::BindError;
use crate::stats::{Counter, Stats};

use super::handoff::{Routed, Routes, to_connected_socket, to_inbox};
use super::icmp::SocketError;
use super::mailbox::{Mailbox, mailbox};
use super::socket::{FourTuple, ListeningSocket};
use super::stream::{Incoming, canonical};
use super::transport::{Stray, StrayPost, clock};

/// The largest datagram read: the largest record of TLS 1.2 with its header.
const BUFFER: usize = (1 << 14) + 2048 + 13;

/// Bytes of strays waiting for the listener. Each is a hello or part of one.
const STRAYS: usize = 1 << 20;

/// Datagrams read from one socket before the others get their turn.
const ROUND: usize = 32;

/// Listening sockets of one listener: the wildcard one and one per local address in use.
const MAX_SOCKETS: usize = 64;

/// Whether a peer's hello is answered, with so many connections alive.
pub(crate) type Admission = Box<dyn FnMut(SocketAddr, usize) -> bool + Send>;

/// Everything that reads from the listening sockets.
pub(crate) struct Reception {
    /// As it was bound: what concerns the sockets does not change.
    config: Arc<ServerConfig>,
    common: Common,
    sockets: Vec<Arc<ListeningSocket>>,
    verifier: HelloVerifier,
    limits: Limits,
    hello_rate: Option<HelloRate>,
    strays: Mailbox<Stray>,
    buffer: Vec<u8>,
    /// The socket whose turn it is, and how many datagrams it has had.
    turn: (usize, usize),
}

/// What other threads see of it.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) local: SocketAddr,
    pub(crate) stats: Arc<Stats>,
    pub(crate) routes: Arc<Routes>,
    /// Wakes it, too.
    pub(crate) stray_post: StrayPost,
    /// Set once no further hello is to be answered.
    pub(crate) closed: Arc<AtomicBool>,
    pub(crate) admission: Arc<Mutex<Admission>>,
    pub(crate) successor: Arc<Successor>,
}

impl fmt::Debug for Reception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reception")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

impl Reception {
    pub(crate) fn bind(address: SocketAddr, config: ServerConfig) -> Result<Self, BindError> {
        let successor = Arc::default();
        let config = Arc::new(config.succeeded_by(&successor));
        let stats = Arc::new(Stats::default());
        let sharing = match config.transport() {
            config::Transport::Connected => Some(config.port_sharing()),
            config::Transport::Shared => None,
        };
        let socket = ListeningSocket::bind(address, sharing)?;
        let verifier = HelloVerifier::new(Arc::clone(&config), Arc::clone(&stats))?;
        let (stray_post, strays) = mailbox(STRAYS).map_err(|source| BindError::Io {
            address,
            step: "eventfd",
            source,
        })?;
        let limits = *config.limits();
        Ok(Self {
            config,
            limits,
            hello_rate: limits.hello_rate.map(|rate| HelloRate::new(rate, clock())),
            common: Common {
                local: canonical(socket.local()),
                stats,
                routes: Arc::new(Routes::new(Arc::clone(strays.bell()), limits.lengths)),
                stray_post,
                closed: Arc::default(),
                admission: Arc::new(Mutex::new(Box::new(|_, _| true))),
                successor,
            },
            sockets: vec![Arc::new(socket)],
            verifier,
            strays,
            buffer: vec![0; BUFFER],
            turn: (0, 0),
        })
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }

    /// Whether no further hello is answered.
    pub(crate) fn is_closed(&self) -> bool {
        self.common.closed.load(Ordering::SeqCst)
    }

    /// Deals with one datagram, or waits for one; gives a peer whose address is verified.
    ///
    /// # Errors
    /// A socket is broken. Noise, ICMP and a failed hand-off are counted.
    pub(crate) fn step(&mut self) -> io::Result<Option<Incoming>> {
        if let Some(stray) = self.strays.take() {
            return Ok(self.sort(&stray.datagram, stray.tuple));
        }
        let Some((length, tuple)) = self.read_in_turn()? else {
            let sockets = self.sockets.iter().map(|socket| socket.as_fd());
            self.strays.wait(sockets, None)?;
            return Ok(None);
        };
        // The buffer leaves for the time of the call: sorting needs all of this.
        let buffer = std::mem::take(&mut self.buffer);
        let incoming = self.sort(&buffer[..length], tuple);
        self.buffer = buffer;
        Ok(incoming)
    }

    /// The next datagram of any socket, or `None` when all are empty.
    fn read_in_turn(&mut self) -> io::Result<Option<(usize, FourTuple)>> {
        if self.turn.1 >= ROUND {
            self.end_turn();
        }
        for _ in 0..self.sockets.len() {
            match self.sockets[self.turn.0].recv(&mut self.buffer) {
                Ok(arrived) => {
                    self.turn.1 += 1;
                    return Ok(Some(arrived));
                }
                Err(error) => match SocketError::of(&error) {
                    SocketError::Again | SocketError::Empty => {}
                    SocketError::Icmp => self.common.stats.count(Counter::IcmpOnReceive),
                    SocketError::Broken => return Err(error),
                },
            }
            self.end_turn();
        }
        Ok(None)
    }

    fn end_turn(&mut self) {
        self.turn = ((self.turn.0 + 1) % self.sockets.len(), 0);
    }

    /// Decides what a datagram is, and acts on it.
    fn sort(&mut self, datagram: &[u8], tuple: FourTuple) -> Option<Incoming> {
        let stats = &self.common.stats;
        if datagram.is_empty() {
            stats.count(Counter::DroppedEmpty);
            return None;
        }
        if self.is_forwarded(datagram, tuple) {
            return None;
        }
        if client_hello_sequence(datagram).is_none() {
            stats.count(Counter::UnknownPeer);
            return None;
        }
        if self.is_closed() || !self.admits(canonical(tuple.peer)) {
            stats.count(Counter::HellosRefused);
            return None;
        }
        let FourTuple { peer, local } = tuple;
        let (prefix, now) = (self.limits.lengths.prefix(peer.ip()), clock());
        if let Some(limit) = self.exceeds(datagram, prefix, now) {
            stats.count(limit);
            return None;
        }
        match self
            .verifier
            .receive_uncounted(datagram, peer, local, unix_now(), now)
        {
            Ok(HelloOutcome::Answer(answer)) => {
                let rate = self.hello_rate.as_mut();
                if rate.is_none_or(|rate| rate.take(prefix, now)) {
                    self.answer(&answer, tuple);
                } else {
                    // A bad cookie got it this far.
                    stats.count(Counter::HellosOverRate);
                }
                None
            }
            Ok(HelloOutcome::Verified(_)) if self.is_repeated(datagram, tuple, now) => {
                stats.count(Counter::HellosRepeated);
                None
            }
            Ok(HelloOutcome::Verified(hello)) => self.hand_off(hello, tuple),
            Ok(HelloOutcome::Noise) => None,
            Err(_) => {
                self.common.stats.count(Counter::HellosRejected);
                None
            }
        }
    }

    /// Gives a datagram to the connection whose it is; says whether there is one.
    fn is_forwarded(&self, datagram: &[u8], tuple: FourTuple) -> bool {
        let transport = self.config.transport();
        let is_stray = transport == config::Transport::Connected;
        if is_stray && !self.config.settings().keeps(Safeguard::StrayForwarding) {
            return false;
        }
        let counter = match self.common.routes.forward(tuple, datagram) {
            Routed::Unknown => return false,
            Routed::Forwarded => is_stray.then_some(Counter::StraysToWorker),
            Routed::Dropped if is_stray => Some(Counter::StraysDropped),
            Routed::Dropped => Some(Counter::DroppedInboxFull),
        };
        if let Some(counter) = counter {
            self.common.stats.count(counter);
        }
        true
    }

    fn admits(&self, peer: SocketAddr) -> bool {
        let admission = &self.common.admission;
        let alive = self.common.routes.len();
        (admission.lock().unwrap_or_else(PoisonError::into_inner))(peer, alive)
    }

    /// Which limit keeps a hello from being looked at. The rate is one of answers: who shows a cookie
    /// has had one, and asks for none if the cookie is good.
    fn exceeds(&self, hello: &[u8], prefix: Prefix, now: Instant) -> Option<Counter> {
        let too_fast = || {
            let allowed = self.hello_rate.as_ref()?.allows(prefix, now);
            (!allowed && !client_hello_has_cookie(hello)).then_some(Counter::HellosOverRate)
        };
        let refusal = self.common.routes.refusal(prefix, &self.limits);
        refusal.or_else(too_fast)
    }

    /// Whether a hello with a good cookie has had its connection.
    fn is_repeated(&self, hello: &[u8], tuple: FourTuple, now: Instant) -> bool {
        let routes = &self.common.routes;
        client_hello_id(hello).is_some_and(|hello| routes.has_ended(tuple, &hello, now))
    }

    fn answer(&self, answer: &[u8], tuple: FourTuple) {
        let socket = self
            .sockets
            .iter()
            .find(|socket| socket.local() == tuple.local);
        let socket = socket.unwrap_or(&self.sockets[0]);
        // A lost HelloVerifyRequest is asked for again by the client's timer.
        let stats = &self.common.stats;
        if socket.send(answer, tuple, false).is_ok() {
            stats.count(Counter::DatagramsSent);
            stats.count(Counter::HelloVerifyRequests);
        } else {
            stats.count(Counter::DatagramsUnsent);
        }
    }

    fn hand_off(&mut self, hello: VerifiedHello, tuple: FourTuple) -> Option<Incoming> {
        let handed = match self.config.transport() {
            config::Transport::Connected => self.listen_at(tuple.local).and_then(|()| {
                let Common {
                    routes, stray_post, ..
                } = &self.common;
                to_connected_socket(tuple, self.config.port_sharing(), routes, stray_post)
            }),
            config::Transport::Shared => {
                let Common {
                    routes, stray_post, ..
                } = &self.common;
                to_inbox(tuple, &self.sockets[0], routes, stray_post)
            }
        };
        match handed {
            Ok(transport) => Some(Incoming::new(hello, transport)),
            Err(error) => {
                self.common.stats.count(Counter::HandoffsFailed);
                log::debug!("hand-off of {} failed: {error}", canonical(tuple.peer));
                None
            }
        }
    }

    /// Makes sure that a listening socket is bound to exactly this local address: the socket filter
    /// keeps strangers away from new sockets only within one group, and a wildcard socket forms a
    /// group of its own.
    fn listen_at(&mut self, local: SocketAddr) -> io::Result<()> {
        let sharing = self.config.port_sharing();
        if sharing == PortSharing::ReuseAddr
            || self.sockets.iter().any(|socket| socket.local() == local)
        {
            return Ok(());
        }
        // A host has few addresses; one with very many still works, with strays.
        if self.sockets.len() < MAX_SOCKETS {
            let socket = ListeningSocket::bind_shared(local, sharing)?;
            self.sockets.push(Arc::new(socket));
        }
        Ok(())
    }
}
