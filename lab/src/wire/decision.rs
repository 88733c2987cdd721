//! What the wire decided about one datagram. Two runs of a seed decide alike: nothing here
//! depends on the clock, but for what a full queue or a blackhole swallows.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::packet::Direction;
use crate::record::Place;

/// One offered datagram and its fate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The client, numbered in order of first appearance, from 0.
    pub flow: u32,
    /// Which way it went.
    pub direction: Direction,
    /// Its number in this flow and direction, from 1.
    pub ordinal: u64,
    /// How often the NAT had given the client another address or port before that which the datagram
    /// comes from or goes to.
    #[serde(skip_serializing_if = "is_zero")]
    pub rebound: usize,
    /// Its place in the handshake; `None` for application data and alerts.
    pub place: Option<Place>,
    /// What it carries, in short words such as `ServerHello`.
    pub what: String,
    /// Bytes of the IP packet. Not told in evidence: a signature is some bytes longer or shorter from
    /// run to run, and two runs of a seed must tell the same.
    #[serde(skip)]
    pub length: usize,
    /// What became of it.
    pub fate: Fate,
    /// Who decided.
    pub cause: Cause,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What becomes of a datagram; every offered one has exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Passed on, after the link's delay.
    Delivered,
    /// Never passed on.
    Dropped,
    /// Passed on this much later than the link's delay.
    Delayed {
        /// How much.
        by: Duration,
    },
    /// Passed on with copies.
    Duplicated {
        /// How many besides the datagram itself.
        copies: u32,
    },
    /// Held until later ones have passed it, or for `LONGEST_HOLD`.
    Held {
        /// How many must pass.
        passes: u32,
    },
    /// Spared the link's delay, so that it overtakes those before it (tc-netem's `reorder`).
    Overtook,
    /// Passed on with single bits flipped.
    Corrupted {
        /// Which, counted modulo the payload's length in bits.
        bits: Vec<u64>,
    },
    /// Passed on with a record that is not its own before those that are.
    Prepended {
        /// That record.
        bytes: Vec<u8>,
    },
}

/// Who decided a fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nothing wanted anything else than delivery.
    None,
    /// The link's chances.
    Link,
    /// The link's MTU.
    Mtu,
    /// The link's queue was full.
    Limit,
    /// The blackhole of this index in the scenario.
    Blackhole(usize),
    /// The kernel's netem: the fate is what was seen behind it.
    Netem,
    /// The address translator has forgotten the address it was sent to.
    Nat,
    /// The rule of this index in the scenario.
    Rule(usize),
    /// It was decided before the run.
    Prescribed,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flow {} {} #{}", self.flow, self.direction, self.ordinal)?;
        if let Some(place) = &self.place {
            write!(
                f,
                " flight {} transmission {} datagram {}",
                place.flight, place.transmission, place.datagram
            )?;
        }
        write!(f, " ({}): {}", self.what, self.fate)?;
        match self.cause {
            Cause::None => Ok(()),
            Cause::Link => f.write_str(" by the link"),
            Cause::Mtu => f.write_str(" by the link's MTU"),
            Cause::Netem => f.write_str(" by netem"),
            Cause::Limit => f.write_str(" by the link's full queue"),
            Cause::Blackhole(index) => write!(f, " by blackhole {}", index + 1),
            Cause::Nat => f.write_str(" by the NAT, which has forgotten the address"),
            Cause::Rule(index) => write!(f, " by rule {}", index + 1),
            Cause::Prescribed => f.write_str(" as prescribed"),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered => f.write_str("delivered"),
            Self::Dropped => f.write_str("dropped"),
            Self::Delayed { by } => write!(f, "delayed by {}", humantime::format_duration(*by)),
            Self::Duplicated { copies } => write!(f, "duplicated, copies {copies}"),
            Self::Held { passes } => write!(f, "held until {passes} passed"),
            Self::Overtook => f.write_str("overtook"),
            Self::Corrupted { bits } => write!(f, "corrupted, bits {}", bits.len()),
            Self::Prepended { bytes } => write!(f, "prepended {} bytes", bytes.len()),
        }
    }
}
