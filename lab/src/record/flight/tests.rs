//! Flights and transmissions of full, resumed, repeated and restarted handshakes.

use super::{FlightTracker, Place};
use crate::packet::Direction::{self, ToClient, ToServer};
use crate::record::{parse, sample};

fn place(tracker: &mut FlightTracker, direction: Direction, datagram: &[u8]) -> Place {
    tracker.place(direction, &parse(datagram)).unwrap()
}

fn numbers(place: Place) -> (u8, u32, u32, bool) {
    (place.flight, place.transmission, place.datagram, place.last)
}

#[test]
fn full_handshake_has_six_flights() {
    let mut tracker = FlightTracker::default();
    let places: Vec<_> = sample::full_handshake(1)
        .into_iter()
        .map(|(direction, datagram)| place(&mut tracker, direction, &datagram))
        .collect();
    assert_eq!(
        places.iter().copied().map(numbers).collect::<Vec<_>>(),
        [
            (1, 1, 1, true),
            (2, 1, 1, true),
            (3, 1, 1, true),
            (4, 1, 1, false),
            (4, 1, 2, true),
            (5, 1, 1, true),
            (6, 1, 1, true),
        ]
    );
    assert!(
        places
            .iter()
            .all(|place| !place.resumed && place.handshake == 1)
    );
}

#[test]
fn resumed_handshake_closes_with_flights_4_and_5() {
    let mut tracker = FlightTracker::default();
    place(&mut tracker, ToServer, &sample::client_hello(1, false));
    place(&mut tracker, ToClient, &sample::hello_verify());
    place(&mut tracker, ToServer, &sample::client_hello(1, true));
    let closing = [sample::change_cipher_spec(), sample::finished()].concat();
    let server = place(
        &mut tracker,
        ToClient,
        &[
            sample::server_hello(),
            sample::new_session_ticket(),
            closing.clone(),
        ]
        .concat(),
    );
    assert_eq!(numbers(server), (4, 1, 1, true));
    let client = place(&mut tracker, ToServer, &closing);
    assert_eq!(numbers(client), (5, 1, 1, true));
    assert!(client.resumed);
}

#[test]
fn server_without_cookie_goes_from_flight_1_to_4() {
    let mut tracker = FlightTracker::default();
    assert_eq!(
        place(&mut tracker, ToServer, &sample::client_hello(1, false)).flight,
        1
    );
    assert_eq!(
        place(&mut tracker, ToClient, &sample::server_hello()).flight,
        4
    );
}

#[test]
fn repeated_flight_is_a_second_transmission_even_in_other_datagrams() {
    let mut tracker = FlightTracker::default();
    for (direction, datagram) in &sample::full_handshake(1)[..5] {
        place(&mut tracker, *direction, datagram);
    }
    // OpenSSL sends each message of a repeated flight in a datagram of its own.
    let again = [
        sample::server_hello(),
        sample::certificate(),
        sample::server_hello_done(),
    ];
    let places = again.map(|datagram| numbers(place(&mut tracker, ToClient, &datagram)));
    assert_eq!(
        places,
        [(4, 2, 1, false), (4, 2, 2, false), (4, 2, 3, true)]
    );
}

#[test]
fn repeated_flight_with_other_fragments_is_one_transmission() {
    let mut tracker = FlightTracker::default();
    place(&mut tracker, ToServer, &sample::client_hello(1, true));
    let body = [0x30; 900];
    let parts = |parts: &[std::ops::Range<usize>]| {
        parts
            .iter()
            .map(|part| sample::fragment(11, 1, &body, part.clone()))
            .collect::<Vec<_>>()
    };
    for datagram in parts(&[0..600, 600..900]) {
        assert_eq!(place(&mut tracker, ToClient, &datagram).transmission, 1);
    }
    for datagram in parts(&[0..300, 300..600, 600..900]) {
        assert_eq!(place(&mut tracker, ToClient, &datagram).transmission, 2);
    }
}

#[test]
fn every_repeat_of_the_last_flight_is_counted() {
    let mut tracker = FlightTracker::default();
    let handshake = sample::full_handshake(1);
    for (direction, datagram) in &handshake {
        place(&mut tracker, *direction, datagram);
    }
    for transmission in 2..5 {
        let (direction, datagram) = &handshake[6];
        assert_eq!(
            place(&mut tracker, *direction, datagram).transmission,
            transmission
        );
    }
}

#[test]
fn hello_with_another_random_begins_a_new_handshake() {
    let mut tracker = FlightTracker::default();
    for (direction, datagram) in sample::full_handshake(1) {
        place(&mut tracker, direction, &datagram);
    }
    for (direction, datagram) in sample::full_handshake(2) {
        let place = place(&mut tracker, direction, &datagram);
        assert_eq!((place.handshake, place.transmission), (2, 1));
    }
}

#[test]
fn hello_in_two_fragments_keeps_its_flight() {
    let mut tracker = FlightTracker::default();
    let hello = sample::client_hello(1, true);
    let body = &hello[25..];
    for (part, last) in [(0..70, false), (70..body.len(), true)] {
        let datagram = sample::fragment(1, 1, body, part);
        let place = place(&mut tracker, ToServer, &datagram);
        assert_eq!((place.flight, place.transmission, place.last), (3, 1, last));
    }
}

#[test]
fn application_data_and_alerts_belong_to_no_flight() {
    let mut tracker = FlightTracker::default();
    for (direction, datagram) in sample::full_handshake(1) {
        place(&mut tracker, direction, &datagram);
    }
    for datagram in [
        sample::application_data(),
        sample::record(21, 1, 2, &[0; 26]),
        Vec::new(),
    ] {
        assert_eq!(tracker.place(ToServer, &parse(&datagram)), None);
    }
}

#[test]
fn datagram_with_the_end_of_two_flights_is_of_the_later() {
    let mut tracker = FlightTracker::default();
    for (direction, datagram) in &sample::full_handshake(1)[..6] {
        place(&mut tracker, *direction, datagram);
    }
    // The server's timer ran out just when flight 5 came.
    let again = place(
        &mut tracker,
        ToClient,
        &[sample::server_hello(), sample::certificate()].concat(),
    );
    assert_eq!(numbers(again), (4, 2, 1, false));
    let both = [
        sample::server_hello_done(),
        sample::new_session_ticket(),
        sample::change_cipher_spec(),
        sample::finished(),
    ];
    let both = place(&mut tracker, ToClient, &both.concat());
    assert_eq!(numbers(both), (6, 1, 1, true));
}
