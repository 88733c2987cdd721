//! What is on a link in one direction: how full it is, and when the rate lets the next datagram go.
//! All flows share it, as they share a link.

use std::num::NonZeroU32;
use std::time::Duration;

use super::link::Rate;

/// A link's queue, as tc-netem keeps it: the delay and the wait for the rate are spent in it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// When each datagram that is on the link leaves it.
    leave: Vec<Duration>,
    /// When the last of those that the rate has sent leaves it.
    busy_until: Duration,
}

impl Queue {
    /// Whether so many datagrams are on the link at `now` that no other fits.
    pub(super) fn is_full(&mut self, now: Duration, limit: NonZeroU32) -> bool {
        self.leave.retain(|at| *at > now);
        self.leave.len() >= limit.get() as usize
    }

    /// Puts a frame on the link; when it leaves it. After its latency it waits for those before it, and
    /// then takes its own time.
    pub(super) fn enter(
        &mut self,
        now: Duration,
        latency: Duration,
        frame: usize,
        rate: Option<Rate>,
    ) -> Duration {
        let mut at = now + latency;
        if let Some(rate) = rate {
            at = at.max(self.busy_until) + rate.time_for(frame);
            self.busy_until = at;
        }
        if at > now {
            self.leave.push(at);
        }
        at
    }
}
