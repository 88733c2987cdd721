//! The clock, read where a thread waits or measures. Any thread.

use std::time::Instant;

/// The time.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this program that reads the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
