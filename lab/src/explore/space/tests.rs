//! Case number and case are a bijection in every space.

use std::collections::HashSet;

use proptest::prelude::*;
use strum::IntoEnumIterator;

use super::*;
use crate::record::Place;
use crate::sim::world::Sent;

/// A handshake of so many datagrams in each flight.
fn clean(flights: [u64; 6]) -> Played {
    let mut ordinals = [0; 2];
    let mut sent = Vec::new();
    for (flight, count) in (1..).zip(flights) {
        let direction = Direction::BOTH[usize::from(flight % 2 == 0)];
        for datagram in 1..=count {
            let ordinal = &mut ordinals[direction as usize];
            *ordinal += 1;
            sent.push(Sent {
                at: Duration::ZERO,
                position: Position {
                    direction,
                    ordinal: *ordinal,
                },
                place: Some(Place {
                    flight,
                    transmission: 1,
                    datagram: u32::try_from(datagram).expect("a small number"),
                    last: datagram == count,
                    resumed: false,
                    handshake: 1,
                }),
                what: String::new(),
                fate: Fate::Delivered,
            });
        }
    }
    Played {
        verdict: Ok(()),
        took: None,
        sent,
        calls: [[3, 4], [5, 6]],
    }
}

fn handshake() -> impl Strategy<Value = Played> {
    [1..=1u64, 1..=1, 1..=2, 0..=5, 1..=4, 1..=3].prop_map(clean)
}

proptest! {
    #[test]
    fn number_of_a_case_leads_back_to_the_case(clean in handshake(), draw in any::<u64>()) {
        for kind in Kind::iter() {
            let space = Space::new(kind, &clean);
            if space.len() == 0 {
                continue;
            }
            let number = draw % space.len();
            let faults = space.case(number).expect("below the length");
            prop_assert_eq!(space.number(&faults), Some(number), "{} {:?}", kind, faults);
            prop_assert_eq!(space.case(space.len()), None);
        }
    }

    #[test]
    fn faults_of_another_space_have_no_number(draw in any::<u64>()) {
        let clean = clean([1, 1, 1, 4, 3, 2]);
        let space = |kind| Space::new(kind, &clean);
        let replays = space(Kind::Replays);
        let replay = replays.case(draw % replays.len()).expect("below the length");
        for kind in Kind::iter().filter(|kind| *kind != Kind::Replays) {
            prop_assert_eq!(space(kind).number(&replay), None);
        }
    }
}

#[test]
fn every_number_is_another_case() {
    let clean = clean([1, 1, 1, 4, 3, 2]);
    for kind in Kind::iter() {
        let space = Space::new(kind, &clean);
        let cases: HashSet<String> = (0..space.len())
            .map(|number| format!("{:?}", space.case(number)))
            .collect();
        assert_eq!(cases.len() as u64, space.len(), "{kind}");
    }
}

#[test]
fn sizes_are_those_of_the_textbook() {
    let clean = clean([1, 1, 1, 4, 3, 2]);
    let len = |kind| Space::new(kind, &clean).len();
    // 12 datagrams and 6 more each way: 24 positions.
    assert_eq!(len(Kind::Drops3), 1 + 24 + 276 + 2024);
    assert_eq!(len(Kind::Permutations), 24 + 6 + 2);
    assert_eq!(len(Kind::Duplicates), 12);
    assert_eq!(len(Kind::Replays), 78);
    // Behind each datagram, at either end, 20 kinds of ICMP and 11 of ICMPv6.
    assert_eq!(len(Kind::Icmp), 12 * 2 * (20 + 11));
    // One call more than were made; 16 errors of a receive, 17 of a send.
    assert_eq!(len(Kind::Errno), (4 + 6) * 16 + (5 + 7) * 17);
}
