//! Character generator: every datagram is answered with a random number of characters (RFC 864).
//! Worker thread.

use dtls::DtlsStream;
use rand::RngExt as _;

use super::{Ending, ServiceError, for_each_datagram};

/// The most characters in an answer, as RFC 864 says.
const MOST: usize = 512;

/// Characters in a line, as RFC 864 proposes, before its carriage return and line feed.
const LINE: usize = 72;

/// Answers every datagram with 1 to 512 characters. The RFC allows none at all, too, but an empty
/// answer is no datagram here, and its client would wait for a lost one.
///
/// # Errors
/// The connection ended out of order.
pub(super) fn serve(stream: &mut DtlsStream) -> Result<Ending, ServiceError> {
    // Also within the smallest link.
    let most = MOST.min(stream.max_payload());
    let text: Vec<u8> = pattern().take(most).collect();
    for_each_datagram(stream, |stream, _| {
        stream.send(&text[..rand::rng().random_range(1..=most)])
    })
}

/// Lines of 72 out of the 95 printing characters, each line beginning one character later.
fn pattern() -> impl Iterator<Item = u8> {
    let printing = || (b' '..=b'~').cycle();
    (0..95)
        .cycle()
        .flat_map(move |first| printing().skip(first).take(LINE).chain([b'\r', b'\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_lines_of_72_printing_characters_each_shifted_by_one() {
        let text: Vec<u8> = pattern().take(200 * (LINE + 2)).collect();
        let lines: Vec<&[u8]> = text.chunks(LINE + 2).collect();
        assert!(lines.iter().all(|line| line.ends_with(b"\r\n")));
        assert!(lines[0].starts_with(b" !\"#"));
        assert_eq!(lines[0][1..LINE], lines[1][..LINE - 1]);
        assert_eq!(lines[94][..LINE - 1], lines[95 + 93][1..LINE]);
        assert_eq!(lines[95], lines[0]);
    }
}
