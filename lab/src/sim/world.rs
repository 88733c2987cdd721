//! Both ends and the wire between them, on one clock: time is what the next datagram or timer says.
//! One thread, no waiting.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::Session;

use super::SimulationError;
use super::clock::{VirtualTime, unix_time};
use super::end::{End, Moment, State};
use super::fault::{Fault, Position};
use super::shape::Cast;
use crate::clock::now;
use crate::icmp;
use crate::netns::{CLIENT_MAC, SERVER_MAC, client_addr, server_addr};
use crate::observe::Trace;
use crate::packet::{Datagram, Direction, Path};
use crate::record::{Content, ContentType, Place, Record};
use crate::role::Role;
use crate::scenario::{Family, Leave};
use crate::verdict::Exchange;
use crate::wire::{Delivery, Engine, Fate, Origin};

/// A datagram that was sent in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) position: Position,
    pub(crate) place: Option<Place>,
    pub(crate) what: String,
    pub(crate) fate: Fate,
}

/// A part of a flight, as a datagram carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Bytes of a message.
    Message { number: u16, start: u32, end: u32 },
    /// The ChangeCipherSpec.
    ChangeCipherSpec,
    /// The Finished.
    Finished,
}

fn parts_of(records: &[Record]) -> Vec<Part> {
    let mut parts = Vec::new();
    for record in records {
        match (&record.content, record.content_type) {
            (Content::Handshake(fragments), _) => {
                parts.extend(fragments.iter().map(|it| Part::Message {
                    number: it.message_seq,
                    start: it.offset,
                    end: it.offset + it.fragment_length,
                }));
            }
            (Content::ChangeCipherSpec, _) => parts.push(Part::ChangeCipherSpec),
            (Content::Encrypted, ContentType::Handshake) => parts.push(Part::Finished),
            _ => {}
        }
    }
    parts
}

/// One simulated run.
#[derive(Debug)]
pub(crate) struct World {
    time: VirtualTime,
    /// What the clocks said at the start; the run counts from zero.
    base: (Instant, Duration),
    now: Duration,
    family: Family,
    /// The client's port, and the number of its flow.
    port: u16,
    flow: u32,
    engine: Engine,
    pub(crate) client: End,
    pub(crate) server: End,
    on_their_way: BinaryHeap<Reverse<Waiting>>,
    queued: u64,
    replays: Vec<Copied>,
    /// ICMP errors, each behind which datagram and for whom.
    icmps: Vec<(Position, Role, &'static icmp::Kind)>,
    /// Every datagram sent, in order.
    pub(crate) sent: Vec<Sent>,
    /// What parts of its flight each of them carries; a signature is some bytes longer or shorter from
    /// run to run, so this is no part of what makes two runs alike.
    pub(crate) parts: Vec<Vec<Part>>,
    /// Everything seen, where evidence is wanted.
    pub(crate) trace: Option<Trace>,
}

/// A datagram to be copied, once it has been seen.
#[derive(Debug)]
struct Copied {
    of: Position,
    after: Position,
    frame: Option<Vec<u8>>,
}

/// A frame on its way; ordered by time, then by when it was queued.
#[derive(Debug)]
struct Waiting {
    key: (Duration, u64),
    delivery: Delivery,
}

impl World {
    /// A run of `cast` over the wire of `engine`, with these faults besides what the engine does.
    pub(crate) fn new(
        cast: &Cast,
        mut engine: Engine,
        faults: &[Fault],
        family: Family,
        trace: Option<Trace>,
    ) -> Result<Self, SimulationError> {
        let mut bad_calls = Vec::new();
        let mut replays = Vec::new();
        let mut icmps = Vec::new();
        for fault in faults {
            match fault {
                Fault::Fate(at, fate) => engine.prescribe(at.direction, at.ordinal, fate.clone()),
                &Fault::Replay { of, after } => replays.push(Copied {
                    of,
                    after,
                    frame: None,
                }),
                Fault::Errno(bad) => bad_calls.push(*bad),
                &Fault::Icmp { end, after, kind } => icmps.push((after, end, kind)),
            }
        }
        let base = (now(), unix_time());
        let time = VirtualTime::start(base.1);
        let start = Moment {
            since_start: Duration::ZERO,
            instant: base.0,
            unix: base.1.as_secs(),
        };
        let (client, server) = addresses(family, CLIENT_PORT);
        let (stats, session) = (Arc::default(), cast.session.as_ref());
        let mut client = End::new(Role::Client, cast, client, stats, session, start)?;
        let mut server = End::new(Role::Server, cast, server, Arc::default(), None, start)?;
        client.bad_calls.clone_from(&bad_calls);
        server.bad_calls = bad_calls;
        Ok(Self {
            time,
            base,
            now: Duration::ZERO,
            family,
            port: CLIENT_PORT,
            flow: 0,
            engine,
            client,
            server,
            on_their_way: BinaryHeap::new(),
            queued: 0,
            replays,
            icmps,
            sent: Vec::new(),
            parts: Vec::new(),
            trace,
        })
    }

    /// Virtual time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now
    }

    /// Lets the client leave, and the next one come: from the same port, or from another. A client that
    /// `resumes` offers the session of the one before.
    ///
    /// # Errors
    ///
    /// OpenSSL is out of memory.
    pub(crate) fn next_client(
        &mut self,
        cast: &Cast,
        leave: Leave,
        same_port: bool,
        resumes: bool,
    ) -> Result<(), SimulationError> {
        let mut session = None;
        if leave == Leave::Closed {
            session = self.close();
        }
        // Whatever is still on its way finds nobody.
        self.on_their_way.clear();
        if !same_port {
            self.port += 1;
            self.flow += 1;
        }
        let (client, server) = addresses(self.family, self.port);
        let now = self.moment();
        // A connection that was closed, or of another port, is none of the listener's any more.
        if leave == Leave::Closed || !same_port {
            let stats = Arc::clone(&self.server.stats);
            self.server = End::new(Role::Server, cast, server, stats, None, now)?;
        }
        let session = session.as_ref().filter(|_| resumes);
        self.client = End::new(Role::Client, cast, client, Arc::default(), session, now)?;
        Ok(())
    }

    /// Runs the handshake until both ends are done, one has failed, or `deadline` has come. `true`: both
    /// are done.
    pub(crate) fn shake_hands(&mut self, deadline: Duration) -> bool {
        self.client.wake(self.moment());
        self.run(deadline, |world| {
            let states = [&world.client.state, &world.server.state];
            states
                .iter()
                .all(|state| matches!(state, State::Established(_)))
                || states
                    .iter()
                    .any(|state| matches!(state, State::Failed(..)))
        });
        [&self.client, &self.server]
            .iter()
            .all(|end| matches!(end.state, State::Established(_)))
    }

    /// Runs until the client's handshake is complete; when that was.
    pub(crate) fn finish_handshake(&mut self, deadline: Duration) -> Option<Duration> {
        self.client.wake(self.moment());
        self.run(deadline, |world| world.client.state != State::Shaking);
        match self.client.state {
            State::Established(at) => Some(at),
            _ => None,
        }
    }

    /// Runs until both ends have nothing more to do before `deadline`.
    pub(crate) fn run_out(&mut self, deadline: Duration) {
        self.client.wake(self.moment());
        self.run(deadline, |world| {
            [&world.client, &world.server]
                .iter()
                .all(|end| matches!(end.state, State::Failed(..)))
        });
    }

    /// Sends lines through the client until the server has sent one back. DTLS does not resend data,
    /// so it takes several where datagrams are lost.
    pub(crate) fn exchange(&mut self, round: u32, length: usize, deadline: Duration) -> Exchange {
        let mut exchange = Exchange::default();
        let line = |attempt: u32| {
            format!("{:.<length$}", format!("lab-{round}-{attempt:03}.")).into_bytes()
        };
        let mut lines = 0;
        while lines < MOST_LINES && !exchange.is_complete() && self.now < deadline {
            self.client.send(&line(lines), self.moment());
            lines += 1;
            let patience = (self.now + BETWEEN_LINES).min(deadline);
            let sent: Vec<_> = (0..lines).map(line).collect();
            let arrived = |end: &End| end.received.iter().any(|data| sent.contains(data));
            self.run(patience, |world| {
                arrived(&world.client) || matches!(world.client.state, State::Failed(..))
            });
            exchange.to_client = arrived(&self.client);
            exchange.to_server = arrived(&self.server);
            if matches!(self.client.state, State::Failed(..)) {
                break;
            }
        }
        // What is still on its way may be a copy.
        self.run((self.now + BETWEEN_LINES).min(deadline), |_| false);
        let repeated = (0..lines).map(line).find(|line| {
            [&self.client, &self.server]
                .iter()
                .any(|end| end.received.iter().filter(|data| *data == line).count() > 1)
        });
        exchange.repeated = repeated.map(|line| String::from_utf8_lossy(&line).into_owned());
        exchange
    }

    /// Lets time pass in which nobody says anything.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.run(self.now + time, |_| false);
    }

    /// Lets the client close its connection; the session it could resume.
    pub(crate) fn close(&mut self) -> Option<Session> {
        let session = self.client.take_session();
        self.wait(BETWEEN_LINES);
        session
    }

    /// Tells the attackers that application data has flowed, and carries out what they do.
    pub(crate) fn established(&mut self, deadline: Duration) {
        let deliveries = self.engine.established(self.now, self.flow);
        let last = deliveries.iter().map(|delivery| delivery.at).max();
        self.queue(deliveries);
        if let Some(last) = last {
            self.run(last.min(deadline), |_| false);
        }
    }

    /// Whether what attackers have sent has all arrived.
    pub(crate) fn await_forgeries(&mut self, deadline: Duration) {
        self.run(deadline, |world| {
            !world
                .on_their_way
                .iter()
                .any(|Reverse(waiting)| matches!(waiting.delivery.origin, Origin::Forged { .. }))
        });
    }

    /// Carries datagrams and lets timers expire, in the order of their times, until `done` holds or
    /// `deadline` has come.
    fn run(&mut self, deadline: Duration, done: impl Fn(&Self) -> bool) {
        // Bounded, for an end that does not move its own timer would hold the clock.
        for _ in 0..MOST_STEPS {
            self.offer_all();
            if done(self) {
                return;
            }
            let next_frame = self
                .on_their_way
                .peek()
                .map(|Reverse(waiting)| waiting.key.0);
            let timers = [&self.client, &self.server].map(|end| {
                let due = end.deadline()?;
                Some(due.saturating_duration_since(self.base.0))
            });
            let next = [next_frame, self.engine.next_due(), timers[0], timers[1]];
            let next = next.into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= deadline) else {
                self.advance(deadline);
                return;
            };
            self.advance(next);
            if next_frame.is_some_and(|at| at <= self.now) {
                self.deliver_next();
                continue;
            }
            let held = self.engine.poll(self.now);
            self.queue(held);
            let moment = self.moment();
            for end in [&mut self.client, &mut self.server] {
                if end.deadline().is_some_and(|due| due <= moment.instant) {
                    end.wake(moment);
                }
            }
        }
        log::error!("a simulated run took more than {MOST_STEPS} steps");
    }

    fn advance(&mut self, to: Duration) {
        self.now = self.now.max(to);
        self.time.set(self.base.1 + self.now);
    }

    fn moment(&self) -> Moment {
        Moment {
            since_start: self.now,
            instant: self.base.0 + self.now,
            unix: (self.base.1 + self.now).as_secs(),
        }
    }

    /// Puts what the ends have written on the wire.
    fn offer_all(&mut self) {
        for direction in Direction::BOTH {
            loop {
                let end = match direction {
                    Direction::ToServer => &mut self.client,
                    Direction::ToClient => &mut self.server,
                };
                let Some(payload) = end.next_datagram() else {
                    break;
                };
                self.offer(direction, &payload);
            }
        }
    }

    fn offer(&mut self, direction: Direction, payload: &[u8]) {
        let path = Path {
            source_mac: CLIENT_MAC,
            destination_mac: SERVER_MAC,
            source: SocketAddr::new(client_addr(self.family), self.port),
            destination: SocketAddr::new(server_addr(self.family), SERVER_PORT),
        };
        let path = match direction {
            Direction::ToServer => path,
            Direction::ToClient => path.reversed(),
        };
        let frame = Datagram { path, payload }.to_frame();
        let offered = self.engine.offer(self.now, direction, frame.clone());
        if let Some(decision) = &offered.decision {
            let position = Position {
                direction,
                ordinal: decision.ordinal,
            };
            for replay in self
                .replays
                .iter_mut()
                .filter(|replay| replay.of == position)
            {
                replay.frame = Some(frame.clone());
            }
            self.parts.push(parts_of(&offered.records));
            self.sent.push(Sent {
                at: self.now,
                position,
                place: decision.place,
                what: decision.what.clone(),
                fate: decision.fate.clone(),
            });
        }
        if let Some(trace) = &mut self.trace {
            trace.offered(
                self.now,
                direction,
                &frame,
                offered.decision,
                &offered.records,
            );
        }
        self.queue(offered.deliveries);
    }

    fn queue(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            if let (Some(trace), Origin::Forged { .. }) = (&mut self.trace, &delivery.origin) {
                trace.forgeries_due += 1;
            }
            self.on_their_way.push(Reverse(Waiting {
                key: (delivery.at, self.queued),
                delivery,
            }));
            self.queued += 1;
        }
    }

    fn deliver_next(&mut self) {
        let Some(Reverse(Waiting { delivery, .. })) = self.on_their_way.pop() else {
            return;
        };
        let moment = self.moment();
        let end = match delivery.direction {
            Direction::ToServer => &mut self.server,
            Direction::ToClient => &mut self.client,
        };
        match (Datagram::from_frame(&delivery.frame), &delivery.origin) {
            (Some(datagram), _) => end.receive(datagram.payload, moment),
            (None, Origin::Forged { what, .. }) => {
                if let Some(errno) = reported(what, self.family) {
                    end.icmp(errno, moment);
                }
            }
            (None, _) => {}
        }
        let arrived = match delivery.origin {
            Origin::Sent {
                ordinal, copy: 0, ..
            } => Some(Position {
                direction: delivery.direction,
                ordinal,
            }),
            _ => None,
        };
        if let Some(trace) = &mut self.trace {
            trace.delivered(
                self.now,
                delivery.direction,
                delivery.frame,
                delivery.origin,
            );
        }
        if let Some(arrived) = arrived {
            self.replay_after(arrived);
            self.forge_after(arrived);
        }
    }

    fn forge_after(&mut self, arrived: Position) {
        let due: Vec<_> = self
            .icmps
            .extract_if(.., |(after, _, _)| *after == arrived)
            .collect();
        let moment = self.moment();
        for (_, role, kind) in due {
            let end = match role {
                Role::Server => &mut self.server,
                Role::Client => &mut self.client,
            };
            if let Some(errno) = kind.errno {
                end.icmp(errno, moment);
            }
        }
    }

    fn replay_after(&mut self, arrived: Position) {
        let copies: Vec<_> = self
            .replays
            .extract_if(.., |replay| {
                replay.after == arrived && replay.frame.is_some()
            })
            .collect();
        for copy in copies {
            let delivery = Delivery {
                at: self.now,
                direction: copy.of.direction,
                frame: copy.frame.unwrap_or_default(),
                origin: Origin::Sent {
                    flow: 0,
                    ordinal: copy.of.ordinal,
                    copy: 1,
                },
            };
            self.queue(vec![delivery]);
        }
    }
}

/// Where client and server are: each its own address and the other's.
fn addresses(family: Family, port: u16) -> ([SocketAddr; 2], [SocketAddr; 2]) {
    let server = SocketAddr::new(server_addr(family), SERVER_PORT);
    let client = SocketAddr::new(client_addr(family), port);
    ([client, server], [server, client])
}

/// The errno by which a connected socket reports this forgery, if at all.
fn reported(what: &str, family: Family) -> Option<nix::errno::Errno> {
    let name = what.strip_prefix("icmp ")?;
    icmp::kinds_of(family).find(|kind| kind.name == name)?.errno
}

/// The session of a handshake without faults.
pub(crate) fn first_session(cast: &Cast) -> Result<Session, SimulationError> {
    let mut world = World::new(cast, Engine::perfect(), &[], Family::Ipv4, None)?;
    let done = world.shake_hands(Duration::from_secs(60));
    let session = world.client.take_session();
    session.filter(|_| done).ok_or_else(|| {
        SimulationError::Control(format!(
            "no session: client {:?}, server {:?}",
            world.client.state, world.server.state
        ))
    })
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// As on the lab's other wire.
const SERVER_PORT: u16 = 5684;
const CLIENT_PORT: u16 = 40_000;
/// Datagrams and timers of one run; a handshake of ten minutes at 30 % loss has some hundreds.
const MOST_STEPS: u32 = 100_000;
/// How long one line may take to come back before the next is sent.
const BETWEEN_LINES: Duration = Duration::from_millis(250);
/// Bound on the lines of one exchange.
const MOST_LINES: u32 = 100;
