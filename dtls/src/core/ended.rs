//! Which hellos began connections that have ended: one that comes again begins no other.
//!
//! A client repeats its hello when its timer says so, good cookie and all. If the listener is behind
//! with its queue it may read the repetition when that client's connection has come and gone. Its
//! cookie proves once more what it proved before, and the connection that it began would speak to a
//! port that is closed, or worse, to the next connection of that port.
//!
//! What tells the repetition from a new beginning is the client's random, and the cookie: where a poor
//! generator gives one random again, a cookie of another second tells. A connection whose handshake was
//! completed leaves its 4-tuple and both of them here; one whose handshake was not may still be wanted,
//! and leaves nothing. An entry counts for as long as a cookie can be good, in a table
//! of a fixed size, from which the oldest of a few make room: a client with a good cookie can push out
//! others' entries, and gets for it what was there without the table. Entries are hashes with a random
//! key, so nobody can choose whose hello theirs is taken for.
//!
//! Pure: time is an argument. Connections write on their threads, the listener reads.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::cookie::LONGEST_LIFE;
use super::record::HelloId;

/// Entries that one hash can be at, searched one by one.
const WAYS: usize = 8;

/// A power of two. 32,768 entries in all: those of the last eight seconds where 4,000 connections
/// end in each, and clients first repeat a hello after one.
const SETS: usize = 1 << 12;

/// The hash of a hello, and when its connection ended: nanoseconds from the table's start, or 0 for an
/// entry that was never used. All zeros, so that the table is no memory until it is written to.
type Entry = (u64, u64);

/// The connections that ended last.
pub(crate) struct Ended {
    start: Instant,
    entries: Vec<Entry>,
    keys: RandomState,
}

impl Ended {
    /// None yet; times are from `start` on.
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            entries: vec![(0, 0); SETS * WAYS],
            keys: RandomState::new(),
        }
    }

    /// The connection of this hello has ended, after its handshake was complete.
    pub(crate) fn remember(
        &mut self,
        peer: SocketAddr,
        local: SocketAddr,
        hello: &HelloId,
        now: Instant,
    ) {
        let hash = self.keys.hash_one((peer, local, hello));
        let now = self.at(now);
        let set = &mut self.entries[first_of(hash)..][..WAYS];
        let same = set.iter().position(|&(there, _)| there == hash);
        let place = same.or_else(|| (0..WAYS).min_by_key(|&way| set[way].1));
        set[place.unwrap_or_default()] = (hash, now);
    }

    /// Whether the connection of this hello has ended lately.
    pub(crate) fn knows(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        hello: &HelloId,
        now: Instant,
    ) -> bool {
        let hash = self.keys.hash_one((peer, local, hello));
        let now = self.at(now);
        self.entries[first_of(hash)..][..WAYS]
            .iter()
            .any(|&(there, ended)| there == hash && ended > 0 && now.saturating_sub(ended) <= LIFE)
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.start)).saturating_add(1)
    }
}

/// [`LONGEST_LIFE`] in nanoseconds.
const LIFE: u64 = LONGEST_LIFE * 1_000_000_000;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The first entry of the set that a hash belongs to.
fn first_of(hash: u64) -> usize {
    usize::try_from(hash % SETS as u64).unwrap_or_default() * WAYS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::cookie::COOKIE;

    const LOCAL: &str = "192.0.2.9:4433";

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only be had from the clock"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    /// The `n`th of many hellos.
    fn nth(n: u32) -> (SocketAddr, SocketAddr, HelloId) {
        let [a, b, c, d] = n.to_be_bytes();
        let port = 40_000 + u16::from(d % 3);
        let mut random = [7; 32];
        random[31] = d;
        let peer = ([192, a, b, c], port).into();
        let cookie = [9; COOKIE];
        (peer, LOCAL.parse().unwrap(), HelloId { random, cookie })
    }

    #[test]
    fn a_hello_is_its_own_with_its_addresses_its_random_and_its_cookie_only() {
        let start = start();
        let mut ended = Ended::new(start);
        let (peer, local, hello) = nth(0);
        ended.remember(peer, local, &hello, start);
        assert!(ended.knows(peer, local, &hello, start));
        let other_peer = "192.0.2.1:1".parse().unwrap();
        assert!(!ended.knows(other_peer, local, &hello, start));
        let other_local = "192.0.2.9:4434".parse().unwrap();
        assert!(!ended.knows(peer, other_local, &hello, start));
        for other in [
            HelloId {
                random: [8; 32],
                ..hello
            },
            HelloId {
                cookie: [8; COOKIE],
                ..hello
            },
        ] {
            assert!(!ended.knows(peer, local, &other, start));
        }
    }

    #[test]
    fn a_hello_is_known_for_as_long_as_its_cookie_can_be_good() {
        let start = start();
        let mut ended = Ended::new(start);
        let (peer, local, hello) = nth(0);
        ended.remember(peer, local, &hello, start);
        let life = Duration::from_secs(LONGEST_LIFE);
        assert!(ended.knows(peer, local, &hello, start + life));
        let later = start + life + Duration::from_nanos(1);
        assert!(!ended.knows(peer, local, &hello, later));
        // Another end of it begins anew, in the same place.
        ended.remember(peer, local, &hello, later);
        assert!(ended.knows(peer, local, &hello, later + life));
        let used = ended.entries.iter().filter(|&&(_, at)| at > 0);
        assert_eq!(used.count(), 1);
    }

    #[test]
    fn a_flood_of_ends_takes_no_memory_and_leaves_the_latest_known() {
        let start = start();
        let mut ended = Ended::new(start);
        let capacity = ended.entries.capacity();
        let ends = u32::try_from(6 * SETS * WAYS).unwrap();
        let at = |n| start + Duration::from_micros(u64::from(n));
        for n in 0..ends {
            let (peer, local, hello) = nth(n);
            ended.remember(peer, local, &hello, at(n));
        }
        assert_eq!(ended.entries.capacity(), capacity);
        let known = |range: std::ops::Range<u32>| {
            range
                .filter(|&n| {
                    let (peer, local, hello) = nth(n);
                    ended.knows(peer, local, &hello, at(ends))
                })
                .count()
        };
        // A quarter of the table's size ago: each has two later ones in its set on average.
        let recent = u32::try_from(SETS * WAYS / 4).unwrap();
        let found = known(ends - recent..ends);
        assert!(found * 1000 >= recent as usize * 998, "{found} of {recent}");
        // Some 46 later ones in their set: fewer than eight in one run of a hundred million.
        assert_eq!(known(0..recent), 0, "the oldest made room");
    }

    proptest! {
        /// Against a list of all ends there were.
        #[test]
        fn what_is_known_has_ended_lately_and_little_is_forgotten(
            ends in prop::collection::vec((0_u32..40, 0_u64..30), 0..60),
            asked in 0_u32..40,
        ) {
            let mut now = start();
            let mut ended = Ended::new(now);
            let mut last = None;
            for (n, pause) in ends {
                now += Duration::from_secs(pause);
                let (peer, local, hello) = nth(n);
                ended.remember(peer, local, &hello, now);
                if n == asked {
                    last = Some(now);
                }
            }
            let (peer, local, hello) = nth(asked);
            let expected = last.is_some_and(|last| now - last <= Duration::from_secs(LONGEST_LIFE));
            // 40 hellos push each other out only if nine of them share one of 4096 sets.
            prop_assert_eq!(ended.knows(peer, local, &hello, now), expected);
        }
    }
}
