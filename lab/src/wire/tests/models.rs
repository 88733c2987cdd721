//! Each of the link's models does what its numbers say, over many datagrams of one seed. The bounds are
//! five standard deviations, or what Dvoretzky, Kiefer and Wolfowitz allow once in a million: the
//! seeds are fixed, so no test ever fails by chance.

use std::time::Duration;

use super::{Engine, Fate, frame, ms, scenario};
use crate::packet::Direction;
use crate::record::sample;
use crate::wire::Cause;

const MANY: u32 = 20_000;

/// What becomes of many datagrams to the server, a millisecond apart, each seen with its latency.
fn fates(link: &str) -> Vec<(Fate, Option<Duration>)> {
    let mut engine = Engine::new(&scenario(&format!("[link.to_server]\n{link}\n")), 7);
    let data = frame(Direction::ToServer, 5000, &sample::application_data());
    (0..MANY)
        .map(|number| {
            let now = Duration::from_millis(number.into());
            let offered = engine.offer(now, Direction::ToServer, data.clone());
            let latency = offered.deliveries.first().map(|one| one.at - now);
            (offered.decision.unwrap().fate, latency)
        })
        .collect()
}

/// Asserts that so many of `of` happen by this chance.
fn as_likely(count: usize, of: usize, chance: f64) {
    let of = of as f64;
    let deviation = (of * chance * (1.0 - chance)).sqrt();
    let off = (count as f64 - of * chance).abs();
    assert!(
        off <= 5.0 * deviation,
        "{count} of {of}, expected {:.0} give or take {:.0}",
        of * chance,
        5.0 * deviation
    );
}

fn count(fates: &[(Fate, Option<Duration>)], wanted: fn(&Fate) -> bool) -> usize {
    fates.iter().filter(|(fate, _)| wanted(fate)).count()
}

#[test]
fn each_chance_comes_true_as_often_as_it_says() {
    for key in ["loss", "duplicate", "corrupt"] {
        let seen = fates(&format!("{key} = \"12.5%\""));
        let touched = count(&seen, |fate| *fate != Fate::Delivered);
        as_likely(touched, MANY as usize, 0.125);
    }
    let spared = fates("reorder = \"25%\"\ndelay = \"50ms\"");
    let at_once = spared
        .iter()
        .filter(|(_, latency)| *latency == Some(Duration::ZERO));
    as_likely(at_once.count(), MANY as usize, 0.25);
}

#[test]
fn gilbert_elliott_loses_its_share_in_bursts_of_its_length() {
    // Good to bad with p, back with r; all is lost in between: p / (p + r) of the datagrams, and behind
    // a lost one another is lost by 1 - r.
    let seen = fates("gemodel = { p = \"5%\", r = \"20%\" }");
    let lost: Vec<bool> = seen
        .iter()
        .map(|(fate, _)| *fate == Fate::Dropped)
        .collect();
    let pairs = || lost.iter().zip(&lost[1..]);
    let behind_loss = pairs().filter(|(first, _)| **first).count();
    as_likely(
        pairs()
            .filter(|(first, second)| **first && **second)
            .count(),
        behind_loss,
        0.8,
    );
    let behind_good = pairs().filter(|(first, _)| !**first).count();
    as_likely(
        pairs()
            .filter(|(first, second)| !**first && **second)
            .count(),
        behind_good,
        0.05,
    );
}

#[test]
fn gilbert_elliott_loses_in_both_states_by_the_chance_of_each() {
    let seen = fates("gemodel = { p = \"10%\", r = \"30%\", 1-h = \"60%\", 1-k = \"2%\" }");
    let lost = count(&seen, |fate| *fate == Fate::Dropped);
    let share = 0.25 * 0.6 + 0.75 * 0.02;
    // The states of neighbours are alike, which widens the spread: by (1 + c) / (1 - c) at most, where
    // c = 1 - p - r is how much of one state the next keeps.
    let deviation = (f64::from(MANY) * share * (1.0 - share) * (1.6 / 0.4)).sqrt();
    let off = (lost as f64 - f64::from(MANY) * share).abs();
    assert!(off <= 5.0 * deviation, "{lost}");
}

#[test]
fn gemodel_with_p_alone_is_independent_loss() {
    let seen = fates("gemodel = { p = \"10%\" }");
    let lost: Vec<bool> = seen
        .iter()
        .map(|(fate, _)| *fate == Fate::Dropped)
        .collect();
    as_likely(lost.iter().filter(|lost| **lost).count(), lost.len(), 0.1);
    let pairs = lost.iter().zip(&lost[1..]).filter(|(first, _)| **first);
    let (behind, both) = pairs.fold((0, 0), |(behind, both), (_, second)| {
        (behind + 1, both + usize::from(*second))
    });
    as_likely(both, behind, 0.1);
}

#[test]
fn jitter_is_uniform_around_the_delay() {
    let seen = fates("delay = \"50ms\"\njitter = \"20ms\"");
    let mut latencies: Vec<f64> = seen
        .iter()
        .map(|(_, latency)| latency.unwrap().as_secs_f64())
        .collect();
    latencies.sort_by(f64::total_cmp);
    let count = latencies.len() as f64;
    let distance = latencies
        .iter()
        .enumerate()
        .map(|(rank, latency)| {
            let expected = ((latency - 0.03) / 0.04).clamp(0.0, 1.0);
            let (below, above) = (rank as f64 / count, (rank + 1) as f64 / count);
            (expected - below).abs().max((expected - above).abs())
        })
        .fold(0.0, f64::max);
    let bound = ((2.0_f64 / 1e-6).ln() / (2.0 * count)).sqrt();
    assert!(distance <= bound, "{distance} above {bound}");
}

#[test]
fn rate_sends_one_after_another_each_in_its_time() {
    let mut engine = Engine::new(
        &scenario("[link.to_server]\nrate = \"8kbit\"\ndelay = \"3ms\"\n"),
        1,
    );
    let data = frame(Direction::ToServer, 5000, &[0; 58]);
    assert_eq!(
        data.len(),
        100,
        "100 bytes take 100 ms at 1000 bytes a second"
    );
    let mut at = |now| {
        engine
            .offer(now, Direction::ToServer, data.clone())
            .deliveries[0]
            .at
    };
    assert_eq!(
        [at(ms(0)), at(ms(0)), at(ms(50))],
        [ms(103), ms(203), ms(303)]
    );
    assert_eq!(at(ms(1000)), ms(1103), "an idle link saves nothing up");
    let back = frame(Direction::ToClient, 5000, &[0; 58]);
    let back = engine.offer(ms(0), Direction::ToClient, back);
    assert_eq!(back.deliveries[0].at, ms(0), "the other way has no rate");
}

#[test]
fn rate_is_shared_by_all_flows_and_taken_by_copies() {
    let link = "[[rule]]\naction = { duplicate = 1 }\n[link.to_server]\nrate = \"8kbit\"\n";
    let mut engine = Engine::new(&scenario(link), 1);
    let mut times = Vec::new();
    for port in [5000, 5001] {
        let data = frame(Direction::ToServer, port, &[0; 58]);
        let offered = engine.offer(ms(0), Direction::ToServer, data);
        times.extend(offered.deliveries.iter().map(|one| one.at));
    }
    assert_eq!(times, [ms(100), ms(200), ms(300), ms(400)]);
}

#[test]
fn full_queue_loses_what_comes_until_something_has_left() {
    let mut engine = Engine::new(
        &scenario("[link.to_server]\nrate = \"8kbit\"\nlimit = 3\n"),
        1,
    );
    let data = frame(Direction::ToServer, 5000, &[0; 58]);
    let mut cause = |now| {
        let offered = engine.offer(now, Direction::ToServer, data.clone());
        let decision = offered.decision.unwrap();
        assert_eq!(
            decision.fate == Fate::Dropped,
            offered.deliveries.is_empty()
        );
        decision.cause
    };
    let at_first = [0, 0, 0, 0, 99].map(|at| cause(ms(at)));
    let full = Cause::Limit;
    assert_eq!(
        at_first,
        [Cause::None, Cause::None, Cause::None, full, full]
    );
    assert_eq!([100, 100].map(|at| cause(ms(at))), [Cause::None, full]);
}

#[test]
fn queue_of_a_thousand_is_what_tc_netem_has_where_nothing_is_said() {
    let mut engine = Engine::new(&scenario("[link.to_server]\ndelay = \"1s\"\n"), 1);
    let data = frame(Direction::ToServer, 5000, &sample::application_data());
    let lost = (0..1_010)
        .filter(|_| {
            let offered = engine.offer(ms(0), Direction::ToServer, data.clone());
            offered.decision.unwrap().cause == Cause::Limit
        })
        .count();
    assert_eq!(lost, 10);
}
