//! What all connections together did. Workers add to it, a few of them to each; the report reads
//! the sum.

use std::collections::BTreeMap;

use super::histogram::Latency;
use super::outcome::{Failure, Outcome};

/// Messages by what became of them. Every message sent is received or lost, but for one on each
/// connection that a signal stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Messages {
    pub(crate) sent: u64,
    /// Answered within the timeout by a perfect copy.
    pub(crate) received: u64,
    /// Not answered so.
    pub(crate) lost: u64,
    /// Of those lost: answered by a perfect copy after the timeout.
    pub(crate) late: u64,
    /// Further perfect copies.
    pub(crate) duplicated: u64,
    /// Answers that are no copy of anything sent.
    pub(crate) corrupted: u64,
}

/// Counts and latencies.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) interrupted: u64,
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    pub(crate) retransmissions: u64,
    pub(crate) messages: Messages,
    pub(crate) full_handshake: Latency,
    pub(crate) resumed_handshake: Latency,
    pub(crate) message: Latency,
    pub(crate) failures: BTreeMap<Failure, u64>,
}

impl Tally {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self {
            completed: 0,
            failed: 0,
            interrupted: 0,
            handshakes: 0,
            resumed: 0,
            retransmissions: 0,
            messages: Messages::default(),
            full_handshake: Latency::new(),
            resumed_handshake: Latency::new(),
            message: Latency::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Counts how a connection ended.
    pub(crate) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Completed => self.completed += 1,
            Outcome::Interrupted => self.interrupted += 1,
            Outcome::Failed(failure) => {
                self.failed += 1;
                *self.failures.entry(failure).or_default() += 1;
            }
        }
    }

    /// Adds all of another's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.interrupted += other.interrupted;
        self.handshakes += other.handshakes;
        self.resumed += other.resumed;
        self.retransmissions += other.retransmissions;
        self.messages.add(other.messages);
        self.full_handshake.add(&other.full_handshake);
        self.resumed_handshake.add(&other.resumed_handshake);
        self.message.add(&other.message);
        for (failure, count) in &other.failures {
            *self.failures.entry(failure.clone()).or_default() += count;
        }
    }
}

impl Messages {
    /// Adds all of another's.
    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.late += other.late;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
    }
}
