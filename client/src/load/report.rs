//! What a run found, ready to print, to keep and to add up. Main thread.
//!
//! `report.schema.json` beside this file describes it as JSON, field by field.

pub(crate) mod hdr;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod text;
mod knee;
mod merge;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::IntoEnumIterator;

use super::doubts::Doubt;
use super::measure::{Agreed, Latency, Percentiles, Phase, Tally, Window, Wire};
use super::metrics::Counters;
use super::outcome::Stage;
use super::plan::Plan;
use super::run::Stopped;

pub(crate) use knee::Knee;
pub(crate) use merge::{COMPARED, Unlike};

/// The number of this form of report; a reader refuses others.
pub(crate) const FORM: u32 = 3;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    pub(crate) form: u32,
    pub(crate) target: String,
    pub(crate) peer: String,
    /// RFC 3339.
    pub(crate) started_at: String,
    pub(crate) plan: Plan,
    pub(crate) doubts: Vec<Doubt>,
    pub(crate) stopped: Option<Stopped>,
    pub(crate) begun: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) interrupted: u64,
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    pub(crate) retransmissions: u64,
    pub(crate) cookies: u64,
    pub(crate) icmp_errors: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) reordered: u64,
    pub(crate) duplicated: u64,
    pub(crate) corrupted: u64,
    pub(crate) seconds: f64,
    pub(crate) handshakes_per_second: f64,
    pub(crate) messages_per_second: f64,
    pub(crate) latency: BTreeMap<String, Option<Percentiles>>,
    pub(crate) agreed: BTreeSet<Agreed>,
    pub(crate) wire: OnTheWire,
    pub(crate) client: Consumption,
    pub(crate) server: Option<Consumption>,
    pub(crate) server_counters: Option<Counters>,
    pub(crate) knee: Option<Knee>,
    pub(crate) windows: Vec<WindowReport>,
    pub(crate) failures: Vec<Failures>,
    pub(crate) histograms: BTreeMap<Phase, Latency>,
}

/// Datagrams and bytes of complete handshakes, and per handshake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OnTheWire {
    pub(crate) full: Wire,
    pub(crate) resumed: Wire,
}

/// What a process took during the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Consumption {
    pub(crate) processor_seconds: f64,
    /// Per handshake, or where messages were exchanged on few connections, see `per_message_us`.
    pub(crate) per_handshake_us: Option<f64>,
    pub(crate) per_message_us: Option<f64>,
    /// Resident memory: before the run, and the most seen.
    pub(crate) memory_before: u64,
    pub(crate) memory_most: u64,
    /// In the mode hold, per connection that was open.
    pub(crate) memory_per_connection: Option<f64>,
}

impl Consumption {
    /// Without the means, where what they are means of is not known.
    pub(crate) fn in_all(self) -> Self {
        Self {
            per_handshake_us: None,
            per_message_us: None,
            memory_per_connection: None,
            ..self
        }
    }
}

/// A stretch of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WindowReport {
    /// Connections a second meant to begin.
    pub(crate) rate: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
    #[serde(flatten)]
    pub(crate) window: Window,
}

/// All connections that failed for the same reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failures {
    pub(crate) stage: Stage,
    pub(crate) error: String,
    pub(crate) count: u64,
}

/// What a report is made of beside the tally.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) target: String,
    pub(crate) peer: String,
    pub(crate) started_at: String,
    pub(crate) plan: Plan,
    pub(crate) doubts: Vec<Doubt>,
    pub(crate) stopped: Option<Stopped>,
    pub(crate) begun: u64,
    pub(crate) took: Duration,
    pub(crate) client: Consumption,
    pub(crate) server: Option<Consumption>,
    pub(crate) server_counters: Option<Counters>,
}

impl Report {
    /// From what was counted.
    pub(crate) fn new(facts: Facts, tally: &Tally) -> Self {
        let messages = &tally.messages;
        let mut failures: Vec<Failures> = tally
            .failures
            .iter()
            .map(|(failure, &count)| Failures {
                stage: failure.stage,
                error: failure.error.clone(),
                count,
            })
            .collect();
        failures.sort_by_key(|failures| std::cmp::Reverse(failures.count));
        let used = tally.windows.iter().rposition(|window| window.begun > 0);
        let used = used.map_or(0, |last| last + 1);
        // And the one at whose beginning the run ended, if that was before its time.
        let cut = tally.windows.get(used).is_some_and(|next| next.cut_short);
        let windows = &tally.windows[..used + usize::from(cut)];
        Self {
            form: FORM,
            target: facts.target,
            peer: facts.peer,
            started_at: facts.started_at,
            knee: Knee::find(&facts.plan, windows),
            plan: facts.plan,
            doubts: facts.doubts,
            stopped: facts.stopped,
            begun: facts.begun,
            completed: tally.completed,
            failed: tally.failed,
            interrupted: tally.interrupted,
            handshakes: tally.handshakes,
            resumed: tally.resumed,
            retransmissions: tally.retransmissions,
            cookies: tally.cookies,
            icmp_errors: tally.icmp_errors,
            sent: messages.sent,
            received: messages.received,
            lost: messages.lost,
            late: messages.late,
            reordered: messages.reordered,
            duplicated: messages.duplicated,
            corrupted: messages.corrupted,
            seconds: facts.took.as_secs_f64(),
            handshakes_per_second: rate(tally.handshakes, facts.took),
            messages_per_second: rate(messages.received, facts.took),
            latency: Phase::iter()
                .map(|phase| (phase.name().to_owned(), tally[phase].percentiles()))
                .collect(),
            agreed: tally.agreed.clone(),
            wire: OnTheWire {
                full: tally.full,
                resumed: tally.abbreviated,
            },
            client: facts.client,
            server: facts.server,
            server_counters: facts.server_counters,
            windows: windows.iter().cloned().map(WindowReport::from).collect(),
            failures,
            histograms: Phase::iter()
                .filter(|&phase| tally[phase].count() > 0)
                .map(|phase| (phase, tally[phase].clone()))
                .collect(),
        }
    }

    /// Whether the run did all it was asked for and nothing was amiss.
    pub(crate) fn is_good(&self) -> bool {
        let amiss = self.failed + self.lost + self.corrupted;
        self.begun > 0 && self.stopped.is_none() && amiss == 0
    }

    /// In one line, for a report that is not good.
    pub(crate) fn what_went_wrong(&self) -> String {
        let why = self.failures.first().map_or(String::new(), |failures| {
            let stage = failures.stage.name();
            format!(
                ": {} at the stage {stage}: {}",
                failures.count, failures.error
            )
        });
        match self.stopped {
            Some(Stopped::Interrupted) => {
                "interrupted; the report is of what happened until then".to_owned()
            }
            Some(Stopped::GaveUp) => {
                format!(
                    "gave up after {} failures, nothing came through{why}",
                    self.failed
                )
            }
            None if self.failed > 0 => {
                format!("{} of {} connections failed{why}", self.failed, self.begun)
            }
            None if self.begun == 0 => "no connection was meant to begin in that time".to_owned(),
            None => format!(
                "{} of {} messages were lost, {} answers corrupted",
                self.lost, self.sent, self.corrupted
            ),
        }
    }

    /// The percentiles of a phase, if anything was measured.
    pub(crate) fn percentiles(&self, phase: Phase) -> Option<Percentiles> {
        self.latency.get(phase.name()).copied().flatten()
    }

    /// The distribution of a phase, if anything was measured.
    pub(crate) fn histogram(&self, phase: Phase) -> Option<&Latency> {
        self.histograms.get(&phase)
    }
}

impl From<Window> for WindowReport {
    fn from(window: Window) -> Self {
        let at = |quantile| window.latency.quantile_ms(quantile);
        Self {
            rate: window.rate(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            window,
        }
    }
}

/// So many in this time, a second.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more digits than 53 bits hold"
)]
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    if took.is_zero() {
        0.0
    } else {
        count as f64 / took.as_secs_f64()
    }
}
