//! The rules that every run is held to, watched on the wire datagram by datagram.
//!
//! The relay thread tells of each datagram twice: as it was sent, and when it arrives. A rule that
//! is broken is noted once, with the words for a report; nothing is judged here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::RuleId;
use crate::packet::Direction;
use crate::record::{Content, MessageType, Place, Record};

/// A datagram an endpoint has sent, before anything becomes of it.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'a> {
    /// The client's number.
    pub flow: u32,
    /// Which way.
    pub direction: Direction,
    /// Its number in flow and direction.
    pub ordinal: u64,
    /// Bytes of the IP packet.
    pub length: usize,
    /// Its place in the handshake.
    pub place: Option<&'a Place>,
    /// What it carries.
    pub records: &'a [Record],
}

/// A datagram that reaches an end.
#[derive(Debug, Clone, Copy)]
pub enum Arrival<'a> {
    /// One that an endpoint sent, or a copy of it.
    Sent {
        /// The client's number.
        flow: u32,
        /// Which way.
        direction: Direction,
        /// Its number in flow and direction.
        ordinal: u64,
    },
    /// One an attacker made or replayed.
    Forged {
        /// The client's number.
        flow: u32,
        /// Which way.
        direction: Direction,
        /// Bytes of the IP packet.
        length: usize,
        /// What it carries.
        records: &'a [Record],
    },
}

/// What the rules need to remember of each client, and which of them were broken.
#[derive(Debug, Default)]
pub struct Watcher {
    flows: HashMap<u32, Flow>,
    broken: BTreeMap<RuleId, String>,
}

#[derive(Debug, Default)]
struct Flow {
    handshake: u32,
    /// Bytes from and to the client's address before it has returned a cookie.
    unverified: Exchanged,
    verified: bool,
    /// Somebody else sends hellos as well: which hello an answer is for cannot be told any more.
    meddled: bool,
    /// Record numbers of the client's hellos without and with a cookie.
    hellos: [BTreeSet<u64>; 2],
    server_hello_seen: bool,
    /// Numbers used, by direction and epoch.
    used: [BTreeSet<(u16, u64)>; 2],
    /// How often the end of the last flight but one has arrived.
    asked_for_last: u32,
    /// Of each datagram on its way: its bytes, whether it returns a cookie, whether it ends the last
    /// flight but one.
    on_their_way: HashMap<(Direction, u64), Arriving>,
}

#[derive(Debug, Default)]
struct Exchanged {
    received: usize,
    sent: usize,
}

#[derive(Debug, Clone, Copy)]
struct Arriving {
    length: usize,
    returns_cookie: bool,
    asks_for_last: bool,
}

impl Watcher {
    /// The rules broken so far, each with what was seen.
    pub fn broken(&self) -> &BTreeMap<RuleId, String> {
        &self.broken
    }

    /// Looks at a datagram that an endpoint sends.
    pub fn passes(&mut self, seen: &Passing<'_>) {
        let flow = self.flows.entry(seen.flow).or_default();
        let mut broken = Vec::new();
        if let Some(place) = seen.place {
            if place.handshake != flow.handshake {
                flow.begin(place.handshake);
            }
            flow.note_hellos(seen, place);
            broken.extend(flow.cookie_first(place));
            broken.extend(flow.number_of_the_hello(seen));
            broken.extend(flow.last_on_demand(place));
        }
        broken.extend(flow.fresh_numbers(seen));
        broken.extend(flow.amplification(seen));
        flow.on_their_way.insert(
            (seen.direction, seen.ordinal),
            Arriving {
                length: seen.length,
                returns_cookie: seen.place.is_some_and(|place| place.flight == 3),
                asks_for_last: seen.place.is_some_and(asks_for_last),
            },
        );
        for (rule, what) in broken {
            self.broken.entry(rule).or_insert(what);
        }
    }

    /// Looks at a datagram that reaches an end.
    pub fn arrives(&mut self, arrival: Arrival<'_>) {
        match arrival {
            Arrival::Sent {
                flow,
                direction,
                ordinal,
            } => {
                let flow = self.flows.entry(flow).or_default();
                let Some(of) = flow.on_their_way.get(&(direction, ordinal)).copied() else {
                    return;
                };
                if direction == Direction::ToServer {
                    flow.unverified.received += of.length;
                    flow.verified |= of.returns_cookie;
                }
                flow.asked_for_last += u32::from(of.asks_for_last);
            }
            Arrival::Forged {
                flow,
                direction,
                length,
                records,
            } => {
                let flow = self.flows.entry(flow).or_default();
                if direction == Direction::ToServer {
                    flow.unverified.received += length;
                }
                let handshake = |record: &Record| {
                    matches!(record.content, Content::Handshake(_))
                        || record.content_type == crate::record::ContentType::Handshake
                };
                if records.iter().any(handshake) {
                    flow.meddled = true;
                    flow.asked_for_last += 1;
                }
            }
        }
    }
}

type Breach = Option<(RuleId, String)>;

impl Flow {
    fn begin(&mut self, handshake: u32) {
        *self = Self {
            handshake,
            unverified: std::mem::take(&mut self.unverified),
            verified: self.verified,
            meddled: self.meddled,
            on_their_way: std::mem::take(&mut self.on_their_way),
            ..Self::default()
        };
    }

    fn note_hellos(&mut self, seen: &Passing<'_>, place: &Place) {
        if place.flight == 1 || place.flight == 3 {
            let hellos = &mut self.hellos[usize::from(place.flight == 3)];
            hellos.extend(seen.records.iter().map(|record| record.seq));
        }
    }

    /// C1.
    fn cookie_first(&self, place: &Place) -> Breach {
        let hasty = place.flight == 4 && self.hellos[1].is_empty() && !self.meddled;
        hasty.then(|| {
            let what = "the server sent flight 4 to a client that had returned no cookie";
            (RuleId::C1, what.to_owned())
        })
    }

    /// C2.
    fn number_of_the_hello(&mut self, seen: &Passing<'_>) -> Breach {
        for record in seen.records {
            let Content::Handshake(fragments) = &record.content else {
                continue;
            };
            for fragment in fragments {
                let (answered, what) = match fragment.message {
                    MessageType::HelloVerifyRequest => (&self.hellos[0], "HelloVerifyRequest"),
                    MessageType::ServerHello if !self.server_hello_seen => {
                        self.server_hello_seen = true;
                        (&self.hellos[1], "ServerHello")
                    }
                    _ => continue,
                };
                // Without any such hello it is another rule that is broken.
                if !self.meddled && !answered.is_empty() && !answered.contains(&record.seq) {
                    let seq = record.seq;
                    let what =
                        format!("{what} has record number {seq}, but its hello has {answered:?}");
                    return Some((RuleId::C2, what));
                }
            }
        }
        None
    }

    /// C4.
    fn amplification(&mut self, seen: &Passing<'_>) -> Breach {
        if self.verified || seen.direction == Direction::ToServer {
            return None;
        }
        self.unverified.sent += seen.length;
        let Exchanged { received, sent } = self.unverified;
        (sent > received).then(|| {
            let what =
                format!("{sent} bytes sent to an address that had sent {received} and no cookie");
            (RuleId::C4, what)
        })
    }

    /// T3.
    fn fresh_numbers(&mut self, seen: &Passing<'_>) -> Breach {
        // A HelloVerifyRequest has the number of its hello, however often that comes. And on a port that
        // served before, the last words of the old connection may come late.
        let answers_a_hello = seen.place.is_some_and(|place| place.flight == 2);
        if self.meddled || self.handshake > 1 || answers_a_hello {
            return None;
        }
        let used = &mut self.used[seen.direction as usize];
        let mut numbers = seen
            .records
            .iter()
            .filter(|record| !matches!(record.content, Content::Malformed));
        let twice = numbers.find(|record| !used.insert((record.epoch, record.seq)))?;
        let what = format!(
            "record number {} of epoch {} was used twice {}",
            twice.seq, twice.epoch, seen.direction
        );
        Some((RuleId::T3, what))
    }

    /// T6 and T7: the last flight answers, and has no timer.
    fn last_on_demand(&self, place: &Place) -> Breach {
        let last_flight = if place.resumed { 5 } else { 6 };
        let unasked = place.flight == last_flight && place.transmission > self.asked_for_last;
        unasked.then(|| {
            let what = format!(
                "flight {last_flight} was sent {} times, but asked for {} times",
                place.transmission, self.asked_for_last
            );
            (RuleId::T6, what)
        })
    }
}

/// Whether a datagram ends the flight that the last one answers.
fn asks_for_last(place: &Place) -> bool {
    let asking = if place.resumed { 4 } else { 5 };
    place.flight == asking && place.last
}
