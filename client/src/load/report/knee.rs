//! The knee: the highest rate that the server kept up with. Pure.

use serde::{Deserialize, Serialize};

use crate::load::measure::Window;
use crate::load::plan::{Plan, Rate};

/// The knee of a ramp or of steps: of the stretches of the run from its beginning, the last one in
/// which nothing failed and the 99th percentile was within the bound, as it was in all before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Knee {
    /// Connections a second; `None`: not even the first stretch was good.
    pub(crate) rate: Option<f64>,
    /// There.
    pub(crate) p99_ms: Option<f64>,
    /// What was wrong with the next; `None`: nothing, the knee may lie higher.
    pub(crate) limit: Option<Limit>,
    /// Whether the run ended in the next, so that it could show nothing.
    pub(crate) cut_short: bool,
}

/// What ended the good stretches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) rate: f64,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) failed: u64,
}

impl Knee {
    /// `None` where the rate does not rise.
    pub(crate) fn find(plan: &Plan, windows: &[Window]) -> Option<Self> {
        let rises = match plan.rate.as_ref()? {
            Rate::Constant(_) => false,
            Rate::Ramp { from, to, .. } => from < to,
            Rate::Steps { rates, .. } => rates.len() > 1 && rates.is_sorted(),
        };
        if !rises {
            return None;
        }
        let bound = plan.p99_bound.as_secs_f64() * 1e3;
        let mut knee = Self {
            rate: None,
            p99_ms: None,
            limit: None,
            cut_short: false,
        };
        for window in windows {
            let p99 = window.latency.quantile_ms(0.99);
            // What was bad before the end would not have become good after it.
            let slow = p99.is_some_and(|p99| p99 > bound);
            if window.failed > 0 || slow || !window.cut_short && window.begun > 0 && p99.is_none() {
                knee.limit = Some(Limit {
                    rate: window.rate(),
                    p99_ms: p99,
                    failed: window.failed,
                });
                break;
            }
            if window.cut_short {
                knee.cut_short = true;
                break;
            }
            // At a low rate none may be meant to begin in it.
            if window.begun == 0 {
                continue;
            }
            knee.rate = Some(window.rate());
            knee.p99_ms = p99;
        }
        Some(knee)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::measure::Tally;
    use crate::load::outcome::{Failure, Outcome, Stage};

    fn plan() -> Plan {
        Plan::of_flags(&["--rate", "10,20,40/1s", "--p99", "50ms"])
    }

    /// Ten, twenty and forty connections in a second each, with these latencies in milliseconds.
    fn tally(latencies: [u64; 3]) -> Tally {
        let mut tally = Tally::new(3, Duration::from_secs(1));
        for ((window, begun), latency) in tally.windows.iter_mut().zip([10, 20, 40]).zip(latencies)
        {
            window.begun = begun;
            for _ in 0..begun {
                window.latency.record(Duration::from_millis(latency));
            }
        }
        tally
    }

    fn knee(tally: &Tally) -> (Option<f64>, Option<f64>, bool) {
        let knee = Knee::find(&plan(), &tally.windows).unwrap();
        let limit = knee.limit.map(|limit| limit.rate);
        (knee.rate, limit, knee.cut_short)
    }

    #[test]
    fn the_last_good_stretch_is_the_knee_and_the_next_its_limit() {
        assert_eq!(knee(&tally([1, 1, 1])), (Some(40.0), None, false));
        assert_eq!(knee(&tally([1, 1, 60])), (Some(20.0), Some(40.0), false));
        // Good again after it has been bad is chance.
        assert_eq!(knee(&tally([1, 60, 1])), (Some(10.0), Some(20.0), false));
        assert_eq!(knee(&tally([60, 1, 1])), (None, Some(10.0), false));
    }

    #[test]
    fn a_stretch_that_was_cut_short_is_not_good_but_may_be_bad() {
        let mut cut = tally([1, 1, 1]);
        cut.cut_short(Duration::from_millis(2500));
        assert_eq!(knee(&cut), (Some(20.0), None, true));
        let mut cut = tally([1, 1, 60]);
        cut.cut_short(Duration::from_millis(2500));
        assert_eq!(knee(&cut), (Some(20.0), Some(40.0), false));
        // A connection was stopped in the second, and nothing began in the third.
        let mut stopped = tally([1, 1, 1]);
        stopped.count(Outcome::Interrupted, 1);
        assert_eq!(knee(&stopped), (Some(10.0), None, true));
        let mut whole = tally([1, 1, 1]);
        whole.cut_short(Duration::from_secs(3));
        assert_eq!(knee(&whole), (Some(40.0), None, false));
    }

    #[test]
    fn a_failure_ends_the_good_stretches_and_an_empty_one_does_not() {
        let mut failed = tally([1, 1, 1]);
        let failure = Failure {
            stage: Stage::Handshake,
            error: String::new(),
        };
        failed.count(Outcome::Failed(failure), 1);
        assert_eq!(knee(&failed), (Some(10.0), Some(20.0), false));
        let mut empty = tally([1, 1, 1]);
        empty.windows[1] = Window::new(1000.0, 2000.0);
        assert_eq!(knee(&empty), (Some(40.0), None, false));
        // Connections that neither failed nor came through.
        let mut silent = tally([1, 1, 1]);
        silent.windows[2] = Window::new(2000.0, 3000.0);
        silent.windows[2].begun = 40;
        assert_eq!(knee(&silent), (Some(20.0), Some(40.0), false));
    }
}
