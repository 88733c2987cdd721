//! The in-memory BIO: one datagram in, a queue of datagrams out.
//!
//! OpenSSL reads and writes here instead of on a socket, so every datagram can be looked at before
//! OpenSSL sees it, and a write never fails: a handshake write that reports "retry" would corrupt
//! the flight, and a datagram that could not be sent is simply a lost one. Runs on the thread that
//! owns the connection.

use std::collections::VecDeque;
use std::io;

use super::heartbeat::protection::{Placeholder, Suite};
use super::record::{APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, split_record};
use super::renumber::Renumber;

/// Datagrams on their way between the socket and OpenSSL.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    inbound: Vec<u8>,
    full: bool,
    outbound: VecDeque<Vec<u8>>,
    renumber: Option<Renumber>,
    /// The records of flights are packed into datagrams of up to this many bytes.
    pack_into: usize,
    withholding: Option<Withholding>,
}

/// Set while application data is withheld.
#[derive(Debug)]
struct Withholding {
    suite: Suite,
    caught: Option<Placeholder>,
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

    /// Lengths of the datagrams that wait to be sent.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = usize> {
        self.outbound.iter().map(Vec::len)
    }

    /// Packs the records of a flight into datagrams of at most `limit` bytes. Data and alerts go each in
    /// a datagram of its own.
    ///
    /// OpenSSL flushes per message when it retransmits; packed, one loss probability applies to
    /// the flight instead of one per message. That holds for the last flight too, which is repeated
    /// long after the handshake.
    pub(crate) fn pack_into(&mut self, limit: usize) {
        self.pack_into = limit;
    }

    /// Gives outgoing epoch-0 records new numbers from here on.
    pub(crate) fn renumber_from(&mut self, renumber: Renumber) {
        self.renumber = Some(renumber);
    }

    /// Withholds application data from here on: nothing of it is kept but the record number and
    /// nonce that it has used up. Everything else goes its way.
    pub(crate) fn withhold_data(&mut self, suite: Suite) {
        self.withholding = Some(Withholding {
            suite,
            caught: None,
        });
    }

    /// Lets application data through again; returns what the last withheld record used up.
    pub(crate) fn stop_withholding(&mut self) -> Option<Placeholder> {
        self.withholding.take()?.caught
    }

    /// Queues a record that OpenSSL did not write, as a datagram of its own.
    pub(crate) fn push(&mut self, record: Vec<u8>) {
        self.outbound.push_back(record);
    }

    /// Takes back what was written after so many datagrams.
    pub(crate) fn withdraw_after(&mut self, datagrams: usize) -> VecDeque<Vec<u8>> {
        self.outbound.split_off(datagrams)
    }

    /// Queues datagrams that were taken back.
    pub(crate) fn put_back(&mut self, datagrams: VecDeque<Vec<u8>>) {
        self.outbound.extend(datagrams);
    }

    /// Gives back the memory that only a handshake needs.
    pub(crate) fn shrink(&mut self) {
        self.inbound.shrink_to_fit();
        self.outbound.shrink_to_fit();
    }
}

impl Withholding {
    /// The records that may pass.
    fn sift(&mut self, records: &[u8]) -> Vec<u8> {
        let mut passing = Vec::new();
        let mut rest = records;
        while let Some((record, tail)) = split_record(rest) {
            rest = tail;
            if record.content_type == APPLICATION_DATA {
                self.caught = Placeholder::of(&record, self.suite);
            } else {
                passing.extend_from_slice(record.bytes);
            }
        }
        passing
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
        let mut datagram = match &mut self.withholding {
            None => records.to_vec(),
            Some(withholding) => withholding.sift(records),
        };
        if datagram.is_empty() {
            return Ok(records.len());
        }
        if let Some(renumber) = &mut self.renumber {
            renumber.apply(&mut datagram);
        }
        match self.outbound.back_mut() {
            Some(last)
                if last.len() + datagram.len() <= self.pack_into
                    && is_of_flight(last)
                    && is_of_flight(&datagram)
                    && version(last) == version(&datagram) =>
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

/// Whether the first record belongs to a flight.
fn is_of_flight(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(&(HANDSHAKE | CHANGE_CIPHER_SPEC)))
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

    fn record(content_type: u8, body: &[u8]) -> Vec<u8> {
        crate::core::record::write(content_type, 1, 9, body)
    }

    #[test]
    fn withheld_data_leaves_nothing_behind_but_its_number_and_nonce() {
        let mut slot = Slot::default();
        slot.withhold_data(Suite::AES_128_GCM);
        let placeholder = record(APPLICATION_DATA, b"NONCE678ciphertext and tag");
        let alert = record(21, b"an alert that was due");
        slot.write_all(&placeholder).unwrap();
        slot.write_all(&[alert.clone(), placeholder].concat())
            .unwrap();
        assert!(!format!("{slot:?}").contains(&format!("{:?}", b"ciph").replace(['[', ']'], "")));
        let caught = slot.stop_withholding().unwrap();
        let seen = format!("{caught:?}");
        assert!(seen.contains(&format!("{:?}", b"NONCE678")));
        assert_eq!(slot.pop(), Some(alert));
        assert_eq!(slot.pop(), None);
        let data = record(APPLICATION_DATA, b"real data");
        slot.write_all(&data).unwrap();
        assert_eq!(slot.pop(), Some(data));
        assert!(slot.stop_withholding().is_none());
    }

    #[test]
    fn a_record_of_another_epoch_is_withheld_but_gives_no_placeholder() {
        let mut slot = Slot::default();
        slot.withhold_data(Suite::AES_128_GCM);
        let mut placeholder = record(APPLICATION_DATA, &[7; 25]);
        placeholder[4] = 2;
        slot.write_all(&placeholder).unwrap();
        assert!(slot.stop_withholding().is_none());
        assert_eq!(slot.pop(), None);
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
        slot.pack_into(100);
        for minor in [0xff, 0xfd, 0xfd] {
            slot.write_all(&[22, 0xfe, minor]).unwrap();
        }
        let lengths: Vec<usize> = std::iter::from_fn(|| slot.pop()).map(|d| d.len()).collect();
        assert_eq!(lengths, [3, 6]);
    }

    #[test]
    fn records_of_a_flight_are_packed_up_to_the_limit_and_others_kept_apart() {
        let mut slot = Slot::default();
        slot.pack_into(10);
        for (content_type, length) in [
            (22, 4),
            (20, 6),
            (22, 1),
            (23, 2),
            (23, 3),
            (21, 2),
            (22, 5),
        ] {
            let mut record = vec![0; length];
            record[0] = content_type;
            slot.write_all(&record).unwrap();
        }
        let lengths: Vec<usize> = std::iter::from_fn(|| slot.pop()).map(|d| d.len()).collect();
        assert_eq!(lengths, [10, 1, 2, 3, 2, 5]);
    }
}
