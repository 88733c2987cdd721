//! One connection of a run, from its first hello to its end: a socket, the library's state machine,
//! and what the mode asks for. Runs on its worker's thread, which calls it when its socket has
//! something or its time has come.
//!
//! ```text
//! Shaking ─► Talking ─► Holding ─► end          echo, handshake, resume
//!         ├► Parked ──► Holding ─► end          hold: until all are made, then for a while
//!         ├► Shaking ─► Talking ─► end          reconnect: again, from the same socket
//!         └► Silent ─────────────► end          half-open, hello-flood: never completes
//! ```

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dtls::core::{Connection, Progress, Read};
use dtls::{ConnectError, HandshakeCost, HandshakeError, SendError};

use crate::cli::Mode;
use crate::clock;

use super::exchange::{Exchange, HOLD_INTERVAL};
use super::measure::Phase;
use super::outcome::{Failure, Outcome, Stage};
use super::worker::Hands;

/// A connection of the run.
#[derive(Debug)]
pub(crate) struct Attempt {
    mode: Mode,
    target: usize,
    /// Of the report.
    pub(crate) window: usize,
    /// When it was meant to begin.
    intended: Instant,
    /// When this handshake began.
    begun: Instant,
    socket: UdpSocket,
    /// None in a flood of hellos, which are all the same.
    connection: Option<Box<Connection>>,
    state: State,
    exchange: Exchange,
    first_byte_at: Option<Instant>,
    icmp_errors: u32,
    heard: bool,
    /// Whether this is the second handshake from this socket.
    again: bool,
    /// Whether the handshake, or what stands in its place, has come to its end.
    settled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between the first hello and the last Finished.
    Shaking,
    /// Sends its messages.
    Talking,
    /// Waits until all connections are made.
    Parked,
    /// Stays open until then.
    Holding(Instant),
    /// Says nothing more until then.
    Silent(Instant),
    /// A hello is out, its answer has not come; it is given up then.
    Asking(Instant),
}

impl Attempt {
    /// Opens a socket and sends the first hello.
    pub(crate) fn begin(
        number: u32,
        intended: Instant,
        now: Instant,
        hands: &mut Hands<'_>,
    ) -> Result<Self, Outcome> {
        let run = hands.run;
        let plan = &run.plan;
        let target = number as usize % run.targets.len();
        let peer = run.targets[target].peer;
        let mode = plan.mix.mode_of(plan.seed, number);
        let window = run.window_of(intended);
        {
            let mut tally = hands.tally();
            if let Some(window) = tally.windows.get_mut(window) {
                window.begun += 1;
            }
            tally[Phase::StartDelay].record(now.saturating_duration_since(intended));
        }
        let socket = run
            .source_of(number, peer)
            .and_then(|source| open(source, peer))
            .map_err(|error| Outcome::no_socket(&error))?;
        if let Ok(local) = socket.local_addr()
            && run.has_seen(local)
        {
            hands.tally().ports_reused += 1;
        }
        let mut attempt = Self {
            mode,
            target,
            window,
            intended,
            begun: now,
            socket,
            connection: None,
            state: State::Shaking,
            exchange: Exchange::new(plan.seed, number, plan.timeout),
            first_byte_at: None,
            icmp_errors: 0,
            heard: false,
            again: false,
            settled: false,
        };
        if mode == Mode::HelloFlood {
            let hello = hands.hello(target, now)?;
            attempt.send(&hello, hands);
            attempt.state = State::Asking(now + plan.timeout);
        } else {
            attempt.shake(now, hands)?;
        }
        Ok(attempt)
    }

    /// The socket, to wait for.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// When [`Self::on_time`] wants to be called, if ever.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = match self.state {
            // Else it waits for its messages, which have times of their own.
            State::Holding(at) => self.exchange.is_done().then_some(at),
            State::Silent(at) | State::Asking(at) => Some(at),
            State::Shaking | State::Talking | State::Parked => None,
        };
        let library = match self.state {
            // A silent client repeats nothing.
            State::Silent(_) => None,
            _ => self
                .connection
                .as_ref()
                .and_then(|connection| connection.deadline()),
        };
        [state, library, self.exchange.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it waits for all others to be made.
    pub(crate) fn is_parked(&self) -> bool {
        self.state == State::Parked
    }

    /// Whether its handshake is still going on.
    pub(crate) fn is_shaking(&self) -> bool {
        matches!(self.state, State::Shaking | State::Asking(_))
    }

    /// All are made: it stays until `until`, and is then probed with a message.
    pub(crate) fn unpark(&mut self, until: Instant) {
        self.state = State::Holding(until);
        self.exchange.want(1, until, None);
    }

    /// Takes what the socket has. `Some`: it has ended.
    pub(crate) fn on_readable(&mut self, hands: &mut Hands<'_>) -> Option<Outcome> {
        for _ in 0..ROUND {
            match self.socket.recv(&mut hands.datagram) {
                Ok(length) => {
                    // Of each: one may answer what the one before made us send.
                    let now = clock::now();
                    self.heard = true;
                    hands.run.progress.heard();
                    if let Some(connection) = &mut self.connection {
                        connection.receive(&hands.datagram[..length], now);
                        if let Some(outcome) = self.advance(now, hands) {
                            return Some(outcome);
                        }
                    } else if is_hello_verify_request(&hands.datagram[..length]) {
                        let mut tally = hands.tally();
                        tally.cookies += 1;
                        tally[Phase::Cookie].record(now.saturating_duration_since(self.begun));
                        drop(tally);
                        self.settle(now, hands);
                        return Some(Outcome::Completed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An ICMP error: a hint that anyone may forge. The timers decide.
                Err(_) => self.count_icmp(hands),
            }
        }
        None
    }

    /// Does what is due. `Some`: it has ended.
    pub(crate) fn on_time(&mut self, now: Instant, hands: &mut Hands<'_>) -> Option<Outcome> {
        match self.state {
            State::Silent(until) if until <= now => {
                // Without a word: that is the point.
                return Some(Outcome::Completed);
            }
            State::Asking(until) if until <= now => {
                self.settle(now, hands);
                let error = format!("no answer to a hello within {:?}", hands.run.plan.timeout);
                return Some(self.failed(error));
            }
            State::Silent(_) | State::Asking(_) => return None,
            _ => {}
        }
        let connection = self.connection.as_mut()?;
        if connection.deadline().is_some_and(|due| due <= now)
            && let Err(error) = connection.handle_timeout(now)
        {
            return Some(self.shaking_failed(error, now, hands));
        }
        self.advance(now, hands)
    }

    /// Ends it before its time, in order.
    pub(crate) fn stop(&mut self, hands: &mut Hands<'_>) -> Outcome {
        if self.is_shaking() {
            self.count_cost(hands);
        } else {
            self.close(hands);
        }
        Outcome::Interrupted
    }

    /// Ends a handshake that has no hope: nothing listens at the other end.
    pub(crate) fn abandon(&mut self, now: Instant, hands: &mut Hands<'_>) -> Outcome {
        let waited = now.saturating_duration_since(self.begun);
        let error = HandshakeError::TimedOut {
            after: Duration::from_secs(waited.as_secs()),
            state: "given up",
            retransmissions: 0,
            hint: "",
        };
        self.shaking_failed(error, now, hands)
    }

    /// Begins a handshake.
    fn shake(&mut self, now: Instant, hands: &mut Hands<'_>) -> Result<(), Outcome> {
        let target = &hands.run.targets[self.target];
        let resumes = hands.run.plan.resume || self.mode == Mode::Resume;
        let session = hands.sessions[self.target]
            .as_ref()
            .filter(|_| resumes && !self.again);
        let connection = Connection::connect(
            &target.config,
            target.name,
            target.peer,
            session,
            &hands.stats,
            now,
        );
        self.connection = Some(Box::new(connection.map_err(|error| {
            Outcome::Failed(Failure {
                stage: Stage::Socket,
                error: format!("OpenSSL: {error}"),
            })
        })?));
        self.begun = now;
        self.state = State::Shaking;
        match self.advance(now, hands) {
            Some(outcome) => Err(outcome),
            None => Ok(()),
        }
    }

    /// Goes as far as it can.
    fn advance(&mut self, now: Instant, hands: &mut Hands<'_>) -> Option<Outcome> {
        if self.state == State::Shaking {
            let connection = self.connection.as_mut()?;
            let progress = connection.handshake(now);
            let cookie = connection.handshake_cost().cookie_round_trip.is_some();
            self.transmit(hands);
            match progress {
                Err(error) => return Some(self.shaking_failed(error, now, hands)),
                // The hello with the cookie is out: the server has state now.
                Ok(Progress::Waiting) if self.mode == Mode::HalfOpen && cookie => {
                    self.count_cost(hands);
                    self.settle(now, hands);
                    self.state = State::Silent(now + hands.run.plan.hold);
                    return hands.run.plan.hold.is_zero().then_some(Outcome::Completed);
                }
                Ok(Progress::Waiting) => return None,
                Ok(Progress::Established) => {
                    if let Some(outcome) = self.established(now, hands) {
                        return Some(outcome);
                    }
                }
            }
        }
        if let State::Silent(_) = self.state {
            return None;
        }
        self.converse(now, hands)
    }

    /// The handshake is complete: counts it and says what comes next.
    fn established(&mut self, now: Instant, hands: &mut Hands<'_>) -> Option<Outcome> {
        let cost = self.count_cost(hands);
        // With what the last flight took to check.
        let now = clock::now().max(now);
        let plan = &hands.run.plan;
        let connection = self.connection.as_ref()?;
        let resumed = connection.is_resumed();
        {
            let mut tally = hands.tally();
            tally.handshakes += 1;
            tally.resumed += u64::from(resumed);
            let (wire, phase) = if resumed {
                (&mut tally.abbreviated, Phase::ResumedHandshake)
            } else {
                (&mut tally.full, Phase::FullHandshake)
            };
            wire.count(&cost);
            if self.again {
                tally[Phase::Reconnect].record(now.saturating_duration_since(self.begun));
            } else {
                tally[phase].record(now.saturating_duration_since(self.intended));
            }
        }
        self.settle(now, hands);
        // Only then is it worth the memory.
        if plan.resume || plan.mix.has(Mode::Resume) {
            let session = self.connection.as_ref()?.session();
            let place = &mut hands.sessions[self.target];
            *place = session.or(place.take());
        }
        let messages = match self.mode {
            Mode::Echo => plan.messages,
            Mode::Reconnect if self.again => 1,
            Mode::Reconnect => {
                // As after a restart: the old keys are gone, the port is the same.
                self.again = true;
                return self.shake(now, hands).err();
            }
            Mode::Hold => {
                self.state = State::Parked;
                return None;
            }
            _ => 0,
        };
        let interval = plan
            .message_rate
            .map(|rate| Duration::from_secs_f64(1.0 / rate));
        self.exchange.want(messages, now, interval);
        self.state = State::Talking;
        None
    }

    /// Takes answers, sends what is due.
    fn converse(&mut self, now: Instant, hands: &mut Hands<'_>) -> Option<Outcome> {
        let connection = self.connection.as_mut()?;
        loop {
            match connection.read(&mut hands.answer) {
                Ok(Read::Data(length)) => {
                    let answer = &hands.answer[..length];
                    if let Some(latency) = self.exchange.answer(answer, now, &mut hands.scratch) {
                        let mut tally = hands.run.tally(hands.slot);
                        tally[Phase::Message].record(latency);
                        if self.first_byte_at.is_none() {
                            self.first_byte_at = Some(now);
                            let since = now.saturating_duration_since(self.intended);
                            if !matches!(self.mode, Mode::Hold) {
                                tally[Phase::FirstByte].record(since);
                            }
                        }
                    }
                }
                Ok(Read::Empty) => break,
                Ok(Read::Closed | Read::Reconnected) => {
                    let error = "the server closed the connection (close_notify)".to_owned();
                    return Some(self.broken(error, hands));
                }
                Err(error) => return Some(self.broken(error.to_string(), hands)),
            }
        }
        self.exchange.expire(now);
        while self.exchange.next_message(now, &mut hands.message) {
            match connection.write(&hands.message) {
                Ok(()) => {}
                Err(error @ SendError::TooLong { .. }) => {
                    let error = format!("{error}; lower --size or raise --link-mtu");
                    return Some(self.broken(error, hands));
                }
                Err(error) => return Some(self.broken(error.to_string(), hands)),
            }
        }
        self.transmit(hands);
        self.look_for_end(now, hands)
    }

    fn look_for_end(&mut self, now: Instant, hands: &mut Hands<'_>) -> Option<Outcome> {
        if !self.exchange.is_done() {
            return None;
        }
        match self.state {
            State::Talking if !hands.run.plan.hold.is_zero() && self.mode == Mode::Echo => {
                let hold = hands.run.plan.hold;
                let count = hold.as_nanos() / HOLD_INTERVAL.as_nanos();
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.exchange
                    .want(count, now + HOLD_INTERVAL, Some(HOLD_INTERVAL));
                self.state = State::Holding(now + hold);
                None
            }
            State::Holding(until) if now < until => None,
            State::Talking | State::Holding(_) => {
                self.close(hands);
                Some(Outcome::Completed)
            }
            _ => None,
        }
    }

    fn shaking_failed(
        &mut self,
        error: HandshakeError,
        now: Instant,
        hands: &mut Hands<'_>,
    ) -> Outcome {
        let cost = self.count_cost(hands);
        // Whatever was wrong, the next one shall not depend on the old session.
        hands.sessions[self.target] = None;
        // What is left to say is an alert.
        self.transmit(hands);
        self.settle(now, hands);
        let stage = if self.again {
            Stage::Reconnect
        } else {
            Stage::Handshake
        };
        let error = ConnectError::Handshake(error);
        Outcome::of(&error, stage, &cost, !self.heard, self.icmp_errors > 0)
    }

    /// What the handshake took so far, counted.
    fn count_cost(&self, hands: &Hands<'_>) -> HandshakeCost {
        let cost = self
            .connection
            .as_ref()
            .map(|connection| connection.handshake_cost());
        let cost = cost.unwrap_or_default();
        let mut tally = hands.tally();
        tally.retransmissions += u64::from(cost.retransmissions);
        if let Some(cookie) = cost.cookie_round_trip {
            tally.cookies += 1;
            tally[Phase::Cookie].record(cookie);
        }
        cost
    }

    /// The handshake, or what stands in its place, has come to an end.
    fn settle(&mut self, now: Instant, hands: &Hands<'_>) {
        if self.settled {
            return;
        }
        self.settled = true;
        let connected = self.mode == Mode::HelloFlood
            || self.connection.as_ref().is_some_and(|connection| {
                connection.handshake_time().is_some()
                    || self.mode == Mode::HalfOpen
                        && connection.handshake_cost().cookie_round_trip.is_some()
            });
        if connected {
            let mut tally = hands.tally();
            if let Some(window) = tally.windows.get_mut(self.window) {
                window
                    .latency
                    .record(now.saturating_duration_since(self.intended));
            }
        }
        hands.run.settled(connected, now);
    }

    /// The connection is over, out of order.
    fn broken(&mut self, error: String, hands: &Hands<'_>) -> Outcome {
        self.exchange.give_up();
        hands.tally().messages.add(self.exchange.counts());
        self.failed(error)
    }

    fn failed(&self, error: String) -> Outcome {
        let stage = match self.state {
            State::Shaking | State::Silent(_) | State::Asking(_) => Stage::Handshake,
            State::Talking => Stage::Exchange,
            State::Parked | State::Holding(_) => Stage::Hold,
        };
        Outcome::Failed(Failure { stage, error })
    }

    fn close(&mut self, hands: &mut Hands<'_>) {
        hands.tally().messages.add(self.exchange.counts());
        if let Some(connection) = &mut self.connection {
            connection.close();
        }
        self.transmit(hands);
    }

    fn transmit(&mut self, hands: &mut Hands<'_>) {
        while let Some(datagram) = self.connection.as_mut().and_then(|it| it.transmit()) {
            self.send(&datagram, hands);
        }
    }

    /// An ICMP error that waits in the socket swallows the datagram: the second try is the first
    /// that counts.
    fn send(&mut self, datagram: &[u8], hands: &Hands<'_>) {
        let Err(error) = self.socket.send(datagram) else {
            return;
        };
        if error.kind() != io::ErrorKind::WouldBlock {
            self.count_icmp(hands);
        }
        if self.socket.send(datagram).is_err() {
            hands.tally().unsent += 1;
        }
    }

    fn count_icmp(&mut self, hands: &Hands<'_>) {
        self.icmp_errors += 1;
        hands.tally().icmp_errors += 1;
        hands.run.progress.refused();
    }
}

/// Datagrams taken from one socket before the others get their turn.
const ROUND: usize = 64;

fn open(source: Option<SocketAddr>, peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(source.unwrap_or(any))?;
    socket.connect(peer)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Record type 22, handshake message 3 (RFC 6347 §4.2.1).
fn is_hello_verify_request(datagram: &[u8]) -> bool {
    datagram.first() == Some(&22) && datagram.get(13) == Some(&3)
}
