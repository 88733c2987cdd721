//! Each rule of every run is kept by a good handshake and broken by the one made to break it.

use super::*;
use crate::packet::Direction;
use crate::record::{self, FlightTracker, sample};

/// Sends these datagrams over a perfect wire; the ids of the rules they break.
fn broken_by(datagrams: &[(Direction, Vec<u8>)]) -> Vec<RuleId> {
    let mut watcher = Watcher::default();
    let mut tracker = FlightTracker::default();
    for (ordinal, (direction, payload)) in (1..).zip(datagrams) {
        let records = record::parse(payload);
        let place = tracker.place(*direction, &records);
        watcher.passes(&Passing {
            flow: 0,
            direction: *direction,
            ordinal,
            length: payload.len() + 28,
            rebound: false,
            place: place.as_ref(),
            records: &records,
        });
        watcher.arrives(Arrival::Sent {
            flow: 0,
            direction: *direction,
            ordinal,
        });
    }
    watcher.broken().keys().copied().collect()
}

/// A good handshake, its records numbered as both ends number them.
fn handshake() -> Vec<(Direction, Vec<u8>)> {
    let mut datagrams = sample::full_handshake(1);
    let mut next = [[0; 2]; 2];
    for (direction, payload) in &mut datagrams {
        let mut start = 0;
        for record in record::parse(payload) {
            let number = &mut next[*direction as usize][usize::from(record.epoch)];
            payload[start + LAST_OF_NUMBER] = *number;
            *number += 1;
            start += 13 + usize::from(record.length);
        }
    }
    datagrams
}

/// The last byte of the record number in a record header.
const LAST_OF_NUMBER: usize = 10;

#[test]
fn good_handshake_breaks_no_rule() {
    assert_eq!(broken_by(&handshake()), []);
}

#[test]
fn every_rule_stands_in_the_table_once_and_in_order() {
    assert!(RULES.is_sorted_by_key(|rule| rule.id));
    let mut ids: Vec<_> = RULES.iter().map(|rule| rule.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), RULES.len());
}

#[test]
fn flight_4_without_a_cookie_breaks_c1_and_c4() {
    let mut datagrams = handshake();
    // HelloVerifyRequest and the hello with the cookie.
    datagrams.drain(1..3);
    let broken = broken_by(&datagrams);
    assert!(broken.contains(&RuleId::C1), "{broken:?}");
    assert!(broken.contains(&RuleId::C4), "{broken:?}");
}

#[test]
fn server_hello_with_another_number_than_its_hello_breaks_c2() {
    let mut datagrams = handshake();
    let (_, flight_4) = &mut datagrams[3];
    flight_4[LAST_OF_NUMBER] += 90;
    assert_eq!(broken_by(&datagrams), [RuleId::C2]);
}

#[test]
fn repeated_record_number_breaks_t3() {
    let mut datagrams = handshake();
    let again = datagrams[3].clone();
    datagrams.insert(4, again);
    assert_eq!(broken_by(&datagrams), [RuleId::T3]);
}

#[test]
fn last_flight_that_nobody_asked_for_breaks_t6() {
    let mut datagrams = handshake();
    let (direction, mut last) = datagrams.last().cloned().expect("it has datagrams");
    let mut start = 0;
    for record in record::parse(&last) {
        last[start + LAST_OF_NUMBER] += 20;
        start += 13 + usize::from(record.length);
    }
    datagrams.push((direction, last));
    assert_eq!(broken_by(&datagrams), [RuleId::T6]);
}

#[test]
fn flight_4_for_a_cookie_that_was_not_asked_for_breaks_c3() {
    let mut datagrams = handshake();
    let (_, question) = &mut datagrams[1];
    *question.last_mut().expect("a cookie") ^= 1;
    let broken = broken_by(&datagrams);
    assert!(broken.contains(&RuleId::C3), "{broken:?}");
    assert!(!broken.contains(&RuleId::C1), "{broken:?}");
}

#[test]
fn hello_verify_request_that_nobody_asked_for_breaks_c5() {
    let mut datagrams = handshake();
    let again = datagrams[1].clone();
    datagrams.insert(2, again);
    assert!(broken_by(&datagrams).contains(&RuleId::C5));
}

#[test]
fn message_that_comes_again_as_another_breaks_t3() {
    let mut datagrams = handshake();
    let (direction, mut again) = datagrams[3].clone();
    again[LAST_OF_NUMBER] += 90;
    // The last byte of its first message.
    let length = usize::from(again[12]);
    again[13 + length - 1] ^= 1;
    datagrams.insert(4, (direction, again));
    assert_eq!(broken_by(&datagrams), [RuleId::T3]);
}

#[test]
fn alert_of_an_end_that_goes_on_breaks_r2() {
    let mut datagrams = handshake();
    let alert = sample::record(21, 0, 99, &[2, 40]);
    datagrams.insert(4, (Direction::ToServer, alert));
    assert_eq!(broken_by(&datagrams), [RuleId::R2]);
}

#[test]
fn alert_of_an_end_that_ends_breaks_nothing() {
    let mut datagrams = handshake();
    datagrams.push((Direction::ToClient, sample::record(21, 1, 99, &[0; 26])));
    // Its Finished was lost, and is asked for once more.
    datagrams.push((Direction::ToServer, sample::record(22, 1, 100, &[0; 40])));
    datagrams.push((Direction::ToClient, sample::message(4, 6, &[0; 40])));
    assert_eq!(broken_by(&datagrams), []);
}
