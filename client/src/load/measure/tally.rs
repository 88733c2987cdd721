//! What all connections together did: counts, and latencies by phase. A worker adds to its own; the
//! report reads the sum.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};
use std::time::Duration;

use dtls::{HandshakeCost, HandshakeInfo};
use serde::{Deserialize, Serialize};
use strum::{EnumCount, EnumIter, IntoEnumIterator, IntoStaticStr};

use super::{Latency, Window};
use crate::load::outcome::{Failure, Outcome};

/// What a latency is of. The name in reports is the variant in snake case.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    EnumCount,
    EnumIter,
    IntoStaticStr,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Phase {
    /// From the intended start of a connection to its first hello.
    StartDelay,
    /// From the first hello to the server's cookie.
    Cookie,
    /// From the intended start to the end of a full handshake.
    FullHandshake,
    /// From the intended start to the end of an abbreviated handshake.
    ResumedHandshake,
    /// From the first hello of a client that starts over to the end of its handshake.
    Reconnect,
    /// From the intended start to the first answer to a message.
    FirstByte,
    /// From the moment when a message was meant to go out to its answer.
    Message,
}

impl Phase {
    /// As in reports.
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    /// For people.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::StartDelay => "late start",
            Self::Cookie => "cookie round trip",
            Self::FullHandshake => "full handshake",
            Self::ResumedHandshake => "resumed handshake",
            Self::Reconnect => "reconnect",
            Self::FirstByte => "first byte",
            Self::Message => "message",
        }
    }
}

/// Messages by what became of them. Every message sent is received or lost, but for those that a
/// signal cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Messages {
    pub(crate) sent: u64,
    /// Answered within the timeout by a perfect copy.
    pub(crate) received: u64,
    /// Not answered so.
    pub(crate) lost: u64,
    /// Of those lost: answered by a perfect copy after the timeout.
    pub(crate) late: u64,
    /// Of those received: after an answer to a later message.
    pub(crate) reordered: u64,
    /// Further perfect copies.
    pub(crate) duplicated: u64,
    /// Answers that are no copy of anything sent.
    pub(crate) corrupted: u64,
}

/// What complete handshakes took on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wire {
    pub(crate) handshakes: u64,
    pub(crate) datagrams_sent: u64,
    pub(crate) datagrams_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

/// Counts and latencies.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) interrupted: u64,
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    /// Of all handshakes, complete or not.
    pub(crate) retransmissions: u64,
    /// `HelloVerifyRequest`s that came.
    pub(crate) cookies: u64,
    pub(crate) icmp_errors: u64,
    /// Datagrams that the kernel would not take.
    pub(crate) unsent: u64,
    /// Datagrams that came and for which our sockets had no room.
    pub(crate) dropped: u64,
    /// Connections from a port that an earlier one of this run had.
    pub(crate) ports_reused: u64,
    /// Time of the processor that the workers took.
    pub(crate) processor: Duration,
    /// The busiest worker's part of its time.
    pub(crate) busiest: f64,
    pub(crate) messages: Messages,
    pub(crate) full: Wire,
    pub(crate) abbreviated: Wire,
    latencies: Vec<Latency>,
    pub(crate) windows: Vec<Window>,
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// What handshakes have led to, from a sample of them.
    pub(crate) agreed: BTreeSet<Agreed>,
}

/// What both ends agreed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Agreed {
    pub(crate) version: String,
    pub(crate) cipher: String,
    pub(crate) group: Option<String>,
    pub(crate) alpn: Option<String>,
}

impl Agreed {
    /// In a complete handshake.
    pub(crate) fn of(info: &HandshakeInfo) -> Self {
        let alpn = info.alpn.as_deref();
        Self {
            version: info.version.to_owned(),
            cipher: info.cipher.to_owned(),
            group: info.group.map(str::to_owned),
            alpn: alpn.map(|name| String::from_utf8_lossy(name).into_owned()),
        }
    }
}

impl Tally {
    /// All zero, with windows of this width.
    pub(crate) fn new(windows: u32, width: Duration) -> Self {
        let edge = |n: u32| (width * n).as_secs_f64() * 1e3;
        Self {
            completed: 0,
            failed: 0,
            interrupted: 0,
            handshakes: 0,
            resumed: 0,
            retransmissions: 0,
            cookies: 0,
            icmp_errors: 0,
            unsent: 0,
            dropped: 0,
            ports_reused: 0,
            processor: Duration::ZERO,
            busiest: 0.0,
            messages: Messages::default(),
            full: Wire::default(),
            abbreviated: Wire::default(),
            latencies: Phase::iter().map(|_| Latency::new()).collect(),
            windows: (0..windows)
                .map(|n| Window::new(edge(n), edge(n + 1)))
                .collect(),
            failures: BTreeMap::new(),
            agreed: BTreeSet::new(),
        }
    }

    /// Counts how a connection of a window ended.
    pub(crate) fn count(&mut self, outcome: Outcome, window: usize) {
        match outcome {
            Outcome::Completed => self.completed += 1,
            Outcome::Interrupted => {
                self.interrupted += 1;
                if let Some(window) = self.windows.get_mut(window) {
                    window.cut_short = true;
                }
            }
            Outcome::Failed(failure) => {
                self.failed += 1;
                if let Some(window) = self.windows.get_mut(window) {
                    window.failed += 1;
                }
                *self.failures.entry(failure).or_default() += 1;
            }
        }
    }

    /// Connections that were meant to begin from then on, since the start of the run, have not.
    pub(crate) fn cut_short(&mut self, from: Duration) {
        let from = from.as_secs_f64() * 1e3;
        for window in &mut self.windows {
            // Lengths are rounded: what is missing for that changes no rate.
            let nearly = window.to_ms - (window.to_ms - window.from_ms) / 1e3;
            window.cut_short |= nearly > from;
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
        self.cookies += other.cookies;
        self.icmp_errors += other.icmp_errors;
        self.unsent += other.unsent;
        self.dropped += other.dropped;
        self.ports_reused += other.ports_reused;
        self.processor += other.processor;
        self.busiest = self.busiest.max(other.busiest);
        self.messages.add(other.messages);
        self.full.add(other.full);
        self.abbreviated.add(other.abbreviated);
        for phase in Phase::iter() {
            self[phase].add(&other[phase]);
        }
        let both = self.windows.len().min(other.windows.len());
        for (window, other) in self.windows.iter_mut().zip(&other.windows) {
            window.add(other);
        }
        let more = other.windows.iter().skip(both).cloned();
        self.windows.extend(more);
        // Of these one of the two knows nothing.
        for window in &mut self.windows[both..] {
            window.cut_short = true;
        }
        for (failure, count) in &other.failures {
            *self.failures.entry(failure.clone()).or_default() += count;
        }
        self.agreed.extend(other.agreed.iter().cloned());
    }
}

impl Index<Phase> for Tally {
    type Output = Latency;

    fn index(&self, phase: Phase) -> &Latency {
        &self.latencies[phase as usize]
    }
}

impl IndexMut<Phase> for Tally {
    fn index_mut(&mut self, phase: Phase) -> &mut Latency {
        &mut self.latencies[phase as usize]
    }
}

impl Wire {
    /// Adds a handshake's.
    pub(crate) fn count(&mut self, cost: &HandshakeCost) {
        self.handshakes += 1;
        self.datagrams_sent += u64::from(cost.datagrams_sent);
        self.datagrams_received += u64::from(cost.datagrams_received);
        self.bytes_sent += cost.bytes_sent;
        self.bytes_received += cost.bytes_received;
    }

    /// Adds all of another's.
    pub(crate) fn add(&mut self, other: Self) {
        self.handshakes += other.handshakes;
        self.datagrams_sent += other.datagrams_sent;
        self.datagrams_received += other.datagrams_received;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

impl Messages {
    /// Adds all of another's.
    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.late += other.late;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
    }
}
