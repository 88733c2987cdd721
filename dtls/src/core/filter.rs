//! The record filter: looks at every record of every datagram before OpenSSL does.
//!
//! OpenSSL ends or stalls a handshake, and in two cases an established connection, over records
//! that anyone can forge who knows the 4-tuple. All but one of those show in the headers: the one
//! is a well-formed handshake message with the next `message_seq`, which cannot be told from a real
//! one. A bad record never takes its neighbours in the datagram with it (RFC 6347 §4.1.2.7).
//!
//! Runs on the thread that owns the connection.

use crate::stats::{Counter, Stats};

use super::record::{
    ALERT, CHANGE_CIPHER_SPEC, CLIENT_HELLO, Fragment, HANDSHAKE, HEARTBEAT, HELLO_VERIFY_REQUEST,
    RECORD_HEADER, Record, SERVER_HELLO, cookie, set_sequence, split_fragment, split_record,
};
use super::renumber::Renumber;

/// How far the connection has come, as far as the filter cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waiting for plaintext records; protected ones are early.
    Plaintext,
    /// The peer's ChangeCipherSpec has been accepted: epoch 1 is current, epoch 0 still possible.
    Changing,
    /// The handshake is complete: only epoch 1 counts.
    Established,
}

/// Which end the filter stands before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Takes a client's messages.
    Server,
    /// Takes a server's messages.
    Client,
}

impl Role {
    /// Whether the other end ever sends this handshake message in the clear (RFC 5246 §7.4, RFC
    /// 6347 §4.2.2, RFC 5077, RFC 6066 §8). Finished never is: it is the first protected message.
    /// A `HelloRequest` asks for a renegotiation, which is refused. A handshake's first message, and
    /// no other, has number 0; a client says hello once or, with the cookie, twice.
    fn takes(self, fragment: &Fragment) -> bool {
        let number = fragment.message_seq;
        match (self, fragment.message_type) {
            (Self::Server, CLIENT_HELLO) => number <= 1,
            // Certificate, CertificateVerify, ClientKeyExchange
            (Self::Server, 11 | 15 | 16) => number > 0,
            (Self::Client, SERVER_HELLO | HELLO_VERIFY_REQUEST) => true,
            // NewSessionTicket, Certificate, ServerKeyExchange, CertificateRequest,
            // ServerHelloDone, CertificateStatus
            (Self::Client, 4 | 11..=14 | 22) => number > 0,
            _ => false,
        }
    }
}

/// An alert in the clear: anyone may have sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldAlert {
    pub(crate) description: u8,
}

/// What a datagram held besides the records passed on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// A plaintext alert, held back; a hint at most.
    pub(crate) alert: Option<HeldAlert>,
    /// Protected heartbeat records: not for OpenSSL, which they would end.
    pub(crate) heartbeat: bool,
    /// A `HelloVerifyRequest` with another cookie than the first: one of the two is forged.
    pub(crate) other_cookie: bool,
}

/// The filter's memory of one connection.
#[derive(Debug)]
pub(crate) struct RecordFilter {
    role: Role,
    /// Of the first `HelloVerifyRequest`, which is the one that OpenSSL answers.
    cookie: Option<Vec<u8>>,
    phase: Phase,
    /// Gives incoming epoch-0 records consecutive numbers, see [`RecordFilter::new`].
    plaintext_numbers: Renumber,
    /// Records of the next epoch that OpenSSL has been given to keep.
    early: u8,
    /// Of those, the ones that came behind a ChangeCipherSpec in their datagram.
    early_behind_change: u8,
    /// The cipher's overhead; a shorter protected record cannot be real.
    shortest_protected: usize,
    #[cfg(feature = "testing")]
    pub(crate) disabled: bool,
}

/// Protected records that may be kept before their epoch begins. A real flight has one (Finished),
/// and a few early data records may overtake it; OpenSSL keeps up to 100 and pins 16.7 KB for each.
/// As many again may follow a ChangeCipherSpec in its datagram: without a budget of their own, forged
/// ones alone in their datagrams could keep the real Finished out.
const EARLY_RECORDS: u8 = 8;

/// The longest handshake message taken, OpenSSL's own floor less its header allowance. What a
/// forged header announces, OpenSSL allocates.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024;

/// The explicit nonce and tag of AES-GCM and AES-CCM (RFC 5288 §3, RFC 6655 §3), the largest
/// overhead of any AEAD suite of DTLS 1.2. No record that a handshake needs is shorter: Finished
/// alone is 24 bytes before protection.
const AEAD_OVERHEAD: usize = 8 + 16;

impl RecordFilter {
    /// For an end whose next plaintext record OpenSSL shall see under number `first`.
    ///
    /// Incoming plaintext records are renumbered consecutively. Nobody can vouch for the number of
    /// a plaintext record, and one forged record with a number far ahead would move OpenSSL's
    /// replay window beyond all real ones and stall the handshake for good. Repeated messages are
    /// recognised by their `message_seq` in any case.
    pub(crate) fn new(role: Role, first: u64) -> Self {
        Self {
            role,
            cookie: None,
            phase: Phase::Plaintext,
            plaintext_numbers: Renumber::starting_at(first),
            early: 0,
            early_behind_change: 0,
            shortest_protected: AEAD_OVERHEAD,
            #[cfg(feature = "testing")]
            disabled: false,
        }
    }

    /// The present phase.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a `HelloVerifyRequest` has come.
    pub(crate) fn has_cookie(&self) -> bool {
        self.cookie.is_some()
    }

    /// Enters a phase.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Learns the agreed cipher's overhead from its OpenSSL name.
    pub(crate) fn learn_cipher(&mut self, name: &str) {
        // RFC 7905 §2: no explicit nonce; RFC 6655 §4: an 8-byte tag.
        let short = name.contains("CHACHA20") || name.contains("CCM8");
        self.shortest_protected = if short { 16 } else { AEAD_OVERHEAD };
    }

    /// Appends the records of `datagram` that OpenSSL may see to `passed`.
    pub(crate) fn sieve(
        &mut self,
        datagram: &[u8],
        passed: &mut Vec<u8>,
        stats: &Stats,
    ) -> Sighting {
        #[cfg(feature = "testing")]
        if self.disabled {
            passed.extend_from_slice(datagram);
            return Sighting::default();
        }
        let mut sighting = Sighting::default();
        let mut rest = datagram;
        // Finished follows its ChangeCipherSpec in the same datagram: by the time OpenSSL comes to
        // it, it is no longer early.
        let mut cipher_changes_here = false;
        while !rest.is_empty() {
            let Some((record, tail)) = split_record(rest) else {
                stats.count(Counter::DroppedMalformedRecord);
                break;
            };
            rest = tail;
            let verdict = match record.epoch {
                1 if record.content_type == HEARTBEAT => {
                    sighting.heartbeat = true;
                    continue;
                }
                0 if self.phase == Phase::Established => Err(Counter::DroppedWrongEpoch),
                0 => judge_plaintext(self.role, &record, &mut sighting)
                    .and_then(|()| self.judge_cookie(&record, &mut sighting)),
                1 => self.judge_protected(&record, cipher_changes_here),
                _ => Err(Counter::DroppedWrongEpoch),
            };
            match verdict {
                Ok(()) => {
                    let start = passed.len();
                    passed.extend_from_slice(record.bytes);
                    if record.epoch == 0 {
                        cipher_changes_here |= record.content_type == CHANGE_CIPHER_SPEC;
                        let number = self.plaintext_numbers.take();
                        set_sequence(&mut passed[start..start + RECORD_HEADER], number);
                    }
                }
                Err(reason) => stats.count(reason),
            }
        }
        sighting
    }

    fn judge_cookie(
        &mut self,
        record: &Record<'_>,
        sighting: &mut Sighting,
    ) -> Result<(), Counter> {
        if record.content_type != HANDSHAKE || self.role != Role::Client {
            return Ok(());
        }
        let Some(cookie) = cookie(record.body) else {
            return Ok(());
        };
        if self.cookie.get_or_insert_with(|| cookie.to_vec()) == cookie {
            return Ok(());
        }
        sighting.other_cookie = true;
        Err(Counter::DroppedOtherCookie)
    }

    fn judge_protected(
        &mut self,
        record: &Record<'_>,
        cipher_changes_here: bool,
    ) -> Result<(), Counter> {
        if record.body.len() < self.shortest_protected {
            return Err(Counter::DroppedRunt);
        }
        if self.phase == Phase::Plaintext && !cipher_changes_here {
            if self.early == EARLY_RECORDS {
                return Err(Counter::DroppedEarly);
            }
            self.early += 1;
        } else if self.phase == Phase::Plaintext {
            // OpenSSL ignores a ChangeCipherSpec that comes too early, so one in front is no proof.
            if self.early_behind_change == EARLY_RECORDS {
                return Err(Counter::DroppedEarly);
            }
            self.early_behind_change += 1;
        }
        Ok(())
    }
}

fn judge_plaintext(
    role: Role,
    record: &Record<'_>,
    sighting: &mut Sighting,
) -> Result<(), Counter> {
    match record.content_type {
        CHANGE_CIPHER_SPEC if record.body == [1] => Ok(()),
        CHANGE_CIPHER_SPEC => Err(Counter::DroppedBadChangeCipherSpec),
        ALERT => match *record.body {
            [1 | 2, description] => {
                sighting.alert = Some(HeldAlert { description });
                Err(Counter::AlertsHeld)
            }
            _ => Err(Counter::DroppedBadAlert),
        },
        HANDSHAKE if is_sound_handshake(role, record.body) => Ok(()),
        HANDSHAKE => Err(Counter::DroppedBadHandshake),
        _ => Err(Counter::DroppedUnexpectedType),
    }
}

/// Whether every fragment fits its record, its message, and the limit, and is one that the other end
/// sends.
fn is_sound_handshake(role: Role, body: &[u8]) -> bool {
    let mut rest = body;
    while let Some((fragment, tail)) = split_fragment(rest) {
        let fits = fragment.offset + fragment.length <= fragment.message_length;
        // A lone empty fragment of a longer message carries nothing and is never sent.
        let says_something = fragment.length > 0 || fragment.message_length == 0;
        let bounded = fragment.message_length <= MAX_MESSAGE
            // A ClientHello may be longer than the certificates that the limit is made for, but
            // the first one has passed DTLSv1_listen: here it can only be a repetition.
            || fragment.message_type == CLIENT_HELLO && fragment.message_length <= 2 * MAX_MESSAGE;
        let expected = role.takes(&fragment);
        if !fits || !says_something || !bounded || !expected {
            return false;
        }
        if tail.is_empty() {
            return true;
        }
        rest = tail;
    }
    false
}

#[cfg(test)]
#[path = "filter/tests.rs"]
mod tests;
