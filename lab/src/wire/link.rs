//! The link in one direction, in tc-netem's words.
//!
//! As with tc-netem, `delay` and `jitter` hold for every datagram, and with a `rate` datagrams leave
//! one after another; unlike it, the chances are tried one after another (loss, duplicate, corrupt,
//! reorder) and the first that comes true is the datagram's one fate. Jitter alone may already reorder.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
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
    /// Loss in bursts, instead of `loss`.
    pub gemodel: Option<GeModel>,
    /// Chance of a second copy.
    pub duplicate: Chance,
    /// Chance of one flipped bit.
    pub corrupt: Chance,
    /// Chance to be spared the delay; needs one.
    pub reorder: Chance,
    /// Time between deliveries: what arrives in between waits and goes in one burst, as on a link
    /// that is shared by turns. Zero delivers at once.
    pub slot: Duration,
    /// How many bits of Ethernet frames it carries in a second; without, as many as come.
    pub rate: Option<Rate>,
    /// How many datagrams may be on it, in the delay or waiting for the rate; what comes besides is lost.
    pub limit: Option<NonZeroU32>,
    /// The longest IP packet it carries.
    pub mtu: Option<Mtu>,
}

/// The Gilbert-Elliott model of loss in bursts, in tc-netem's words: a link is in a good or in a bad
/// state, and loses in each by another chance. After each datagram it may change its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GeModel {
    /// Chance to go from good to bad.
    pub p: Chance,
    /// Chance to go from bad to good.
    pub r: Chance,
    /// Chance of loss in the bad state, tc-netem's `1-h`.
    pub loss_in_bad: Chance,
    /// Chance of loss in the good state, tc-netem's `1-k`.
    pub loss_in_good: Chance,
}

impl GeModel {
    /// Whether the next datagram is lost; `bad` is the state, which this may change. As in the kernel
    /// the chance of loss is that of the state in which the datagram found the link.
    pub fn loses(&self, bad: &mut bool, draw: &mut ChaCha20Rng) -> bool {
        let (change, loss) = if *bad {
            (self.r, self.loss_in_bad)
        } else {
            (self.p, self.loss_in_good)
        };
        if change.comes_true(draw) {
            *bad = !*bad;
        }
        loss.comes_true(draw)
    }

    /// Whether it is no fault at all.
    #[must_use]
    pub fn never_loses(&self) -> bool {
        self.loss_in_good.is_never() && (self.p.is_never() || self.loss_in_bad.is_never())
    }
}

/// A rate in bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rate(pub NonZeroU64);

impl Rate {
    /// How long an Ethernet frame of so many bytes takes; tc-netem counts the Ethernet header as well.
    #[must_use]
    pub fn time_for(self, frame: usize) -> Duration {
        let bits = frame as u64 * 8;
        Duration::from_nanos(bits.saturating_mul(NANOS) / self.0)
    }
}

/// Nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;

/// tc-netem's own limit, where a scenario names none.
pub const USUAL_LIMIT: NonZeroU32 = NonZeroU32::new(1000).expect("a thousand");

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

    /// What always comes true.
    pub const ALWAYS: Self = Self {
        parts_per_million: MILLION,
    };

    /// That it does not come true.
    #[must_use]
    pub const fn opposite(self) -> Self {
        Self {
            parts_per_million: MILLION - self.parts_per_million,
        }
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
    /// What the link does to a datagram no rule has taken; `None` if nothing. `burst`: the
    /// [`GeModel`] loses it.
    pub fn fate(&self, burst: bool, draw: &mut ChaCha20Rng) -> Option<Fate> {
        if burst || self.loss.comes_true(draw) {
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
