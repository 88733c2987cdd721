//! Counters, one per reason. Noise is counted here and nowhere else: a stranger's datagram never
//! becomes an error or a log line.
//!
//! Every thread of a listener or connector adds to the same set; adding is one relaxed atomic.

use std::sync::atomic::{AtomicU64, Ordering};

use strum::{EnumCount, EnumMessage, IntoEnumIterator};

/// What is counted. The name in reports is the variant in snake case.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    strum::EnumCount,
    strum::EnumIter,
    strum::EnumMessage,
    strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Counter {
    /// `HelloVerifyRequest` messages sent.
    HelloVerifyRequests,
    /// Hellos dropped because admission said no (limits, shutdown).
    HellosRefused,
    /// Hellos dropped because as many handshakes are in progress as may be.
    HellosOverHalfOpen,
    /// Hellos dropped because their source prefix has as many connections as it may.
    HellosOverPrefix,
    /// Hellos dropped because their source prefix has lately been answered as often as it may.
    HellosOverRate,
    /// Hellos with a good cookie dropped because they repeat one whose connection has ended.
    HellosRepeated,
    /// Datagrams from unknown peers that were no ClientHello.
    UnknownPeer,
    /// `ClientHello` messages that OpenSSL would not take.
    HellosRejected,
    /// Connections that the application accepted after a good cookie.
    ConnectionsAccepted,
    /// Hand-offs that failed for want of a descriptor, memory, an address or somebody to accept them.
    HandoffsFailed,
    /// Handshakes completed.
    HandshakesCompleted,
    /// Handshakes that resumed a session.
    HandshakesResumed,
    /// Handshakes that ended in an error other than a timeout.
    HandshakesFailed,
    /// Handshakes given up at their deadline.
    HandshakesTimedOut,
    /// Flights sent again because a retransmission timer expired.
    Retransmissions,
    /// Clients that started over from the same address and port.
    Reconnects,
    /// Handshakes that a client began anew because somebody forged a `HelloVerifyRequest`.
    HandshakesBegunAnew,
    /// Connections closed by the peer's close_notify.
    ClosedByPeer,
    /// Connections given up after the idle timeout.
    IdleTimeouts,
    /// Datagrams read.
    DatagramsReceived,
    /// Datagrams written.
    DatagramsSent,
    /// Datagrams the kernel would not take, even at the second try; as good as lost on the way.
    DatagramsUnsent,
    /// Datagrams of another peer found on a connected socket and passed to the listener.
    StraysToListener,
    /// Datagrams of a connected peer found at the listener and passed to its worker.
    StraysToWorker,
    /// Strays dropped: the inbox was full or its connection already beyond needing them.
    StraysDropped,
    /// Datagrams longer than the interface takes. They leave in fragments, later ones are shorter.
    LinkMtuLowered,
    /// Datagrams of a connection on the shared socket that came faster than its thread takes them.
    DroppedInboxFull,
    /// ICMP errors reported by a receive; ignored.
    IcmpOnReceive,
    /// ICMP errors reported by a send; the datagram was sent again.
    IcmpOnSend,
    /// Plaintext alerts held back as unauthenticated hints.
    AlertsHeld,
    /// Empty datagrams.
    DroppedEmpty,
    /// Records cut short, of another protocol or version, or longer than their datagram.
    DroppedMalformedRecord,
    /// Epoch-0 records of a type that a handshake never sends in the clear.
    DroppedUnexpectedType,
    /// Handshake messages whose lengths contradict each other or exceed the limit.
    DroppedBadHandshake,
    /// ChangeCipherSpec records with another body than one byte of 1.
    DroppedBadChangeCipherSpec,
    /// Plaintext alerts of impossible shape.
    DroppedBadAlert,
    /// Records of an epoch that does not exist, or no longer.
    DroppedWrongEpoch,
    /// `HelloVerifyRequest` messages with another cookie than the first: one of them is forged.
    DroppedOtherCookie,
    /// Protected records shorter than the cipher's own overhead.
    DroppedRunt,
    /// Records of the next epoch beyond those kept during a handshake.
    DroppedEarly,
    /// Heartbeat requests sent, repetitions included.
    HeartbeatRequestsSent,
    /// Heartbeat requests answered.
    HeartbeatResponsesSent,
    /// Answers to our heartbeat requests.
    HeartbeatResponsesReceived,
    /// Probes that ended without an answer.
    ProbesUnanswered,
    /// Heartbeats during a handshake, or where none were agreed on.
    DroppedHeartbeatUnexpected,
    /// Heartbeats that the peer did not seal.
    DroppedHeartbeatForged,
    /// Heartbeats with a record number seen before, or too old to know.
    DroppedHeartbeatReplayed,
    /// Heartbeats of no known type, or whose payload and padding do not fit into their record.
    DroppedHeartbeatMalformed,
    /// Heartbeat responses to nothing we asked.
    DroppedHeartbeatUnasked,
    /// Heartbeat requests too many, or too long to answer.
    DroppedHeartbeatExcess,
    /// Records of data dropped because more came during a probe than is kept.
    DroppedDuringProbe,
}

impl Counter {
    /// The name in reports, such as `hello_verify_requests`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What it counts: the comment of the variant.
    #[must_use]
    pub fn help(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }
}

/// A set of counters, shared by a listener and its streams.
#[derive(Debug)]
pub struct Stats([AtomicU64; Counter::COUNT]);

impl Default for Stats {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Counter::COUNT])
    }
}

impl Stats {
    /// Adds one.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds `n`.
    pub fn add(&self, counter: Counter, n: u64) {
        self.0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// Every counter with its value, in declaration order.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::iter().map(|counter| (counter, self.get(counter)))
    }
}
