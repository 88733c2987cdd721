//! A connection that one thread blocks on: handshake, receive, send, close.
//!
//! Runs on the connection's own thread: a server's worker or a client.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::core::{Connection, Liveness, Progress, Read, VerifiedHello};
use crate::error::{HandshakeError, RecvError, SendError};
use crate::session::{ExportError, HandshakeInfo, Session};
use crate::stats::Counter;
use crate::sys;
use crate::sys::udp::Datagram;

use super::backlog::Backlog;
use super::transport::{Arrival, StreamHandle, Transport, clock};

/// A connection silent for this long is held rather than busy: its thread gives OpenSSL's own
/// per-thread state back (13 KiB), which is made anew when needed. Right after the handshake that
/// would cost each handshake two random generators.
const HELD_AFTER: Duration = Duration::from_millis(200);

/// The longest data of one record (RFC 5246 §6.2.1).
const LONGEST_DATA: usize = 1 << 14;

/// A peer with a verified address whose handshake is still to come.
///
/// [`Incoming::accept`] blocks, so it belongs on the connection's own thread. Dropping it forgets
/// the peer.
#[derive(Debug)]
pub struct Incoming {
    hello: VerifiedHello,
    transport: Transport,
}

impl Incoming {
    pub(crate) fn new(hello: VerifiedHello, transport: Transport) -> Self {
        Self { hello, transport }
    }

    /// The peer's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        canonical(self.transport.peer())
    }

    /// A handle that stops this connection from another thread.
    #[must_use]
    pub fn handle(&self) -> StreamHandle {
        self.transport.handle()
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// It failed, timed out or was stopped; the connection is gone.
    pub fn accept(self) -> Result<DtlsStream, HandshakeError> {
        let connection = self.hello.accept().map_err(HandshakeError::Tls)?;
        DtlsStream::establish(connection, self.transport)
    }
}

/// What [`DtlsStream::recv`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recv {
    /// One record's data, of this many bytes.
    Data(usize),
    /// The peer closed the connection in order.
    Closed,
    /// The time of [`DtlsStream::set_recv_timeout`] passed; the connection goes on.
    TimedOut,
    /// The peer has been silent for the idle timeout, and to a probe where the configuration says
    /// `probe_when_idle`; the connection goes on if you do, and the timeout starts anew.
    Idle,
    /// The client has lost its keys and started over from the same address and port (RFC 6347
    /// §4.2.8). This connection is over; [`DtlsStream::accept_reconnect`] goes on with the new one.
    /// Only a server sees it.
    Reconnected,
    /// [`StreamHandle::stop`] was called.
    Stopped,
}

/// An established DTLS connection.
///
/// One call sends or receives one datagram's data. Dropping it closes the connection.
#[derive(Debug)]
pub struct DtlsStream {
    connection: Box<Connection>,
    transport: Transport,
    datagram: Datagram,
    backlog: Backlog,
    recv_timeout: Option<Duration>,
    closed: bool,
    /// See [`HELD_AFTER`].
    held: bool,
}

impl DtlsStream {
    pub(crate) fn establish(
        mut connection: Box<Connection>,
        mut transport: Transport,
    ) -> Result<Self, HandshakeError> {
        // Before the handshake, whose memory would otherwise surround it.
        let mut datagram = Datagram::empty();
        let outcome = shake_hands(&mut connection, &mut transport, &mut datagram);
        // On failure, the alert that tells the peer why.
        transmit(&mut connection, &transport);
        outcome?;
        if let Some(hello) = connection.hello {
            transport.settle(hello);
        }
        Ok(Self {
            connection,
            transport,
            datagram,
            backlog: Backlog::default(),
            recv_timeout: None,
            closed: false,
            held: false,
        })
    }

    /// Waits for data and copies it into `buffer`.
    ///
    /// Records longer than `buffer` continue with the next call; 16 KiB hold any. Datagrams from
    /// elsewhere, ICMP errors and records that fail authentication are counted and waited out.
    ///
    /// # Errors
    /// The connection has ended out of order.
    pub fn recv(&mut self, buffer: &mut [u8]) -> Result<Recv, RecvError> {
        if let Some(length) = self.backlog.take(buffer) {
            return Ok(Recv::Data(length));
        }
        // A time beyond the clock's range is for ever.
        let timeout = self.recv_timeout;
        let give_up = timeout.and_then(|timeout| clock().checked_add(timeout));
        let mut waited = false;
        loop {
            let read = self.connection.read(buffer);
            // Reading may answer: a repeated final flight, an alert.
            transmit(&mut self.connection, &self.transport);
            match read? {
                Read::Data(length) => return Ok(Recv::Data(length)),
                Read::Closed => {
                    self.connection.stats().count(Counter::ClosedByPeer);
                    return Ok(Recv::Closed);
                }
                Read::Reconnected => return Ok(Recv::Reconnected),
                Read::Empty => {}
            }
            // After a datagram too: datagrams that keep coming must not stop the clock.
            let now = clock();
            if waited && let Some(due) = self.look_at_clock(now, give_up) {
                return Ok(due);
            }
            let held = (!self.held).then(|| now + HELD_AFTER);
            let deadline = earliest([give_up, self.connection.deadline(), held]);
            let Self {
                connection,
                transport,
                datagram,
                ..
            } = self;
            match wait(connection, transport, datagram, deadline)? {
                Arrival::Datagram => {}
                Arrival::TimedOut => {
                    if held.is_some_and(|held| held <= clock()) {
                        self.held = true;
                        sys::ssl::thread_stop();
                    }
                }
                Arrival::Hint => self.connection.suspect(clock()),
                Arrival::Stopped => return Ok(Recv::Stopped),
            }
            waited = true;
        }
    }

    /// Does what is due at `now`, and says what of it concerns the caller of [`Self::recv`].
    fn look_at_clock(&mut self, now: Instant, give_up: Option<Instant>) -> Option<Recv> {
        if self.connection.deadline().is_some_and(|due| due <= now) {
            // Of an established connection only a client that starts over has flights to repeat,
            // and its failure is not this connection's.
            drop(self.connection.handle_timeout(now));
            transmit(&mut self.connection, &self.transport);
        }
        if self.connection.is_idle(now) {
            self.connection.restart_idle(now);
            self.connection.stats().count(Counter::IdleTimeouts);
            return Some(Recv::Idle);
        }
        give_up
            .is_some_and(|give_up| give_up <= now)
            .then_some(Recv::TimedOut)
    }

    /// After [`Recv::Reconnected`], makes this stream the client's new connection. `false`: there
    /// is none.
    ///
    /// Nothing is carried over: the client may have shown another certificate, see [`Self::info`].
    pub fn accept_reconnect(&mut self) -> bool {
        let Some(successor) = self.connection.take_successor() else {
            return false;
        };
        if let Some(hello) = successor.hello {
            self.transport.settle(hello);
        }
        self.connection = successor;
        self.backlog = Backlog::default();
        self.closed = false;
        true
    }

    /// Whether the peer takes the heartbeat requests of [`Self::probe`].
    #[must_use]
    pub fn may_probe(&self) -> bool {
        self.connection.may_probe()
    }

    /// Asks the peer for a sign of life (RFC 6520) and waits up to `timeout` for the answer. An
    /// unanswered request is sent again by the retransmission timer of flights, 1, 2, 4… seconds.
    ///
    /// Data that arrives meanwhile is kept for the next [`Self::recv`], as much of it as a kernel
    /// would. If the peer closes the connection or starts over, or the handle stops it, this is
    /// [`Liveness::Silent`] at once and the next [`Self::recv`] says which.
    ///
    /// # Errors
    /// The connection has ended out of order.
    pub fn probe(&mut self, timeout: Duration) -> Result<Liveness, RecvError> {
        // What has been received already is data of before the probe.
        let mut open = self.put_by()?;
        if !self.connection.probe(timeout, clock()) {
            return Ok(Liveness::NotNegotiated);
        }
        loop {
            transmit(&mut self.connection, &self.transport);
            match self.connection.liveness() {
                Some(found) => return Ok(found),
                None if !open => return Ok(Liveness::Silent),
                None => {}
            }
            let deadline = self.connection.deadline();
            let Self {
                connection,
                transport,
                datagram,
                ..
            } = self;
            match wait(connection, transport, datagram, deadline)? {
                Arrival::Datagram => open = self.put_by()?,
                Arrival::TimedOut | Arrival::Hint => {}
                Arrival::Stopped => open = false,
            }
            // As in `recv`: after a datagram too, and a failure is not this connection's.
            drop(self.connection.handle_timeout(clock()));
        }
    }

    /// Moves what the connection has received into the backlog; says whether the peer may send
    /// more.
    fn put_by(&mut self) -> Result<bool, RecvError> {
        let mut buffer = vec![0; LONGEST_DATA];
        loop {
            match self.connection.read(&mut buffer)? {
                Read::Data(length) => {
                    if !self.backlog.put(&buffer[..length]) {
                        self.connection.stats().count(Counter::DroppedDuringProbe);
                    }
                }
                Read::Empty => return Ok(true),
                Read::Closed | Read::Reconnected => return Ok(false),
            }
        }
    }

    /// Sends `data` as one datagram. Empty data sends nothing.
    ///
    /// A datagram that the kernel would not take is counted as unsent and otherwise treated as lost
    /// on the way, which UDP allows it to be at any time.
    ///
    /// # Errors
    /// `data` is longer than [`Self::max_payload`], or the connection has ended.
    pub fn send(&mut self, data: &[u8]) -> Result<(), SendError> {
        self.connection.write(data)?;
        transmit(&mut self.connection, &self.transport);
        Ok(())
    }

    /// Sends a close_notify, once.
    pub fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.connection.close();
            transmit(&mut self.connection, &self.transport);
        }
    }

    /// Limits how long [`Self::recv`] waits; zero only looks. Default: for ever.
    pub fn set_recv_timeout(&mut self, timeout: Option<Duration>) {
        self.recv_timeout = timeout;
    }

    /// Waits until [`Self::recv`] may have something to say or `other` is readable; says whether
    /// `other` is. For a thread that passes on what two descriptors bring.
    ///
    /// Data may lie in the stream already: receive with a zero timeout until [`Recv::TimedOut`]
    /// before waiting, and again afterwards, whatever the answer. Timeouts are kept meanwhile, but
    /// for that of [`Self::set_recv_timeout`].
    ///
    /// # Errors
    /// The kernel has no memory; an interruption is not an error.
    pub fn wait_beside(&mut self, other: BorrowedFd<'_>) -> io::Result<bool> {
        let now = clock();
        let held = (!self.held).then(|| now + HELD_AFTER);
        let due = self.connection.deadline();
        let (ready, other_ready) = self.transport.poll(other, earliest([held, due, None]))?;
        if !ready && !other_ready && held.is_some_and(|held| held <= clock()) {
            self.held = true;
            sys::ssl::thread_stop();
        }
        Ok(other_ready)
    }

    /// Starts the idle timeout anew, as if the peer had been heard. For a caller who counts what
    /// goes to the peer as a sign of life too.
    pub fn restart_idle(&mut self) {
        self.connection.restart_idle(clock());
    }

    /// The largest `data` for [`Self::send`], in bytes. It shrinks when the interface towards the peer
    /// turns out to take less than the configured link MTU.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.connection.max_payload()
    }

    /// The peer's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        canonical(self.transport.peer())
    }

    /// The local address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        canonical(self.transport.local())
    }

    /// How long the handshake took, as [`Self::info`] says, which costs more.
    #[must_use]
    pub fn handshake_time(&self) -> Duration {
        self.connection.handshake_time().unwrap_or_default()
    }

    /// Whether the handshake resumed a session, as [`Self::info`] says, which costs more.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.ssl().session_reused()
    }

    /// What the handshake agreed on.
    #[must_use]
    pub fn info(&self) -> HandshakeInfo {
        self.connection.info()
    }

    /// The session, to abbreviate a client's next handshake with the same server.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.connection.session()
    }

    /// Derives keying material that only the two ends have (RFC 5705): the same for both, if they
    /// give the same label and context. The label should start with `EXPORTER`.
    ///
    /// # Errors
    /// The label is reserved, or the peer's library is too old.
    pub fn export_keying_material(
        &self,
        label: &str,
        context: Option<&[u8]>,
        material: &mut [u8],
    ) -> Result<(), ExportError> {
        self.connection
            .export_keying_material(label, context, material)
    }

    /// A handle that stops this connection from another thread.
    #[must_use]
    pub fn handle(&self) -> StreamHandle {
        self.transport.handle()
    }
}

impl AsFd for DtlsStream {
    /// For waiting: readable means that [`Self::recv`] with a zero timeout may find something.
    /// Data may lie in the stream while the descriptor is quiet: receive until
    /// [`Recv::TimedOut`] before waiting.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

impl Drop for DtlsStream {
    fn drop(&mut self) {
        self.close();
    }
}

fn shake_hands(
    connection: &mut Connection,
    transport: &mut Transport,
    datagram: &mut Datagram,
) -> Result<(), HandshakeError> {
    loop {
        let now = clock();
        // After a datagram too: datagrams that keep coming must not stop the clock.
        if connection.deadline().is_some_and(|due| due <= now) {
            connection.handle_timeout(now)?;
        }
        if connection.handshake(now)? == Progress::Established {
            return Ok(());
        }
        transmit(connection, transport);
        let deadline = connection.deadline();
        if wait(connection, transport, datagram, deadline)? == Arrival::Stopped {
            return Err(HandshakeError::Stopped);
        }
    }
}

/// Waits for a datagram and hands it to the connection.
fn wait(
    connection: &mut Connection,
    transport: &mut Transport,
    datagram: &mut Datagram,
    deadline: Option<Instant>,
) -> io::Result<Arrival> {
    let (settings, stats) = (connection.settings(), connection.stats());
    let arrival = transport.recv(datagram, deadline, settings, stats)?;
    if arrival == Arrival::Datagram {
        connection.receive(datagram.bytes(), clock());
    }
    Ok(arrival)
}

fn transmit(connection: &mut Connection, transport: &Transport) {
    while let Some(datagram) = connection.transmit() {
        if let Some(link_mtu) = transport.send(&datagram, connection.stats()) {
            connection.limit_link_mtu(link_mtu);
        }
    }
}

fn earliest(deadlines: [Option<Instant>; 3]) -> Option<Instant> {
    deadlines.into_iter().flatten().min()
}

/// An IPv4 peer's address as IPv4, whatever family the socket has.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
