//! The link in one direction, in tc-netem's words.
//!
//! As with tc-netem, `delay` and `jitter` hold for every datagram; unlike it, the chances are
//! tried one after another (loss, duplicate, corrupt, reorder) and the first that comes true is
//! the datagram's one fate. Jitter alone may already reorder.

use std::fmt;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;

use super::decision::Fate;

/// Parameters of one direction; the default is a perfect wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    /// How long every datagram takes.
    pub delay: Duration,
    /// How far the delay varies either way, uniformly; at most the delay.
    pub jitter: Duration,
    /// Chance of loss.
    pub loss: Chance,
    /// Chance of a second copy.
    pub duplicate: Chance,
    /// Chance of one flipped bit.
    pub corrupt: Chance,
    /// Chance to be spared the delay; needs one.
    pub reorder: Chance,
    /// Time between deliveries: what arrives in between waits and goes in one burst, as on a link
    /// that is shared by turns. Zero delivers at once.
    pub slot: Duration,
    /// The longest IP packet it carries.
    pub mtu: Option<Mtu>,
}

/// The longest packet of a link, and whether its sender hears of one that is longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mtu {
    /// Bytes of the IP packet.
    pub bytes: u16,
    /// Whether the link answers a longer one with a packet-too-big (RFC 1191, RFC 8201); else it is
    /// lost in silence, as behind a firewall that drops ICMP errors and fragments.
    pub announced: bool,
}

/// A probability in parts per million, so that no rounding stands between the file and the draw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Chance {
    parts_per_million: u32,
}

impl Chance {
    /// That many in a million; `None` above a million.
    #[must_use]
    pub fn per_million(parts: u32) -> Option<Self> {
        (parts <= MILLION).then_some(Self {
            parts_per_million: parts,
        })
    }

    /// As a number from 0 to 1.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.parts_per_million) / f64::from(MILLION)
    }

    /// Whether it comes true this time.
    pub fn comes_true(self, draw: &mut ChaCha20Rng) -> bool {
        !self.is_never() && draw.random_ratio(self.parts_per_million, MILLION)
    }

    /// Whether it never comes true.
    #[must_use]
    pub fn is_never(self) -> bool {
        self.parts_per_million == 0
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.parts_per_million) / 10_000.0)
    }
}

const MILLION: u32 = 1_000_000;

impl Link {
    /// What the link does to a datagram no rule has taken; `None` if nothing.
    pub fn fate(&self, draw: &mut ChaCha20Rng) -> Option<Fate> {
        if self.loss.comes_true(draw) {
            Some(Fate::Dropped)
        } else if self.duplicate.comes_true(draw) {
            Some(Fate::Duplicated { copies: 1 })
        } else if self.corrupt.comes_true(draw) {
            Some(Fate::Corrupted {
                bits: vec![draw.random()],
            })
        } else if self.reorder.comes_true(draw) {
            Some(Fate::Overtook)
        } else {
            None
        }
    }

    /// How long a datagram of this fate takes.
    pub fn latency(&self, fate: &Fate, draw: &mut ChaCha20Rng) -> Duration {
        if *fate == Fate::Overtook {
            return Duration::ZERO;
        }
        if self.jitter == Duration::ZERO {
            return self.delay;
        }
        let earliest = self.delay.saturating_sub(self.jitter);
        draw.random_range(earliest..=self.delay + self.jitter)
    }

    /// The link's MTU if a packet of so many bytes exceeds it.
    pub fn too_narrow_for(&self, packet: usize) -> Option<Mtu> {
        self.mtu.filter(|mtu| packet > usize::from(mtu.bytes))
    }

    /// When a datagram that would arrive at `at` is delivered.
    pub fn next_slot(&self, at: Duration) -> Duration {
        if self.slot.is_zero() {
            return at;
        }
        let since_last = at.as_nanos() % self.slot.as_nanos();
        let wait = (self.slot.as_nanos() - since_last) % self.slot.as_nanos();
        at + Duration::from_nanos(u64::try_from(wait).expect("no slot is centuries long"))
    }
}
