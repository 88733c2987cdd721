//! What a rule does to the datagrams it selects.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;

use super::decision::Fate;
use super::forgery::Forgery;
use super::selector::Selector;

/// Selected datagrams and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Which datagrams.
    pub select: Selector,
    /// What becomes of them.
    pub action: Action,
    /// How many of each flow at most; `None` for all.
    pub times: Option<u32>,
}

/// What a rule does; named as tc-netem names it where that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Deliver it: no later rule and none of the link's chances touch it.
    Pass,
    /// Lose it.
    Drop,
    /// Deliver it this much later than the link's delay.
    Delay(Duration),
    /// Deliver so many copies besides.
    Duplicate(u32),
    /// Hold it until so many later ones of its flow and direction have passed, or for
    /// [`LONGEST_HOLD`].
    Reorder(u32),
    /// Flip so many bits.
    Corrupt(u32),
    /// Put this record before its own.
    Prepend(Forgery),
}

/// How long a datagram is held when nothing comes to pass it: well below the first
/// retransmission timeout of 1 s (RFC 6347 §4.2.4.1), so that reordering alone never costs one.
pub const LONGEST_HOLD: Duration = Duration::from_millis(50);

impl Action {
    /// The fate of one datagram.
    pub fn fate(self, draw: &mut ChaCha20Rng) -> Fate {
        match self {
            Self::Pass => Fate::Delivered,
            Self::Drop => Fate::Dropped,
            Self::Delay(by) => Fate::Delayed { by },
            Self::Duplicate(copies) => Fate::Duplicated { copies },
            Self::Reorder(passes) => Fate::Held { passes },
            Self::Corrupt(bits) => Fate::Corrupted {
                bits: (0..bits).map(|_| draw.random()).collect(),
            },
            Self::Prepend(forgery) => Fate::Prepended {
                bytes: forgery.bytes(draw),
            },
        }
    }
}
