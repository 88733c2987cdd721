//! What a lying or forging peer may send, and what was not agreed on.

use super::*;

#[test]
fn heartbeats_need_both_ends_and_are_otherwise_dropped_before_openssl_sees_them() {
    for (client, server) in [(false, false), (true, false), (false, true)] {
        let mut pair = Pair::with(DEFAULT, client_config().heartbeat(client), server);
        for end in [&mut pair.client, &mut pair.server] {
            assert!(!end.connection.probe(SECOND, pair.now));
            assert_eq!(
                end.connection.liveness(),
                Some(Liveness::NotNegotiated),
                "{client} {server}"
            );
            assert_eq!(end.connection.deadline(), None);
            let forged = record::write(HEARTBEAT, 1, 9, &[7; 60]);
            assert!(end.receive(&[forged], pair.now).is_empty());
            assert_eq!(end.count(Counter::DroppedHeartbeatUnexpected), 1);
        }
        pair.assert_data_both_ways();
    }
}

#[test]
fn an_unknown_mode_ends_the_handshake() {
    for mode in [&[0][..], &[3], &[], &[1, 1]] {
        let context = context_with_mode(mode);
        let mut pair = Pair::before_handshake(DEFAULT, &context, settings(), true);
        pair.client.connection.handshake(pair.now).unwrap();
        let hello = pair.client.transmit();
        pair.server.connection.receive(&hello[0], pair.now);
        assert!(pair.server.connection.handshake(pair.now).is_err());
    }
}

#[test]
fn a_heartbeat_during_the_handshake_is_dropped_and_the_handshake_goes_on() {
    let client = client_config().heartbeat(true).build().unwrap();
    let settings = Settings::clone(client.settings());
    let mut pair = Pair::before_handshake(DEFAULT, client.context(), settings, true);
    pair.client.connection.handshake(pair.now).unwrap();
    let hello = pair.client.transmit();
    pair.server.connection.receive(&hello[0], pair.now);
    pair.server.connection.handshake(pair.now).unwrap();
    let forged = record::write(HEARTBEAT, 1, 9, &[7; 60]);
    for end in [&mut pair.client, &mut pair.server] {
        end.connection.receive(&forged, pair.now);
        end.connection.handshake(pair.now).unwrap();
        assert_eq!(end.count(Counter::DroppedHeartbeatUnexpected), 1);
        assert!(!end.connection.probe(SECOND, pair.now), "not yet");
    }
    let flight = pair.server.transmit();
    for datagram in &flight {
        pair.client.connection.receive(datagram, pair.now);
    }
    pair.shake_hands();
    pair.assert_alive();
}

#[test]
fn replayed_heartbeats_are_answered_once_and_settle_nothing() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(SECOND, pair.now));
    let request = pair.client.transmit();
    let answer = pair.server.receive(&request, pair.now);
    for _ in 0..3 {
        assert!(pair.server.receive(&request, pair.now).is_empty());
    }
    assert_eq!(pair.server.count(Counter::DroppedHeartbeatReplayed), 3);
    pair.client.receive(&answer, pair.now);
    assert!(pair.client.connection.probe(SECOND, pair.now));
    pair.client.receive(&answer, pair.now);
    assert_eq!(pair.client.connection.liveness(), None);
    assert_eq!(pair.client.count(Counter::DroppedHeartbeatReplayed), 1);
    // Data cannot be replayed as a heartbeat nor the other way round: the type is authenticated.
    let mut disguised = pair.client.data(b"data");
    disguised[0][0] = HEARTBEAT;
    assert!(pair.server.receive(&disguised, pair.now).is_empty());
    assert_eq!(pair.server.count(Counter::DroppedHeartbeatForged), 1);
    let mut disguised = pair.client.heartbeat(&raw(1, 0, 16));
    disguised[0][0] = APPLICATION_DATA;
    pair.server.receive(&disguised, pair.now);
    assert_eq!(
        pair.server.connection.read(&mut [0; 99]).unwrap(),
        Read::Empty
    );
}

#[test]
fn no_changed_bit_and_no_missing_byte_is_accepted() {
    for suite in [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ] {
        let mut pair = Pair::new(suite);
        let good = pair.client.heartbeat(&raw(1, 4, 20)).remove(0);
        for at in 0..good.len() {
            let mut forged = good.clone();
            forged[at] ^= 1;
            let answers = pair.server.receive(&[forged], pair.now);
            assert!(answers.is_empty(), "{suite}: byte {at}");
            let outcome = pair.server.connection.read(&mut [0; 99]);
            assert_eq!(outcome.unwrap(), Read::Empty, "{suite}: byte {at}");
        }
        for length in 0..good.len() {
            let mut cut = good[..length].to_vec();
            assert!(pair.server.receive(&[cut.clone()], pair.now).is_empty());
            // The same with a header that admits it.
            if let Some(body) = length.checked_sub(13) {
                cut[12] = u8::try_from(body).unwrap();
                assert!(pair.server.receive(&[cut], pair.now).is_empty());
            }
            let outcome = pair.server.connection.read(&mut [0; 99]);
            assert_eq!(outcome.unwrap(), Read::Empty, "{suite}: {length} bytes");
        }
        assert!(pair.server.count(Counter::DroppedHeartbeatForged) > 40);
        assert_eq!(pair.server.receive(&[good], pair.now).len(), 1);
        pair.assert_data_both_ways();
    }
}

#[test]
fn a_payload_length_that_lies_gets_no_answer() {
    let mut pair = Pair::new(DEFAULT);
    let malformed = Counter::DroppedHeartbeatMalformed;
    for (claimed, rest) in [
        (0x4000, 1),  // the original attack
        (0xffff, 16), // as much as can be claimed
        (5, 20),      // padding one byte short
        (21, 20),     // payload one byte beyond
        (20, 20),     // no padding
        (0, 15),
        (0, 0),
        (1, 0),
        (0xffed, 16), // with header and padding 2^16
    ] {
        pair.assert_unanswered(&raw(1, claimed, rest), malformed);
    }
    for short in [&[1][..], &[1, 0]] {
        pair.assert_unanswered(short, malformed);
    }
    for kind in [0, 3, 255] {
        pair.assert_unanswered(&raw(kind, 1, 17), malformed);
    }
    pair.now += SECOND;
    let sent = pair.client.heartbeat(&raw(1, 4, 20));
    assert_eq!(pair.server.receive(&sent, pair.now).len(), 1);
    pair.assert_data_both_ways();
}

#[test]
fn an_answer_holds_the_payload_received_and_fresh_padding_and_nothing_else() {
    let mut pair = Pair::new(DEFAULT);
    for length in [0, 1, 17, 500] {
        let payload = vec![0x5a; length];
        let mut message = write(Kind::Request, &payload).unwrap();
        message.extend([0x77; 200]);
        let sent = pair.client.heartbeat(&message);
        let answer = pair.server.receive(&sent, pair.now);
        let (record, _) = split_record(&answer[0]).unwrap();
        let client = pair.client.connection.heartbeat.as_ref().unwrap();
        let opened = client.protection().open(&record).unwrap();
        assert_eq!(opened.len(), length + OVERHEAD);
        assert_eq!(opened[3..3 + length], payload);
        assert!(!opened[3 + length..].starts_with(&[0x77; 4]));
    }
}

#[test]
fn requests_too_long_or_too_many_get_no_answer() {
    let mut pair = Pair::new(DEFAULT);
    let limit = pair.server.connection.max_payload() - OVERHEAD;
    for length in [limit + 1, 10_000] {
        let message = write(Kind::Request, &vec![0; length]).unwrap();
        pair.assert_unanswered(&message, Counter::DroppedHeartbeatExcess);
    }
    for _ in 0..2 {
        let answered = (0..100)
            .map(|_| {
                let sent = pair.client.heartbeat(&raw(1, 0, 16));
                pair.server.receive(&sent, pair.now).len()
            })
            .sum::<usize>();
        assert_eq!(answered, 10);
        pair.now += SECOND;
    }
    pair.assert_alive();
}

#[test]
fn a_response_to_nothing_or_to_something_else_settles_nothing() {
    let mut pair = Pair::new(DEFAULT);
    pair.assert_unanswered(&raw(2, 16, 32), Counter::DroppedHeartbeatUnasked);
    assert!(pair.server.connection.probe(SECOND, pair.now));
    drop(pair.server.transmit());
    pair.assert_unanswered(&raw(2, 16, 32), Counter::DroppedHeartbeatUnasked);
    pair.assert_unanswered(&raw(2, 0, 16), Counter::DroppedHeartbeatUnasked);
    assert_eq!(pair.server.connection.liveness(), None);
}

#[test]
fn a_forged_record_of_any_length_is_no_sign_of_life_with_any_suite() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        let shortest = if suite.ends_with("CCM8") || suite.contains("CHACHA") {
            16
        } else {
            24
        };
        let heard = pair.server.connection.timers.last_heard();
        for (n, length) in (shortest..100).enumerate() {
            let forged = record::write(HEARTBEAT, 1, 9, &vec![0x5a; length]);
            let later = pair.now + SECOND;
            assert!(pair.server.receive(&[forged], later).is_empty());
            let forgeries = u64::try_from(n).unwrap() + 1;
            assert_eq!(
                pair.server.count(Counter::DroppedHeartbeatForged),
                forgeries,
                "{suite}: {length} bytes"
            );
        }
        assert_eq!(pair.server.connection.timers.last_heard(), heard);
    }
}
