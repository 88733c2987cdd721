//! Warnings that cannot become noise: each kind is logged at most once a minute, with how often it
//! was met. Any thread.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One kind of warning is logged at most this often.
const INTERVAL: Duration = Duration::from_secs(60);

/// One kind of warning.
#[derive(Debug, Default)]
pub(crate) struct Complaint(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    since: u64,
}

impl Complaint {
    /// A kind that has not been met.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State {
            last: None,
            since: 0,
        }))
    }

    /// Logs the warning, or counts it for the next time.
    #[expect(
        clippy::disallowed_methods,
        reason = "limits the log in real time; read only when something is short or broken"
    )]
    pub(crate) fn make(&self, warning: &dyn Display) {
        if let Some(since) = self.due(Instant::now()) {
            log::warn!("{warning} ({since} since the last such line)");
        }
    }

    /// How often it was met, if that is to be told now.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since += 1;
        let due = state.last.is_none_or(|last| now - last >= INTERVAL);
        due.then(|| {
            state.last = Some(now);
            std::mem::take(&mut state.since)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn a_warning_is_told_once_a_minute_with_its_count() {
        let (complaint, start) = (Complaint::new(), Instant::now());
        assert_eq!(complaint.due(start), Some(1));
        for second in 1..60 {
            assert_eq!(complaint.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(complaint.due(start + INTERVAL), Some(60));
    }
}
