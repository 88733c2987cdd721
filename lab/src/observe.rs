//! Stage 3 of the lab's path: everything that happened on the wire, in order, and what it means.
//!
//! The relay thread adds to a [`Trace`]; the run's thread waits for what it needs to see
//! ([`Watch`]) and keeps the whole as evidence. Nothing here asks the endpoints.

pub mod pcap;
pub mod sketch;

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::until;
use crate::packet::{self, Datagram, Direction};
use crate::record::{self, Place, Record};
use crate::rules::{Arrival, Passing, Watcher};
use crate::wire::{Cause, Decision, Fate, Origin};
use pcap::{End, Frame};

/// One thing that happened on the wire; times count from the start of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When; in evidence as seconds.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

fn seconds<S: serde::Serializer>(at: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(at.as_secs_f64())
}

/// What can happen on the wire.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum EventKind {
    /// An endpoint sent a datagram and the wire decided its fate.
    Offered(Decision),
    /// A datagram of an endpoint reached the other end.
    Delivered {
        /// The client's number.
        flow: u32,
        /// Which way.
        direction: Direction,
        /// Its number in flow and direction.
        ordinal: u64,
        /// 0, or the number of the duplicate.
        copy: u32,
    },
    /// What an attacker made reached an end.
    Forged {
        /// The client's number.
        flow: u32,
        /// Which way.
        direction: Direction,
        /// Index of the scenario's `[[inject]]`.
        inject: usize,
        /// Its name.
        what: String,
        /// Bytes of the IP packet.
        length: usize,
    },
    /// The link told an end that a packet of its was too big.
    TooBig {
        /// The client's number.
        flow: u32,
        /// Which way the word went.
        direction: Direction,
    },
    /// The kernel would not take a frame we sent; it is lost without the scenario's will.
    LostByLab {
        /// Which way.
        direction: Direction,
    },
}

/// What one client and the server have done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handshake {
    /// When the first datagram was offered.
    pub started: Option<Duration>,
    /// When the end of the last flight was delivered undamaged, for the last time before the
    /// client sent data.
    pub completed: Option<Duration>,
    /// The flight of the newest datagram that belongs to one.
    newest: Option<u8>,
    /// When that datagram was offered.
    pub newest_at: Duration,
    /// Bytes of the longest IP packet with a handshake message, delivered or not, to the server and to
    /// the client.
    pub longest: [usize; 2],
    /// Transmissions seen of each flight.
    transmissions: [u32; 6],
    /// Datagrams with application data delivered, to the server and to the client.
    pub data: [u64; 2],
}

impl Handshake {
    /// Transmissions beyond the first, all flights together.
    pub fn resent(&self) -> u32 {
        self.transmissions
            .iter()
            .map(|count| count.saturating_sub(1))
            .sum()
    }

    /// The flight sent last, and how often it was sent.
    pub fn newest_flight(&self) -> Option<(u8, u32)> {
        let flight = self.newest?;
        Some((
            flight,
            self.transmissions[usize::from(flight.clamp(1, 6) - 1)],
        ))
    }

    /// How long it took, if it came to its end.
    pub fn duration(&self) -> Option<Duration> {
        Some(self.completed?.saturating_sub(self.started?))
    }
}

/// Everything seen so far.
#[derive(Debug, Default)]
pub struct Trace {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The frames themselves, in the order they were seen.
    pub frames: Vec<Frame>,
    /// In order of their first datagrams; a client's port may serve several, one after another.
    pub handshakes: Vec<Handshake>,
    /// Of each flow its number of the newest handshake and the index of that.
    newest: Vec<(u32, usize)>,
    /// When, by direction, an endpoint has sent an encrypted alert in the newest handshake's
    /// connection: it is over.
    pub closed: [Option<Duration>; 2],
    /// Whether the attackers who wait for application data know that it has flowed.
    pub attackers_told: bool,
    /// Forged frames that are decided upon and not yet sent.
    pub forgeries_due: usize,
    /// The rules of every run.
    pub rules: Watcher,
    /// IP fragments that endpoints have sent.
    pub fragments: u64,
    /// Datagrams that carry a heartbeat, by direction.
    pub heartbeats: [u64; 2],
    /// Datagrams that the server has sent to a place where the network has put the client in mid-run.
    pub sent_to_new_place: u64,
    /// Bytes of the longest IP packet that carried a datagram since the latest forgery, by direction.
    pub longest: [usize; 2],
    /// Set when the relay has stopped, with its reason if that is not our request.
    pub relay_ended: Option<Result<(), String>>,
    /// Which way the endpoint sent that offered more datagrams than the lab keeps in mind.
    pub flooded: Option<Direction>,
    /// Offered datagrams that complete a handshake or carry data, until they are delivered.
    in_flight: Vec<Pending>,
}

/// An offered datagram of whose delivery something follows.
#[derive(Debug)]
struct Pending {
    flow: u32,
    direction: Direction,
    ordinal: u64,
    completes: bool,
    data: bool,
}

impl Trace {
    /// Notes an offered frame and what was decided about it.
    pub fn offered(
        &mut self,
        at: Duration,
        direction: Direction,
        frame: &[u8],
        decision: Option<Decision>,
        records: &[Record],
    ) {
        if self.events.len() >= MOST_EVENTS {
            self.flooded.get_or_insert(direction);
            return;
        }
        let end = match direction {
            Direction::ToServer => End::Client,
            Direction::ToClient => End::Server,
        };
        let comment = decision
            .as_ref()
            .map_or_else(|| "not UDP: passed".to_owned(), ToString::to_string);
        self.keep(Frame {
            at,
            end,
            bytes: frame.to_vec(),
            comment,
        });
        let Some(decision) = decision else {
            self.fragments += u64::from(packet::is_ip_fragment(frame));
            return;
        };
        self.rules.passes(&Passing {
            flow: decision.flow,
            direction,
            ordinal: decision.ordinal,
            length: decision.length,
            rebound: decision.rebound > 0,
            place: decision.place.as_ref(),
            records,
        });
        let longest = &mut self.longest[direction as usize];
        *longest = (*longest).max(decision.length);
        let to_new_place = direction == Direction::ToClient && decision.rebound > 0;
        self.sent_to_new_place += u64::from(to_new_place);
        let number = decision.place.map_or(0, |place| place.handshake);
        let handshake = self.handshake_mut(decision.flow, number);
        handshake.started.get_or_insert(at);
        let mut completes = false;
        if let Some(place) = &decision.place {
            handshake.newest = Some(place.flight);
            handshake.newest_at = at;
            let index = usize::from(place.flight.clamp(1, 6) - 1);
            let count = &mut handshake.transmissions[index];
            *count = (*count).max(place.transmission);
            let longest = &mut handshake.longest[direction as usize];
            *longest = (*longest).max(decision.length);
            completes = ends_handshake(place);
        }
        let data = decision.what.contains("application data");
        let heartbeat = decision.what.contains("heartbeat");
        self.heartbeats[direction as usize] += u64::from(heartbeat);
        if decision.what.contains("encrypted alert") {
            self.closed[direction as usize].get_or_insert(at);
        }
        // A damaged Finished completes nothing, and damaged data is no data.
        let lost = matches!(decision.fate, Fate::Dropped | Fate::Corrupted { .. });
        if (completes || data) && !lost {
            self.in_flight.push(Pending {
                flow: decision.flow,
                direction: decision.direction,
                ordinal: decision.ordinal,
                completes,
                data,
            });
        }
        self.events.push(Event {
            at,
            kind: EventKind::Offered(decision),
        });
    }

    /// Notes a frame that the relay has sent.
    pub fn delivered(
        &mut self,
        at: Duration,
        direction: Direction,
        frame: Vec<u8>,
        origin: Origin,
    ) {
        let end = match direction {
            Direction::ToServer => End::Server,
            Direction::ToClient => End::Client,
        };
        let comment = match &origin {
            Origin::Untouched => return,
            Origin::Sent {
                flow,
                ordinal,
                copy: 0,
            } => format!("flow {flow} {direction} #{ordinal}"),
            Origin::Sent {
                flow,
                ordinal,
                copy,
            } => {
                format!("flow {flow} {direction} #{ordinal}, copy {copy}")
            }
            Origin::Forged { what, .. } => format!("forged: {what}"),
            Origin::TooBig { flow } => format!("flow {flow}: packet too big, says the link"),
        };
        let length = packet::ip_length(&frame);
        if let Origin::Forged { flow, .. } = &origin {
            let payload = Datagram::from_frame(&frame).map(|datagram| datagram.payload);
            self.rules.arrives(Arrival::Forged {
                flow: *flow,
                direction,
                length,
                records: &payload.map_or_else(Vec::new, record::parse),
            });
            self.longest = [0; 2];
        }
        self.keep(Frame {
            at,
            end,
            bytes: frame,
            comment,
        });
        if self.flooded.is_some() {
            return;
        }
        let kind = match origin {
            Origin::Untouched => return,
            Origin::Sent {
                flow,
                ordinal,
                copy,
            } => {
                self.rules.arrives(Arrival::Sent {
                    flow,
                    direction,
                    ordinal,
                });
                self.arrived(at, flow, direction, ordinal);
                EventKind::Delivered {
                    flow,
                    direction,
                    ordinal,
                    copy,
                }
            }
            Origin::Forged { flow, inject, what } => {
                self.forgeries_due = self.forgeries_due.saturating_sub(1);
                EventKind::Forged {
                    flow,
                    direction,
                    inject,
                    what,
                    length,
                }
            }
            Origin::TooBig { flow } => EventKind::TooBig { flow, direction },
        };
        self.events.push(Event { at, kind });
    }

    /// Writes down what became of datagrams that were left to the kernel, now that it has been seen.
    pub fn settle(&mut self, fates: &BTreeMap<(u32, Direction, u64), Fate>) {
        let mut comments = BTreeMap::new();
        for event in &mut self.events {
            if let EventKind::Offered(decision) = &mut event.kind
                && decision.cause == Cause::Netem
                && let Some(fate) =
                    fates.get(&(decision.flow, decision.direction, decision.ordinal))
            {
                let before = decision.to_string();
                decision.fate = fate.clone();
                comments.insert(before, decision.to_string());
            }
        }
        for frame in &mut self.frames {
            if let Some(comment) = comments.get(&frame.comment) {
                frame.comment.clone_from(comment);
            }
        }
    }

    /// Notes a frame that the kernel did not take from us.
    pub fn lost_by_lab(&mut self, at: Duration, direction: Direction, origin: &Origin) {
        if matches!(origin, Origin::Forged { .. }) {
            self.forgeries_due = self.forgeries_due.saturating_sub(1);
        }
        self.events.push(Event {
            at,
            kind: EventKind::LostByLab { direction },
        });
    }

    /// The decisions, in the order they were taken.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.events.iter().filter_map(|event| match &event.kind {
            EventKind::Offered(decision) => Some(decision),
            _ => None,
        })
    }

    /// Whether this rule has taken a datagram.
    pub fn rule_was_used(&self, rule: usize) -> bool {
        self.decisions()
            .any(|decision| decision.cause == Cause::Rule(rule))
    }

    /// Whether this inject has sent anything.
    pub fn inject_was_used(&self, wanted: usize) -> bool {
        self.events.iter().any(
            |event| matches!(&event.kind, EventKind::Forged { inject, .. } if *inject == wanted),
        )
    }

    /// Whether the wire has seen `clients` complete handshakes.
    pub fn completed(&self, clients: u32) -> bool {
        let done = self
            .handshakes
            .iter()
            .filter(|handshake| handshake.completed.is_some())
            .count();
        done >= clients as usize
    }

    /// Whether an end of the newest connection has closed it, or gone wild.
    pub fn is_over(&self) -> bool {
        self.closed.iter().any(Option::is_some) || self.flooded.is_some()
    }

    fn arrived(&mut self, at: Duration, flow: u32, direction: Direction, ordinal: u64) {
        let Some(index) = self.in_flight.iter().position(|pending| {
            (pending.flow, pending.direction, pending.ordinal) == (flow, direction, ordinal)
        }) else {
            return;
        };
        let pending = self.in_flight.swap_remove(index);
        let handshake = self.handshake_mut(flow, 0);
        // The end of a flight may come through while its beginning is lost: what counts is the last
        // time it came before the client had anything to send.
        // Who speaks last in a resumed handshake may send data that overtakes it.
        let first = handshake.completed.is_none();
        if pending.completes && (first || handshake.data[Direction::ToServer as usize] == 0) {
            handshake.completed = Some(at);
        }
        if pending.data {
            handshake.data[direction as usize] += 1;
        }
    }

    /// The newest handshake of this flow; a `number` above its own begins the next.
    fn handshake_mut(&mut self, flow: u32, number: u32) -> &mut Handshake {
        let flow = flow as usize;
        while self.newest.len() <= flow {
            self.newest.push((1, self.handshakes.len()));
            self.closed = [None; 2];
            self.handshakes.push(Handshake::default());
        }
        if number > self.newest[flow].0 {
            self.newest[flow] = (number, self.handshakes.len());
            self.closed = [None; 2];
            self.handshakes.push(Handshake::default());
        }
        &mut self.handshakes[self.newest[flow].1]
    }

    fn keep(&mut self, frame: Frame) {
        if self.frames.len() < MOST_FRAMES {
            self.frames.push(frame);
        }
    }
}

/// Whether a flight's end is the handshake's: the server's Finished, or, resumed, the client's.
fn ends_handshake(place: &Place) -> bool {
    let last_flight = if place.resumed { 5 } else { 6 };
    place.last && place.flight == last_flight
}

/// Frames kept for the capture: some 100 MB. A run that sends more has gone wild, and its first
/// hundred thousand frames say how.
const MOST_FRAMES: usize = 100_000;

/// Events kept in mind: the largest scenario has some fifty thousand, and a storm must end soon.
const MOST_EVENTS: usize = 150_000;

/// A trace that grows while the run waits for what it must see.
#[derive(Debug, Default)]
pub struct Watch {
    trace: Mutex<Trace>,
    grown: Condvar,
}

impl Watch {
    /// The trace so far.
    pub fn lock(&self) -> MutexGuard<'_, Trace> {
        // A panicking relay leaves a shorter trace, which is still evidence.
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits; call it after adding to the trace.
    pub fn notify(&self) {
        self.grown.notify_all();
    }

    /// Waits until `seen` holds; `false` when `deadline` comes or the relay ends before.
    pub fn wait_until(&self, deadline: Instant, mut seen: impl FnMut(&Trace) -> bool) -> bool {
        let mut trace = self.lock();
        loop {
            if seen(&trace) {
                return true;
            }
            if trace.relay_ended.is_some() || trace.flooded.is_some() {
                return false;
            }
            let Some(left) = until(deadline) else {
                return false;
            };
            trace = self
                .grown
                .wait_timeout(trace, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
