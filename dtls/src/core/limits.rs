//! What strangers may have of a listener: connections in their handshake, connections from one
//! place, answers to their hellos.
//!
//! When a limit bites, the newest stranger pays: its hello goes unanswered, and it will repeat it. Only
//! verified peers are kept account of one by one. Unverified ones share a table of a fixed size,
//! which no number of spoofed sources makes grow. Pure: time is an argument. Runs on the listener's
//! thread; connections leave the [`Census`] on their own.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::stats::Counter;

/// A listener's limits; `None` is none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Connections in their handshake.
    pub(crate) half_open: Option<usize>,
    /// Connections from one source prefix.
    pub(crate) per_prefix: Option<usize>,
    /// Hellos answered a second to one source prefix; as many may come at once.
    pub(crate) hello_rate: Option<u32>,
    /// What a source prefix is.
    pub(crate) lengths: PrefixLengths,
}

/// How many leading bits of an address say where it is from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrefixLengths {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

impl Default for PrefixLengths {
    /// One IPv4 address; one IPv6 subnet, which is what a single host has.
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// Where a peer is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Prefix {
    v4: bool,
    bits: u128,
}

impl PrefixLengths {
    /// The prefix of an address; a v4-mapped one counts as IPv4.
    pub(crate) fn prefix(self, address: IpAddr) -> Prefix {
        let (v4, bits, length) = match address.to_canonical() {
            // In the uppermost bits, as an IPv6 address.
            IpAddr::V4(v4) => (true, u128::from(v4.to_bits()) << 96, self.v4),
            IpAddr::V6(v6) => (false, v6.to_bits(), self.v6),
        };
        let mask = u128::MAX
            .checked_shl(128 - u32::from(length))
            .unwrap_or_default();
        Prefix {
            v4,
            bits: bits & mask,
        }
    }
}

/// The connections there are.
#[derive(Debug, Default)]
pub(crate) struct Census {
    half_open: usize,
    /// No entry is zero, so there are never more than connections.
    per_prefix: HashMap<Prefix, usize>,
}

impl Census {
    /// Which limit another connection from `prefix` would exceed.
    pub(crate) fn refusal(&self, prefix: Prefix, limits: &Limits) -> Option<Counter> {
        if limits.half_open.is_some_and(|most| self.half_open >= most) {
            return Some(Counter::HellosOverHalfOpen);
        }
        let most = limits.per_prefix?;
        let there = self.per_prefix.get(&prefix).copied().unwrap_or_default();
        (there >= most).then_some(Counter::HellosOverPrefix)
    }

    /// A connection begins its handshake.
    pub(crate) fn enter(&mut self, prefix: Prefix) {
        self.half_open += 1;
        *self.per_prefix.entry(prefix).or_default() += 1;
    }

    /// A connection has completed its handshake.
    pub(crate) fn establish(&mut self) {
        self.half_open = self.half_open.saturating_sub(1);
    }

    /// A connection ends, in its handshake or after it.
    pub(crate) fn leave(&mut self, prefix: Prefix, half_open: bool) {
        if half_open {
            self.establish();
        }
        if let Some(there) = self.per_prefix.get_mut(&prefix) {
            *there -= 1;
            if *there == 0 {
                self.per_prefix.remove(&prefix);
            }
        }
    }
}

/// How often a prefix has been answered lately: token buckets for all prefixes there are, in a
/// table of a fixed size.
///
/// Each prefix has one cell in each row, chosen by a hash with a random key, and counts as its
/// least-used cell says. So it is never allowed more than its rate, and it pays for others only if
/// each of its cells is another busy prefix's: with 1,000 busy prefixes that happens to one quiet
/// prefix in 80,000, with 4,000 to one in 450. A cell holds the time at which its bucket will be full again
/// (the generic cell rate algorithm), so nothing has to be refilled.
#[derive(Debug)]
pub(crate) struct HelloRate {
    start: Instant,
    /// Nanoseconds that an answer costs.
    cost: u64,
    /// Nanoseconds from `start`.
    cells: Vec<u64>,
    keys: RandomState,
}

const ROWS: usize = 4;

/// Cells of one row, a power of two.
const ROW: usize = 1 << 14;

/// What a bucket holds: a second's worth.
const FULL: u64 = 1_000_000_000;

impl HelloRate {
    /// `per_second` answers to each prefix, at once or over the second.
    pub(crate) fn new(per_second: u32, start: Instant) -> Self {
        Self {
            start,
            cost: FULL / u64::from(per_second.max(1)),
            cells: vec![0; ROWS * ROW],
            keys: RandomState::new(),
        }
    }

    /// Whether an answer to `prefix` is allowed at `now`.
    pub(crate) fn allows(&self, prefix: Prefix, now: Instant) -> bool {
        self.next(&self.places(prefix), now).is_some()
    }

    /// Takes account of an answer to `prefix`, if it is allowed.
    pub(crate) fn take(&mut self, prefix: Prefix, now: Instant) -> bool {
        let places = self.places(prefix);
        let Some(next) = self.next(&places, now) else {
            return false;
        };
        for place in places {
            // Cells that others have used more stay as they are.
            self.cells[place] = self.cells[place].max(next);
        }
        true
    }

    /// When the bucket will be full again after one more answer.
    fn next(&self, places: &[usize; ROWS], now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.start);
        let now = u64::try_from(Duration::as_nanos(&since)).unwrap_or(u64::MAX);
        let least = places.iter().map(|&place| self.cells[place]).min();
        let next = least.unwrap_or_default().max(now).saturating_add(self.cost);
        (next <= now.saturating_add(FULL)).then_some(next)
    }

    fn places(&self, prefix: Prefix) -> [usize; ROWS] {
        // Fourteen bits of one hash for each row.
        let hash = self.keys.hash_one(prefix);
        std::array::from_fn(|row| {
            let bits = usize::try_from(hash >> (16 * row) & (ROW as u64 - 1)).unwrap_or_default();
            row * ROW + bits
        })
    }
}

#[cfg(test)]
#[path = "limits/tests.rs"]
mod tests;
