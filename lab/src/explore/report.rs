//! What was explored, as a table or as JSON. Main thread.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{Explored, Finding};

/// Everything that is told at the end.
#[derive(Debug, Serialize)]
struct Document<'a> {
    spaces: &'a [Explored],
    cases: u64,
    failed: u64,
    late: u64,
}

fn document(spaces: &[Explored]) -> Document<'_> {
    Document {
        spaces,
        cases: spaces.iter().map(|it| it.cases).sum(),
        failed: spaces.iter().map(|it| it.failed).sum(),
        late: spaces.iter().map(|it| it.late).sum(),
    }
}

/// Writes one JSON document.
///
/// # Errors
///
/// What the output says.
pub fn write_json(out: &mut impl Write, spaces: &[Explored]) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &document(spaces))?;
    writeln!(out)
}

/// Writes the table; colours are for `out` to keep or to strip.
///
/// # Errors
///
/// What the output says.
pub fn write_table(out: &mut impl Write, spaces: &[Explored]) -> io::Result<()> {
    let bold = Style::new().bold();
    writeln!(
        out,
        "{bold}{:<13} {:<18} {:>7} {:>7} {:>6} {:>9} {:>8}{bold:#}",
        "space", "handshake", "cases", "failed", "late", "slowest", "cases/s"
    )?;
    for it in spaces {
        let colour = if it.failed > 0 {
            AnsiColor::Red
        } else {
            AnsiColor::Green
        };
        let style = Style::new().fg_color(Some(colour.into()));
        let rate = rate(it.cases, it.seconds);
        writeln!(
            out,
            "{:<13} {:<18} {:>7} {style}{:>7}{style:#} {:>6} {:>7.3} s {rate:>8.0}",
            it.space, it.handshake, it.cases, it.failed, it.late, it.slowest
        )?;
    }
    for it in spaces {
        for finding in &it.shown {
            write_finding(out, &format!("{} {}", it.space, it.handshake), finding)?;
        }
    }
    let sum = document(spaces);
    let seconds: f64 = spaces.iter().map(|it| it.seconds).sum();
    writeln!(
        out,
        "\n{} cases, {} failed, {} late in {seconds:.1} s, {:.0} cases/s",
        sum.cases,
        sum.failed,
        sum.late,
        rate(sum.cases, seconds)
    )
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(cases: u64, seconds: f64) -> f64 {
    cases as f64 / seconds.max(1e-6)
}

/// Writes one case.
///
/// # Errors
///
/// What the output says.
pub fn write_finding(out: &mut impl Write, where_: &str, finding: &Finding) -> io::Result<()> {
    let word = match (finding.failed, finding.case) {
        (true, _) => "FAIL",
        (false, Some(_)) => "late",
        (false, None) => "good",
    };
    let case = finding
        .case
        .map_or_else(String::new, |number| format!(" case {number}"));
    writeln!(out, "\n{word}: {where_}{case}: {}", finding.why)?;
    for words in &finding.words {
        writeln!(out, "  {words}")?;
    }
    writeln!(out, "  replay    {}", finding.replay)?;
    if finding.failed {
        writeln!(out, "  minimal   {}", finding.replay_minimal)?;
    }
    Ok(())
}
