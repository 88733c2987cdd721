//! Two ends in memory: each test carries, withholds or forges datagrams by hand.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::time::Duration;

use common::forgeries::table;
use common::pair::{
    FIRST_TIMER, LONGEST_TIMER, Pair, apart, drain, expire, now, record, record_number,
};
use dtls::core::{Connection, Progress, Read};
use dtls::{Counter, HandshakeError};
use dtls_certs::Profile;

/// Every kind of forgery, and more early records than are kept.
fn forgeries() -> Vec<(&'static str, Vec<u8>)> {
    let rows = table().into_iter();
    let mut forged: Vec<_> = rows
        .flat_map(|row| {
            row.datagrams
                .into_iter()
                .map(move |datagram| (row.name, datagram))
        })
        .collect();
    forged.extend((0..100).map(|n| ("epoch-1 record before its time", record(23, 1, n, &[0; 60]))));
    forged
}

#[test]
fn a_clean_handshake_packs_its_flights_and_needs_no_retransmission() {
    let mut pair = Pair::adjusted(Profile::SERVER, |server| server.link_mtu(1500));
    let flight_1 = pair.client_writes();
    let flight_2 = pair.at_server(&flight_1);
    let flight_3 = pair.at_client(&flight_2);
    let flight_4 = pair.at_server(&flight_3);
    let flight_5 = pair.at_client(&flight_4);
    let flight_6 = pair.at_server(&flight_5);
    pair.at_client(&flight_6);
    pair.assert_data_both_ways();
    let datagrams = [flight_1, flight_2, flight_3, flight_4, flight_5, flight_6].map(|f| f.len());
    assert_eq!(
        datagrams,
        [1, 1, 1, 1, 1, 1],
        "a chain of two P-256 certificates fits into 1472"
    );
    assert_eq!(pair.client_stats.get(Counter::Retransmissions), 0);
}

#[test]
fn the_server_hello_carries_the_number_of_the_hello_it_answers() {
    let mut pair = Pair::new();
    drop(pair.client_writes());
    let flight_1_again = expire(&mut pair.client);
    assert_eq!(record_number(&flight_1_again[0]), 1);
    let flight_2 = pair.at_server(&flight_1_again);
    assert_eq!(record_number(&flight_2[0]), 1);
    let flight_3 = pair.at_client(&flight_2);
    let flight_4 = pair.at_server(&flight_3);
    // With OpenSSL's own number, 1, the client would take it for a replay of the first answer.
    assert_eq!(record_number(&flight_4[0]), record_number(&flight_3[0]));
    pair.finish_from(&flight_4);
    pair.assert_data_both_ways();
    assert_eq!(pair.client.retransmissions(), 1);
}

#[test]
fn a_long_chain_is_cut_to_the_mtu_and_a_lost_flight_is_sent_again_packed() {
    let mut pair = Pair::with(Profile::SERVER_LONG_CHAIN);
    let flight_4 = pair.up_to_flight_4();
    assert!(flight_4.len() >= 4, "{} datagrams", flight_4.len());
    assert!(flight_4.iter().all(|datagram| datagram.len() <= 1472));
    let again = expire(pair.server());
    // OpenSSL cuts each message afresh, so the seams fall worse than the first time; unpacked, the
    // four messages would be eight datagrams.
    assert!(
        again.len() <= flight_4.len() + 2,
        "{} then {}",
        flight_4.len(),
        again.len()
    );
    assert!(again.iter().all(|datagram| datagram.len() <= 1472));
    pair.finish_from(&again);
    pair.assert_data_both_ways();
}

#[test]
fn no_forged_record_ends_or_stalls_a_handshake() {
    let mut pair = Pair::new();
    let flight_4 = pair.up_to_flight_4();
    let start = pair.start;
    for (name, forged) in forgeries() {
        pair.server().receive(&forged, start);
        assert_eq!(
            pair.server().handshake(start).expect(name),
            Progress::Waiting,
            "{name}"
        );
        pair.client.receive(&forged, start);
        assert_eq!(
            pair.client.handshake(start).expect(name),
            Progress::Waiting,
            "{name}"
        );
    }
    pair.finish_from(&flight_4);
    pair.assert_data_both_ways();
    assert!(pair.server_stats.get(Counter::DroppedEarly) >= 90);
}

#[test]
fn no_forged_record_ends_an_established_connection() {
    let mut pair = Pair::new();
    let flight_4 = pair.up_to_flight_4();
    pair.finish_from(&flight_4);
    let start = pair.start;
    for (name, forged) in forgeries() {
        let mut buffer = [0; 100];
        pair.server().receive(&forged, start);
        assert_eq!(
            pair.server().read(&mut buffer).expect(name),
            Read::Empty,
            "{name}"
        );
        pair.client.receive(&forged, start);
        assert_eq!(
            pair.client.read(&mut buffer).expect(name),
            Read::Empty,
            "{name}"
        );
    }
    pair.assert_data_both_ways();
}

#[test]
fn a_plaintext_alert_followed_by_silence_ends_the_handshake_after_its_grace() {
    let mut pair = Pair::new();
    pair.up_to_flight_4();
    let start = pair.start;
    pair.server().receive(&record(21, 0, 9, &[2, 48]), start);
    let soon = start + Duration::from_secs(11);
    match pair.server().handle_timeout(soon) {
        Err(HandshakeError::Alert { name: "unknown CA" }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_silent_peer_ends_the_handshake_at_its_deadline() {
    let mut pair = Pair::new();
    pair.up_to_flight_4();
    let late = pair.start + Duration::from_secs(30);
    let outcome = pair.server().handle_timeout(late);
    assert!(
        matches!(outcome, Err(HandshakeError::TimedOut { .. })),
        "{outcome:?}"
    );
    assert_eq!(pair.server_stats.get(Counter::HandshakesTimedOut), 1);
}

#[test]
fn a_lost_final_flight_is_sent_again_when_the_client_repeats_its_own() {
    let mut pair = Pair::new();
    let flight_4 = pair.up_to_flight_4();
    let flight_5 = pair.at_client(&flight_4);
    let lost = pair.at_server(&flight_5);
    assert!(!lost.is_empty());
    let flight_5_again = expire(&mut pair.client);
    let start = pair.start;
    for datagram in &flight_5_again {
        pair.server().receive(datagram, start);
        assert_eq!(pair.server().read(&mut [0; 100]).unwrap(), Read::Empty);
    }
    let flight_6_again = drain(pair.server());
    assert_eq!(flight_6_again.len(), 1, "packed again");
    pair.at_client(&flight_6_again);
    pair.assert_data_both_ways();
}

#[test]
fn duplicates_and_reversed_flights_are_survived() {
    let mut pair = Pair::with(Profile::SERVER_LONG_CHAIN);
    let mut flight_4 = pair.up_to_flight_4();
    flight_4.reverse();
    let twice: Vec<_> = flight_4
        .iter()
        .flat_map(|d| [d.clone(), d.clone()])
        .collect();
    let flight_5 = pair.at_client(&twice);
    let twice: Vec<_> = flight_5
        .iter()
        .flat_map(|d| [d.clone(), d.clone()])
        .collect();
    let flight_6 = pair.at_server(&twice);
    pair.at_client(&flight_6);
    pair.assert_data_both_ways();
}

#[test]
fn a_flight_is_sent_again_after_the_first_time_then_twice_as_long_up_to_the_longest() {
    let mut pair = Pair::new();
    pair.client.handshake(now()).unwrap();
    drain(&mut pair.client);
    for expected in [FIRST_TIMER, 2 * FIRST_TIMER, LONGEST_TIMER, LONGEST_TIMER] {
        let before = now();
        let left = pair.client.deadline().unwrap() - before;
        assert!(left <= expected, "{left:?} of {expected:?}");
        expire(&mut pair.client);
        // OpenSSL takes less than 15 ms left for nothing left.
        let waited = now() - before;
        assert!(
            waited + Duration::from_millis(15) >= left,
            "{waited:?} of {left:?}"
        );
    }
    assert_eq!(pair.client.retransmissions(), 4);
}

#[test]
fn a_flight_that_is_due_when_a_datagram_comes_is_counted_as_sent_again() {
    let mut pair = Pair::new();
    let flight_1 = pair.client_writes();
    let flight_2 = pair.at_server(&flight_1);
    let flight_3 = pair.at_client(&flight_2);
    let flight_4 = pair.at_server(&flight_3);
    let due = now() + FIRST_TIMER;
    while due > now() {
        std::thread::park_timeout(due.saturating_duration_since(now()));
    }
    // The client had no answer either.
    let again = pair.at_server(&flight_3);
    assert_eq!(again.len(), flight_4.len());
    assert_eq!(pair.server().retransmissions(), 1);
}

#[test]
fn a_flight_that_is_due_when_its_answer_comes_is_not_sent_again() {
    let mut pair = Pair::new();
    let flight_1 = pair.client_writes();
    let flight_2 = pair.at_server(&flight_1);
    let due = now() + FIRST_TIMER;
    while due > now() {
        std::thread::park_timeout(due.saturating_duration_since(now()));
    }
    let flight_3 = pair.at_client(&flight_2);
    assert_eq!((flight_3.len(), pair.client.retransmissions()), (1, 0));
    let flight_4 = pair.at_server(&flight_3);
    pair.finish_from(&flight_4);
    pair.assert_data_both_ways();
}

/// A client that has answered a forged question, and a server whose questions it ignores.
fn misled() -> Pair {
    let mut pair = Pair::new();
    let flight_1 = pair.client_writes();
    // HelloVerifyRequest, version DTLS 1.0, a cookie of 4 bytes.
    let mut body = vec![3, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 7];
    body.extend([0xfe, 0xff, 4, 1, 2, 3, 4]);
    let forged = record(22, 0, 0, &body);
    let misled = pair.at_client(&[forged]);
    // The server asks both hellos; OpenSSL has its answer and ignores it.
    let questions = [pair.at_server(&flight_1), pair.at_server(&misled)].concat();
    assert_eq!(questions.len(), 2);
    pair.at_client(&questions);
    assert_eq!(pair.client_stats.get(Counter::DroppedOtherCookie), 2);
    pair
}

#[test]
fn a_forged_question_before_the_real_one_costs_time_only() {
    let mut pair = misled();
    let again = expire(&mut pair.client);
    pair.at_server(&again);
    let anew = expire(&mut pair.client);
    assert_eq!(pair.client_stats.get(Counter::HandshakesBegunAnew), 1);
    let flight_2 = pair.at_server(&anew);
    let flight_3 = pair.at_client(&flight_2);
    let flight_4 = pair.at_server(&flight_3);
    pair.finish_from(&flight_4);
    pair.assert_data_both_ways();
}

#[test]
fn garbage_that_keeps_coming_does_not_keep_a_misled_client_from_beginning_anew() {
    let mut pair = misled();
    // Every expiry is found with a datagram at hand, never by `handle_timeout`.
    let mut expire_under_garbage = || {
        loop {
            let due = pair.client.deadline().unwrap();
            std::thread::park_timeout(due.saturating_duration_since(now()));
            pair.client.receive(b"garbage", now());
            pair.client.handshake(now()).unwrap();
            let sent = drain(&mut pair.client);
            if !sent.is_empty() {
                return sent;
            }
        }
    };
    expire_under_garbage();
    let anew = expire_under_garbage();
    assert_eq!(pair.client_stats.get(Counter::HandshakesBegunAnew), 1);
    assert_eq!(pair.client.retransmissions(), 2);
    let flight_2 = pair.at_server(&anew);
    let flight_3 = pair.at_client(&flight_2);
    let flight_4 = pair.at_server(&flight_3);
    pair.finish_from(&flight_4);
    pair.assert_data_both_ways();
}

#[test]
fn a_lost_last_flight_of_a_resumed_handshake_is_sent_again_when_the_server_repeats_its_own() {
    let mut pair = Pair::new().resuming();
    // The roles are swapped: the client speaks last, and the server's timer runs.
    let flight_4 = pair.up_to_flight_4();
    let lost = pair.at_client(&flight_4);
    assert!(!lost.is_empty());
    let start = pair.start;
    assert_eq!(pair.client.handshake(start).unwrap(), Progress::Established);
    assert_eq!(pair.client.deadline(), None, "the last flight has no timer");
    let again = expire(pair.server());
    for datagram in &again {
        pair.client.receive(datagram, start);
        assert_eq!(pair.client.read(&mut [0; 100]).unwrap(), Read::Empty);
    }
    let last_flight = drain(&mut pair.client);
    assert!(!last_flight.is_empty());
    pair.at_server(&last_flight);
    pair.assert_data_both_ways();
    assert!(pair.client.info().resumed && pair.server().info().resumed);
    assert_eq!(pair.server().retransmissions(), 1);
    assert_eq!(pair.client.retransmissions(), 0);
}

#[test]
fn data_that_overtakes_finished_is_delivered_behind_it() {
    // The server's data before its last flight, in a full handshake.
    let mut pair = Pair::new();
    let flight_4 = pair.up_to_flight_4();
    let flight_5 = pair.at_client(&flight_4);
    let flight_6 = pair.at_server(&flight_5);
    let data = early_data(pair.server());
    assert_eq!(pair.at_client(&data), Vec::<Vec<u8>>::new());
    assert_eq!(
        pair.client.handshake(pair.start).unwrap(),
        Progress::Waiting
    );
    pair.at_client(&flight_6);
    assert_reads_early_data(&mut pair.client);
    pair.assert_data_both_ways();

    // The client's data before its last flight, in a resumed one.
    let mut pair = Pair::new().resuming();
    let start = pair.start;
    let flight_4 = pair.up_to_flight_4();
    let last_flight = pair.at_client(&flight_4);
    let data = early_data(&mut pair.client);
    assert_eq!(pair.at_server(&data), Vec::<Vec<u8>>::new());
    assert_eq!(pair.server().handshake(start).unwrap(), Progress::Waiting);
    pair.at_server(&last_flight);
    assert_reads_early_data(pair.server());
    pair.assert_data_both_ways();
}

const EARLY: [&[u8]; 3] = [b"first", b"second", b"third"];

fn early_data(from: &mut Connection) -> Vec<Vec<u8>> {
    for text in EARLY {
        from.write(text).unwrap();
    }
    drain(from)
}

#[track_caller]
fn assert_reads_early_data(to: &mut Connection) {
    let mut buffer = [0; 100];
    for text in EARLY {
        assert_eq!(to.read(&mut buffer).unwrap(), Read::Data(text.len()));
        assert_eq!(&buffer[..text.len()], text);
    }
    assert_eq!(to.read(&mut buffer).unwrap(), Read::Empty);
}

#[test]
fn finished_that_overtakes_its_change_cipher_spec_is_kept_for_it() {
    let mut pair = Pair::new();
    let flight_4 = pair.up_to_flight_4();
    let flight_5 = apart(&pair.at_client(&flight_4));
    let types: Vec<u8> = flight_5.iter().map(|record| record[0]).collect();
    assert_eq!(types, [22, 20, 22], "key exchange, change, Finished");
    let [key_exchange, change, finished] = flight_5.try_into().unwrap();
    assert_eq!(
        pair.at_server(&[key_exchange, finished]),
        Vec::<Vec<u8>>::new()
    );
    let flight_6 = apart(&pair.at_server(&[change]));
    let types: Vec<u8> = flight_6.iter().map(|record| record[0]).collect();
    assert_eq!(types, [22, 20, 22], "ticket, change, Finished");
    let [ticket, change, finished] = flight_6.try_into().unwrap();
    pair.at_client(&[ticket, finished, change]);
    pair.assert_data_both_ways();
    assert_eq!(
        pair.client.retransmissions() + pair.server().retransmissions(),
        0
    );
}

#[test]
fn flights_lost_again_and_again_shrink_to_1280_and_576_and_data_does_not() {
    let mut pair = Pair::with(Profile::SERVER_LONG_CHAIN);
    // IPv4 and UDP headers are 28 bytes.
    let longest = |flight: &[Vec<u8>]| flight.iter().map(Vec::len).max().unwrap() + 28;
    let mut flight_4 = pair.up_to_flight_4();
    let mut packets = vec![longest(&flight_4)];
    for _ in 0..4 {
        flight_4 = expire(pair.server());
        packets.push(longest(&flight_4));
    }
    for (packet, link) in packets.iter().zip([1400, 1400, 1280, 576, 576]) {
        // The chain is long enough to fill a datagram but for a cipher block.
        assert!(
            (link - 32..=link).contains(packet),
            "{packets:?}: {packet} on a link of {link}"
        );
    }
    pair.finish_from(&flight_4);
    pair.assert_data_both_ways();
    let payload = pair.server().max_payload();
    assert!((1300..1372).contains(&payload), "{payload}");
}

#[test]
fn a_link_that_turns_out_narrower_shrinks_the_next_flight_and_the_payload_for_good() {
    let mut pair = Pair::with(Profile::SERVER_LONG_CHAIN);
    let longest = |flight: &[Vec<u8>]| flight.iter().map(Vec::len).max().unwrap() + 28;
    let flight_4 = pair.up_to_flight_4();
    assert!(longest(&flight_4) > 1300);
    pair.server().limit_link_mtu(1300);
    let again = expire(pair.server());
    assert!(
        (1260..=1300).contains(&longest(&again)),
        "{}",
        longest(&again)
    );
    pair.finish_from(&again);
    pair.assert_data_both_ways();
    let payload = pair.server().max_payload();
    assert!((1200..1272).contains(&payload), "{payload}");
    assert!(
        pair.client.max_payload() > 1300,
        "the client's link is its own"
    );
    pair.server().limit_link_mtu(1400);
    assert_eq!(pair.server().max_payload(), payload, "only ever narrower");
    pair.server().limit_link_mtu(600);
    let narrow = pair.server().max_payload();
    assert!((500..572).contains(&narrow), "{narrow}");
    assert!(pair.server().write(&vec![0; narrow + 1]).is_err());
    pair.server().write(&vec![0; narrow]).unwrap();
    let sent = drain(pair.server());
    assert!(longest(&sent) <= 600, "{}", longest(&sent));
}
