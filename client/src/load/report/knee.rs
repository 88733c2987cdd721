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
    /// What was wrong with the next; `None`: all were good, the knee lies higher.
    pub(crate) limit: Option<Limit>,
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
        };
        for window in windows.iter().filter(|window| window.begun > 0) {
            let p99 = window.latency.quantile_ms(0.99);
            if window.failed > 0 || p99.is_none_or(|p99| p99 > bound) {
                knee.limit = Some(Limit {
                    rate: window.rate(),
                    p99_ms: p99,
                    failed: window.failed,
                });
                break;
            }
            knee.rate = Some(window.rate());
            knee.p99_ms = p99;
        }
        Some(knee)
    }
}
