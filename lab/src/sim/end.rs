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
use super::saboteur::{Reaction, Saboteur, split_records};
use super::shape::Cast;
use crate::role::Role;

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
    saboteur: Option<Box<Saboteur>>,
    outbound: VecDeque<Vec<u8>>,
    /// Application data received.
    pub(crate) received: Vec<Vec<u8>>,
    /// Calls made so far, receives and sends.
    pub(crate) calls: [u32; 2],
    /// Calls that fail.
    pub(crate) bad_calls: Vec<BadCall>,
}

impl End {
    pub(crate) fn new(
        role: Role,
        cast: &Cast,
        addresses: [SocketAddr; 2],
        stats: Arc<Stats>,
        session: Option<&Session>,
        now: Moment,
    ) -> Result<Self, SimulationError> {
        let [local, peer] = addresses;
        let (mut verifier, mut connection) = (None, None);
        match role {
            Role::Server => {
                let made = HelloVerifier::new(Arc::clone(&cast.server), Arc::clone(&stats));
                verifier = Some(made.map_err(|stack| SimulationError::OpenSsl(stack.to_string()))?);
            }
            Role::Client => {
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
            saboteur: cast
                .defect
                .map(|defect| Box::new(Saboteur::new(defect, role))),
            outbound: VecDeque::new(),
            received: Vec::new(),
            calls: [0; 2],
            bad_calls: Vec::new(),
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
        self.transmit(true);
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
        let own = self.saboteur.as_ref().and_then(|it| it.due());
        [self.expires_at(), own].into_iter().flatten().min()
    }

    /// When the connection's timer expires, as this end sees it.
    fn expires_at(&self) -> Option<Instant> {
        let due = self.connection.as_ref()?.deadline()?;
        Some(match &self.saboteur {
            Some(saboteur) => saboteur.acts_at(due, self.state == State::Shaking),
            None => due,
        })
    }

    /// A datagram has come.
    pub(crate) fn receive(&mut self, datagram: &[u8], now: Moment) {
        if matches!(self.state, State::Failed(..)) || !self.socket_receives(now) {
            return;
        }
        let done = self.is_done();
        if self.connection.is_none() || self.saboteur.is_none() {
            self.take(datagram, now);
        } else if let Some(saboteur) = &mut self.saboteur {
            match saboteur.receives(datagram, done, now) {
                Ok(kept) => kept.iter().for_each(|datagram| self.take(datagram, now)),
                Err(why) => self.state = State::Failed(now.since_start, why),
            }
        }
    }

    fn take(&mut self, datagram: &[u8], now: Moment) {
        let (before, read) = (self.outbound.len(), self.received.len());
        let done = self.is_done();
        match &mut self.connection {
            Some(connection) => connection.receive(datagram, now.instant),
            None => self.answer_hello(datagram, now),
        }
        self.wake(now);
        let moved = self.outbound.len() > before;
        let Some(saboteur) = &mut self.saboteur else {
            return;
        };
        if moved {
            saboteur.moves_on();
        }
        let answers = saboteur.answers(datagram, done, moved);
        self.outbound.extend(answers);
        for data in saboteur.read_again(datagram).to_vec() {
            self.read_one(data, now);
        }
        let fresh = &self.received[read..];
        if let Some(saboteur) = &mut self.saboteur {
            saboteur.has_read(datagram, fresh);
        }
        self.transmit(true);
    }

    fn is_done(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    /// What a thread does when it wakes, for whatever reason: the loops of `dtls`'s shell, with the
    /// waiting left out.
    pub(crate) fn wake(&mut self, now: Moment) {
        if let Some(saboteur) = &mut self.saboteur {
            self.outbound.extend(saboteur.acts(now));
        }
        let done = self.is_done();
        let expired = self.expires_at().is_some_and(|due| due <= now.instant);
        let Some(connection) = &mut self.connection else {
            return;
        };
        if expired {
            if let Some(saboteur) = &mut self.saboteur {
                saboteur.expired();
            }
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
                let saboteur = self.saboteur.as_mut();
                let waved = saboteur.and_then(|it| it.waves_through(datagram, &answer));
                if let Some(hello) = waved {
                    return self.answer_hello(&hello, now);
                }
                match &mut self.saboteur {
                    Some(saboteur) => self.outbound.extend(saboteur.asks(answer, now)),
                    None => self.outbound.push_back(answer),
                }
            }
            Ok(HelloOutcome::Verified(hello)) => match hello.accept() {
                Ok(connection) => {
                    self.connection = Some(connection);
                    if let Some(saboteur) = &mut self.saboteur {
                        saboteur.accepted(datagram);
                    }
                }
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
                if let Some(saboteur) = &mut self.saboteur {
                    saboteur.completed(now);
                }
                self.read(now);
            }
            Err(error) => self.state = State::Failed(now.since_start, error.to_string()),
        }
    }

    /// Takes what has come; a server sends it back.
    fn read(&mut self, now: Moment) {
        let mut buffer = [0; LONGEST_RECORD];
        loop {
            let connection = self.connection.as_mut().expect("whoever reads has one");
            let ended = match connection.read(&mut buffer) {
                Ok(Read::Data(length)) => {
                    self.read_one(buffer[..length].to_vec(), now);
                    continue;
                }
                Ok(Read::Empty) => return,
                Ok(Read::Closed) => {
                    self.stats.count(Counter::ClosedByPeer);
                    "the peer closed the connection".to_owned()
                }
                Ok(Read::Reconnected) => {
                    // As the server's worker does: the client's new connection takes its place.
                    self.connection = connection.take_successor();
                    continue;
                }
                Err(error) => error.to_string(),
            };
            self.state = State::Failed(now.since_start, ended);
            return;
        }
    }

    fn read_one(&mut self, data: Vec<u8>, now: Moment) {
        let is_mute = self.saboteur.as_ref().is_some_and(|it| it.is_mute());
        if self.role == Role::Server
            && !is_mute
            && let Some(connection) = &mut self.connection
            && let Err(error) = connection.write(&data)
        {
            self.state = State::Failed(now.since_start, error.to_string());
        }
        self.received.push(data);
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
            let sent = match &mut self.saboteur {
                Some(saboteur) => saboteur.sends(datagram, done),
                None => vec![datagram],
            };
            for datagram in sent {
                self.socket_sends(datagram);
            }
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
        let done = self.is_done();
        let reaction = match &mut self.saboteur {
            Some(saboteur) => saboteur.hears(errno, done),
            None => Reaction::Nothing,
        };
        let fatal = judged == SocketError::Broken || reaction == Reaction::Ends;
        if fatal {
            self.state = State::Failed(now.since_start, error.to_string());
        }
        match reaction {
            Reaction::Nothing | Reaction::Ends => {}
            Reaction::Sends(datagrams) => self.outbound.extend(datagrams),
            Reaction::Believes => {
                if let Some(connection) = &mut self.connection {
                    connection.limit_link_mtu(SHORTEST_MTU);
                }
            }
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
}

/// Bytes of application data (RFC 5246 §6.2.1).
const LONGEST_RECORD: usize = 1 << 14;
/// What Linux believes of an IPv4 path at the least.
const SHORTEST_MTU: u16 = 552;
/// Carried by the certificates of the test PKI.
const NAME: &str = "localhost";
