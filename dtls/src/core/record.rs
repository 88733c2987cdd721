//! The 13-byte record header and the 12-byte handshake header (RFC 6347 §4.1, §4.2.2), and nothing
//! behind them. Pure; runs on the thread that owns the datagram.

use super::cookie::COOKIE;

/// Length of a record header.
pub(crate) const RECORD_HEADER: usize = 13;
/// Length of a handshake message header.
pub(crate) const HANDSHAKE_HEADER: usize = 12;

/// Content types (RFC 5246 §6.2.1).
pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;
/// RFC 6520 §3.
pub(crate) const HEARTBEAT: u8 = 24;
/// Handshake type of a ClientHello (RFC 5246 §7.4).
pub(crate) const CLIENT_HELLO: u8 = 1;
/// The same of a ServerHello.
pub(crate) const SERVER_HELLO: u8 = 2;
/// Handshake type of a `HelloVerifyRequest` (RFC 6347 §4.2.2).
pub(crate) const HELLO_VERIFY_REQUEST: u8 = 3;

/// The largest record body of TLS 1.2 (RFC 5246 §6.2.3): 2^14 + 2048.
const MAX_BODY: usize = (1 << 14) + 2048;

/// One record of a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) content_type: u8,
    pub(crate) epoch: u16,
    /// 48 bits.
    pub(crate) sequence: u64,
    pub(crate) body: &'a [u8],
    /// Header and body.
    pub(crate) bytes: &'a [u8],
}

/// Splits the first record off a datagram. `None`: what is left is not a whole DTLS record.
pub(crate) fn split_record(datagram: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (header, _) = datagram.split_first_chunk::<RECORD_HEADER>()?;
    let [
        content_type,
        major,
        _minor,
        e0,
        e1,
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        l0,
        l1,
    ] = *header;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if major != 0xfe || length > MAX_BODY {
        return None;
    }
    let (bytes, rest) = datagram.split_at_checked(RECORD_HEADER + length)?;
    let record = Record {
        content_type,
        epoch: u16::from_be_bytes([e0, e1]),
        sequence: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
        body: &bytes[RECORD_HEADER..],
        bytes,
    };
    Some((record, rest))
}

/// Writes a record number into the header at the start of `record`.
pub(crate) fn set_sequence(record: &mut [u8], sequence: u64) {
    if let Some(field) = record.get_mut(5..11) {
        field.copy_from_slice(&sequence.to_be_bytes()[2..]);
    }
}

/// The handshake header fields that can contradict each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragment {
    pub(crate) message_type: u8,
    pub(crate) message_length: usize,
    pub(crate) message_seq: u16,
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

/// Splits the first handshake fragment off a record body. `None`: it does not fit its record.
pub(crate) fn split_fragment(body: &[u8]) -> Option<(Fragment, &[u8])> {
    let (header, rest) = body.split_first_chunk::<HANDSHAKE_HEADER>()?;
    let [message_type, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2] = *header;
    let u24 = |a, b, c| u32::from_be_bytes([0, a, b, c]) as usize;
    let fragment = Fragment {
        message_type,
        message_length: u24(l0, l1, l2),
        message_seq: u16::from_be_bytes([s0, s1]),
        offset: u24(o0, o1, o2),
        length: u24(f0, f1, f2),
    };
    Some((fragment, rest.get(fragment.length..)?))
}

/// Whether a datagram starts like a ClientHello in the clear. Returns its record number.
pub(crate) fn client_hello_sequence(datagram: &[u8]) -> Option<u64> {
    let (record, _) = split_record(datagram)?;
    let is_hello = record.content_type == HANDSHAKE
        && record.epoch == 0
        && record.body.first() == Some(&CLIENT_HELLO)
        && record.body.len() >= HANDSHAKE_HEADER;
    is_hello.then_some(record.sequence)
}

/// The cookie of a `HelloVerifyRequest`: behind the handshake header, a version and a length.
pub(crate) fn cookie(body: &[u8]) -> Option<&[u8]> {
    let (fragment, _) = split_fragment(body)?;
    let (&length, rest) = body.get(HANDSHAKE_HEADER + 2..)?.split_first()?;
    let is_it = fragment.message_type == HELLO_VERIFY_REQUEST;
    rest.get(..length.into()).filter(|_| is_it)
}

/// What tells one handshake of a client from another (RFC 5246 §7.4.1.2).
pub(crate) type HelloRandom = [u8; 32];

/// The client's random, if a datagram starts with the first fragment of a ClientHello.
pub(crate) fn client_hello_random(datagram: &[u8]) -> Option<HelloRandom> {
    client_hello_sequence(datagram)?;
    let (record, _) = split_record(datagram)?;
    let (fragment, _) = split_fragment(record.body)?;
    // Behind the handshake header and the client's version.
    let random = record.body.get(HANDSHAKE_HEADER + 2..)?.first_chunk()?;
    (fragment.offset == 0).then_some(*random)
}

/// What tells a hello that began a connection from every other: a client whose randoms repeat is asked
/// for a cookie anew, and one that repeats its hello shows the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HelloId {
    pub(crate) random: HelloRandom,
    pub(crate) cookie: [u8; COOKIE],
}

/// Of a datagram that starts with a ClientHello that shows a cookie of our form.
pub(crate) fn client_hello_id(datagram: &[u8]) -> Option<HelloId> {
    Some(HelloId {
        random: client_hello_random(datagram)?,
        cookie: client_hello_cookie(datagram)?.try_into().ok()?,
    })
}

/// Whether a datagram starts with a ClientHello that shows a cookie, good or not.
pub(crate) fn client_hello_has_cookie(datagram: &[u8]) -> bool {
    client_hello_cookie(datagram).is_some_and(|cookie| !cookie.is_empty())
}

/// The cookie of the ClientHello that a datagram starts with: behind the random and a session's id.
fn client_hello_cookie(datagram: &[u8]) -> Option<&[u8]> {
    client_hello_random(datagram)?;
    let (record, _) = split_record(datagram)?;
    let session = record.body.get(HANDSHAKE_HEADER + 2 + 32..)?;
    let (&length, rest) = session.split_first()?;
    let (&length, rest) = rest.get(usize::from(length)..)?.split_first()?;
    rest.get(..usize::from(length))
}

/// A record, for the tests of this crate.
#[cfg(test)]
pub(crate) fn write(content_type: u8, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a test's record is short");
    let mut bytes = vec![content_type, 0xfe, 0xfd];
    bytes.extend(epoch.to_be_bytes());
    bytes.extend(&sequence.to_be_bytes()[2..]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}
