//! What someone who knows the 4-tuple can send, in each state of each end, in memory: nothing of it
//! ends, stalls or grows a connection. With the record filter switched off (feature `testing`) the
//! rows that OpenSSL alone takes badly do.
//!
//! One thing is missing from the table because it cannot be told from the real thing: a well-formed
//! plaintext handshake message of the expected kind with the next `message_seq`.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use common::pair::{Pair, drain, record};
use dtls::core::{Progress, Read};
use dtls::{Counter, ServerConfigBuilder};
use dtls_certs::Profile;

/// Where the forged datagrams arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ServerInHandshake,
    ClientInHandshake,
    ServerEstablished,
    ClientEstablished,
}

const STATES: [State; 4] = [
    State::ServerInHandshake,
    State::ClientInHandshake,
    State::ServerEstablished,
    State::ClientEstablished,
];

/// One kind of forgery.
struct Row {
    name: &'static str,
    datagrams: Vec<Vec<u8>>,
    /// States in which OpenSSL alone does not survive it.
    #[cfg_attr(
        not(feature = "testing"),
        expect(dead_code, reason = "read where the filter can be switched off")
    )]
    fatal: &'static [State],
}

const HANDSHAKE: &[State] = &[State::ServerInHandshake, State::ClientInHandshake];
const SERVER_HANDSHAKE: &[State] = &[State::ServerInHandshake];
const EVERYWHERE: &[State] = &STATES;

/// A fragment header and a body.
fn message(message_type: u8, length: u32, sequence: u16, offset: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![message_type];
    bytes.extend(&length.to_be_bytes()[1..]);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(&offset.to_be_bytes()[1..]);
    bytes.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    bytes.extend(body);
    bytes
}

fn row(name: &'static str, fatal: &'static [State], datagrams: Vec<Vec<u8>>) -> Row {
    Row {
        name,
        datagrams,
        fatal,
    }
}

fn table() -> Vec<Row> {
    let plain = |content_type, body: &[u8]| record(content_type, 0, 9, body);
    let mut tls = plain(22, &[0; 20]);
    tls[1] = 3;
    let mut too_long = plain(23, &[]);
    too_long.truncate(11);
    too_long.extend([0xff, 0xff]);
    vec![
        row(
            "garbage",
            &[],
            vec![b"\x00\x01garbage".to_vec(), vec![0xff; 1400]],
        ),
        row(
            "shorter than a record header",
            &[],
            vec![vec![22, 0xfe, 0xfd]],
        ),
        row(
            "a truncated record",
            &[],
            vec![plain(22, &[0; 60])[..40].to_vec()],
        ),
        row("TLS on UDP", &[], vec![tls]),
        row("an impossible length", &[], vec![too_long]),
        row("a wrong epoch", &[], vec![record(23, 7, 1, &[0; 60])]),
        row("an empty datagram", &[], vec![Vec::new()]),
        row("an empty record", &[], vec![plain(22, &[])]),
        row(
            "a protected record with a bad tag",
            &[],
            vec![record(23, 1, 99, &[7; 60])],
        ),
        row(
            "a protected record shorter than its overhead",
            EVERYWHERE,
            (0..24)
                .map(|length| record(23, 1, 99, &vec![7; length]))
                .collect(),
        ),
        row("a fatal alert", HANDSHAKE, vec![plain(21, &[2, 40])]),
        row("a close_notify", HANDSHAKE, vec![plain(21, &[1, 0])]),
        row(
            "six warnings",
            HANDSHAKE,
            (9..15)
                .map(|number| record(21, 0, number, &[1, 90]))
                .collect(),
        ),
        row("no_renegotiation", HANDSHAKE, vec![plain(21, &[1, 100])]),
        row("a malformed alert", HANDSHAKE, vec![plain(21, &[2])]),
        row(
            "an alert of an unknown level",
            HANDSHAKE,
            vec![plain(21, &[9, 40])],
        ),
        row("an early ChangeCipherSpec", &[], vec![plain(20, &[1])]),
        row("a ChangeCipherSpec of 2", HANDSHAKE, vec![plain(20, &[2])]),
        row("a long ChangeCipherSpec", &[], vec![plain(20, &[1, 1])]),
        row("plaintext data", HANDSHAKE, vec![plain(23, b"data")]),
        row("a heartbeat", HANDSHAKE, vec![plain(24, &[1, 0, 1, 0])]),
        row("an unknown content type", HANDSHAKE, vec![plain(99, b"?")]),
        row(
            "half a handshake header",
            HANDSHAKE,
            vec![plain(22, &[16, 0, 0])],
        ),
        row(
            "a fragment longer than its record",
            HANDSHAKE,
            vec![plain(22, &message(16, 9, 2, 0, b"123456789")[..15])],
        ),
        row(
            "a fragment beyond its message",
            HANDSHAKE,
            vec![plain(22, &message(16, 4, 2, 3, b"xx"))],
        ),
        row(
            "a message of 16 MiB",
            HANDSHAKE,
            vec![plain(22, &message(11, 0xff_ffff, 2, 0, b"x"))],
        ),
        row(
            "a message from the past",
            &[],
            vec![plain(22, &message(16, 1, 0, 0, b"x"))],
        ),
        row(
            "a message from the far future",
            &[],
            vec![plain(22, &message(16, 1, 500, 0, b"x"))],
        ),
        row(
            "a message of an unknown type",
            SERVER_HANDSHAKE,
            vec![plain(22, &message(99, 0, 2, 0, b""))],
        ),
        row(
            "a plaintext Finished",
            SERVER_HANDSHAKE,
            vec![plain(22, &message(20, 12, 2, 0, &[0; 12]))],
        ),
        row(
            "a HelloRequest",
            &[],
            vec![plain(22, &message(0, 0, 9, 0, b""))],
        ),
        row(
            "a record number far ahead",
            HANDSHAKE,
            // An old message, which OpenSSL accepts as a record and ignores as a message.
            vec![record(22, 0, 1 << 40, &message(11, 1, 0, 0, b"x"))],
        ),
    ]
}

/// Whether data flows both ways after a handshake with the row's datagrams thrown in.
fn survives(
    state: State,
    row: &Row,
    adjust: impl FnOnce(ServerConfigBuilder) -> ServerConfigBuilder,
) -> bool {
    let mut pair = Pair::adjusted(Profile::SERVER, adjust);
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
