//! Datagrams as a saboteur looks at them and takes them apart. Pure.

use crate::record::{self, Content, MessageType, Record, fragments};

/// Whether no end may take notice of such a record, in whatever state.
pub(super) fn is_bad(record: &Record) -> bool {
    match record.content {
        Content::Malformed => true,
        Content::Encrypted => record.epoch > 1 || record.length < SHORTEST_SEALED,
        _ => record.version >> 8 != 0xfe,
    }
}

/// Whether nothing in a datagram is sealed.
pub(super) fn is_clear(datagram: &[u8]) -> bool {
    record::parse(datagram).iter().all(|it| it.epoch == 0)
}

pub(super) fn carries(records: &[Record], message: MessageType) -> bool {
    fragments(records).any(|fragment| fragment.message == message)
}

/// The hello with this cookie in place of its own, as the client's second message; `None` for one that is not
/// whole.
pub(super) fn with_cookie(hello: &[u8], cookie: &[u8]) -> Option<Vec<u8>> {
    let body = hello.get(RECORD_HEADER + MESSAGE_HEADER..)?;
    let session_id = usize::from(*body.get(VERSION_AND_RANDOM)?);
    let start = VERSION_AND_RANDOM + 1 + session_id;
    let old = usize::from(*body.get(start)?);
    let mut new = body.get(..start)?.to_vec();
    new.push(u8::try_from(cookie.len()).ok()?);
    new.extend(cookie);
    new.extend(body.get(start + 1 + old..)?);
    let u24 = |number: usize| u32::try_from(number).unwrap_or_default().to_be_bytes()[1..].to_vec();
    let mut message = vec![1];
    message.extend(u24(new.len()));
    message.extend([0, 1, 0, 0, 0]);
    message.extend(u24(new.len()));
    message.extend(new);
    let mut bytes = hello.get(..RECORD_HEADER - 2)?.to_vec();
    bytes.extend(u16::try_from(message.len()).ok()?.to_be_bytes());
    bytes.extend(message);
    Some(bytes)
}

/// The records of a datagram, each as a datagram of its own.
pub(crate) fn split_records(datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<RECORD_HEADER>() {
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let (record, tail) = rest.split_at((RECORD_HEADER + length).min(rest.len()));
        records.push(record.to_vec());
        rest = tail;
    }
    records
}

/// Bytes (RFC 6347 §4.1, §4.2.2).
const RECORD_HEADER: usize = 13;
const MESSAGE_HEADER: usize = 12;
const VERSION_AND_RANDOM: usize = 34;
/// An AEAD's nonce and tag, or no such record (RFC 5288 §3).
const SHORTEST_SEALED: u16 = 24;
