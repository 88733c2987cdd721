//! What the server counts beside the library: one counter per reason, one set per listener.
//!
//! Worker threads add, whoever reports reads; adding is one relaxed atomic.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dtls::DtlsStream;
use prometheus_client::metrics::histogram::Histogram;
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
pub(crate) enum Counter {
    /// Client certificates refused because they are not on the allow list.
    RefusedCertificateNotAllowed,
    /// Pre-shared keys refused because their identity is not on the allow list.
    RefusedPskNotAllowed,
    /// Identities of pre-shared keys that nobody has.
    RefusedPskUnknown,
    /// Times changed files or settings were taken into use.
    Reloads,
    /// Times changed files or settings were refused, and the old ones kept.
    ReloadsRefused,
    /// Datagrams passed on to the backend.
    DatagramsToBackend,
    /// Bytes passed on to the backend, PROXY protocol headers not included.
    BytesToBackend,
    /// Datagrams of the backend passed on to their client.
    DatagramsFromBackend,
    /// Bytes of the backend passed on to their client.
    BytesFromBackend,
    /// PROXY protocol headers sent to the backend.
    ProxyHeaders,
    /// Bytes of PROXY protocol headers sent to the backend.
    ProxyHeaderBytes,
    /// Datagrams for the backend that the kernel would not take, even at the second try.
    DroppedBackendUnsent,
    /// Datagrams of the backend longer than one record to their client may be.
    DroppedBackendTooLong,
    /// Empty datagrams of the backend, which DTLS does not carry.
    DroppedBackendEmpty,
    /// Times the backend's host said that nobody listens on its port.
    BackendRefused,
    /// Times the network said that the backend cannot be reached, or a datagram not delivered.
    BackendUnreachable,
    /// Connections closed because the host had no local port left towards the backend.
    BackendPortsExhausted,
    /// Connections closed because no socket towards the backend could be had otherwise.
    BackendConnectsFailed,
    /// Times the backend's name could not be looked up again.
    BackendLookupsFailed,
}

impl Counter {
    /// The name in reports, such as `datagrams_to_backend`.
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    /// What it counts, in a sentence.
    pub(crate) fn help(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// Every counter, in declaration order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }
}

/// The upper bounds that handshakes are sorted by, in seconds: a near client, one far away, one
/// whose flights are lost, and the handshake timeout.
const HANDSHAKE_SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// A set of counters, and the durations of handshakes.
#[derive(Debug)]
pub(crate) struct Stats {
    counters: [AtomicU64; Counter::COUNT],
    handshaking: AtomicUsize,
    /// Full handshakes, in seconds.
    pub(crate) full_handshakes: Histogram,
    /// Those that resumed a session.
    pub(crate) resumed_handshakes: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
            handshaking: AtomicUsize::new(0),
            full_handshakes: Histogram::new(HANDSHAKE_SECONDS),
            resumed_handshakes: Histogram::new(HANDSHAKE_SECONDS),
        }
    }
}

impl Stats {
    /// Adds one.
    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds `n`, as usual a number of bytes.
    pub(crate) fn add(&self, counter: Counter, n: usize) {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        self.counters[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// The present value.
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// Every counter with its value, in declaration order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::iter().map(|counter| (counter, self.get(counter)))
    }

    /// Connections in their handshake.
    pub(crate) fn handshaking(&self) -> usize {
        self.handshaking.load(Ordering::Relaxed)
    }

    /// Sorts a handshake that is complete by its duration.
    pub(crate) fn handshake_done(&self, stream: &DtlsStream) {
        let times = if stream.is_resumed() {
            &self.resumed_handshakes
        } else {
            &self.full_handshakes
        };
        times.observe(stream.handshake_time().as_secs_f64());
    }

    /// Counts a connection as in its handshake until dropped.
    pub(crate) fn handshake(&self) -> Handshake<'_> {
        self.handshaking.fetch_add(1, Ordering::Relaxed);
        Handshake(self)
    }
}

/// A handshake going on, however it ends.
pub(crate) struct Handshake<'a>(&'a Stats);

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.0.handshaking.fetch_sub(1, Ordering::Relaxed);
    }
}
