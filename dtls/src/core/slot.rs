//! The in-memory BIO: one datagram in, a queue of datagrams out.
//!
//! OpenSSL reads and writes here instead of on a socket, so every datagram can be looked at before
//! OpenSSL sees it, and a write never fails: a handshake write that reports "retry" would corrupt
//! the flight, and a datagram that could not be sent is simply a lost one. Runs on the thread that
//! owns the connection.

use std::collections::VecDeque;
use std::io;

use super::renumber::Renumber;

/// Datagrams on their way between the socket and OpenSSL.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    inbound: Vec<u8>,
    full: bool,
    outbound: VecDeque<Vec<u8>>,
    renumber: Option<Renumber>,
    /// While set, records are packed into datagrams of up to this many bytes.
    pack_into: Option<usize>,
}

impl Slot {
    /// The buffer to fill with the next datagram's records; [`Slot::arm`] shows it to OpenSSL.
    pub(crate) fn inbound(&mut self) -> &mut Vec<u8> {
        &mut self.inbound
    }

    /// Makes the inbound buffer readable, unless it is empty: OpenSSL takes zero bytes for the end.
    pub(crate) fn arm(&mut self) {
        self.full = !self.inbound.is_empty();
    }

    /// Whether OpenSSL has not read the datagram yet.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// The next datagram to send.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.outbound.pop_front()
    }

    /// Packs the records of a flight into datagrams of at most `limit` bytes, or stops to.
    ///
    /// OpenSSL flushes per message when it retransmits; packed, one loss probability applies to
    /// the flight instead of one per message.
    pub(crate) fn pack_into(&mut self, limit: Option<usize>) {
        self.pack_into = limit;
    }

    /// Gives outgoing epoch-0 records new numbers from here on.
    pub(crate) fn renumber_from(&mut self, renumber: Renumber) {
        self.renumber = Some(renumber);
    }

    /// Gives back the memory that only a handshake needs.
    pub(crate) fn shrink(&mut self) {
        self.inbound.shrink_to_fit();
        self.outbound.shrink_to_fit();
    }
}

impl io::Read for Slot {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.full {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.full = false;
        let length = self.inbound.len().min(into.len());
        into[..length].copy_from_slice(&self.inbound[..length]);
        Ok(length)
    }
}

impl io::Write for Slot {
    fn write(&mut self, records: &[u8]) -> io::Result<usize> {
        let mut datagram = records.to_vec();
        if let Some(renumber) = &mut self.renumber {
            renumber.apply(&mut datagram);
        }
        match (self.pack_into, self.outbound.back_mut()) {
            (Some(limit), Some(last))
                if last.len() + datagram.len() <= limit && version(last) == version(&datagram) =>
            {
                last.append(&mut datagram);
            }
            _ => self.outbound.push_back(datagram),
        }
        Ok(records.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The version of the first record. A repeated ClientHello still says DTLS 1.0, and OpenSSL 3.0
/// loses whatever follows a record of another version in the same datagram.
fn version(datagram: &[u8]) -> Option<&[u8]> {
    datagram.get(1..3)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn an_empty_datagram_reads_as_would_block() {
        let mut slot = Slot::default();
        slot.arm();
        let error = slot.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_datagram_is_read_once() {
        let mut slot = Slot::default();
        slot.inbound().extend([1, 2, 3]);
        slot.arm();
        let mut buffer = [0; 10];
        assert_eq!(slot.read(&mut buffer).unwrap(), 3);
        assert!(slot.read(&mut buffer).is_err());
    }

    #[test]
    fn records_of_another_version_start_a_datagram() {
        let mut slot = Slot::default();
        slot.pack_into(Some(100));
        for minor in [0xff, 0xfd, 0xfd] {
            slot.write_all(&[22, 0xfe, minor]).unwrap();
        }
        let lengths: Vec<usize> = std::iter::from_fn(|| slot.pop()).map(|d| d.len()).collect();
        assert_eq!(lengths, [3, 6]);
    }

    #[test]
    fn records_are_packed_up_to_the_limit_and_kept_apart_without_one() {
        let mut slot = Slot::default();
        slot.pack_into(Some(10));
        for length in [4, 6, 1] {
            slot.write_all(&vec![0; length]).unwrap();
        }
        slot.pack_into(None);
        slot.write_all(&[0; 2]).unwrap();
        let lengths: Vec<usize> = std::iter::from_fn(|| slot.pop()).map(|d| d.len()).collect();
        assert_eq!(lengths, [10, 1, 2]);
    }
}
