//! Heartbeat messages (RFC 6520 §4): one byte of type, two of payload length, payload, padding.
//!
//! Pure but for the padding's randomness; runs on the thread that owns the connection.

use openssl::error::ErrorStack;

/// Which of the two messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Wants its payload back.
    Request = 1,
    /// Brings it.
    Response = 2,
}

/// A message as received. The padding is checked for its length and otherwise ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'a [u8],
}

/// Type and payload length.
const HEADER: usize = 1 + 2;

/// The least padding, which is also what we send.
const PADDING: usize = 16;

/// What a message of ours is longer than its payload.
pub(crate) const OVERHEAD: usize = HEADER + PADDING;

/// The longest message.
const LONGEST: usize = 1 << 14;

impl<'a> Message<'a> {
    /// Reads the plaintext of a record. `None`: an unknown type, a payload that with its padding
    /// would not fit into the record, or more than a message may have.
    pub(crate) fn parse(plaintext: &'a [u8]) -> Option<Self> {
        if plaintext.len() > LONGEST {
            return None;
        }
        let (&[kind, l0, l1], rest) = plaintext.split_first_chunk::<HEADER>()?;
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Response,
            _ => return None,
        };
        let claimed = usize::from(u16::from_be_bytes([l0, l1]));
        let (payload, padding) = rest.split_at_checked(claimed)?;
        (padding.len() >= PADDING).then_some(Self { kind, payload })
    }
}

/// A message with random padding. The payload comes out of another message, or is short.
///
/// # Errors
/// OpenSSL has no randomness.
pub(crate) fn write(kind: Kind, payload: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    debug_assert!(payload.len() <= LONGEST - OVERHEAD, "a payload fits");
    let [.., l0, l1] = payload.len().to_be_bytes();
    let mut message = vec![0; OVERHEAD + payload.len()];
    let (header, rest) = message.split_at_mut(HEADER);
    let (copy, padding) = rest.split_at_mut(payload.len());
    header.copy_from_slice(&[kind as u8, l0, l1]);
    copy.copy_from_slice(payload);
    openssl::rand::rand_bytes(padding)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(kind: u8, claimed: u16, rest: usize) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend(claimed.to_be_bytes());
        message.resize(HEADER + rest, 0xaa);
        message
    }

    #[test]
    fn a_message_whose_payload_and_padding_just_fit_is_taken_and_one_byte_more_is_not() {
        for claimed in [0, 1, 16, 1000] {
            let rest = usize::from(claimed) + PADDING;
            let parsed = raw(1, claimed, rest);
            assert_eq!(
                Message::parse(&parsed).unwrap().payload.len(),
                claimed.into()
            );
            assert_eq!(Message::parse(&raw(1, claimed + 1, rest)), None);
            assert_eq!(Message::parse(&raw(1, claimed, rest - 1)), None);
        }
    }

    #[test]
    fn a_payload_length_that_lies_is_refused_whatever_it_claims() {
        for claimed in [2, 3, 17, 18, 19, 0x3fff, 0x4000, 0x8000, 0xffee, 0xffff] {
            assert_eq!(Message::parse(&raw(1, claimed, 17)), None, "{claimed}");
        }
        for length in 0..OVERHEAD {
            assert_eq!(Message::parse(&raw(1, 0, 16)[..length]), None, "{length}");
        }
    }

    #[test]
    fn unknown_types_and_messages_beyond_the_limit_are_refused() {
        for kind in [0, 3, 24, 255] {
            assert_eq!(Message::parse(&raw(kind, 1, 17)), None);
        }
        assert!(Message::parse(&raw(2, 1, LONGEST - HEADER)).is_some());
        assert_eq!(Message::parse(&raw(2, 1, LONGEST - HEADER + 1)), None);
    }

    #[test]
    fn padding_is_not_repeated() {
        let [one, other] = [(); 2].map(|()| write(Kind::Request, b"payload").unwrap());
        assert_eq!(one[..10], other[..10]);
        assert_ne!(one[10..], other[10..]);
    }

    proptest! {
        #[test]
        fn any_plaintext_gives_a_payload_that_lies_within_it_and_is_echoed_exactly(
            plaintext in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 0_u8..4,
            claimed in 0_u16..220,
        ) {
            let mut likely = plaintext.clone();
            if let Some(start) = likely.first_chunk_mut::<3>() {
                let [l0, l1] = claimed.to_be_bytes();
                *start = [kind, l0, l1];
            }
            for plaintext in [plaintext, likely] {
                if let Some(message) = Message::parse(&plaintext) {
                    let payload = message.payload;
                    prop_assert!(payload.len() + OVERHEAD <= plaintext.len());
                    prop_assert_eq!(payload, &plaintext[3..3 + payload.len()]);
                    let answer = write(Kind::Response, payload).unwrap();
                    prop_assert!(answer.len() <= plaintext.len());
                    let expected = Message { kind: Kind::Response, payload };
                    prop_assert_eq!(Message::parse(&answer), Some(expected));
                }
            }
        }
    }
}
