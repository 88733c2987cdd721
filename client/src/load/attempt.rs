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

mod handshake;

use std::net::UdpSocket;
use std::time::Instant;

use dtls::SendError;
use dtls::core::{Connection, Progress, Read};

use super::plan::Mode;
use crate::clock;

use super::exchange::{Exchange, HOLD_INTERVAL};
use super::measure::Phase;
use super::outcome::{Failure, Outcome, Stage};
use super::socket::{Arrival, Socket};
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
    socket: Socket,
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
            .and_then(|source| Socket::open(source, peer))
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
        self.socket.udp()
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
            match self.socket.recv(&mut hands.inbox) {
                Arrival::Datagram(length, dropped) => {
                    if dropped > 0 {
                        hands.tally().dropped += u64::from(dropped);
                    }
                    if let Some(outcome) = self.take(length, hands) {
                        return Some(outcome);
                    }
                }
                Arrival::Nothing => break,
                // The timers decide.
                Arrival::Icmp => self.count_icmp(1, hands),
            }
        }
        None
    }

    /// Takes the datagram in the worker's inbox.
    fn take(&mut self, length: usize, hands: &mut Hands<'_>) -> Option<Outcome> {
        // Of each: one may answer what the one before made us send.
        let now = clock::now();
        self.heard = true;
        hands.run.progress.heard();
        let datagram = &hands.inbox.datagram[..length];
        let cookie = is_hello_verify_request(datagram);
        if cookie {
            // A hello that is sent again gets another.
            hands.tally().cookies += 1;
        }
        if let Some(connection) = &mut self.connection {
            connection.receive(datagram, now);
            return self.advance(now, hands);
        }
        if !cookie {
            return None;
        }
        hands.tally()[Phase::Cookie].record(now.saturating_duration_since(self.begun));
        self.settle(now, hands);
        Some(Outcome::Completed)
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

    fn send(&mut self, datagram: &[u8], hands: &Hands<'_>) {
        let (icmp, sent) = self.socket.send(datagram);
        if icmp > 0 {
            self.count_icmp(icmp, hands);
        }
        if !sent {
            hands.tally().unsent += 1;
        }
    }

    fn count_icmp(&mut self, count: u32, hands: &Hands<'_>) {
        self.icmp_errors += count;
        hands.tally().icmp_errors += u64::from(count);
        hands.run.progress.refused();
    }
}

/// Datagrams taken from one socket before the others get their turn.
const ROUND: usize = 64;

/// Record type 22, handshake message 3 (RFC 6347 §4.2.1).
fn is_hello_verify_request(datagram: &[u8]) -> bool {
    datagram.first() == Some(&22) && datagram.get(13) == Some(&3)
}
