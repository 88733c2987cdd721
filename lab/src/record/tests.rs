//! What the reader tells of well-formed, cut and hostile bytes.

use proptest::prelude::*;

use super::sample;
use super::*;

#[test]
fn datagram_with_several_records_is_told_record_by_record() {
    let datagram = [
        sample::client_key_exchange(),
        sample::change_cipher_spec(),
        sample::finished(),
    ]
    .concat();
    let records = parse(&datagram);
    assert_eq!(records.len(), 3);
    assert_eq!(
        describe(&records),
        "ClientKeyExchange ChangeCipherSpec Finished"
    );
    assert_eq!(
        (records[1].epoch, records[1].seq, records[1].length),
        (0, 9, 1)
    );
    assert_eq!(
        (records[2].epoch, &records[2].content),
        (1, &Content::Encrypted)
    );
}

#[test]
fn hello_with_cookie_differs_from_hello_without() {
    let hello = |cookie| match &parse(&sample::client_hello(3, cookie))[0].content {
        Content::Handshake(fragments) => fragments[0].hello.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(hello(true).has_cookie());
    assert!(!hello(false).has_cookie());
    assert_eq!(hello(true).random, [3; 32]);
    assert_eq!(
        describe(&parse(&sample::client_hello(3, true))),
        "ClientHello+cookie"
    );
}

#[test]
fn later_fragment_of_a_hello_tells_nothing_of_the_cookie() {
    let records = parse(&sample::fragment(1, 1, &[0; 100], 50..100));
    let Content::Handshake(fragments) = &records[0].content else {
        panic!("{records:?}");
    };
    assert_eq!(fragments[0].hello, None);
    assert!(fragments[0].is_last());
    assert_eq!(
        (fragments[0].offset, fragments[0].fragment_length),
        (50, 50)
    );
}

#[test]
fn whole_records_before_a_cut_one_are_kept() {
    let mut datagram = [sample::hello_verify(), sample::server_hello()].concat();
    datagram.pop();
    let records = parse(&datagram);
    assert_eq!(describe(&records), "HelloVerifyRequest malformed");
}

#[test]
fn plaintext_alert_shows_level_and_description() {
    let records = parse(&sample::record(21, 0, 5, &[2, 40]));
    assert_eq!(
        records[0].content,
        Content::Alert {
            level: 2,
            description: 40
        }
    );
}

#[test]
fn encrypted_alert_and_application_data_keep_their_secrets() {
    assert_eq!(
        describe(&parse(&sample::record(21, 1, 5, &[0; 26]))),
        "encrypted alert"
    );
    assert_eq!(
        describe(&parse(&sample::application_data())),
        "application data"
    );
}

#[test]
fn plaintext_records_that_break_their_type_are_malformed() {
    let malformed = [
        sample::record(20, 0, 0, &[2]),
        sample::record(20, 0, 0, &[1, 1]),
        sample::record(21, 0, 0, &[2]),
        sample::record(23, 0, 0, b"data"),
        sample::record(99, 0, 0, b"data"),
        sample::record(22, 0, 0, &[]),
        sample::record(22, 0, 0, &[1, 0, 0, 200]),
        // Offset 5 and length 5 in a message of 6.
        sample::record(
            22,
            0,
            0,
            &[1, 0, 0, 6, 0, 0, 0, 0, 5, 0, 0, 5, 1, 2, 3, 4, 5],
        ),
    ];
    for datagram in malformed {
        assert_eq!(describe(&parse(&datagram)), "malformed", "{datagram:?}");
    }
}

#[test]
fn empty_datagram_has_no_record() {
    assert!(parse(&[]).is_empty());
    assert_eq!(describe(&[]), "empty");
}

#[test]
fn every_named_message_is_found_by_its_name_and_its_number() {
    for message in MessageType::NAMED {
        assert_eq!(message.to_string().parse(), Ok(message));
    }
    let named = (0..=u8::MAX)
        .map(MessageType::from)
        .filter(|message| !matches!(message, MessageType::Other(_)));
    assert_eq!(named.collect::<Vec<_>>(), MessageType::NAMED);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(datagram in proptest::collection::vec(any::<u8>(), 0..200)) {
        let records = parse(&datagram);
        prop_assert!(!describe(&records).is_empty());
        let mut tracker = FlightTracker::default();
        tracker.place(crate::packet::Direction::ToServer, &records);
        tracker.place(crate::packet::Direction::ToClient, &records);
        prop_assert_eq!(records.is_empty(), datagram.is_empty());
    }

    #[test]
    fn damaged_handshakes_never_panic(
        damage in proptest::collection::vec((0..7_usize, any::<usize>(), any::<u8>()), 1..20),
    ) {
        let mut handshake = sample::full_handshake(1);
        for (datagram, at, byte) in damage {
            let payload = &mut handshake[datagram].1;
            let at = at % payload.len();
            payload[at] = byte;
        }
        let mut tracker = FlightTracker::default();
        for (direction, payload) in handshake {
            if let Some(place) = tracker.place(direction, &parse(&payload)) {
                prop_assert!((1..=6).contains(&place.flight));
                prop_assert!(place.transmission >= 1 && place.datagram >= 1);
            }
        }
    }
}
