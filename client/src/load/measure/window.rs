//! A stretch of the run: what connections that were meant to begin in it came to. Plain values.

use serde::{Deserialize, Serialize};

use super::Latency;

/// One stretch of the run, by intended starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Since the start of the run.
    pub(crate) from_ms: f64,
    pub(crate) to_ms: f64,
    /// Connections that have begun.
    pub(crate) begun: u64,
    /// Of those: that have failed at any stage.
    pub(crate) failed: u64,
    /// Whether the run ended before all that were meant to begin in it had begun, or stopped some of
    /// them: then it says nothing about its rate.
    pub(crate) cut_short: bool,
    /// From the intended start to the end of the handshake (half-open, flood: to the cookie).
    pub(crate) latency: Latency,
}

impl Window {
    /// Empty.
    pub(crate) fn new(from_ms: f64, to_ms: f64) -> Self {
        Self {
            from_ms,
            to_ms,
            begun: 0,
            failed: 0,
            cut_short: false,
            latency: Latency::coarse(),
        }
    }

    /// Connections a second that were meant to begin; fewer where it was cut short.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
    pub(crate) fn rate(&self) -> f64 {
        self.begun as f64 / ((self.to_ms - self.from_ms) / 1e3)
    }

    /// Adds all of another's of the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.begun += other.begun;
        self.failed += other.failed;
        self.cut_short |= other.cut_short;
        self.latency.add(&other.latency);
    }
}
