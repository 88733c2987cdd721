//! What someone who knows the 4-tuple can send, by kind, and where OpenSSL alone takes it badly.
//!
//! One thing is missing because it cannot be told from the real thing: a well-formed plaintext
//! handshake message of the expected kind with the next `message_seq`.

use super::pair::record;

/// Where the forged datagrams arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    ServerInHandshake,
    ClientInHandshake,
    ServerEstablished,
    ClientEstablished,
}

pub(crate) const STATES: [State; 4] = [
    State::ServerInHandshake,
    State::ClientInHandshake,
    State::ServerEstablished,
    State::ClientEstablished,
];

/// One kind of forgery.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// States in which OpenSSL alone does not survive it.
    pub(crate) fatal: &'static [State],
}

pub(crate) const HANDSHAKE: &[State] = &[State::ServerInHandshake, State::ClientInHandshake];
const SERVER_HANDSHAKE: &[State] = &[State::ServerInHandshake];
const EVERYWHERE: &[State] = &STATES;

/// A fragment header and a body.
pub(crate) fn message(
    message_type: u8,
    length: u32,
    sequence: u16,
    offset: u32,
    body: &[u8],
) -> Vec<u8> {
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

pub(crate) fn table() -> Vec<Row> {
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
            "a long ClientHello from the future",
            SERVER_HANDSHAKE,
            vec![plain(22, &message(1, 20_000, 5, 0, b"x"))],
        ),
        row(
            "one more ClientHello",
            SERVER_HANDSHAKE,
            vec![plain(22, &message(1, 1, 2, 0, b"x"))],
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
