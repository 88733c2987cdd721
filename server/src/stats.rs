//! What the server counts beside the library: one counter per reason, one set per listener.
//!
//! Worker threads add, whoever reports reads; adding is one relaxed atomic.

use std::sync::atomic::{AtomicU64, Ordering};

use strum::{EnumCount, IntoEnumIterator};

/// What is counted. The name in reports is the variant in snake case.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, strum::EnumCount, strum::EnumIter, strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Counter {
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
}

/// A set of counters.
#[derive(Debug)]
pub(crate) struct Stats([AtomicU64; Counter::COUNT]);

impl Default for Stats {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Counter::COUNT])
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
        self.0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// The present value.
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// Every counter with its value, in declaration order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::iter().map(|counter| (counter, self.get(counter)))
    }
}
