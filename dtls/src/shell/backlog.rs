//! Data that arrived while something else was waited for. Runs on the connection's own thread.

use std::collections::VecDeque;

/// Records' data in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    records: VecDeque<Vec<u8>>,
    /// Bytes of the first that have been taken.
    taken: usize,
    bytes: usize,
}

/// What a UDP socket keeps by default on Linux (`rmem_default`, `socket(7)`).
const LIMIT: usize = 212_992;

/// What a record costs beside its data, so that many short ones are bounded too.
const PER_RECORD: usize = 64;

impl Backlog {
    /// Keeps a record's data; says no when full.
    pub(crate) fn put(&mut self, data: &[u8]) -> bool {
        let cost = data.len() + PER_RECORD;
        let fits = self.bytes + cost <= LIMIT;
        if fits {
            self.bytes += cost;
            self.records.push_back(data.to_vec());
        }
        fits
    }

    /// Copies the oldest record's data into `buffer`, or as much as fits; the rest comes next.
    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let first = self.records.front()?;
        let left = &first[self.taken..];
        let length = left.len().min(buffer.len());
        buffer[..length].copy_from_slice(&left[..length]);
        self.taken += length;
        if self.taken == first.len() {
            self.bytes -= first.len() + PER_RECORD;
            self.taken = 0;
            self.records.pop_front();
        }
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_out_in_order_and_long_records_in_pieces() {
        let mut backlog = Backlog::default();
        assert!(backlog.put(b"hello") && backlog.put(b"x"));
        let mut buffer = [0; 3];
        let taken: Vec<Vec<u8>> = std::iter::from_fn(|| {
            let length = backlog.take(&mut buffer)?;
            Some(buffer[..length].to_vec())
        })
        .collect();
        assert_eq!(taken, [&b"hel"[..], b"lo", b"x"]);
        assert_eq!(backlog.bytes, 0);
    }

    #[test]
    fn a_full_backlog_takes_no_more_until_something_is_taken() {
        let mut backlog = Backlog::default();
        while backlog.put(&[7; 1000]) {}
        assert!(backlog.bytes <= LIMIT && backlog.bytes > LIMIT - 2 * 1064);
        assert_eq!(backlog.take(&mut [0; 1000]), Some(1000));
        assert!(backlog.put(&[7; 1000]));
    }
}
