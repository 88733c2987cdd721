//! Limits against small models. Test threads.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn prefix(n: u32) -> Prefix {
    PrefixLengths::default().prefix(IpAddr::V4(n.into()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the clock"
)]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn addresses_of_one_prefix_count_as_one_and_families_are_apart() {
    let lengths = PrefixLengths::default();
    let of = |text: &str| lengths.prefix(text.parse().unwrap());
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    let wide = PrefixLengths { v4: 24, v6: 1 };
    assert_eq!(
        wide.prefix("192.0.2.1".parse().unwrap()),
        wide.prefix("192.0.2.255".parse().unwrap())
    );
    assert_ne!(
        wide.prefix("0.0.0.0".parse().unwrap()),
        wide.prefix("::".parse().unwrap())
    );
    let whole = PrefixLengths { v4: 0, v6: 128 };
    assert_eq!(
        whole.prefix("1.2.3.4".parse().unwrap()),
        whole.prefix("5.6.7.8".parse().unwrap())
    );
}

#[test]
fn a_second_brings_as_many_answers_as_the_rate_and_no_more() {
    let start = start();
    for rate in [1, 3, 10, 1000] {
        let mut hellos = HelloRate::new(rate, start);
        let answered = |hellos: &mut HelloRate, at| {
            (0..5 * rate)
                .filter(|_| hellos.take(prefix(7), start + at))
                .count()
        };
        assert_eq!(answered(&mut hellos, Duration::ZERO), rate as usize);
        assert_eq!(answered(&mut hellos, Duration::ZERO), 0);
        assert!(!hellos.allows(prefix(7), start));
        // A little more, since a division does not come out even.
        let later = Duration::from_millis(1001);
        assert_eq!(answered(&mut hellos, later), rate as usize);
    }
}

#[test]
fn a_thousand_busy_sources_leave_a_quiet_one_its_answers() {
    let start = start();
    let mut hellos = HelloRate::new(5, start);
    let mut answered = 0;
    for round in 0..200 {
        let now = start + Duration::from_millis(round);
        for source in 0..1000 {
            hellos.take(prefix(source), now);
        }
        answered +=
            usize::from(hellos.take(prefix(0x7f00_0000 + u32::try_from(round).unwrap()), now));
    }
    // A hash may be unlucky once in 80,000; two of 200 will not be.
    assert!(answered >= 199, "{answered}");
}

#[test]
fn spoofed_sources_make_nothing_grow() {
    let start = start();
    let mut hellos = HelloRate::new(5, start);
    let capacity = hellos.cells.capacity();
    for source in 0..100_000 {
        hellos.take(prefix(source), start);
    }
    assert_eq!(hellos.cells.capacity(), capacity);
    assert_eq!(hellos.cells.len(), ROWS * ROW);
}

proptest! {
    #[test]
    fn no_prefix_is_ever_answered_more_than_its_rate(
        rate in 1..50_u32,
        steps in proptest::collection::vec((0..8_u32, 0..200_u64), 1..400),
    ) {
        let start = start();
        let mut hellos = HelloRate::new(rate, start);
        let mut now = start;
        // Of each source, when it was answered.
        let mut answered: BTreeMap<u32, Vec<Instant>> = BTreeMap::new();
        for (source, pause) in steps {
            now += Duration::from_millis(pause);
            let allowed = hellos.allows(prefix(source), now);
            prop_assert_eq!(hellos.take(prefix(source), now), allowed);
            let times = answered.entry(source).or_default();
            if allowed {
                times.push(now);
            } else {
                // Eight sources do not meet in all rows: it has had what it may have.
                let second_ago = now.checked_sub(Duration::from_secs(1)).unwrap_or(start);
                let lately = times.iter().filter(|time| **time >= second_ago).count();
                prop_assert!(lately >= 1);
            }
        }
        for times in answered.values() {
            for (from, first) in times.iter().enumerate() {
                for (count, last) in times[from..].iter().enumerate() {
                    let most = f64::from(rate) * (1.0 + (*last - *first).as_secs_f64()) + 1e-3;
                    prop_assert!((count + 1) as f64 <= most, "{} in {:?}", count + 1, *last - *first);
                }
            }
        }
    }

    #[test]
    fn a_census_agrees_with_a_list_of_connections(
        most_half_open in 1..6_usize,
        most_per_prefix in 1..4_usize,
        steps in proptest::collection::vec((0..4_u32, 0..3_u8, any::<prop::sample::Index>()), 1..200),
    ) {
        let limits = Limits {
            half_open: Some(most_half_open),
            per_prefix: Some(most_per_prefix),
            ..Limits::default()
        };
        let mut census = Census::default();
        let mut connections: Vec<(u32, bool)> = Vec::new();
        for (source, step, which) in steps {
            let half_open = connections.iter().filter(|(_, half_open)| *half_open).count();
            let from_there = connections.iter().filter(|(from, _)| *from == source).count();
            let refusal = census.refusal(prefix(source), &limits);
            prop_assert_eq!(refusal == Some(Counter::HellosOverHalfOpen), half_open >= most_half_open);
            prop_assert_eq!(
                refusal.is_none(),
                half_open < most_half_open && from_there < most_per_prefix
            );
            prop_assert_eq!(census.refusal(prefix(source), &Limits::default()), None);
            match step {
                0 if refusal.is_none() => {
                    census.enter(prefix(source));
                    connections.push((source, true));
                }
                1 if !connections.is_empty() => {
                    let (_, half_open) = which.get_mut(&mut connections);
                    if *half_open {
                        *half_open = false;
                        census.establish();
                    }
                }
                2 if !connections.is_empty() => {
                    let gone = connections.swap_remove(which.index(connections.len()));
                    census.leave(prefix(gone.0), gone.1);
                }
                _ => {}
            }
        }
        for (source, half_open) in connections.drain(..) {
            census.leave(prefix(source), half_open);
        }
        prop_assert!(census.per_prefix.is_empty() && census.half_open == 0);
    }
}
