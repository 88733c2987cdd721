//! What a report draws of a run: its datagrams and their fates, the times of flights that were sent
//! again, and what an address got that had proven nothing. Small, whatever the run was. Run's thread.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{EventKind, Trace};
use crate::packet::Direction;
use crate::record::Place;
use crate::role::Role;
use crate::rules::Exchanged;
use crate::wire::{Cause, Fate};

/// A run in some hundred lines at most.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sketch {
    /// What happened first, in order.
    pub first: Vec<Step>,
    /// How many steps are left out between those and the last.
    pub left_out: usize,
    /// What happened last.
    pub last: Vec<Step>,
    /// Clients in all.
    pub clients: usize,
    /// The only client whose datagrams are told, where there were too many.
    pub only: Option<u32>,
    /// Flights that were sent again.
    pub resent: Vec<Resent>,
    /// Bytes for an address that had proven nothing, where the server sent most for least, and whether it
    /// asked for a cookie.
    pub unverified: Option<(Exchanged, bool)>,
}

/// A datagram and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// When it was sent, counted from the start of the run.
    pub at: Duration,
    /// Which way.
    pub direction: Direction,
    /// The client's number.
    pub flow: u32,
    /// Who sent what.
    pub kind: StepKind,
    /// When it, or its copies, reached the other end.
    pub arrivals: Vec<Duration>,
    /// How many of the kind came in a row; above 1 for forgeries only.
    pub count: u32,
}

/// Who sent what.
#[derive(Debug, Clone, PartialEq)]
pub enum StepKind {
    /// An endpoint.
    Sent {
        /// Its place in the handshake.
        place: Option<Place>,
        /// What it carries.
        what: String,
        /// Bytes of the IP packet.
        length: usize,
        /// What was decided about it.
        fate: Fate,
        /// By whom.
        cause: Cause,
        /// How often the NAT had given the client another address before.
        rebound: usize,
    },
    /// An attacker.
    Forged {
        /// What, such as `icmp port-unreachable`.
        what: String,
        /// Bytes of the IP packet.
        length: usize,
    },
    /// The link says that a packet was too big.
    TooBig,
    /// The kernel did not take a frame from the lab.
    LostByLab,
}

/// One more transmission of a flight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resent {
    /// Who sent it.
    pub sender: Role,
    /// Which flight.
    pub flight: u8,
    /// How long after the first transmission.
    pub after: Duration,
    /// Whether nothing had reached the sender since then: only its own timer can have made it.
    pub by_timer: bool,
}

impl Sketch {
    /// What there is to draw of this run.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let counts = datagrams_by_client(trace);
        let only = if counts.len() > MOST_CLIENTS {
            // The one that needed most has most to tell; of equals the first.
            let most = counts
                .iter()
                .max_by_key(|(flow, count)| (**count, u32::MAX - **flow));
            most.map(|(flow, _)| *flow)
        } else {
            None
        };
        let mut first = steps(trace, only);
        let left_out = first.len().saturating_sub(FIRST + LAST);
        let last = if left_out > 0 {
            let last = first.split_off(first.len() - LAST);
            first.truncate(FIRST);
            last
        } else {
            Vec::new()
        };
        Self {
            first,
            left_out,
            last,
            clients: counts.len(),
            only,
            resent: resent(trace),
            unverified: trace.rules.most_for_unverified(),
        }
    }
}

/// Clients whose datagrams can be told apart in one diagram.
const MOST_CLIENTS: usize = 3;
/// Steps that are kept from the beginning and from the end.
const FIRST: usize = 50;
const LAST: usize = 20;

fn datagrams_by_client(trace: &Trace) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for decision in trace.decisions() {
        *counts.entry(decision.flow).or_default() += 1;
    }
    counts
}

fn steps(trace: &Trace, only: Option<u32>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut sent: HashMap<(u32, Direction, u64), usize> = HashMap::new();
    for event in &trace.events {
        let at = event.at;
        let (direction, flow, kind) = match &event.kind {
            EventKind::Offered(decision) => {
                let key = (decision.flow, decision.direction, decision.ordinal);
                if only.is_none_or(|only| only == decision.flow) {
                    sent.insert(key, steps.len());
                }
                let kind = StepKind::Sent {
                    place: decision.place,
                    what: decision.what.clone(),
                    length: decision.length,
                    fate: decision.fate.clone(),
                    cause: decision.cause,
                    rebound: decision.rebound,
                };
                (decision.direction, decision.flow, kind)
            }
            EventKind::Delivered {
                flow,
                direction,
                ordinal,
                ..
            } => {
                if let Some(index) = sent.get(&(*flow, *direction, *ordinal)) {
                    steps[*index].arrivals.push(at);
                }
                continue;
            }
            EventKind::Forged {
                flow,
                direction,
                what,
                length,
                ..
            } => {
                let kind = StepKind::Forged {
                    what: what.clone(),
                    length: *length,
                };
                (*direction, *flow, kind)
            }
            EventKind::TooBig { flow, direction } => (*direction, *flow, StepKind::TooBig),
            EventKind::LostByLab { direction } => {
                (*direction, only.unwrap_or(0), StepKind::LostByLab)
            }
        };
        if only.is_some_and(|only| only != flow) {
            continue;
        }
        let from_within = matches!(kind, StepKind::Sent { .. });
        if let Some(before) = steps.last_mut()
            && !from_within
            && (before.direction, before.flow, &before.kind) == (direction, flow, &kind)
        {
            before.count += 1;
            continue;
        }
        steps.push(Step {
            at,
            direction,
            flow,
            kind,
            arrivals: if from_within { Vec::new() } else { vec![at] },
            count: 1,
        });
    }
    steps
}

/// What is known of a flight that may be sent again.
struct Sending {
    since: Duration,
    transmission: u32,
    disturbed: bool,
}

fn resent(trace: &Trace) -> Vec<Resent> {
    let mut flights: BTreeMap<(u32, Direction, u32, u8), Sending> = BTreeMap::new();
    let mut resent = Vec::new();
    for event in &trace.events {
        match &event.kind {
            EventKind::Offered(decision) => {
                let Some(place) = decision.place else {
                    continue;
                };
                let key = (
                    decision.flow,
                    decision.direction,
                    place.handshake,
                    place.flight,
                );
                let sending = flights.entry(key).or_insert(Sending {
                    since: event.at,
                    transmission: place.transmission,
                    disturbed: false,
                });
                if place.transmission > sending.transmission && resent.len() < MOST_RESENT {
                    sending.transmission = place.transmission;
                    resent.push(Resent {
                        sender: sender(decision.direction),
                        flight: place.flight,
                        after: event.at.saturating_sub(sending.since),
                        by_timer: !sending.disturbed,
                    });
                }
            }
            EventKind::Delivered {
                flow, direction, ..
            }
            | EventKind::Forged {
                flow, direction, ..
            }
            | EventKind::TooBig { flow, direction } => {
                // What reaches an end disturbs the flights that go the other way.
                let back = direction.reversed();
                let all = (*flow, back, 0, 0)..=(*flow, back, u32::MAX, u8::MAX);
                for (_, sending) in flights.range_mut(all) {
                    sending.disturbed = true;
                }
            }
            EventKind::LostByLab { .. } => {}
        }
    }
    resent
}

/// Enough for a chart.
const MOST_RESENT: usize = 500;

fn sender(direction: Direction) -> Role {
    match direction {
        Direction::ToServer => Role::Client,
        Direction::ToClient => Role::Server,
    }
}

#[cfg(test)]
mod tests;
