//! Stage 2 of the lab's path: datagrams, rules and a seed become datagrams and a [`Fate`] each.
//!
//! The engine has no I/O and no clock: the relay thread owns it, tells it the time with every
//! call and sends what it returns. Chance is a pure function of (seed, flow, direction, ordinal,
//! rule), so a run replays decision by decision, however the real timing falls.
//!
//! The way of one datagram through [`Engine::offer`]:
//! 1. its flow, by the client's address in order of first appearance;
//! 2. its ordinal in that flow and direction, and its place in the handshake;
//! 3. if it exceeds the link's MTU it is lost, and its sender perhaps told; else the first rule that
//!    selects it decides its fate, else the link's own chances do;
//! 4. the link's delay and jitter, if it is delivered at all;
//! 5. held datagrams it releases by passing them;
//! 6. what attackers send because they saw it.

pub mod decision;
pub mod forgery;
pub mod inject;
pub mod link;
pub mod rng;
pub mod rule;
pub mod selector;

pub use decision::{Cause, Decision, Fate};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::packet::{self, Datagram, Direction, Path};
use crate::record::{self, FlightTracker, Record};
use crate::scenario::{Family, Scenario};
use crate::{icmp, netns};

use inject::{Inject, MOST_OBSERVED, Payload, Source, Trigger};
use link::Link;
use rng::Draws;
use rule::Rule;
use selector::Seen;

/// A frame the relay must send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// When, on the clock the relay told the engine; never before the call that returned it.
    /// Deliveries of the same instant go in the order they were returned.
    pub at: Duration,
    /// To which end.
    pub direction: Direction,
    /// The whole Ethernet frame, checksums right.
    pub frame: Vec<u8>,
    /// Why it is sent.
    pub origin: Origin,
}

/// Where a delivered frame comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Not a UDP datagram; passed untouched.
    Untouched,
    /// A datagram an endpoint sent.
    Sent {
        /// The flow.
        flow: u32,
        /// Its ordinal in flow and direction.
        ordinal: u64,
        /// 0 for the datagram itself, 1 and above for duplicates.
        copy: u32,
    },
    /// What an attacker made.
    Forged {
        /// The flow it pretends to belong to.
        flow: u32,
        /// Index of the scenario's `[[inject]]`.
        inject: usize,
        /// Its name, such as `icmp port-unreachable`.
        what: String,
    },
    /// The link's answer to a packet that exceeds its MTU.
    TooBig {
        /// The flow of that packet.
        flow: u32,
    },
}

/// What became of an offered frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The decision; `None` for a frame that is no UDP datagram.
    pub decision: Option<Decision>,
    /// The records of the datagram.
    pub records: Vec<Record>,
    /// What to send now or later.
    pub deliveries: Vec<Delivery>,
}

/// The wire of one run.
#[derive(Debug)]
pub struct Engine {
    seed: u64,
    rules: Vec<Rule>,
    injects: Vec<Inject>,
    to_server: Link,
    to_client: Link,
    flows: Vec<Flow>,
    /// Fates that stand before any rule, by direction and ordinal.
    prescribed: BTreeMap<(Direction, u64), Fate>,
}

/// The datagrams between one client and the server.
#[derive(Debug)]
struct Flow {
    client: SocketAddr,
    /// From the client to the server.
    path: Path,
    tracker: FlightTracker,
    sides: [Side; 2],
    /// How often each rule has taken a datagram of this flow.
    rule_uses: Vec<u32>,
    /// How often each inject has fired in this flow.
    inject_uses: Vec<u32>,
    /// Frames each inject has seen and would replay, the oldest first.
    observed: Vec<Vec<Vec<u8>>>,
}

/// One direction of a flow.
#[derive(Debug, Default)]
struct Side {
    offered: u64,
    held: Vec<Held>,
}

/// A datagram that waits to be overtaken.
#[derive(Debug)]
struct Held {
    delivery: Delivery,
    /// How many datagrams must still pass it.
    passes: u32,
    /// When it goes even if none does.
    until: Duration,
}

impl Engine {
    /// The wire of `scenario`; every chance follows from `seed`.
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        Self {
            seed,
            rules: scenario.rules.clone(),
            injects: scenario.injects.clone(),
            to_server: scenario.to_server.clone(),
            to_client: scenario.to_client.clone(),
            flows: Vec::new(),
            prescribed: BTreeMap::new(),
        }
    }

    /// A wire that does nothing but what is prescribed.
    #[must_use]
    pub fn perfect() -> Self {
        Self::made_of(Vec::new(), &Link::default(), 0)
    }

    /// A wire with these rules, the same link both ways, and no attackers.
    #[must_use]
    pub fn made_of(rules: Vec<Rule>, link: &Link, seed: u64) -> Self {
        Self {
            seed,
            rules,
            injects: Vec::new(),
            to_server: link.clone(),
            to_client: link.clone(),
            flows: Vec::new(),
            prescribed: BTreeMap::new(),
        }
    }

    /// Decides beforehand what becomes of a datagram of each flow, whatever the rules say: so a list
    /// of decisions is played again without its rules and its seed.
    pub fn prescribe(&mut self, direction: Direction, ordinal: u64, fate: Fate) {
        self.prescribed.insert((direction, ordinal), fate);
    }

    /// Takes a frame an endpoint sent in `direction` at `now` and decides what becomes of it.
    pub fn offer(&mut self, now: Duration, direction: Direction, frame: Vec<u8>) -> Offered {
        let link = self.link(direction);
        let length = packet::ip_length(&frame);
        let too_big = link.too_narrow_for(length);
        let Some(datagram) = Datagram::from_frame(&frame) else {
            return Offered {
                decision: None,
                records: Vec::new(),
                deliveries: Vec::from_iter(too_big.is_none().then_some(Delivery {
                    at: now,
                    direction,
                    frame,
                    origin: Origin::Untouched,
                })),
            };
        };
        let sent_along = datagram.path;
        let records = record::parse(datagram.payload);
        let index = self.flow_of(direction, &sent_along);
        let link = match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        };
        let flow = &mut self.flows[index];
        let flow_id = u32::try_from(index).expect("ports bound the number of flows");
        let side = &mut flow.sides[direction as usize];
        side.offered += 1;
        let ordinal = side.offered;
        let place = flow.tracker.place(direction, &records);
        let seen = Seen {
            direction,
            ordinal,
            place: place.as_ref(),
            records: &records,
        };
        let draws = Draws {
            seed: self.seed,
            flow: flow_id,
            direction,
            ordinal,
        };
        let mut link_draw = draws.link();
        observe(&self.injects, &mut flow.observed, &seen, draws, &frame);
        let (fate, cause) = if let Some(fate) = self.prescribed.get(&(direction, ordinal)) {
            (fate.clone(), Cause::Prescribed)
        } else if too_big.is_some() {
            // Before any rule: what a link cannot carry, nothing lets pass.
            (Fate::Dropped, Cause::Mtu)
        } else {
            match take_rule(&self.rules, &mut flow.rule_uses, &seen, draws) {
                Some((index, fate)) => (fate, Cause::Rule(index)),
                None => match link.fate(&mut link_draw) {
                    Some(fate) => (fate, Cause::Link),
                    None => (Fate::Delivered, Cause::None),
                },
            }
        };
        let report = too_big
            .filter(|mtu| mtu.announced && cause == Cause::Mtu)
            .map(|mtu| {
                let router = netns::router_addr(Family::of(sent_along.source.ip()));
                Delivery {
                    at: now,
                    direction: direction.reversed(),
                    frame: icmp::packet_too_big(router, &sent_along, &frame, mtu.bytes),
                    origin: Origin::TooBig { flow: flow_id },
                }
            });
        let latency = link.latency(&fate, &mut draws.latency());
        let latency = link.next_slot(now + latency) - now;
        let deliveries = flow.sides[direction as usize].carry(
            now,
            latency,
            &fate,
            Delivery {
                at: now,
                direction,
                frame,
                origin: Origin::Sent {
                    flow: flow_id,
                    ordinal,
                    copy: 0,
                },
            },
        );
        let mut offered = Offered {
            decision: Some(Decision {
                flow: flow_id,
                direction,
                ordinal,
                place,
                what: record::describe(&records),
                length,
                fate,
                cause,
            }),
            records: Vec::new(),
            deliveries,
        };
        offered.deliveries.extend(report);
        let after = offered
            .deliveries
            .iter()
            .map(|delivery| delivery.at)
            .max()
            .unwrap_or(now);
        for (index, inject) in self.injects.iter().enumerate() {
            let Trigger::After(ref trigger) = inject.trigger else {
                continue;
            };
            if flow.inject_uses[index] < inject.times
                && trigger.selects(&seen, &mut draws.inject(index))
            {
                flow.inject_uses[index] += 1;
                let source = Source {
                    seed: self.seed,
                    flow: flow_id,
                    inject: index,
                    observed: &flow.observed[index],
                };
                offered
                    .deliveries
                    .extend(inject.forge(after, &flow.path, &source));
            }
        }
        offered.records = records;
        offered
    }

    /// Tells the engine that application data has flowed in `flow`; returns what the attackers
    /// who wait for that send.
    pub fn established(&mut self, now: Duration, flow: u32) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        let Some(of) = self.flows.get_mut(flow as usize) else {
            return deliveries;
        };
        for (index, inject) in self.injects.iter().enumerate() {
            if matches!(inject.trigger, Trigger::Established)
                && of.inject_uses[index] < inject.times
            {
                of.inject_uses[index] += 1;
                let source = Source {
                    seed: self.seed,
                    flow,
                    inject: index,
                    observed: &of.observed[index],
                };
                deliveries.extend(inject.forge(now, &of.path, &source));
            }
        }
        deliveries
    }

    /// When [`Engine::poll`] has something to return; `None` while nothing is held.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.held().map(|held| held.until).min()
    }

    /// Held datagrams that have waited long enough.
    pub fn poll(&mut self, now: Duration) -> Vec<Delivery> {
        let mut due = Vec::new();
        for side in self.flows.iter_mut().flat_map(|flow| &mut flow.sides) {
            for held in side.held.extract_if(.., |held| held.until <= now) {
                due.push(Delivery {
                    at: now,
                    ..held.delivery
                });
            }
        }
        due
    }

    /// The clients seen so far; the index is the flow.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = SocketAddr> {
        self.flows.iter().map(|flow| flow.client)
    }

    fn link(&self, direction: Direction) -> &Link {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.flows
            .iter()
            .flat_map(|flow| &flow.sides)
            .flat_map(|side| &side.held)
    }

    fn flow_of(&mut self, direction: Direction, path: &Path) -> usize {
        let path = match direction {
            Direction::ToServer => *path,
            Direction::ToClient => path.reversed(),
        };
        if let Some(index) = self
            .flows
            .iter()
            .position(|flow| flow.client == path.source)
        {
            return index;
        }
        self.flows.push(Flow {
            client: path.source,
            path,
            tracker: FlightTracker::default(),
            sides: [Side::default(), Side::default()],
            rule_uses: vec![0; self.rules.len()],
            inject_uses: vec![0; self.injects.len()],
            observed: vec![Vec::new(); self.injects.len()],
        });
        self.flows.len() - 1
    }
}

/// Shows the datagram to the attackers who replay what they have seen.
fn observe(
    injects: &[Inject],
    observed: &mut [Vec<Vec<u8>>],
    seen: &Seen<'_>,
    draws: Draws,
    frame: &[u8],
) {
    for (index, inject) in injects.iter().enumerate() {
        if let Payload::Replay(what) = &inject.payload
            && inject.to == seen.direction
            && what.selects(seen, &mut draws.inject(index))
        {
            let observed = &mut observed[index];
            if observed.len() == MOST_OBSERVED {
                observed.remove(0);
            }
            let mut copy = frame.to_vec();
            packet::fix_checksums(&mut copy);
            observed.push(copy);
        }
    }
}

/// The first rule that takes the datagram, and what it makes of it.
fn take_rule(
    rules: &[Rule],
    uses: &mut [u32],
    seen: &Seen<'_>,
    draws: Draws,
) -> Option<(usize, Fate)> {
    for (index, rule) in rules.iter().enumerate() {
        let mut draw = draws.rule(index);
        let spent = rule.times.is_some_and(|times| uses[index] >= times);
        if !spent && rule.select.selects(seen, &mut draw) {
            uses[index] += 1;
            return Some((index, rule.action.fate(&mut draw)));
        }
    }
    None
}

impl Side {
    /// Carries out a fate: what is sent because of this datagram, itself included.
    fn carry(
        &mut self,
        now: Duration,
        latency: Duration,
        fate: &Fate,
        mut delivery: Delivery,
    ) -> Vec<Delivery> {
        delivery.at = now + latency;
        packet::fix_checksums(&mut delivery.frame);
        let mut copies = 0;
        match fate {
            Fate::Delivered | Fate::Overtook => {}
            Fate::Dropped => return Vec::new(),
            Fate::Delayed { by } => delivery.at += *by,
            Fate::Duplicated { copies: more } => copies = *more,
            Fate::Corrupted { bits } => packet::flip_bits(&mut delivery.frame, bits),
            Fate::Held { passes } => {
                self.held.push(Held {
                    until: delivery.at + rule::LONGEST_HOLD,
                    passes: *passes,
                    delivery,
                });
                return Vec::new();
            }
        }
        let at = delivery.at;
        let mut deliveries = vec![delivery];
        for number in 1..=copies {
            let mut copy = deliveries[0].clone();
            if let Origin::Sent { copy, .. } = &mut copy.origin {
                *copy = number;
            }
            deliveries.push(copy);
        }
        deliveries.extend(self.release_passed(at));
        deliveries
    }

    /// The held datagrams for which the one sent at `at` was the last that had to pass.
    fn release_passed(&mut self, at: Duration) -> impl Iterator<Item = Delivery> {
        for held in &mut self.held {
            held.passes -= 1;
        }
        self.held
            .extract_if(.., |held| held.passes == 0)
            .map(move |held| Delivery {
                at,
                ..held.delivery
            })
    }
}

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;
