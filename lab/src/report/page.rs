//! The report as one page that needs nothing else: no font, no other file, light or dark as the
//! reader's system is, and readable on paper. Its script only filters and copies. Main thread.
//!
//! The templates are in `lab/templates/report`; they escape whatever a program, a scenario or a path
//! says. Here and in the modules below is what they show: words and coordinates.

mod amplification;
mod ladder;
mod logs;
mod matrix;
mod oracle;
mod runs;
mod timers;

use std::io::{self, Write};
use std::path::Path;

use askama::Template;

use super::Report;
use crate::oracle::report::Answer;
use amplification::Amplification;
use oracle::OracleView;
use runs::Runs;
use timers::Timers;

/// What the templates see.
#[derive(Debug, Template)]
#[template(path = "report/index.html")]
struct Page {
    title: String,
    subtitle: String,
    runs: Option<Runs>,
    timers: Option<Timers>,
    amplification: Option<Amplification>,
    oracle: Option<OracleView>,
}

/// Writes the page of a report whose runs left their evidence in `folder`; `oracle` is the newest answer
/// of the oracle, if there is one.
///
/// # Errors
///
/// What the output says.
pub fn write(
    out: &mut impl Write,
    folder: &Path,
    report: &Report,
    oracle: Option<&Answer>,
) -> io::Result<()> {
    let silences = oracle.map_or(&[][..], |answer| &answer.silences);
    let page = Page {
        title: "dtls-lab".to_owned(),
        subtitle: format!(
            "{} runs, backend {}, seed {}, {}, version {}",
            report.runs.len(),
            report.backend,
            report.seed,
            report.started_at,
            report.version
        ),
        runs: Some(Runs::of(folder, report)),
        timers: Timers::of(&report.runs, silences),
        amplification: Amplification::of(&report.runs),
        oracle: oracle.map(OracleView::of).transpose()?,
    };
    page.write_into(out)
}

/// Writes a page of the oracle's answer alone.
///
/// # Errors
///
/// What the output says.
pub fn write_oracle(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let page = Page {
        title: "dtls-lab oracle".to_owned(),
        subtitle: format!("{} handshake, {}", answer.handshake, answer.made_at),
        runs: None,
        timers: Timers::of(&[], &answer.silences),
        amplification: None,
        oracle: Some(OracleView::of(answer)?),
    };
    page.write_into(out)
}

/// Milliseconds as people read them.
fn duration(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{:.2} s", milliseconds / 1000.0)
    }
}

/// The name of an implementation in `openssl -listen`.
fn implementation(label: &str) -> &str {
    label.split_once(' ').map_or(label, |(name, _)| name)
}

#[cfg(test)]
mod tests;
