//! Bytes to records: RFC 6347 §4.1 and §4.2.2, told as far as no key is needed.

use super::{ClientHello, Content, ContentType, Fragment, MessageType, Record};

/// The records of a datagram. What follows the last whole record, if anything, comes as one
/// malformed record; an empty datagram has none.
#[must_use]
pub fn parse(datagram: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut rest = Reader(datagram);
    while !rest.0.is_empty() {
        let first = rest.0[0];
        match record(&mut rest) {
            Some(record) => records.push(record),
            None => {
                records.push(cut_short(first, datagram.len()));
                break;
            }
        }
    }
    records
}

fn record(rest: &mut Reader<'_>) -> Option<Record> {
    let content_type = ContentType::from(rest.u8()?);
    let version = rest.u16()?;
    let epoch = rest.u16()?;
    let seq = rest.uint(6)?;
    let length = rest.u16()?;
    let body = rest.take(length.into())?;
    let content = if epoch > 0 {
        Content::Encrypted
    } else {
        plaintext(content_type, body).unwrap_or(Content::Malformed)
    };
    Some(Record {
        content_type,
        version,
        epoch,
        seq,
        length,
        content,
    })
}

/// What stands for the bytes that are no record: only the first of them means anything.
fn cut_short(first: u8, length: usize) -> Record {
    Record {
        content_type: ContentType::from(first),
        version: 0,
        epoch: 0,
        seq: 0,
        length: u16::try_from(length).unwrap_or(u16::MAX),
        content: Content::Malformed,
    }
}

fn plaintext(content_type: ContentType, body: &[u8]) -> Option<Content> {
    match content_type {
        ContentType::Handshake => fragments(body).map(Content::Handshake),
        ContentType::ChangeCipherSpec => (body == [1]).then_some(Content::ChangeCipherSpec),
        ContentType::Alert => match *body {
            [level, description] => Some(Content::Alert { level, description }),
            _ => None,
        },
        // Neither application data nor a heartbeat is ever sent in the clear.
        ContentType::ApplicationData | ContentType::Heartbeat | ContentType::Other(_) => None,
    }
}

fn fragments(body: &[u8]) -> Option<Vec<Fragment>> {
    let mut rest = Reader(body);
    let mut fragments = Vec::new();
    while !rest.0.is_empty() {
        let message = MessageType::from(rest.u8()?);
        let length = rest.u24()?;
        let message_seq = rest.u16()?;
        let offset = rest.u24()?;
        let fragment_length = rest.u24()?;
        let part = rest.take(fragment_length as usize)?;
        if offset + fragment_length > length {
            return None;
        }
        let hello = (message == MessageType::ClientHello && offset == 0)
            .then(|| client_hello(part))
            .flatten();
        fragments.push(Fragment {
            message,
            message_seq,
            length,
            offset,
            fragment_length,
            hello,
            body: part.to_vec(),
        });
    }
    (!fragments.is_empty()).then_some(fragments)
}

/// RFC 6347 §4.2.1: version, random, session id, cookie.
fn client_hello(part: &[u8]) -> Option<ClientHello> {
    let mut rest = Reader(part);
    rest.u16()?;
    let random = rest.take(32)?.try_into().ok()?;
    let session_id = rest.u8()?;
    rest.take(session_id.into())?;
    let cookie = usize::from(rest.u8()?);
    // A fragment may end within it.
    let cookie = rest.0[..cookie.min(rest.0.len())].to_vec();
    Some(ClientHello { random, cookie })
}

/// Takes big-endian numbers off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn uint(&mut self, length: usize) -> Option<u64> {
        let bytes = self.take(length)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.uint(2)?.try_into().ok()
    }

    fn u24(&mut self) -> Option<u32> {
        self.uint(3)?.try_into().ok()
    }
}
