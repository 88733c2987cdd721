//! The clock of the runs. Only threads that wait for real processes read it; the engine is told the time.

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
