//! The listener: answers first hellos without state, hands verified peers off, and sorts what
//! belongs to others.
//!
//! One thread calls [`DtlsListener::accept`] in a loop and does nothing else. Each datagram takes
//! one of four ways: to a connection's inbox (its peer is connected), to `DTLSv1_listen` (a hello),
//! to the caller (a hello with a good cookie), or nowhere (noise, counted).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{PortSharing, Safeguard, ServerConfig, unix_now};
use crate::core::record::client_hello_sequence;
use crate::core::{HelloOutcome, HelloVerifier, VerifiedHello};
use crate::error::{AcceptError, BindError};
use crate::stats::{Counter, Stats};

use super::handoff::{Routed, Routes, hand_off};
use super::icmp;
use super::mailbox::{Mailbox, Post, mailbox};
use super::socket::{FourTuple, ListeningSocket};
use super::stream::{Incoming, canonical};
use super::transport::{Stray, StrayPost, clock};

/// The largest datagram read: the largest record of TLS 1.2 with its header.
const BUFFER: usize = (1 << 14) + 2048 + 13;

/// Strays waiting for the listener. Each is a hello or part of one.
const STRAYS: usize = 1024;

/// Datagrams read from one socket before the others get their turn.
const ROUND: usize = 32;

/// Listening sockets of one listener: the wildcard one and one per local address in use.
const MAX_SOCKETS: usize = 64;

type Admission = Box<dyn FnMut(SocketAddr) -> bool + Send>;

/// A bound address that accepts DTLS connections.
pub struct DtlsListener {
    config: Arc<ServerConfig>,
    stats: Arc<Stats>,
    sockets: Vec<ListeningSocket>,
    verifier: HelloVerifier,
    routes: Arc<Routes>,
    strays: Mailbox<Stray>,
    stray_post: StrayPost,
    closed: Arc<AtomicBool>,
    admission: Admission,
    buffer: Vec<u8>,
    /// The socket whose turn it is, and how many datagrams it has had.
    turn: (usize, usize),
}

impl fmt::Debug for DtlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsListener")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// Ends a listener from another thread.
#[derive(Debug, Clone)]
pub struct ListenerHandle {
    closed: Arc<AtomicBool>,
    bell: Post<Stray>,
}

impl ListenerHandle {
    /// Makes the present or next [`DtlsListener::accept`] fail with [`AcceptError::Closed`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.bell.ring();
    }
}

impl DtlsListener {
    /// Binds `address`. Port 0 takes any free port, see [`Self::local_addr`]. The wildcard address
    /// answers each peer from the address it sent to; `[::]` takes IPv4 too.
    ///
    /// # Errors
    /// The port is taken, not permitted, or the address is not this host's.
    pub fn bind(address: SocketAddr, config: ServerConfig) -> Result<Self, BindError> {
        let config = Arc::new(config);
        let stats = Arc::new(Stats::default());
        let socket = ListeningSocket::bind(address, config.port_sharing())?;
        let verifier = HelloVerifier::new(Arc::clone(&config), Arc::clone(&stats))?;
        let (stray_post, strays) = mailbox(STRAYS).map_err(|source| BindError::Io {
            address,
            step: "eventfd",
            source,
        })?;
        Ok(Self {
            config,
            stats,
            sockets: vec![socket],
            verifier,
            routes: Arc::default(),
            strays,
            stray_post,
            closed: Arc::default(),
            admission: Box::new(|_| true),
            buffer: vec![0; BUFFER],
            turn: (0, 0),
        })
    }

    /// Asks `admit` before any hello is answered. Where it says no, the hello is dropped and
    /// counted; the client will repeat it.
    pub fn set_admission(&mut self, admit: impl FnMut(SocketAddr) -> bool + Send + 'static) {
        self.admission = Box::new(admit);
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        canonical(self.sockets[0].local())
    }

    /// The counters of this listener and all its connections.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// A handle that closes this listener from another thread.
    #[must_use]
    pub fn handle(&self) -> ListenerHandle {
        ListenerHandle {
            closed: Arc::clone(&self.closed),
            bell: self.stray_post.clone(),
        }
    }

    /// Connections of this listener that are alive, handshakes included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.routes.len()
    }

    /// Waits for the next peer whose address is verified.
    ///
    /// # Errors
    /// The listener is closed or its socket broken. Noise, ICMP and a failed hand-off are counted.
    pub fn accept(&mut self) -> Result<Incoming, AcceptError> {
        loop {
            if self.closed.load(Ordering::SeqCst) {
                return Err(AcceptError::Closed);
            }
            if let Some(stray) = self.strays.take() {
                if let Some(incoming) = self.sort(&stray.datagram, stray.tuple) {
                    return Ok(incoming);
                }
                continue;
            }
            match self.read_in_turn()? {
                Some((length, tuple)) => {
                    // The buffer leaves for the time of the call: sorting needs the whole listener.
                    let buffer = std::mem::take(&mut self.buffer);
                    let incoming = self.sort(&buffer[..length], tuple);
                    self.buffer = buffer;
                    if let Some(incoming) = incoming {
                        return Ok(incoming);
                    }
                }
                None => self
                    .strays
                    .wait(self.sockets.iter().map(AsFd::as_fd), None)?,
            }
        }
    }

    /// The next datagram of any socket, or `None` when all are empty.
    fn read_in_turn(&mut self) -> io::Result<Option<(usize, FourTuple)>> {
        for _ in 0..=self.sockets.len() {
            let (at, had) = self.turn;
            if had < ROUND {
                match self.sockets[at].recv(&mut self.buffer) {
                    Ok(arrived) => {
                        self.turn.1 += 1;
                        return Ok(Some(arrived));
                    }
                    Err(error) if icmp::is_empty(&error) || icmp::is_interrupted(&error) => {}
                    Err(error) if icmp::is_icmp(&error) => {
                        self.stats.count(Counter::IcmpOnReceive);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.turn = ((at + 1) % self.sockets.len(), 0);
        }
        Ok(None)
    }

    /// Decides what a datagram is, and acts on it.
    fn sort(&mut self, datagram: &[u8], tuple: FourTuple) -> Option<Incoming> {
        if datagram.is_empty() {
            self.stats.count(Counter::DroppedEmpty);
            return None;
        }
        if self.config.settings().keeps(Safeguard::StrayForwarding) {
            match self.routes.forward(tuple, datagram) {
                Routed::Unknown => {}
                Routed::Forwarded => {
                    self.stats.count(Counter::StraysToWorker);
                    return None;
                }
                Routed::Dropped => {
                    self.stats.count(Counter::StraysDropped);
                    return None;
                }
            }
        }
        if client_hello_sequence(datagram).is_none() {
            self.stats.count(Counter::UnknownPeer);
            return None;
        }
        if !(self.admission)(canonical(tuple.peer)) {
            self.stats.count(Counter::HellosRefused);
            return None;
        }
        let FourTuple { peer, local } = tuple;
        match self
            .verifier
            .receive(datagram, peer, local, unix_now(), clock())
        {
            Ok(HelloOutcome::Answer(answer)) => {
                self.answer(&answer, tuple);
                None
            }
            Ok(HelloOutcome::Verified(hello)) => self.hand_off(hello, tuple),
            Ok(HelloOutcome::Noise) => None,
            Err(_) => {
                self.stats.count(Counter::HellosRejected);
                None
            }
        }
    }

    fn answer(&self, answer: &[u8], tuple: FourTuple) {
        let socket = self
            .sockets
            .iter()
            .find(|socket| socket.local() == tuple.local);
        let socket = socket.unwrap_or(&self.sockets[0]);
        // A lost HelloVerifyRequest is asked for again by the client's timer.
        let outcome = match socket.send(answer, tuple) {
            Ok(()) => Counter::DatagramsSent,
            Err(_) => Counter::DatagramsUnsent,
        };
        self.stats.count(outcome);
    }

    fn hand_off(&mut self, hello: VerifiedHello, tuple: FourTuple) -> Option<Incoming> {
        let sharing = self.config.port_sharing();
        let handed = self
            .listen_at(tuple.local)
            .and_then(|()| hand_off(tuple, sharing, &self.routes, &self.stray_post));
        match handed {
            Ok(transport) => {
                self.stats.count(Counter::ConnectionsAccepted);
                Some(Incoming::new(hello, transport))
            }
            Err(error) => {
                self.stats.count(Counter::HandoffsFailed);
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
            self.sockets
                .push(ListeningSocket::bind_shared(local, sharing)?);
        }
        Ok(())
    }
}
