//! The record filter by hand-made records, and by arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::core::record::write as record;

fn fragment(message_type: u8, message_length: u32, offset: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let mut bytes = vec![message_type];
    bytes.extend(&message_length.to_be_bytes()[1..]);
    bytes.extend([0, 1]);
    bytes.extend(&offset.to_be_bytes()[1..]);
    bytes.extend(&length.to_be_bytes()[1..]);
    bytes.extend(body);
    bytes
}

fn sieve(filter: &mut RecordFilter, datagram: &[u8]) -> (Vec<u8>, Sighting, Stats) {
    let stats = Stats::default();
    let mut passed = Vec::new();
    let sighting = filter.sieve(datagram, &mut passed, &stats);
    (passed, sighting, stats)
}

#[track_caller]
fn drops(phase: Phase, datagram: &[u8], reason: Counter) {
    let mut filter = RecordFilter::new(Role::Server, 0);
    filter.enter(phase);
    let (passed, _, stats) = sieve(&mut filter, datagram);
    assert_eq!(passed, b"", "{}", reason.name());
    assert_eq!(stats.get(reason), 1, "{}", reason.name());
}

#[test]
fn each_forgeable_record_is_dropped_for_its_reason() {
    let in_handshake = [Phase::Plaintext, Phase::Changing];
    for phase in in_handshake {
        drops(
            phase,
            &record(20, 0, 1, &[2]),
            Counter::DroppedBadChangeCipherSpec,
        );
        drops(
            phase,
            &record(20, 0, 1, &[1, 1]),
            Counter::DroppedBadChangeCipherSpec,
        );
        drops(phase, &record(21, 0, 1, &[2, 40]), Counter::AlertsHeld);
        drops(phase, &record(21, 0, 1, &[1, 0]), Counter::AlertsHeld);
        drops(phase, &record(21, 0, 1, &[3, 40]), Counter::DroppedBadAlert);
        drops(phase, &record(21, 0, 1, &[2]), Counter::DroppedBadAlert);
        drops(
            phase,
            &record(23, 0, 1, b"data"),
            Counter::DroppedUnexpectedType,
        );
        drops(
            phase,
            &record(24, 0, 1, b"beat"),
            Counter::DroppedUnexpectedType,
        );
        drops(
            phase,
            &record(22, 0, 1, b"short"),
            Counter::DroppedBadHandshake,
        );
        let beyond_message = fragment(16, 2, 1, b"xx");
        drops(
            phase,
            &record(22, 0, 1, &beyond_message),
            Counter::DroppedBadHandshake,
        );
        let huge = fragment(11, 16 * 1024 + 1, 0, b"x");
        drops(
            phase,
            &record(22, 0, 1, &huge),
            Counter::DroppedBadHandshake,
        );
        let mut cut = fragment(16, 9, 0, b"123456789");
        cut.pop();
        drops(phase, &record(22, 0, 1, &cut), Counter::DroppedBadHandshake);
    }
    for phase in [Phase::Plaintext, Phase::Changing, Phase::Established] {
        drops(phase, &record(23, 1, 1, &[0; 23]), Counter::DroppedRunt);
        drops(
            phase,
            &record(22, 2, 1, &[0; 60]),
            Counter::DroppedWrongEpoch,
        );
        drops(phase, b"GET / HTTP/1.0", Counter::DroppedMalformedRecord);
        drops(
            phase,
            &record(22, 0, 1, &[0; 60])[..40],
            Counter::DroppedMalformedRecord,
        );
    }
    let hello = record(22, 0, 1, &fragment(1, 4, 0, b"abcd"));
    drops(Phase::Established, &hello, Counter::DroppedWrongEpoch);
}

#[test]
fn a_message_that_the_other_end_never_sends_in_the_clear_is_dropped() {
    for (role, its) in [
        (Role::Server, &[1, 11, 15, 16][..]),
        (Role::Client, &[2, 3, 4, 11, 12, 13, 14, 22]),
    ] {
        for message_type in 0..=255 {
            let mut filter = RecordFilter::new(role, 0);
            let message = record(22, 0, 0, &fragment(message_type, 1, 0, b"x"));
            let passes = !sieve(&mut filter, &message).0.is_empty();
            assert_eq!(
                passes,
                its.contains(&message_type),
                "{role:?} {message_type}"
            );
        }
    }
}

#[test]
fn a_message_under_a_number_that_it_never_has_is_dropped() {
    let passes = |role, message_type, number: u8| {
        let mut message = fragment(message_type, 1, 0, b"x");
        message[5] = number;
        let mut filter = RecordFilter::new(role, 0);
        !sieve(&mut filter, &record(22, 0, 0, &message)).0.is_empty()
    };
    for message_type in 0..=255 {
        let first = passes(Role::Server, message_type, 0);
        assert_eq!(first, message_type == 1, "to the server: {message_type}");
        let first = passes(Role::Client, message_type, 0);
        assert_eq!(
            first,
            [2, 3].contains(&message_type),
            "to the client: {message_type}"
        );
    }
    for number in 0..20 {
        assert_eq!(
            passes(Role::Server, 1, number),
            number <= 1,
            "hello {number}"
        );
    }
}

#[test]
fn a_bad_record_leaves_its_neighbours_alone() {
    let mut filter = RecordFilter::new(Role::Server, 5);
    let good = record(22, 0, 5, &fragment(16, 3, 0, b"key"));
    let change = record(20, 0, 6, &[1]);
    let datagram = [good.clone(), record(21, 0, 9, &[2, 0]), change.clone()].concat();
    let (passed, sighting, _) = sieve(&mut filter, &datagram);
    assert_eq!(passed, [good, change].concat());
    assert_eq!(sighting.alert, Some(HeldAlert { description: 0 }));
}

#[test]
fn a_forged_record_number_cannot_move_the_replay_window() {
    let mut filter = RecordFilter::new(Role::Server, 3);
    let body = fragment(16, 3, 0, b"key");
    for (sent, seen) in [(1 << 40, 3), (4, 4), (4, 5)] {
        let (passed, ..) = sieve(&mut filter, &record(22, 0, sent, &body));
        assert_eq!(passed, record(22, 0, seen, &body));
    }
}

#[test]
fn early_protected_records_are_capped_and_those_behind_a_change_cipher_spec_apart() {
    let mut filter = RecordFilter::new(Role::Server, 0);
    let finished = record(22, 1, 0, &[0; 40]);
    for n in 0..=EARLY_RECORDS {
        let (passed, ..) = sieve(&mut filter, &finished);
        assert_eq!(passed.is_empty(), n == EARLY_RECORDS);
    }
    let change = record(20, 0, 0, &[1]);
    let flight = [change.clone(), finished.clone()].concat();
    for n in 0..=EARLY_RECORDS {
        let passed = sieve(&mut filter, &flight).0.len();
        let expected = if n == EARLY_RECORDS {
            change.len()
        } else {
            flight.len()
        };
        assert_eq!(passed, expected, "the {n}th behind a change");
    }
    filter.enter(Phase::Changing);
    assert_eq!(sieve(&mut filter, &finished).0, finished);
}

#[test]
fn the_overhead_of_the_agreed_cipher_decides_what_is_a_runt() {
    let mut filter = RecordFilter::new(Role::Server, 0);
    filter.enter(Phase::Established);
    let sixteen = record(23, 1, 1, &[0; 16]);
    for (cipher, passes) in [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", false),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", true),
        ("ECDHE-ECDSA-AES128-CCM", false),
        ("ECDHE-ECDSA-AES128-CCM8", true),
    ] {
        filter.learn_cipher(cipher);
        assert_eq!(
            !sieve(&mut filter, &sixteen).0.is_empty(),
            passes,
            "{cipher}"
        );
    }
}

proptest! {
    #[test]
    fn any_datagram_passes_only_as_whole_records(
        datagram in proptest::collection::vec(any::<u8>(), 0..300),
        phase in prop_oneof![
            Just(Phase::Plaintext), Just(Phase::Changing), Just(Phase::Established)
        ],
    ) {
        let mut filter = RecordFilter::new(Role::Server, 0);
        filter.enter(phase);
        let (passed, ..) = sieve(&mut filter, &datagram);
        prop_assert!(passed.len() <= datagram.len());
        let mut rest = &passed[..];
        while let Some((_, tail)) = split_record(rest) {
            rest = tail;
        }
        prop_assert!(rest.is_empty());
    }
}
