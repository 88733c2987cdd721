//! Probes and their answers: every suite, every loss, idleness.

use super::*;

#[test]
fn our_keys_and_nonces_open_what_openssl_seals_with_every_suite() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        for (text, n) in [(&b"first"[..], 0), (b"second", 1)] {
            let sent = pair.client.data(text);
            let (record, _) = split_record(&sent[0]).unwrap();
            let server = pair.server.connection.heartbeat.as_ref().unwrap();
            let opened = server.protection().open(&record);
            assert_eq!(opened.as_deref(), Some(text), "{suite} {n}");
            let sent = pair.server.data(text);
            let (record, _) = split_record(&sent[0]).unwrap();
            let client = pair.client.connection.heartbeat.as_ref().unwrap();
            let opened = client.protection().open(&record);
            assert_eq!(opened.as_deref(), Some(text), "{suite} {n}");
        }
    }
}

#[test]
fn a_probe_finds_the_peer_alive_and_data_intact_with_every_suite() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        let ssl = pair.client.connection.ssl();
        assert_eq!(ssl.current_cipher().unwrap().name(), suite);
        pair.assert_data_both_ways();
        for _ in 0..3 {
            pair.assert_alive();
            pair.assert_data_both_ways();
            pair.now += SECOND;
        }
        let payload = pair.server.connection.max_payload() - OVERHEAD;
        let largest = write(Kind::Request, &vec![5; payload]).unwrap();
        let sent = pair.client.heartbeat(&largest);
        assert_eq!(pair.server.receive(&sent, pair.now).len(), 1, "{suite}");
        pair.client.assert_sound_wire(12);
        pair.server.assert_sound_wire(12);
        let count = |counter| pair.client.count(counter);
        assert_eq!(count(Counter::HeartbeatRequestsSent), 3);
        assert_eq!(count(Counter::HeartbeatResponsesReceived), 3);
        assert_eq!(pair.server.count(Counter::HeartbeatResponsesSent), 4);
    }
}

#[test]
fn the_server_can_ask_too() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.server.connection.probe(SECOND, pair.now));
    let request = pair.server.transmit();
    let answer = pair.client.receive(&request, pair.now);
    pair.server.receive(&answer, pair.now);
    assert!(matches!(
        pair.server.connection.liveness(),
        Some(Liveness::Alive { .. })
    ));
    pair.assert_data_both_ways();
}

#[test]
fn a_peer_that_forbids_requests_is_answered_but_not_asked() {
    let mut pair = Pair::of(DEFAULT, &context_with_mode(&[2]), settings(), true);
    assert!(!pair.server.connection.probe(SECOND, pair.now));
    assert_eq!(
        pair.server.connection.liveness(),
        Some(Liveness::NotNegotiated)
    );
    let server = &pair.server.connection.stream;
    let ends = Protection::of(pair.client.connection.ssl())
        .unwrap()
        .unwrap();
    assert_eq!(server.ssl().version_str(), "DTLSv1.2");
    // The client's own code has no heartbeat here: seal by hand.
    let suite = ends.suite();
    let placeholder = pair.client.connection.take_placeholder(suite).unwrap();
    let message = write(Kind::Request, b"hello").unwrap();
    let request = ends.seal(placeholder, &message).unwrap();
    let answer = pair.server.receive(&[request], pair.now);
    assert_eq!(answer.len(), 1);
    let (record, _) = split_record(&answer[0]).unwrap();
    let opened = ends.open(&record).unwrap();
    assert_eq!(&opened[..8], b"\x02\0\x05hello");
    pair.assert_data_both_ways();
}

#[test]
fn a_lost_request_is_sent_again_with_the_same_payload_under_a_new_number() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(30 * SECOND, pair.now));
    let start = pair.now;
    let first = pair.client.transmit();
    let again = pair.expire();
    assert_eq!(pair.now - start, SECOND);
    let third = pair.expire();
    assert_eq!(pair.now - start, 3 * SECOND, "doubled");
    let server = pair.server.connection.heartbeat.as_ref().unwrap();
    let opened: Vec<_> = [&first, &again, &third]
        .map(|sent| {
            let (record, _) = split_record(&sent[0]).unwrap();
            server.protection().open(&record).unwrap()
        })
        .into();
    assert_eq!(opened[0][..19], opened[2][..19]);
    assert_ne!(opened[0][19..], opened[2][19..], "padding is new");
    let answer = pair.server.receive(&third, pair.now);
    pair.client.receive(&answer, pair.now);
    let alive = Liveness::Alive { rtt: 3 * SECOND };
    assert_eq!(pair.client.connection.liveness(), Some(alive));
    assert_eq!(pair.client.connection.deadline(), None, "the timer stopped");
    pair.client.assert_sound_wire(0);
}

#[test]
fn a_lost_response_is_asked_for_again() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(30 * SECOND, pair.now));
    let request = pair.client.transmit();
    let lost = pair.server.receive(&request, pair.now);
    assert_eq!(lost.len(), 1);
    let again = pair.expire();
    let answer = pair.server.receive(&again, pair.now);
    pair.client.receive(&answer, pair.now);
    assert_eq!(
        pair.client.connection.liveness(),
        Some(Liveness::Alive { rtt: SECOND })
    );
    // The first answer was only late.
    pair.client.receive(&lost, pair.now);
    assert_eq!(pair.client.count(Counter::DroppedHeartbeatUnasked), 1);
    pair.server.assert_sound_wire(0);
    pair.assert_data_both_ways();
}

#[test]
fn a_silent_peer_is_given_up_at_the_timeout_and_may_be_found_later() {
    let mut pair = Pair::new(DEFAULT);
    let start = pair.now;
    assert!(pair.client.connection.probe(10 * SECOND, pair.now));
    let mut sent = pair.client.transmit().len();
    while pair.client.connection.liveness().is_none() {
        sent += pair.expire().len();
    }
    assert_eq!(pair.client.connection.liveness(), Some(Liveness::Silent));
    assert_eq!(
        (sent, pair.now - start),
        (4, 10 * SECOND),
        "at 0, 1, 3, 7 s"
    );
    assert_eq!(pair.client.count(Counter::ProbesUnanswered), 1);
    assert_eq!(pair.client.connection.deadline(), None);
    pair.assert_alive();
    pair.assert_data_both_ways();
}

#[test]
fn a_probe_of_more_than_the_clock_counts_goes_on_until_it_is_answered() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(Duration::MAX, pair.now));
    assert!(pair.client.connection.probe(Duration::MAX, pair.now));
    let mut request = pair.client.transmit();
    for _ in 0..10 {
        request = pair.expire();
        assert_eq!(request.len(), 1);
        assert_eq!(pair.client.connection.liveness(), None);
    }
    let answer = pair.server.receive(&request, pair.now);
    pair.client.receive(&answer, pair.now);
    let found = pair.client.connection.liveness();
    assert!(matches!(found, Some(Liveness::Alive { .. })), "{found:?}");
}

#[test]
fn the_policy_waits_for_an_hour_at_most() {
    const HOUR: Duration = Duration::from_secs(3600);
    let longer = HOUR + Duration::from_nanos(1);
    for (timeout, good) in [
        (Duration::ZERO, false),
        (HOUR, true),
        (longer, false),
        (Duration::MAX, false),
    ] {
        let config = client_config().probe_when_idle(Some(timeout)).build();
        assert_eq!(config.is_ok(), good, "{timeout:?}");
    }
}

#[test]
fn a_second_probe_joins_the_one_in_flight() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(SECOND, pair.now));
    assert!(pair.client.connection.probe(2 * SECOND, pair.now));
    assert_eq!(pair.client.transmit().len(), 1);
    pair.expire();
    assert_eq!(pair.client.connection.liveness(), None, "the new timeout");
    pair.expire();
    assert_eq!(pair.client.connection.liveness(), Some(Liveness::Silent));
}

#[test]
fn a_heartbeat_between_records_of_data_takes_nothing_with_it() {
    let mut pair = Pair::new(DEFAULT);
    let one = pair.client.data(b"one").remove(0);
    let beat = pair.client.heartbeat(&raw(1, 0, 16)).remove(0);
    let two = pair.client.data(b"two").remove(0);
    let answer = pair.server.receive(&[[one, beat, two].concat()], pair.now);
    assert_eq!(answer.len(), 1);
    let mut buffer = [0; 99];
    for text in [b"one", b"two"] {
        let read = pair.server.connection.read(&mut buffer).unwrap();
        assert_eq!((read, &buffer[..3]), (Read::Data(3), &text[..]));
    }
}

#[test]
fn a_closed_connection_sends_no_heartbeat() {
    let mut pair = Pair::new(DEFAULT);
    let request = pair.client.heartbeat(&raw(1, 0, 16));
    pair.server.connection.close();
    assert_eq!(pair.server.transmit().len(), 1, "close_notify");
    assert!(pair.server.receive(&request, pair.now).is_empty());
    assert!(pair.server.connection.probe(SECOND, pair.now));
    assert!(pair.server.transmit().is_empty());
    assert_eq!(pair.server.count(Counter::HeartbeatRequestsSent), 0);
    assert_eq!(pair.server.count(Counter::HeartbeatResponsesSent), 0);
}

#[test]
fn an_idle_connection_is_probed_before_it_counts_as_idle() {
    let config = client_config()
        .idle_timeout(Some(60 * SECOND))
        .probe_when_idle(Some(5 * SECOND));
    let mut pair = Pair::with(DEFAULT, config, true);
    let start = pair.now;
    let request = pair.expire();
    assert_eq!((request.len(), pair.now - start), (1, 60 * SECOND));
    assert!(!pair.client.connection.is_idle(pair.now));
    let answer = pair.server.receive(&request, pair.now);
    pair.client.receive(&answer, pair.now);
    assert!(!pair.client.connection.is_idle(pair.now));
    assert_eq!(
        pair.client.connection.deadline(),
        Some(start + 120 * SECOND),
        "an answer is a sign of life"
    );
    // Nobody answers any more.
    let mut sent = 0;
    while !pair.client.connection.is_idle(pair.now) {
        sent += pair.expire().len();
    }
    assert_eq!((sent, pair.now - start), (3, 125 * SECOND));
    // Until something is heard.
    let data = pair.server.data(b"late");
    pair.now += SECOND;
    pair.client.receive(&data, pair.now);
    pair.client.reads(b"late");
    assert!(!pair.client.connection.is_idle(pair.now));
    assert_eq!(
        pair.client.connection.deadline(),
        Some(pair.now + 60 * SECOND)
    );
}

#[test]
fn without_heartbeats_an_idle_connection_is_idle_at_once() {
    let config = client_config()
        .idle_timeout(Some(60 * SECOND))
        .probe_when_idle(Some(5 * SECOND));
    let mut pair = Pair::with(DEFAULT, config, false);
    assert!(pair.expire().is_empty());
    assert!(pair.client.connection.is_idle(pair.now));
    pair.client.connection.suspect(pair.now);
    assert!(pair.client.transmit().is_empty());
}

#[test]
fn a_suspicion_costs_one_request_and_ends_nothing_unless_the_peer_is_silent() {
    let config = client_config().probe_when_idle(Some(2 * SECOND));
    let mut pair = Pair::with(DEFAULT, config, true);
    for _ in 0..50 {
        pair.client.connection.suspect(pair.now);
    }
    let request = pair.client.transmit();
    assert_eq!(request.len(), 1);
    let answer = pair.server.receive(&request, pair.now);
    pair.client.receive(&answer, pair.now);
    assert!(!pair.client.connection.is_idle(pair.now));
    assert_eq!(pair.client.connection.deadline(), None);
    let start = pair.now;
    pair.client.connection.suspect(pair.now);
    while pair.client.connection.deadline().is_some() {
        pair.expire();
        assert_eq!(
            pair.client.connection.is_idle(pair.now),
            pair.now - start == 2 * SECOND,
            "more hints put nothing off"
        );
        if pair.now - start < 2 * SECOND {
            pair.client.connection.suspect(pair.now);
        }
    }
    assert!(pair.client.connection.is_idle(pair.now));
    // The same for an application that asked for no policy: nothing happens at all.
    let mut pair = Pair::new(DEFAULT);
    pair.client.connection.suspect(pair.now);
    assert!(pair.client.transmit().is_empty());
}
