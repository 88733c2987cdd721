//! Handshake datagrams for tests, built byte by byte after RFC 6347 §4.1 and §4.2.2.

use crate::packet::Direction;

/// A record around `body`.
pub(crate) fn record(content_type: u8, epoch: u16, seq: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![content_type, 0xfe, 0xfd];
    bytes.extend(epoch.to_be_bytes());
    bytes.extend(&seq.to_be_bytes()[2..]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A plaintext record with the whole message.
pub(crate) fn message(message_type: u8, message_seq: u16, body: &[u8]) -> Vec<u8> {
    fragment(message_type, message_seq, body, 0..body.len())
}

/// A plaintext record with a part of the message.
pub(crate) fn fragment(
    message_type: u8,
    message_seq: u16,
    body: &[u8],
    part: std::ops::Range<usize>,
) -> Vec<u8> {
    let u24 = |number: usize| u32::try_from(number).unwrap().to_be_bytes()[1..].to_vec();
    let mut bytes = vec![message_type];
    bytes.extend(u24(body.len()));
    bytes.extend(message_seq.to_be_bytes());
    bytes.extend(u24(part.start));
    bytes.extend(u24(part.len()));
    bytes.extend(&body[part]);
    record(22, 0, 0, &bytes)
}

/// A ClientHello, with a cookie of 32 bytes or none.
pub(crate) fn client_hello(random: u8, cookie: bool) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend([random; 32]);
    body.push(0);
    body.push(if cookie { 32 } else { 0 });
    body.extend(vec![7; if cookie { 32 } else { 0 }]);
    body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    message(1, u16::from(cookie), &body)
}

pub(crate) fn hello_verify() -> Vec<u8> {
    let mut body = vec![0xfe, 0xff, 32];
    body.extend([7; 32]);
    message(3, 0, &body)
}

pub(crate) fn server_hello() -> Vec<u8> {
    message(2, 1, &[0xfe; 70])
}

pub(crate) fn certificate() -> Vec<u8> {
    message(11, 2, &[0x30; 500])
}

pub(crate) fn server_hello_done() -> Vec<u8> {
    message(14, 4, &[])
}

pub(crate) fn client_key_exchange() -> Vec<u8> {
    message(16, 2, &[4; 66])
}

pub(crate) fn new_session_ticket() -> Vec<u8> {
    message(4, 5, &[9; 120])
}

pub(crate) fn change_cipher_spec() -> Vec<u8> {
    record(20, 0, 9, &[1])
}

pub(crate) fn finished() -> Vec<u8> {
    record(22, 1, 0, &[0xee; 40])
}

pub(crate) fn application_data() -> Vec<u8> {
    record(23, 1, 1, &[0xdd; 40])
}

/// One full handshake with cookie, one datagram a flight except the fourth, which has two.
pub(crate) fn full_handshake(random: u8) -> Vec<(Direction, Vec<u8>)> {
    use Direction::{ToClient, ToServer};
    vec![
        (ToServer, client_hello(random, false)),
        (ToClient, hello_verify()),
        (ToServer, client_hello(random, true)),
        (ToClient, [server_hello(), certificate()].concat()),
        (ToClient, server_hello_done()),
        (
            ToServer,
            [client_key_exchange(), change_cipher_spec(), finished()].concat(),
        ),
        (
            ToClient,
            [new_session_ticket(), change_cipher_spec(), finished()].concat(),
        ),
    ]
}
