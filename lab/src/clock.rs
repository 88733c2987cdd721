//! The clock of the runs: the lab's own time, and that of the programs.
//!
//! Where a run is dilated, its programs' clocks run several times as fast as the lab's. [`Clock`] is the
//! one place where the two times meet: whatever a scenario, an event, a verdict or a report says is the
//! programs' time, and only who waits turns it into an instant of ours. Only threads that wait for real
//! processes read the clock; the engine is told the time.

use std::time::{Duration, Instant};

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "a run waits for real processes in real time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time left until `deadline`, if any.
pub(crate) fn until(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(now());
    (!left.is_zero()).then_some(left)
}

/// The time of a run's programs since the run began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    pace: u32,
}

impl Clock {
    /// A clock that starts now and runs so many times as fast as ours.
    ///
    /// # Panics
    ///
    /// At a pace of 0.
    #[must_use]
    pub fn start(pace: u32) -> Self {
        assert!(pace > 0, "time must pass");
        Self {
            origin: now(),
            pace,
        }
    }

    /// What it shows.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        now().saturating_duration_since(self.origin) * self.pace
    }

    /// Our instant at which it shows `time`.
    #[must_use]
    pub fn instant(self, time: Duration) -> Instant {
        self.origin + self.real(time)
    }

    /// Our instant at which it will have gone on by `time`.
    #[must_use]
    pub fn after(self, time: Duration) -> Instant {
        now() + self.real(time)
    }

    /// How much of our time passes while it goes on by `time`.
    #[must_use]
    pub fn real(self, time: Duration) -> Duration {
        time / self.pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_clock_and_ours_agree_on_every_instant() {
        let clock = Clock::start(10);
        let hour = Duration::from_secs(3600);
        assert_eq!(clock.real(hour), Duration::from_secs(360));
        assert_eq!(
            clock.instant(hour) - clock.instant(Duration::ZERO),
            clock.real(hour)
        );
        let (before, shown, after) = (now(), clock.elapsed(), now());
        assert!(clock.instant(shown) >= before && clock.instant(shown) <= after);
        assert!(clock.after(hour) >= after + clock.real(hour));
    }
}
