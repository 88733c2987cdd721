//! What the network does besides losing and delaying: it goes dead for a time, or gives a client another
//! address.

use std::net::SocketAddr;
use std::time::Duration;

use crate::packet::Direction;

use super::inject::Trigger;

/// A time in which nothing comes through; in each flow from its own trigger on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blackhole {
    /// What sets it off; the datagram that does still has its own fate.
    pub trigger: Trigger,
    /// Which way nothing comes through; `None` for both.
    pub direction: Option<Direction>,
    /// How long after the trigger it begins.
    pub delay: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// How often it comes.
    pub repeat: u32,
    /// From one beginning to the next.
    pub spacing: Duration,
}

impl Blackhole {
    /// Whether it swallows what is sent so long after the trigger.
    pub(super) fn covers(&self, direction: Direction, since: Duration) -> bool {
        if self.direction.is_some_and(|only| only != direction) {
            return false;
        }
        let Some(since) = since.checked_sub(self.delay) else {
            return false;
        };
        (0..self.repeat).any(|round| {
            let begins = self.spacing * round;
            begins <= since && since < begins + self.lasts
        })
    }

    /// From the trigger to its last end.
    #[must_use]
    pub fn over_after(&self) -> Duration {
        self.delay + self.spacing * (self.repeat - 1) + self.lasts
    }
}

/// The NAT before a client forgets it and gives it another place outside, once in each flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebind {
    /// What sets it off; from the next datagram on the place is another one.
    pub trigger: Trigger,
    /// What is another.
    pub what: Rebound,
}

/// What a NAT gives anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebound {
    /// The port.
    Port,
    /// The address and the port.
    Address,
}

/// The port after `address`, among those that a NAT gives (RFC 4787 §4.2.2).
pub(super) fn next_port(address: SocketAddr) -> SocketAddr {
    let port = address.port().checked_add(1).unwrap_or(FIRST_PORT);
    SocketAddr::new(address.ip(), port.max(FIRST_PORT))
}

const FIRST_PORT: u16 = 1024;
