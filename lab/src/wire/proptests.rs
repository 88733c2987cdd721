//! What holds of the engine whatever the scenario, the traffic and the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::tests::{frame, scenario};
use super::{Decision, Delivery, Engine, Fate, Origin, rule};
use crate::packet::Direction;
use crate::record::sample;

/// Faults of every kind, some of them of chance.
const FAULTS: &[&str] = &[
    "",
    "[link.both]\nloss = \"20%\"\nduplicate = \"10%\"\ncorrupt = \"10%\"\n",
    "[link.to_server]\ndelay = \"20ms\"\njitter = \"20ms\"\nreorder = \"30%\"\n",
    "[[rule]]\naction = { reorder = 2 }\n",
    "[[rule]]\nselect = { chance = \"30%\" }\naction = { reorder = 1 }\n[[rule]]\nselect = { every \
     = 3 }\naction = \"drop\"\n[[rule]]\nselect = { chance = \"50%\" }\naction = { delay = \"70ms\" \
     }\n",
    "[link.both]\ngemodel = { p = \"20%\", r = \"40%\", 1-h = \"90%\", 1-k = \"5%\" }\nrate = \
     \"100kbit\"\n",
    "[[rule]]\nselect = { datagram = 1 }\naction = { duplicate = 3 }\ntimes = 2\n[link.both]\nloss \
     = \"50%\"\n",
];

/// What was offered: after how many milliseconds, whose, which datagram of a handshake.
type Traffic = Vec<(u64, u16, usize)>;

fn traffic() -> impl Strategy<Value = Traffic> {
    proptest::collection::vec((0..40_u64, 5000..5004_u16, 0..8_usize), 1..120)
}

/// Runs the traffic as a relay would; returns all decisions and all deliveries, each with the
/// time at which the engine gave it out.
fn run(faults: &str, seed: u64, traffic: &Traffic) -> (Vec<Decision>, Vec<(Duration, Delivery)>) {
    let mut engine = Engine::new(&scenario(faults), seed);
    let mut handshake = sample::full_handshake(1);
    handshake.push((Direction::ToServer, sample::application_data()));
    let mut now = Duration::ZERO;
    let mut decisions = Vec::new();
    let mut deliveries = Vec::new();
    let poll = |engine: &mut Engine, until: Option<Duration>| {
        let mut released = Vec::new();
        while let Some(due) = engine
            .next_due()
            .filter(|due| until.is_none_or(|until| *due <= until))
        {
            released.extend(engine.poll(due).into_iter().map(|delivery| (due, delivery)));
        }
        released
    };
    for (wait, port, index) in traffic {
        now += Duration::from_millis(*wait);
        deliveries.extend(poll(&mut engine, Some(now)));
        let (direction, payload) = &handshake[*index];
        let offered = engine.offer(now, *direction, frame(*direction, *port, payload));
        decisions.extend(offered.decision);
        deliveries.extend(
            offered
                .deliveries
                .into_iter()
                .map(|delivery| (now, delivery)),
        );
    }
    deliveries.extend(poll(&mut engine, None));
    (decisions, deliveries)
}

proptest! {
    #[test]
    fn every_datagram_has_one_fate_and_it_is_carried_out(
        faults in proptest::sample::select(FAULTS),
        seed: u64,
        traffic in traffic(),
    ) {
        let (decisions, deliveries) = run(faults, seed, &traffic);
        prop_assert_eq!(decisions.len(), traffic.len());
        let mut copies: BTreeMap<(u32, Direction, u64), u32> = BTreeMap::new();
        for (given_out, delivery) in &deliveries {
            prop_assert!(delivery.at >= *given_out, "sent before it was given out");
            let Origin::Sent { flow, ordinal, .. } = delivery.origin else {
                panic!("nobody forges here: {delivery:?}");
            };
            *copies.entry((flow, delivery.direction, ordinal)).or_default() += 1;
        }
        for decision in &decisions {
            let key = (decision.flow, decision.direction, decision.ordinal);
            let expected = match &decision.fate {
                Fate::Dropped => 0,
                Fate::Duplicated { copies } => 1 + copies,
                _ => 1,
            };
            prop_assert_eq!(copies.remove(&key).unwrap_or(0), expected, "{}", decision);
        }
        prop_assert!(copies.is_empty(), "delivered but never offered: {:?}", copies);
    }

    #[test]
    fn same_seed_decides_alike_whatever_the_timing(
        faults in proptest::sample::select(FAULTS),
        seed: u64,
        traffic in traffic(),
    ) {
        let hurried: Traffic = traffic.iter().map(|(_, port, index)| (0, *port, *index)).collect();
        prop_assert_eq!(run(faults, seed, &traffic).0, run(faults, seed, &hurried).0);
    }

    #[test]
    fn other_flows_change_no_decision(
        faults in proptest::sample::select(FAULTS),
        seed: u64,
        traffic in traffic(),
    ) {
        // The lowest port comes first in both, so that it is flow 0 in both.
        let mut traffic = traffic;
        traffic.insert(0, (0, 5000, 0));
        let alone: Traffic = traffic.iter().copied().filter(|(_, port, _)| *port == 5000).collect();
        let of_first = |traffic| {
            let mut decisions = run(faults, seed, traffic).0;
            decisions.retain(|decision| decision.flow == 0);
            decisions
        };
        prop_assert_eq!(of_first(&traffic), of_first(&alone));
    }

    #[test]
    fn nothing_is_held_longer_than_the_longest_hold(
        seed: u64,
        traffic in traffic(),
    ) {
        let mut offered_at = BTreeMap::new();
        let mut now = Duration::ZERO;
        let (decisions, deliveries) = run(FAULTS[4], seed, &traffic);
        for ((wait, ..), decision) in traffic.iter().zip(&decisions) {
            now += Duration::from_millis(*wait);
            offered_at.insert((decision.flow, decision.direction, decision.ordinal), now);
        }
        // A datagram that passes may itself be delayed, and takes the held one along.
        let bound = rule::LONGEST_HOLD + Duration::from_millis(70);
        for (_, delivery) in deliveries {
            let Origin::Sent { flow, ordinal, .. } = delivery.origin else {
                panic!("nobody forges here: {delivery:?}");
            };
            let waited = delivery.at - offered_at[&(flow, delivery.direction, ordinal)];
            prop_assert!(waited <= bound, "{:?}", waited);
        }
    }

    #[test]
    fn queue_never_holds_more_than_its_limit_and_loses_nothing_else(
        limit in 1..20_usize,
        seed: u64,
        traffic in traffic(),
    ) {
        let faults = format!("[link.both]\nrate = \"100kbit\"\nlimit = {limit}\n");
        let (decisions, deliveries) = run(&faults, seed, &traffic);
        let mut leaving: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
        let mut delivered = deliveries.iter();
        let mut now = Duration::ZERO;
        for ((wait, ..), decision) in traffic.iter().zip(&decisions) {
            now += Duration::from_millis(*wait);
            let on_it = &mut leaving[decision.direction as usize];
            on_it.retain(|at| *at > now);
            prop_assert_eq!(decision.fate == Fate::Dropped, on_it.len() == limit, "{}", decision);
            if decision.fate != Fate::Dropped {
                let (_, delivery) = delivered.next().expect("delivered, so given out");
                prop_assert!(on_it.last().is_none_or(|last| *last < delivery.at));
                on_it.push(delivery.at);
            }
        }
    }
}

#[test]
fn different_seeds_decide_differently() {
    let traffic: Traffic = (0..64).map(|_| (1, 5000, 7)).collect();
    assert_ne!(run(FAULTS[1], 1, &traffic).0, run(FAULTS[1], 2, &traffic).0);
}
