//! What someone who knows the 4-tuple can send, in each state of each end, in memory: nothing of it
//! ends, stalls or grows a connection. With the record filter switched off (feature `testing`) the
//! rows that OpenSSL alone takes badly do.

mod common;

use common::forgeries::{HANDSHAKE, Row, STATES, State, table};
use common::pair::{Pair, drain, record};
use dtls::core::{Progress, Read};
use dtls::{Counter, ServerConfigBuilder};

/// Whether data flows both ways after a handshake with the row's datagrams thrown in.
fn survives(
    state: State,
    row: &Row,
    adjust: impl FnOnce(ServerConfigBuilder) -> ServerConfigBuilder,
) -> bool {
    let mut pair = Pair::patient(adjust);
    let start = pair.start;
    let flight_4 = pair.up_to_flight_4();
    let in_handshake = HANDSHAKE.contains(&state);
    if !in_handshake {
        pair.finish_from(&flight_4);
    }
    for datagram in &row.datagrams {
        let end = match state {
            State::ServerInHandshake | State::ServerEstablished => pair.server(),
            State::ClientInHandshake | State::ClientEstablished => &mut pair.client,
        };
        end.receive(datagram, start);
        let failed = if in_handshake {
            end.handshake(start).is_err()
        } else {
            !matches!(end.read(&mut [0; 100]), Ok(Read::Empty))
        };
        if failed {
            return false;
        }
        // Nothing forged is answered.
        if !drain(end).is_empty() {
            return false;
        }
    }
    if in_handshake {
        let flight_5 = pair.at_client(&flight_4);
        for datagram in &flight_5 {
            let server = pair.server();
            server.receive(datagram, start);
            if server.handshake(start).is_err() {
                return false;
            }
        }
        let flight_6 = drain(pair.server());
        pair.at_client(&flight_6);
    }
    let done = pair
        .client
        .handshake(start)
        .is_ok_and(|p| p == Progress::Established)
        && pair
            .server()
            .handshake(start)
            .is_ok_and(|p| p == Progress::Established);
    done && pair.client.write(b"ping").is_ok() && {
        for datagram in drain(&mut pair.client) {
            pair.server().receive(&datagram, start);
        }
        matches!(pair.server().read(&mut [0; 100]), Ok(Read::Data(4)))
    }
}

#[test]
fn nothing_forged_ends_or_stalls_a_connection_in_any_state() {
    for row in table() {
        for state in STATES {
            assert!(
                survives(state, &row, |server| server),
                "{} {state:?}",
                row.name
            );
        }
    }
}

#[cfg(feature = "testing")]
#[test]
fn without_the_record_filter_the_rows_marked_fatal_end_the_server() {
    for row in table() {
        for state in [State::ServerInHandshake, State::ServerEstablished] {
            let survived = survives(state, &row, |server| {
                server.without(dtls::Safeguard::RecordFilter)
            });
            if row.fatal.contains(&state) {
                assert!(!survived, "{} {state:?} is not fatal to OpenSSL", row.name);
            }
        }
    }
}

#[test]
fn ten_thousand_bad_records_change_nothing_and_are_all_counted() {
    let mut pair = Pair::new();
    let flight_4 = pair.up_to_flight_4();
    pair.finish_from(&flight_4);
    let start = pair.start;
    for number in 0..10_000 {
        let forged = record(23, 1, number, &[7; 60]);
        pair.server().receive(&forged, start);
        assert_eq!(pair.server().read(&mut [0; 100]).unwrap(), Read::Empty);
        let runt = record(23, 1, number, &[7; 10]);
        pair.server().receive(&runt, start);
    }
    assert_eq!(pair.server_stats.get(Counter::DroppedRunt), 10_000);
    pair.assert_data_both_ways();
}
