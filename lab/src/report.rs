//! Stage 5 of the lab's path: verdicts against expectations, as a table, JSON, `JUnit` XML and a page.
//! Main thread.

mod json;
mod junit;
mod matrix;
pub mod page;
mod rules;
mod save;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::adapter::Adapters;
use crate::observe::sketch::Sketch;
use crate::packet::Family;
use crate::role::Role;
use crate::rules::Exchanged;
use crate::run::{Backend, Finished, Job, label};
use crate::verdict::{Need, Verdict};

pub use json::write_json;
pub use junit::write_junit;
pub use matrix::{Cell, Matrix, Player, State, write_matrix};
pub use rules::{BugRow, RuleRow, Tally, Verdicts, bug_rows, rule_rows, write_bugs, write_rules};
pub use save::{SaveError, save, save_oracle, save_page};
pub use table::write_table;

/// What a verdict means, given what was expected of these endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Pass,
    /// Another implementation fails where the scenario says it does.
    KnownFailure,
    /// Something expected was not seen.
    Fail,
    /// It passed although the scenario says that it cannot: the scenario's words are out of date.
    UnexpectedPass,
    /// The lab could not do its part.
    Broken,
    /// The endpoint cannot play this.
    Unsupported,
    /// Not tried.
    Skipped,
    /// Not tried, although `LAB_REQUIRE` demands it.
    RequiredButSkipped,
}

impl Status {
    /// Whether it makes the whole run fail.
    pub const fn is_unexpected(self) -> bool {
        matches!(
            self,
            Self::Fail | Self::UnexpectedPass | Self::Broken | Self::RequiredButSkipped
        )
    }

    /// The word in the table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::KnownFailure => "fail (known)",
            Self::Fail => "FAIL",
            Self::UnexpectedPass => "PASS (unexpected)",
            Self::Broken => "BROKEN",
            Self::Unsupported => "unsupported",
            Self::Skipped => "skipped",
            Self::RequiredButSkipped => "SKIPPED (required)",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Names the run among all of the report; also the name of its folder.
    pub id: String,
    /// The scenario.
    pub scenario: String,
    /// What it claims.
    pub claim: String,
    /// Over which IP version.
    pub family: Family,
    /// The server and its arguments.
    pub server: String,
    /// The client and its arguments.
    pub client: String,
    /// The backend that played it.
    pub backend: &'static str,
    /// How many times as fast as ours the clocks of its programs ran, where `--dilate` worked; all times are
    /// theirs then.
    pub dilated: Option<u32>,
    /// What it came to.
    pub status: Status,
    /// From the first hello to the end of the last flight, in milliseconds.
    pub handshake_ms: Option<f64>,
    /// Flights sent again.
    pub resent: Option<u32>,
    /// What the server sent to an address that had proven nothing, where that was most for what had come
    /// from it.
    pub unverified_bytes: Option<Exchanged>,
    /// Real time the run took.
    pub seconds: f64,
    /// Why it did not pass, and what else is to be known.
    pub why: String,
    /// Whether the handshake was all that could be judged.
    pub handshake_only: bool,
    /// Why it was known to fail, in the scenario's words.
    pub known: Option<String>,
    /// Folder of the evidence, within that of the report.
    pub evidence: Option<String>,
    /// The command that plays it again.
    pub replay: String,
    /// What the page draws.
    #[serde(skip)]
    pub sketch: Option<Arc<Sketch>>,
}

/// The words of `LAB_REQUIRE`: what must not be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Required(BTreeSet<String>);

impl Required {
    /// Reads a list such as `openssl,ipv6`; `all` stands for everything.
    ///
    /// # Errors
    ///
    /// The first word that means nothing.
    pub fn parse(text: &str, adapters: &Adapters) -> Result<Self, String> {
        let words: BTreeSet<String> = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        let valid: Vec<&str> = REQUIREMENTS.into_iter().chain(adapters.names()).collect();
        match words.iter().find(|word| !valid.contains(&word.as_str())) {
            Some(word) => Err(format!(
                "LAB_REQUIRE: `{word}` is nothing the lab can require; valid: {}",
                valid.join(", ")
            )),
            None => Ok(Self(words)),
        }
    }

    /// Whether this word itself was said.
    #[must_use]
    pub fn names(&self, need: &Need) -> bool {
        self.0.contains(need.name())
    }

    fn demands(&self, need: &str) -> bool {
        // Of two backends each plays what the other cannot: none would ever meet both demands.
        let of_backend = ["control", "sim", "wire"].contains(&need);
        self.0.contains(need) || (self.0.contains("all") && !of_backend)
    }
}

/// `netns` is always required, since without namespaces nothing runs at all; it may be said.
const REQUIREMENTS: [&str; 7] = ["all", "netns", "ipv6", "control", "wire", "netem", "sim"];

impl Row {
    /// The row of one run.
    pub fn new(
        job: &Job<'_>,
        finished: &Finished,
        required: &Required,
        seed: u64,
        backend: Backend,
    ) -> Self {
        // Where nothing else is wrong with the wire, a rule that an end is known to break is broken.
        let kept = job.play.waived.iter().find(|(rule, waiver)| {
            let must_show = job.scenario.control.is_none() && !waiver.sometimes;
            must_show && !finished.broken.contains(*rule)
        });
        let known = match kept {
            Some((_, waiver)) if finished.verdict == Verdict::Pass => Some(waiver.reason.clone()),
            _ => job.play.fails_because.clone(),
        };
        let may_pass = job.play.may_pass && kept.is_none();
        let status = match (&finished.verdict, &known) {
            (Verdict::Pass, None) => Status::Pass,
            (Verdict::Pass, Some(_)) if may_pass => Status::Pass,
            (Verdict::Pass, Some(_)) => Status::UnexpectedPass,
            (Verdict::Fail(_), Some(_)) => Status::KnownFailure,
            (Verdict::Fail(_), None) => Status::Fail,
            (Verdict::Unsupported(_), _) => Status::Unsupported,
            (Verdict::Broken(_), _) => Status::Broken,
            (Verdict::Skipped(skip), _) if required.demands(skip.need.name()) => {
                Status::RequiredButSkipped
            }
            (Verdict::Skipped(_), _) => Status::Skipped,
        };
        let why = match (status, &known) {
            (Status::UnexpectedPass, Some(reason)) => {
                format!(
                    "it was known to fail because {reason}; correct the scenario's `fails_because`, or the \
                     expectation"
                )
            }
            _ => {
                let why = Some(finished.verdict.why()).filter(|why| !why.is_empty());
                let waived = job.play.waived.iter();
                let waived = waived
                    .filter(|(rule, _)| finished.broken.contains(*rule))
                    .map(|(rule, waiver)| format!("breaks {rule}, as known: {}", waiver.reason));
                why.map(str::to_owned)
                    .into_iter()
                    .chain(finished.remarks.iter().cloned())
                    .chain(waived)
                    .collect::<Vec<_>>()
                    .join("; ")
            }
        };
        let unverified = finished
            .sketch
            .as_ref()
            .and_then(|sketch| sketch.unverified);
        Self {
            id: job.folder(backend),
            scenario: job.scenario.name.clone(),
            claim: job.scenario.claim.clone(),
            family: job.family,
            server: label(&job.play, Role::Server),
            client: label(&job.play, Role::Client),
            backend: backend.name(),
            dilated: finished.dilated,
            status,
            handshake_ms: finished.handshake.map(milliseconds),
            resent: finished.resent,
            unverified_bytes: unverified.map(|(bytes, _)| bytes),
            seconds: (finished.took.as_secs_f64() * 1000.0).round() / 1000.0,
            why,
            handshake_only: finished.handshake_only,
            known,
            evidence: finished.evidence.is_some().then(|| job.folder(backend)),
            replay: replay(job, job.seed(seed), backend),
            sketch: finished.sketch.clone(),
        }
    }
}

/// What a command needs so that this backend plays again; with a seed it is the wire by itself.
#[must_use]
pub const fn backend_flag(backend: Backend) -> &'static str {
    match backend {
        Backend::Wire => "",
        Backend::Netem => " --backend netem",
        Backend::Sim => " --backend sim",
    }
}

/// The command that plays one run again, with the same decisions.
pub fn replay(job: &Job<'_>, seed: u64, backend: Backend) -> String {
    let backend = backend_flag(backend);
    format!(
        "dtls-lab run {}{backend} --seed {seed:x} --family {} --server {} --client {}",
        job.scenario.name,
        job.family,
        quoted(&label(&job.play, Role::Server)),
        quoted(&label(&job.play, Role::Client)),
    )
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Everything that is told at the end.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When the lab was started (RFC 3339, UTC).
    pub started_at: String,
    /// The lab's version.
    pub version: &'static str,
    /// The seed, in hexadecimal as `--seed` takes it.
    pub seed: String,
    /// The defect that was planted in simulated ends, to be found.
    pub defect: Option<String>,
    /// Folder of the report and of the evidence of its runs, as `--out` names it.
    pub folder: String,
    /// How the wire was made.
    pub backend: String,
    /// The runs, in order of scenario.
    pub runs: Vec<Row>,
    /// How many there are of each kind.
    pub summary: Summary,
    /// The command that plays all of it again.
    pub replay: String,
}

/// The last line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// As it should be.
    pub pass: usize,
    /// Known failures of other implementations.
    pub known_failures: usize,
    /// What makes the exit status 1.
    pub unexpected: usize,
    /// What endpoints say they cannot do.
    pub unsupported: usize,
    /// Not tried.
    pub skipped: usize,
    /// Wall time.
    pub seconds: f64,
}

impl Summary {
    /// Counts the rows.
    pub fn of(rows: &[Row], took: Duration) -> Self {
        let count =
            |wanted: fn(Status) -> bool| rows.iter().filter(|row| wanted(row.status)).count();
        Self {
            pass: count(|status| status == Status::Pass),
            known_failures: count(|status| status == Status::KnownFailure),
            unexpected: count(Status::is_unexpected),
            unsupported: count(|status| status == Status::Unsupported),
            skipped: count(|status| status == Status::Skipped),
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests;
