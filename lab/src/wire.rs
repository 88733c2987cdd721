//! Stage 2 of the lab's path: datagrams, rules and a seed become datagrams and a [`Fate`] each.
//!
//! The engine has no I/O and no clock: the relay thread owns it, tells it the time with every
//! call and sends what it returns. Chance is a pure function of (seed, flow, direction, ordinal,
//! rule), so a run replays decision by decision, however the real timing falls.
//!
//! The way of one datagram through [`Engine::offer`]:
//! 1. its flow, by the client's address in order of first appearance;
//! 2. its ordinal in that flow and direction, and its place in the handshake;
//! 3. if it exceeds the link's MTU it is lost, and its sender perhaps told; so it is in a blackhole, and
//!    where the NAT has forgotten its address; else the first rule that selects it decides its fate, else
//!    the link's own chances do; and it is lost if the link's queue is full;
//! 4. the link's delay, jitter and rate, if it is delivered at all;
//! 5. held datagrams it releases by passing them;
//! 6. what attackers and the network do because of it.

pub mod change;
pub mod decision;
mod flow;
pub mod forgery;
pub mod inject;
pub mod link;
mod queue;
pub mod rng;
pub mod rule;
pub mod selector;

pub use decision::{Cause, Decision, Fate};

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use crate::packet::{self, Datagram, Direction, Family, Path};
use crate::record::{self, Record};
use crate::scenario::Scenario;
use crate::{icmp, netns};

use change::{Blackhole, Rebind, Rebound};
use flow::Flow;
use inject::{Inject, MOST_OBSERVED, Payload, Source, Trigger};
use link::Link;
use queue::Queue;
use rand_chacha::ChaCha20Rng;
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
#[derive(Debug, Default)]
pub struct Engine {
    seed: u64,
    rules: Vec<Rule>,
    injects: Vec<Inject>,
    blackholes: Vec<Blackhole>,
    rebinds: Vec<Rebind>,
    to_server: Link,
    to_client: Link,
    queues: [Queue; 2],
    flows: Vec<Flow>,
    /// Their indices by the client's own address, and by each place where the server has seen it.
    by_client: HashMap<SocketAddr, usize>,
    by_place: HashMap<SocketAddr, usize>,
    /// Fates that stand before any rule, by direction and ordinal.
    prescribed: BTreeMap<(Direction, u64), Fate>,
}

impl Engine {
    /// The wire of `scenario`; every chance follows from `seed`.
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        Self {
            seed,
            rules: scenario.rules.clone(),
            injects: scenario.injects.clone(),
            blackholes: scenario.blackholes.clone(),
            rebinds: scenario.rebinds.clone(),
            to_server: scenario.to_server.clone(),
            to_client: scenario.to_client.clone(),
            ..Self::default()
        }
    }

    /// What is left to the wire of `scenario` where the kernel makes the links: which datagrams its rules
    /// let pass.
    #[must_use]
    pub fn beside_kernel(scenario: &Scenario) -> Self {
        Self {
            rules: scenario.rules.clone(),
            ..Self::default()
        }
    }

    /// A wire that does nothing but what is prescribed.
    #[must_use]
    pub fn perfect() -> Self {
        Self::default()
    }

    /// A wire with these rules, the same link both ways, and no attackers.
    #[must_use]
    pub fn made_of(rules: Vec<Rule>, link: &Link, seed: u64) -> Self {
        Self {
            seed,
            rules,
            to_server: link.clone(),
            to_client: link.clone(),
            ..Self::default()
        }
    }

    /// Decides beforehand what becomes of a datagram of each flow, whatever the rules say: so a list
    /// of decisions is played again without its rules and its seed.
    pub fn prescribe(&mut self, direction: Direction, ordinal: u64, fate: Fate) {
        self.prescribed.insert((direction, ordinal), fate);
    }

    /// Takes a frame an endpoint sent in `direction` at `now` and decides what becomes of it.
    pub fn offer(&mut self, now: Duration, direction: Direction, mut frame: Vec<u8>) -> Offered {
        let length = packet::ip_length(&frame);
        let too_big = self.link(direction).too_narrow_for(length);
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
        // For every datagram, so that the link's state depends on nothing but their number.
        let burst = link
            .gemodel
            .is_some_and(|model| model.loses(&mut side.bad, &mut draws.burst()));
        let rebound = flow.rebound(direction, &sent_along);
        let report = too_big.filter(|mtu| mtu.announced).map(|mtu| {
            let router = netns::router_addr(Family::of(sent_along.source.ip()));
            Delivery {
                at: now,
                direction: direction.reversed(),
                frame: icmp::packet_too_big(router, &sent_along, &frame, mtu.bytes),
                origin: Origin::TooBig { flow: flow_id },
            }
        });
        flow.translate(direction, &mut frame);
        observe(&self.injects, &mut flow.observed, &seen, draws, &frame);
        let (mut fate, mut cause) = if let Some(fate) = self.prescribed.get(&(direction, ordinal)) {
            (fate.clone(), Cause::Prescribed)
        } else if too_big.is_some() {
            // Before any rule: what a link cannot carry, nothing lets pass.
            (Fate::Dropped, Cause::Mtu)
        } else if let Some(hole) = flow.hole(&self.blackholes, direction, now) {
            (Fate::Dropped, Cause::Blackhole(hole))
        } else if rebound + 1 < flow.places.len() {
            (Fate::Dropped, Cause::Nat)
        } else {
            match take_rule(&self.rules, &mut flow.uses.rules, &seen, draws) {
                Some((index, fate)) => (fate, Cause::Rule(index)),
                None => match link.fate(burst, &mut draws.link()) {
                    Some(fate) => (fate, Cause::Link),
                    None => (Fate::Delivered, Cause::None),
                },
            }
        };
        let queue = &mut self.queues[direction as usize];
        if fate != Fate::Dropped
            && cause != Cause::Prescribed
            && queue.is_full(now, link.limit.unwrap_or(link::USUAL_LIMIT))
        {
            (fate, cause) = (Fate::Dropped, Cause::Limit);
        }
        let mut deliveries = Vec::new();
        if fate != Fate::Dropped {
            let latency = link.latency(&fate, &mut draws.latency());
            let rate = link.rate.filter(|_| fate != Fate::Overtook);
            let copies = match fate {
                Fate::Duplicated { copies } => copies,
                _ => 0,
            };
            let times: Vec<Duration> = (0..=copies)
                .map(|_| link.next_slot(queue.enter(now, latency, frame.len(), rate)))
                .collect();
            deliveries = flow.sides[direction as usize].carry(
                &times,
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
        }
        deliveries.extend(report.filter(|_| cause == Cause::Mtu));
        let after = deliveries.iter().map(|one| one.at).max().unwrap_or(now);
        deliveries.extend(self.set_off(
            index,
            now,
            after,
            |trigger, draw| match trigger {
                Trigger::After(select) => select.selects(&seen, draw),
                Trigger::Established => false,
            },
            draws,
        ));
        Offered {
            decision: Some(Decision {
                flow: flow_id,
                direction,
                ordinal,
                rebound,
                place,
                what: record::describe(&records),
                length,
                fate,
                cause,
            }),
            records,
            deliveries,
        }
    }

    /// Tells the engine that application data has flowed in `flow`; returns what the attackers
    /// who wait for that send.
    pub fn established(&mut self, now: Duration, flow: u32) -> Vec<Delivery> {
        let index = flow as usize;
        if index >= self.flows.len() {
            return Vec::new();
        }
        // Nothing is drawn for it: it is no datagram.
        let draws = Draws {
            seed: self.seed,
            flow,
            direction: Direction::ToServer,
            ordinal: 0,
        };
        let waits = |trigger: &Trigger, _: &mut _| matches!(trigger, Trigger::Established);
        self.set_off(index, now, now, waits, draws)
    }

    /// Lets everything happen in a flow whose trigger is what has just happened: attackers send behind
    /// `after`, the network changes for what comes next.
    fn set_off(
        &mut self,
        index: usize,
        now: Duration,
        after: Duration,
        happened: impl Fn(&Trigger, &mut ChaCha20Rng) -> bool,
        draws: Draws,
    ) -> Vec<Delivery> {
        let flow = &mut self.flows[index];
        let mut deliveries = Vec::new();
        for (number, inject) in self.injects.iter().enumerate() {
            if flow.uses.injects[number] < inject.times
                && happened(&inject.trigger, &mut draws.inject(number))
            {
                flow.uses.injects[number] += 1;
                let source = Source {
                    seed: self.seed,
                    flow: draws.flow,
                    inject: number,
                    observed: &flow.observed[number],
                };
                let to_victim = match inject.to {
                    Direction::ToServer => flow.outside(),
                    Direction::ToClient => flow.inside(),
                };
                deliveries.extend(inject.forge(after, &to_victim, &source));
            }
        }
        for (number, hole) in self.blackholes.iter().enumerate() {
            if flow.holes[number].is_none() && happened(&hole.trigger, &mut draws.change(number)) {
                flow.holes[number] = Some(now);
            }
        }
        for number in 0..self.rebinds.len() {
            let rebind = &self.rebinds[number];
            if self.flows[index].uses.rebinds[number] == 0
                && happened(&rebind.trigger, &mut draws.change(number))
            {
                self.flows[index].uses.rebinds[number] += 1;
                let place = self.new_place(index, rebind.what);
                self.flows[index].places.push(place);
                self.by_place.insert(place, index);
            }
        }
        deliveries
    }

    /// A place outside for a client that nobody has or had.
    fn new_place(&self, index: usize, what: Rebound) -> SocketAddr {
        let mut place = self.flows[index].place();
        if what == Rebound::Address {
            let number = self.flows.iter().map(|flow| flow.places.len() - 1).sum();
            place.set_ip(netns::foreign_addr(Family::of(place.ip()), number));
        }
        loop {
            place = change::next_port(place);
            if !self.by_place.contains_key(&place) {
                return place;
            }
        }
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

    fn held(&self) -> impl Iterator<Item = &flow::Held> {
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
        let known = match direction {
            Direction::ToServer => &self.by_client,
            Direction::ToClient => &self.by_place,
        };
        if let Some(index) = known.get(&path.source) {
            return *index;
        }
        self.by_client.insert(path.source, self.flows.len());
        self.by_place.insert(path.source, self.flows.len());
        self.flows.push(Flow::new(
            path,
            [
                self.rules.len(),
                self.injects.len(),
                self.blackholes.len(),
                self.rebinds.len(),
            ],
        ));
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
            if inject.flip_cookie {
                forgery::flip_cookie(&mut copy);
            }
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

#[cfg(test)]
mod proptests;
#[cfg(test)]
pub(crate) mod tests;
