//! The frames of syslog over DTLS (RFC 6012 §5.4): a record holds one message or several, each after
//! its length in decimal digits and a space. A plain UDP collector expects one message a datagram
//! and no length (RFC 5426 §3.1). Worker thread.

use std::ops::Range;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What becomes of frames on their way to the backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SyslogFrames {
    /// Nothing: they go on as they come
    #[default]
    Keep,
    /// Each message goes on as a datagram of its own, without its length; what is no frame goes on
    /// as it comes
    Split,
}

/// Digits of the longest length: a record has no more than 16,384 bytes.
const DIGITS: usize = 5;

/// Whether this is a record of frames and of nothing else. A message begins with its priority in
/// angle brackets, so one without a length cannot be taken for a frame.
pub(super) fn are_all(record: &[u8]) -> bool {
    let mut rest = record;
    while let Some(message) = first(rest) {
        rest = &rest[message.end..];
    }
    rest.is_empty() && !record.is_empty()
}

/// Where the message of the first frame lies.
pub(super) fn first(record: &[u8]) -> Option<Range<usize>> {
    let digits = record
        .iter()
        .take(DIGITS)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if record.first() == Some(&b'0') || record.get(digits) != Some(&b' ') {
        return None;
    }
    let length: usize = str::from_utf8(&record[..digits]).ok()?.parse().ok()?;
    let message = digits + 1..digits + 1 + length;
    let begins = record.get(message.clone())?.first() == Some(&b'<');
    begins.then_some(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(record: &[u8]) -> Option<Vec<&[u8]>> {
        let mut messages = Vec::new();
        let mut rest = record;
        while let Some(message) = first(rest) {
            messages.push(&rest[message.clone()]);
            rest = &rest[message.end..];
        }
        are_all(record).then_some(messages)
    }

    #[test]
    fn frames_are_told_from_everything_else() {
        let one: Option<Vec<&[u8]>> = Some(vec![b"<13>1 - - - - - - hello"]);
        assert_eq!(split(b"23 <13>1 - - - - - - hello"), one);
        assert_eq!(split(b"1 <2 <>"), Some(vec![&b"<"[..], b"<>"]));
        for other in [
            "",
            " ",
            "3",
            "3 ",
            "<13>1 - - - - - - no length",
            "<13>1 - - - - - - 2 <>",
            "3 <>",
            "1 <>",
            "2 ab",
            "0 ",
            "0 <",
            "02 <>",
            "+2 <>",
            "-1 <>",
            "2  <",
            "2\t<>",
            "2 <>\n",
            "2 <>3 <>",
            "99999 <>",
            "100000 <>",
            "18446744073709551615 <>",
            "18446744073709551616 <>",
        ] {
            assert_eq!(split(other.as_bytes()), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_framed_is_found_again(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..8),
        ) {
            let messages: Vec<Vec<u8>> =
                contents.iter().map(|rest| [b"<", &rest[..]].concat()).collect();
            let mut record = Vec::new();
            for message in &messages {
                record.extend(format!("{} ", message.len()).bytes());
                record.extend(message);
            }
            let found = split(&record).expect("frames");
            prop_assert_eq!(found, messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn no_record_makes_the_parser_panic(record in prop::collection::vec(any::<u8>(), 0..40)) {
            split(&record);
        }

        #[test]
        fn nothing_that_looks_like_a_frame_makes_it_panic(record in "[0-9]{0,21} ?[<>0-9 ]{0,30}") {
            split(record.as_bytes());
        }
    }
}
