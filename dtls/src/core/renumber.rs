//! Record numbers of outgoing plaintext records after `DTLSv1_listen`.
//!
//! OpenSSL 3.2 to 4.0.3 always number the first ServerHello 1. RFC 6347 §4.2.1 wants the number of
//! the ClientHello: after a lost hello the client has already seen 1 (in the HelloVerifyRequest),
//! takes the ServerHello for a replay and waits for a second timeout, 2 s instead of 1. Nothing
//! covers the number of a plaintext record, so it may be rewritten. Pure.

use super::record::{RECORD_HEADER, set_sequence, split_record};

/// The next number for an outgoing epoch-0 record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renumber {
    next: u64,
}

/// Record numbers have 48 bits.
const SEQUENCE_MASK: u64 = (1 << 48) - 1;

impl Renumber {
    /// Starts at the record number of the accepted ClientHello.
    pub(crate) fn starting_at(sequence: u64) -> Self {
        Self {
            next: sequence & SEQUENCE_MASK,
        }
    }

    /// The next number, which is used up.
    pub(crate) fn take(&mut self) -> u64 {
        let taken = self.next;
        self.next = (taken + 1) & SEQUENCE_MASK;
        taken
    }

    /// Renumbers every epoch-0 record of a datagram and leaves the others alone.
    pub(crate) fn apply(&mut self, datagram: &mut [u8]) {
        let mut start = 0;
        while let Some((record, _)) = split_record(&datagram[start..]) {
            let (epoch, length) = (record.epoch, record.bytes.len());
            if epoch == 0 {
                set_sequence(&mut datagram[start..start + RECORD_HEADER], self.take());
            }
            start += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::record::{HANDSHAKE, write};

    fn record(epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
        write(HANDSHAKE, epoch, sequence, body)
    }

    fn sequences(mut datagram: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        while let Some((record, rest)) = split_record(datagram) {
            found.push(record.sequence);
            datagram = rest;
        }
        found
    }

    #[test]
    fn plaintext_records_continue_from_the_hello_and_protected_ones_keep_their_number() {
        let mut renumber = Renumber::starting_at(7);
        let mut datagram = [record(0, 1, b"a"), record(1, 0, b"b"), record(0, 2, b"c")].concat();
        renumber.apply(&mut datagram);
        assert_eq!(sequences(&datagram), [7, 0, 8]);
    }

    #[test]
    fn numbers_wrap_at_48_bits() {
        let mut renumber = Renumber::starting_at(SEQUENCE_MASK);
        assert_eq!((renumber.take(), renumber.take()), (SEQUENCE_MASK, 0));
    }
}
