//! Cuts a byte stream into lines of bounded length. Pure; main thread.

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Short enough.
    Whole(Vec<u8>),
    /// This many bytes, more than the limit; they are gone.
    TooLong(usize),
}

/// Keeps the unfinished line between two reads.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    begun: Vec<u8>,
    /// All bytes of the unfinished line, those beyond the limit included.
    length: usize,
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            begun: Vec::new(),
            length: 0,
        }
    }

    /// Takes what was read and gives the lines that it completes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut complete = Vec::new();
        let mut pieces = bytes.split(|&byte| byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.extend(piece);
            if pieces.peek().is_some() {
                complete.push(self.take());
            }
        }
        complete
    }

    /// The last line, if the input ended without a line end.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        (self.length > 0).then(|| self.take())
    }

    fn extend(&mut self, piece: &[u8]) {
        let room = self.limit.saturating_sub(self.begun.len());
        self.begun
            .extend_from_slice(&piece[..piece.len().min(room)]);
        self.length += piece.len();
    }

    fn take(&mut self) -> Line {
        let begun = std::mem::take(&mut self.begun);
        match std::mem::take(&mut self.length) {
            length if length > self.limit => Line::TooLong(length),
            _ => Line::Whole(begun),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_are_cut() {
        let text = b"one\n\ntwo three\nfour";
        for size in 1..=text.len() {
            let mut lines = Lines::new(100);
            let mut found: Vec<Line> = text
                .chunks(size)
                .flat_map(|chunk| lines.push(chunk))
                .collect();
            found.extend(lines.finish());
            let expected = [whole("one"), whole(""), whole("two three"), whole("four")];
            assert_eq!(found, expected, "in pieces of {size}");
            assert_eq!(lines.finish(), None);
        }
    }

    #[test]
    fn a_line_at_the_limit_is_whole_and_one_byte_more_is_too_long() {
        let mut lines = Lines::new(4);
        let expected = [whole("1234"), Line::TooLong(5), whole("ok")];
        assert_eq!(lines.push(b"1234\n12345\nok\n"), expected);
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_limit() {
        let mut lines = Lines::new(10);
        for _ in 0..1000 {
            assert!(lines.push(&[b'x'; 100]).is_empty());
        }
        assert!(lines.begun.capacity() < 100);
        assert_eq!(lines.push(b"\n"), [Line::TooLong(100_000)]);
    }
}
