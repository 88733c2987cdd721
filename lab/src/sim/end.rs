//! One end of a simulated connection: `dtls` without I/O, and the few lines around it that a thread with a
//! socket has too. Errors of socket calls are injected where that thread would get them, and judged
//! by the same code.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::core::{Connection, HelloOutcome, HelloVerifier, Progress, Read};
use dtls::{Counter, Session, SocketError, Stats, send_or_lose};
use nix::errno::Errno;

use super::SimulationError;
use super::fault::{BadCall, Call};
use super::shape::{Cast, Defect};
use crate::endpoint::Role;
use crate::record::{self, Content, ContentType};

/// How far an end has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Its handshake goes on.
    Shaking,
    /// Its handshake was complete at this time.
    Established(Duration),
    /// It gave up at this time.
    Failed(Duration, String),
}

/// The times of one moment: on the simulation's own clock, and as `dtls` takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) since_start: Duration,
    pub(crate) instant: Instant,
    pub(crate) unix: u64,
}

/// One end of the connection.
#[derive(Debug)]
pub(crate) struct End {
    role: Role,
    pub(crate) state: State,
    /// A server's, for hellos of nobody.
    verifier: Option<HelloVerifier>,
    connection: Option<Box<Connection>>,
    pub(crate) stats: Arc<Stats>,
    peer: SocketAddr,
    local: SocketAddr,
    split: bool,
    defect: Option<Defect>,
    outbound: VecDeque<Vec<u8>>,
    /// Application data received.
    pub(crate) received: Vec<Vec<u8>>,
    /// Calls made so far, receives and sends.
    pub(crate) calls: [u32; 2],
    bad_calls: Vec<BadCall>,
    habits: Habits,
}

/// What some defects have to remember.
#[derive(Debug, Default)]
struct Habits {
    /// The flight sent last, and the handshake messages received.
    last_flight: Vec<Vec<u8>>,
    seen: Vec<(u16, u32)>,
    /// Expiries since the peer last moved us on.
    expiries: u32,
    hello_verify_requests: u32,
}

impl End {
    pub(crate) fn new(
        role: Role,
        cast: &Cast,
        addresses: [SocketAddr; 2],
        bad_calls: Vec<BadCall>,
        now: Moment,
    ) -> Result<Self, SimulationError> {
        let [local, peer] = addresses;
        let stats = Arc::<Stats>::default();
        let (mut verifier, mut connection) = (None, None);
        match role {
            Role::Server => {
                let made = HelloVerifier::new(Arc::clone(&cast.server), Arc::clone(&stats));
                verifier = Some(made.map_err(|stack| SimulationError::OpenSsl(stack.to_string()))?);
            }
            Role::Client => {
                let session = cast.session.as_ref();
                let made =
                    Connection::connect(&cast.client, NAME, peer, session, &stats, now.instant);
                let made = made.map_err(|stack| SimulationError::OpenSsl(stack.to_string()))?;
                connection = Some(Box::new(made));
            }
        }
        Ok(Self {
            role,
            state: State::Shaking,
            verifier,
            connection,
            stats,
            peer,
            local,
            split: cast.split,
            defect: cast.defect,
            outbound: VecDeque::new(),
            received: Vec::new(),
            calls: [0; 2],
            bad_calls,
            habits: Habits::default(),
        })
    }

    /// The connection, once there is one.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.connection.as_deref()
    }

    /// The client's session, after a close in order: OpenSSL forgets it otherwise.
    pub(crate) fn take_session(&mut self) -> Option<Session> {
        let connection = self.connection.as_mut()?;
        let session = connection.session();
        connection.close();
        session
    }

    /// An ICMP error, which the kernel reports to the receive that the end waits in. The server's
    /// listening socket is not connected and hears of none.
    pub(crate) fn icmp(&mut self, errno: Errno, now: Moment) {
        if self.connection.is_some() && !matches!(self.state, State::Failed(..)) {
            self.calls[0] += 1;
            self.survives(errno, now);
        }
    }

    /// When [`End::wake`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if matches!(self.state, State::Failed(..)) {
            return None;
        }
        let deadline = self.connection.as_ref()?.deadline()?;
        Some(deadline + self.procrastination())
    }

    /// A datagram has come.
    pub(crate) fn receive(&mut self, datagram: &[u8], now: Moment) {
        if matches!(self.state, State::Failed(..)) || !self.socket_receives(now) {
            return;
        }
        let repeated = self.is_repeated(datagram);
        match &mut self.connection {
            Some(connection) => connection.receive(datagram, now.instant),
            None => self.answer_hello(datagram, now),
        }
        let shaking = self.state == State::Shaking;
        let before = self.outbound.len();
        self.wake(now);
        if self.outbound.len() > before {
            self.habits.expiries = 0;
            if shaking {
                self.habits.last_flight = self.outbound.iter().skip(before).cloned().collect();
            }
        } else if repeated && shaking && self.answers_duplicates() {
            self.outbound
                .extend(self.habits.last_flight.iter().cloned());
        }
    }

    /// What a thread does when it wakes, for whatever reason: the loops of `dtls`'s shell, with the
    /// waiting left out.
    pub(crate) fn wake(&mut self, now: Moment) {
        let done = matches!(self.state, State::Established(_));
        let expired = self.deadline().is_some_and(|due| due <= now.instant);
        let Some(connection) = &mut self.connection else {
            return;
        };
        if expired {
            self.habits.expiries += 1;
            if let Err(error) = connection.handle_timeout(now.instant)
                && !done
            {
                self.state = State::Failed(now.since_start, error.to_string());
            }
        }
        match self.state {
            State::Shaking => self.shake(now),
            State::Established(_) => self.read(now),
            State::Failed(..) => {}
        }
        self.transmit(done);
    }

    /// Sends application data.
    pub(crate) fn send(&mut self, data: &[u8], now: Moment) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Err(error) = connection.write(data) {
            self.state = State::Failed(now.since_start, error.to_string());
        }
        self.transmit(true);
    }

    /// The next datagram for the wire.
    pub(crate) fn next_datagram(&mut self) -> Option<Vec<u8>> {
        self.outbound.pop_front()
    }

    fn answer_hello(&mut self, datagram: &[u8], now: Moment) {
        let Some(verifier) = &mut self.verifier else {
            return;
        };
        let outcome = verifier.receive(datagram, self.peer, self.local, now.unix, now.instant);
        match outcome {
            Ok(HelloOutcome::Answer(answer)) => {
                self.habits.hello_verify_requests += 1;
                if self.defect != Some(Defect::TwoHelloVerifyRequests)
                    || self.habits.hello_verify_requests <= 2
                {
                    self.outbound.push_back(answer);
                }
            }
            Ok(HelloOutcome::Verified(hello)) => match hello.accept() {
                Ok(connection) => self.connection = Some(connection),
                Err(stack) => self.state = State::Failed(now.since_start, stack.to_string()),
            },
            Ok(HelloOutcome::Noise) => {}
            Err(stack) => self.state = State::Failed(now.since_start, stack.to_string()),
        }
    }

    fn shake(&mut self, now: Moment) {
        let connection = self.connection.as_mut().expect("whoever shakes has one");
        match connection.handshake(now.instant) {
            Ok(Progress::Waiting) => {}
            Ok(Progress::Established) => {
                self.state = State::Established(now.since_start);
                self.read(now);
            }
            Err(error) => self.state = State::Failed(now.since_start, error.to_string()),
        }
    }

    /// Takes what has come; a server sends it back.
    fn read(&mut self, now: Moment) {
        let mut buffer = [0; 256];
        let connection = self.connection.as_mut().expect("whoever reads has one");
        loop {
            match connection.read(&mut buffer) {
                Ok(Read::Data(length)) => {
                    let data = buffer[..length].to_vec();
                    if self.role == Role::Server
                        && let Err(error) = connection.write(&data)
                    {
                        self.state = State::Failed(now.since_start, error.to_string());
                    }
                    self.received.push(data);
                }
                Ok(Read::Empty) => return,
                Ok(Read::Closed) => {
                    let why = "the peer closed the connection".to_owned();
                    self.state = State::Failed(now.since_start, why);
                    return;
                }
                Ok(Read::Reconnected) => {
                    let why = "the peer started over".to_owned();
                    self.state = State::Failed(now.since_start, why);
                    return;
                }
                Err(error) => {
                    self.state = State::Failed(now.since_start, error.to_string());
                    return;
                }
            }
        }
    }

    /// Hands everything `dtls` has written to the socket. `done`: the handshake was complete before.
    fn transmit(&mut self, done: bool) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let mut written = Vec::new();
        while let Some(datagram) = connection.transmit() {
            if self.split {
                written.extend(split_records(&datagram));
            } else {
                written.push(datagram);
            }
        }
        for datagram in written {
            let closing = matches!(datagram.first(), Some(20 | 22));
            if self.defect == Some(Defect::LastFlightNeverResent) && done && closing {
                continue;
            }
            self.socket_sends(datagram);
        }
    }

    /// The receives of a thread until one brings the datagram; `false` when an error ends it.
    fn socket_receives(&mut self, now: Moment) -> bool {
        loop {
            self.calls[0] += 1;
            let Some(errno) = self.bad_call(Call::Receive) else {
                return true;
            };
            if self.connection.is_none() {
                // The listening socket: whatever it reports concerns no connection.
                continue;
            }
            if !self.survives(errno, now) {
                return false;
            }
        }
    }

    /// What a receive makes of an error; `false` when it ends the connection.
    fn survives(&mut self, errno: Errno, now: Moment) -> bool {
        let error = io::Error::from_raw_os_error(errno as i32);
        let judged = SocketError::of(&error);
        if judged == SocketError::Icmp {
            self.stats.count(Counter::IcmpOnReceive);
        }
        let fatal = judged == SocketError::Broken || self.defect == Some(Defect::FatalErrno);
        if fatal {
            self.state = State::Failed(now.since_start, error.to_string());
        }
        !fatal
    }

    fn socket_sends(&mut self, datagram: Vec<u8>) {
        let stats = Arc::clone(&self.stats);
        let mut datagram = Some(datagram);
        send_or_lose(
            || {
                self.calls[1] += 1;
                if let Some(errno) = self.bad_call(Call::Send) {
                    return Err(io::Error::from_raw_os_error(errno as i32));
                }
                let datagram = datagram.take().unwrap_or_default();
                let length = datagram.len();
                self.outbound.push_back(datagram);
                Ok(length)
            },
            &stats,
        );
    }

    /// What this call reports instead of doing anything.
    fn bad_call(&mut self, call: Call) -> Option<Errno> {
        let nth = self.calls[call as usize];
        let role = self.role;
        let index = self
            .bad_calls
            .iter()
            .position(|bad| bad.end == role && bad.call == call && bad.nth == nth)?;
        Some(self.bad_calls.swap_remove(index).errno)
    }

    /// How much later than its timer this end acts.
    fn procrastination(&self) -> Duration {
        match (self.defect, self.habits.expiries) {
            (Some(Defect::Gaps13612), expiries @ 1..) if self.state == State::Shaking => {
                Duration::from_secs(1 << (expiries - 1).min(6))
            }
            _ => Duration::ZERO,
        }
    }

    fn answers_duplicates(&self) -> bool {
        match self.defect {
            Some(Defect::AnswersDuplicates) => true,
            Some(Defect::ServerWithoutTimer) => self.role == Role::Server,
            _ => false,
        }
    }

    /// Whether the datagram ends a flight and has been here before.
    fn is_repeated(&mut self, datagram: &[u8]) -> bool {
        if !self.answers_duplicates() {
            return false;
        }
        let mut repeated = false;
        for record in record::parse(datagram) {
            let (Content::Handshake(fragments), ContentType::Handshake) =
                (&record.content, record.content_type)
            else {
                continue;
            };
            for fragment in fragments {
                let item = (fragment.message_seq, fragment.offset);
                if self.habits.seen.contains(&item) {
                    repeated |= fragment.is_last() && fragment.message.ends_flight();
                } else {
                    self.habits.seen.push(item);
                }
            }
        }
        repeated
    }
}

/// The records of a datagram, each as a datagram of its own.
fn split_records(datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<RECORD_HEADER>() {
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let (record, tail) = rest.split_at((RECORD_HEADER + length).min(rest.len()));
        records.push(record.to_vec());
        rest = tail;
    }
    records
}

/// Bytes (RFC 6347 §4.1).
const RECORD_HEADER: usize = 13;
/// Carried by the certificates of the test PKI.
const NAME: &str = "localhost";
