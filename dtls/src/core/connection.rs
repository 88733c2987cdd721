//! One DTLS connection without I/O: OpenSSL's state machine between a slot and four timers.
//!
//! ```text
//! 1. accepted / connect      state: handshake     transmit what it wrote, wait until deadline()
//! 2. receive + handshake     ...                  until Progress::Established
//! 3. receive + read, write   state: established   transmit after each
//! 4. close                   state: closed        transmit the close_notify
//! ```
//!
//! Runs on the thread that owns it: the listener's until hand-off, then the worker's.

mod handshake;
mod liveness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::{ErrorCode, Ssl, SslRef, SslStream};

use crate::config::{ClientConfig, Safeguard, Settings};
use crate::error::{RecvError, SendError};
use crate::session::{self, ExportError, HandshakeCost, HandshakeInfo, Session};
use crate::stats::{Counter, Stats};
use crate::sys;

use super::filter::{HeldAlert, RecordFilter, Role};
use super::heartbeat::Heartbeat;
use super::reconnect::Reconnect;
use super::record::HelloId;
use super::renumber::Renumber;
use super::slot::Slot;
use super::timers::{Due, Timers};

/// How far the handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Waits for a datagram or the deadline.
    Waiting,
    /// Complete: data may flow.
    Established,
}

/// What [`Connection::read`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// One record's data, of this many bytes.
    Data(usize),
    /// Nothing more in the datagrams received so far.
    Empty,
    /// The peer's close_notify.
    Closed,
    /// The client has started over from the same address and port, and its new handshake is
    /// complete: this connection is over, [`Connection::take_successor`] has the new one.
    Reconnected,
}

/// One end of a connection. Datagrams and time are arguments; see the module for the order of calls.
#[derive(Debug)]
pub struct Connection {
    stream: SslStream<Slot>,
    filter: RecordFilter,
    timers: Timers,
    settings: Arc<Settings>,
    stats: Arc<Stats>,
    peer: SocketAddr,
    started: Instant,
    took: Option<Duration>,
    alert: Option<HeldAlert>,
    /// Complete with the handshake.
    cost: HandshakeCost,
    expiries: u32,
    received_at: Instant,
    unread: bool,
    /// Since the end of the handshake OpenSSL has not said yet that it has nothing more:
    /// `SSL_has_pending` overlooks records that came before their epoch.
    draining: bool,
    /// What the configuration and the interface allow.
    link_mtu: u16,
    /// Bytes of a datagram at present: less than the link takes while flights are lost.
    mtu: u16,
    max_payload: usize,
    /// With which the client began it, at the server's end.
    pub(crate) hello: Option<HelloId>,
    /// A server's watch for a client that starts over.
    reconnect: Option<Box<Reconnect>>,
    successor: Option<Box<Self>>,
    heartbeat: Option<Box<Heartbeat>>,
    /// What a client needs to begin its handshake anew, while that may be needed.
    dial: Option<Box<Dial>>,
    /// Two cookies contend.
    contended: Option<Contended>,
}

/// A client was asked for two cookies: one of the questions may be forged, or the server slow.
#[derive(Debug)]
struct Contended {
    /// Since when.
    at: Instant,
    /// Expiries of the retransmission timer since then.
    expiries: u32,
}

/// The arguments of [`Connection::connect`].
#[derive(Debug)]
struct Dial {
    /// When.
    began: Instant,
    config: ClientConfig,
    name: String,
    session: Option<Session>,
}

/// IPv4 and UDP headers; IPv6 and UDP headers.
pub(crate) const HEADERS_V4: u16 = 20 + 8;
pub(crate) const HEADERS_V6: u16 = 40 + 8;

/// After a plaintext alert the handshake may go on for this long. A real alert means that the peer is
/// gone, so waiting is idle; a forged one must not end a handshake. A server allows for clients that
/// first repeat a flight after 9 s (RFC 7925 §11); a person waits for a client, and servers are quick:
/// it allows for two repetitions after 1 s and 2 s.
const SERVER_GRACE: Duration = Duration::from_secs(10);
const CLIENT_GRACE: Duration = Duration::from_millis(3500);

impl Connection {
    /// The server's end, after `DTLSv1_listen` took the ClientHello with record number `hello`.
    pub(crate) fn accepted(
        mut stream: SslStream<Slot>,
        hello: u64,
        peer: SocketAddr,
        settings: &Arc<Settings>,
        stats: &Arc<Stats>,
        now: Instant,
    ) -> Result<Self, ErrorStack> {
        if settings.keeps(Safeguard::Renumbering) {
            stream.get_mut().renumber_from(Renumber::starting_at(hello));
        }
        Self::new(stream, hello + 1, peer, settings, stats, now)
    }

    /// The client's end. `name` is what the server's certificate must carry: a host name or an IP
    /// address. With a `session` the handshake is abbreviated if the server agrees.
    ///
    /// # Errors
    /// A name OpenSSL refuses, or no memory.
    pub fn connect(
        config: &ClientConfig,
        name: &str,
        peer: SocketAddr,
        session: Option<&Session>,
        stats: &Arc<Stats>,
        now: Instant,
    ) -> Result<Self, ErrorStack> {
        let mut ssl = Ssl::new(config.context())?;
        ssl.set_connect_state();
        config.prepare(&mut ssl, name, peer, session)?;
        let stream = SslStream::new(ssl, Slot::default())?;
        let mut connection = Self::new(stream, 0, peer, config.settings(), stats, now)?;
        connection.dial = Some(Box::new(Dial {
            began: now,
            config: config.clone(),
            name: name.to_owned(),
            session: session.cloned(),
        }));
        Ok(connection)
    }

    fn new(
        stream: SslStream<Slot>,
        first_plaintext: u64,
        peer: SocketAddr,
        settings: &Arc<Settings>,
        stats: &Arc<Stats>,
        now: Instant,
    ) -> Result<Self, ErrorStack> {
        let role = if stream.ssl().is_server() {
            Role::Server
        } else {
            Role::Client
        };
        #[cfg_attr(
            not(feature = "testing"),
            expect(unused_mut, reason = "switched by tests")
        )]
        let mut filter = RecordFilter::new(role, first_plaintext);
        #[cfg(feature = "testing")]
        if !settings.keeps(Safeguard::RecordFilter) {
            filter.disabled = true;
        }
        let mut connection = Self {
            stream,
            filter,
            timers: Timers::start(now, settings.handshake_timeout),
            settings: Arc::clone(settings),
            stats: Arc::clone(stats),
            peer,
            started: now,
            took: None,
            alert: None,
            cost: HandshakeCost::default(),
            expiries: 0,
            received_at: now,
            unread: false,
            draining: false,
            link_mtu: settings.link_mtu,
            mtu: u16::MAX,
            max_payload: 0,
            hello: None,
            reconnect: None,
            successor: None,
            heartbeat: None,
            dial: None,
            contended: None,
        };
        connection.timers.set_idle(settings.idle_timeout);
        let ssl = sys::ssl::ssl_mut(&mut connection.stream);
        sys::ssl::set_timer(ssl, settings.retransmission)?;
        let mtu = connection.datagram_mtu(connection.link_mtu);
        connection.set_datagram_mtu(mtu)?;
        Ok(connection)
    }

    /// Lets the client start over, see [`Reconnect`].
    pub(crate) fn watch_for_reconnect(&mut self, reconnect: Box<Reconnect>) {
        self.reconnect = Some(reconnect);
    }

    /// Hands in a datagram. Follow with [`Self::handshake`] or, once established, [`Self::read`].
    pub fn receive(&mut self, datagram: &[u8], now: Instant) {
        self.stats.count(Counter::DatagramsReceived);
        if datagram.is_empty() {
            self.stats.count(Counter::DroppedEmpty);
            return;
        }
        if self.look_for_reconnect(datagram, now) {
            return;
        }
        if self.took.is_none() {
            self.cost.received(datagram.len());
        }
        let slot = self.stream.get_mut();
        if !slot.is_full() {
            slot.inbound().clear();
        }
        let before = slot.inbound().len();
        let sighting = self.filter.sieve(datagram, slot.inbound(), &self.stats);
        let passed = slot.inbound().len() > before;
        slot.arm();
        if self.cost.cookie_round_trip.is_none() && self.filter.has_cookie() {
            self.cost.cookie_round_trip = Some(now.saturating_duration_since(self.started));
        }
        if passed {
            // The peer goes on, whatever the alert beside it says.
            self.timers.cancel_grace();
            self.alert = None;
        } else if let Some(alert) = sighting.alert.filter(|_| self.took.is_none()) {
            self.alert = Some(alert);
            let server = self.stream.ssl().is_server();
            let grace = if server { SERVER_GRACE } else { CLIENT_GRACE };
            self.timers.start_grace(now, grace);
        }
        self.received_at = now;
        self.unread |= passed;
        if sighting.other_cookie {
            self.contended.get_or_insert(Contended {
                at: now,
                expiries: 0,
            });
        }
        if sighting.heartbeat {
            self.receive_heartbeats(datagram, now);
        }
    }

    /// Lets a client start over. `true`: this is the new connection now, and the datagram was its
    /// hello.
    fn look_for_reconnect(&mut self, datagram: &[u8], now: Instant) -> bool {
        let Some(mut reconnect) = self.reconnect.take() else {
            return false;
        };
        let mut replaced = false;
        if reconnect.concerns(datagram) {
            reconnect.receive(datagram, now);
            reconnect.limit_link_mtu(self.link_mtu);
            if self.took.is_none() {
                if let Some(mut candidate) = reconnect.take_candidate() {
                    // A peer that starts over again and again must not hold its place for ever.
                    candidate.timers.inherit(&self.timers);
                    *self = *candidate;
                    replaced = true;
                }
            } else if reconnect.proceed(now)
                && let Some(mut successor) = reconnect.take_candidate()
            {
                successor.reconnect = Some(reconnect);
                self.successor = Some(successor);
                return false;
            }
        }
        self.reconnect = Some(reconnect);
        replaced
    }

    /// The next datagram to send to the peer.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        let own = self.stream.get_mut().pop();
        if let (Some(datagram), None) = (&own, self.took) {
            self.cost.sent(datagram.len());
        }
        own.or_else(|| self.reconnect.as_mut()?.transmit())
            .or_else(|| self.successor.as_mut()?.transmit())
    }

    /// When [`Self::handle_timeout`] wants to be called, if ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let timers = if self.is_probing() {
            self.timers.deadline_but_idle()
        } else {
            self.timers.deadline()
        };
        let candidate = self
            .reconnect
            .as_ref()
            .and_then(|reconnect| reconnect.deadline());
        [timers, self.beat_deadline(), candidate]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the idle timeout has passed and no probe is going on; where the configuration says
    /// `probe_when_idle`, whether the peer has left such a probe unanswered.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        // A client that starts over is not silent; its handshake has a deadline of its own.
        if self
            .reconnect
            .as_ref()
            .is_some_and(|r| r.deadline().is_some())
        {
            return false;
        }
        if self.probe_policy().is_some() {
            self.found_silent()
        } else {
            self.timers.due(now) == Some(Due::Idle) && !self.is_probing()
        }
    }

    /// Starts the idle timeout anew, for a caller who goes on in spite of it.
    pub fn restart_idle(&mut self, now: Instant) {
        self.timers.heard(now);
    }

    /// Reads one record's data into `buffer`, which should hold 16 KiB or the largest record the
    /// peer sends: what does not fit is delivered by the next call.
    ///
    /// # Errors
    /// OpenSSL ended the connection.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Read, RecvError> {
        while self.unread {
            sys::ssl::clear_errors();
            match self.stream.ssl_read(buffer) {
                Ok(length) => {
                    self.timers.heard(self.received_at);
                    // SSL_read would allocate its buffer only to find the slot empty.
                    self.unread = self.draining || sys::ssl::has_pending(self.stream.ssl());
                    return Ok(Read::Data(length));
                }
                Err(error) => match error.code() {
                    ErrorCode::WANT_READ => {
                        self.draining = false;
                        self.unread = self.stream.get_mut().is_full();
                    }
                    ErrorCode::ZERO_RETURN => return Ok(Read::Closed),
                    _ => return Err(RecvError::Tls(stack_of(&error))),
                },
            }
        }
        Ok(if self.successor.is_some() {
            Read::Reconnected
        } else {
            Read::Empty
        })
    }

    /// The client's new connection, after [`Read::Reconnected`]. It may carry another identity.
    pub fn take_successor(&mut self) -> Option<Box<Self>> {
        self.successor.take()
    }

    /// Protects `data` as one record; transmit it.
    ///
    /// # Errors
    /// `data` is longer than [`Self::max_payload`], or OpenSSL ended the connection.
    pub fn write(&mut self, data: &[u8]) -> Result<(), SendError> {
        if data.len() > self.max_payload {
            return Err(SendError::TooLong {
                length: data.len(),
                limit: self.max_payload,
            });
        }
        if data.is_empty() {
            // RFC 5246 §6.2.1 allows it, but OpenSSL writes nothing for an empty buffer.
            return Ok(());
        }
        sys::ssl::clear_errors();
        match self.stream.ssl_write(data) {
            Ok(_) => Ok(()),
            Err(error) => Err(SendError::Tls(stack_of(&error))),
        }
    }

    /// Writes a close_notify; transmit it.
    pub fn close(&mut self) {
        sys::ssl::clear_errors();
        if let Some(successor) = &mut self.successor {
            // Nobody took it, so this is its end too.
            successor.close();
        }
        // A failed SSL has nothing left to say, and the peer may be gone: both are fine at the end.
        if self.stream.shutdown().is_err() {
            sys::ssl::clear_errors();
        }
    }

    /// The largest `data` for [`Self::write`], in bytes; zero before the handshake is complete.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Flights sent again so far.
    #[must_use]
    pub fn retransmissions(&self) -> u32 {
        self.cost.retransmissions
    }

    /// Whether the handshake was abbreviated.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.stream.ssl().session_reused()
    }

    /// What the handshake has taken on the wire so far, or did when it is complete.
    #[must_use]
    pub fn handshake_cost(&self) -> HandshakeCost {
        self.cost
    }

    /// How long the handshake took, once it is complete. A server counts from the verified hello,
    /// a client from its first.
    #[must_use]
    pub fn handshake_time(&self) -> Option<Duration> {
        self.took
    }

    /// The session, for a client's next handshake with the same server. OpenSSL forgets it unless
    /// the connection is closed in order.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        Session::of(self.stream.ssl())
    }

    /// What the handshake agreed on.
    #[must_use]
    pub fn info(&self) -> HandshakeInfo {
        HandshakeInfo::of(self)
    }

    /// Derives keying material that only the two ends have (RFC 5705): the same for both, if they
    /// give the same label and context.
    ///
    /// # Errors
    /// The handshake is not complete, the label is reserved, or the peer's library is too old.
    pub fn export_keying_material(
        &self,
        label: &str,
        context: Option<&[u8]>,
        material: &mut [u8],
    ) -> Result<(), ExportError> {
        session::export(self.ssl(), label, context, material)
    }

    /// OpenSSL's object, for facts about the connection.
    pub(crate) fn ssl(&self) -> &SslRef {
        self.stream.ssl()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

/// OpenSSL's queue as it was when the call failed; empty when OpenSSL gave no reason.
fn stack_of(error: &openssl::ssl::Error) -> ErrorStack {
    error.ssl_error().cloned().unwrap_or_else(ErrorStack::get)
}
