//! Chance without state: each draw is a pure function of what it is about.
//!
//! `ChaCha20` is keyed by (seed, flow, direction, ordinal, who asks); its key stream is the chance.
//! Nothing is carried from one datagram to the next but the state of a link that loses in bursts, and
//! that follows from the datagrams' numbers alone. So a decision stays the same when other flows are
//! added or removed.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::packet::Direction;

/// What the chances of one datagram depend on.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// The run's seed.
    pub seed: u64,
    /// The client.
    pub flow: u32,
    /// Which way the datagram goes.
    pub direction: Direction,
    /// Its number in flow and direction.
    pub ordinal: u64,
}

impl Draws {
    /// The draws of the rule with this index.
    #[must_use]
    pub fn rule(self, index: usize) -> ChaCha20Rng {
        self.keyed(RULE, index)
    }

    /// The draws of the inject with this index.
    #[must_use]
    pub fn inject(self, index: usize) -> ChaCha20Rng {
        self.keyed(INJECT, index)
    }

    /// The draws of the blackhole or the rebinding with this index.
    #[must_use]
    pub fn change(self, index: usize) -> ChaCha20Rng {
        self.keyed(CHANGE, index)
    }

    /// The draws of the link's chances.
    #[must_use]
    pub fn link(self) -> ChaCha20Rng {
        self.keyed(LINK, 0)
    }

    /// The draws of the link's jitter; apart, so that no rule shifts them.
    #[must_use]
    pub fn latency(self) -> ChaCha20Rng {
        self.keyed(LATENCY, 0)
    }

    /// The draws of the link's bursts; apart, so that the state of the link depends on nothing else.
    #[must_use]
    pub fn burst(self) -> ChaCha20Rng {
        self.keyed(BURST, 0)
    }

    fn keyed(self, asker: u8, index: usize) -> ChaCha20Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_be_bytes());
        key[8..16].copy_from_slice(&self.ordinal.to_be_bytes());
        key[16..20].copy_from_slice(&self.flow.to_be_bytes());
        key[20] = self.direction as u8;
        key[21] = asker;
        key[24..32].copy_from_slice(&(index as u64).to_be_bytes());
        ChaCha20Rng::from_seed(key)
    }
}

const RULE: u8 = 1;
const INJECT: u8 = 2;
const LINK: u8 = 3;
const LATENCY: u8 = 4;
const BURST: u8 = 5;
const CHANGE: u8 = 6;
