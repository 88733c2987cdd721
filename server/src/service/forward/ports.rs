//! The local ports that connections to backends take. A UDP socket takes a port of its own whatever
//! it is connected to, so all forwards of a process, and of a host, share one range. Worker threads.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Ports that this process has taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Whether the one warning has been given.
static WARNED: AtomicBool = AtomicBool::new(false);

/// The share of the range, in percent, beyond which there is a warning.
const WARN_BEYOND: u64 = 80;

/// A port taken, until dropped.
#[derive(Debug)]
pub(super) struct Taken;

impl Taken {
    /// Counts a port, and warns once when few are left.
    pub(super) fn new() -> Self {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed) + 1;
        let range = range();
        if beyond_warning(taken, range) && !WARNED.swap(true, Ordering::Relaxed) {
            log::warn!(
                "{taken} of the host's {range} local ports are in use towards backends; beyond \
                 them connections are closed: widen net.ipv4.ip_local_port_range, or lower \
                 --max-connections"
            );
        }
        Self
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Local ports as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Taken by this process.
    pub(crate) taken: u64,
    /// In the host's range.
    pub(crate) range: u64,
}

/// Local ports as they are.
pub(crate) fn usage() -> Usage {
    Usage {
        taken: TAKEN.load(Ordering::Relaxed),
        range: range(),
    }
}

/// How many ports the host gives out by itself (`ip(7)`, `ip_local_port_range`).
pub(crate) fn range() -> u64 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| parse(&text))
        // The kernel's default.
        .unwrap_or(60_999 - 32_768 + 1)
}

fn parse(text: &str) -> Option<u64> {
    let (low, high) = text.trim().split_once(char::is_whitespace)?;
    let (low, high): (u64, u64) = (low.parse().ok()?, high.trim().parse().ok()?);
    (low <= high).then(|| high - low + 1)
}

fn beyond_warning(taken: u64, range: u64) -> bool {
    taken * 100 > range * WARN_BEYOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_read_with_both_its_ends() {
        assert_eq!(parse("32768\t60999\n"), Some(28_232));
        assert_eq!(parse("40000 40000"), Some(1));
        assert_eq!(parse("60999 32768"), None);
        assert_eq!(parse("32768"), None);
    }

    #[test]
    fn the_warning_comes_beyond_four_fifths() {
        assert!(!beyond_warning(80, 100));
        assert!(beyond_warning(81, 100));
    }
}
