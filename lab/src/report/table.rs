//! The report for people: a row per run, then what to do about the unexpected, then the count.

use std::io::{self, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};

use super::{Report, Row, Status};

/// Writes the table; colours are for `out` to keep or to strip. `folder` is that of the evidence, as the reader is
/// to be told it.
///
/// # Errors
///
/// What the output says.
pub fn write_table(out: &mut impl Write, report: &Report, folder: &Path) -> io::Result<()> {
    let rows: Vec<[String; 8]> = report.runs.iter().map(cells).collect();
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    write_row(
        out,
        &HEADINGS.map(str::to_owned),
        &widths,
        Style::new().bold(),
        "why",
    )?;
    for (row, cells) in report.runs.iter().zip(&rows) {
        write_row(out, cells, &widths, style(row.status), &row.why)?;
    }
    for row in report.runs.iter().filter(|row| row.status.is_unexpected()) {
        let status = row.status.word();
        writeln!(
            out,
            "\n{status}: {} {} {} / {}",
            row.scenario, row.family, row.server, row.client
        )?;
        writeln!(out, "  why       {}", row.why)?;
        if let Some(evidence) = &row.evidence {
            writeln!(out, "  evidence  {}", folder.join(evidence).display())?;
        }
        writeln!(out, "  replay    {}", row.replay)?;
    }
    let sum = &report.summary;
    if !report.runs.is_empty() && sum.skipped == report.runs.len() {
        writeln!(
            out,
            "\nNOTHING WAS TRIED: every run was skipped, for the reasons above"
        )?;
    }
    writeln!(
        out,
        "\n{} pass, {} known failures of other implementations, {} unexpected, {} unsupported, \
         {} skipped in {:.0} s",
        sum.pass, sum.known_failures, sum.unexpected, sum.unsupported, sum.skipped, sum.seconds
    )
}

const HEADINGS: [&str; 8] = [
    "scenario",
    "ip",
    "server",
    "client",
    "on",
    "verdict",
    "handshake",
    "resent",
];
/// Index of the verdict among the columns, the one that is coloured.
const VERDICT: usize = 5;
/// Index of the first column of numbers, which are set to the right.
const NUMBERS: usize = 6;

fn cells(row: &Row) -> [String; 8] {
    [
        row.scenario.clone(),
        row.family.to_string(),
        shortened(&row.server),
        shortened(&row.client),
        match row.dilated {
            Some(times) => format!("{} x{times}", row.backend),
            None => row.backend.to_owned(),
        },
        row.status.word().to_owned(),
        row.handshake_ms.map_or_else(|| "-".to_owned(), duration),
        row.resent
            .map_or_else(|| "-".to_owned(), |resent| resent.to_string()),
    ]
}

/// The beginning of a label; the whole stands in the replay command.
pub(super) fn shortened(label: &str) -> String {
    if label.chars().count() <= WIDEST_LABEL {
        return label.to_owned();
    }
    let kept: String = label.chars().take(WIDEST_LABEL - 1).collect();
    format!("{}…", kept.trim_end())
}

/// Characters; `ours --handshake-timeout 3s` fits.
const WIDEST_LABEL: usize = 32;

fn duration(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{:.2} s", milliseconds / 1000.0)
    }
}

fn write_row(
    out: &mut impl Write,
    cells: &[String; 8],
    widths: &[usize; 8],
    style: Style,
    why: &str,
) -> io::Result<()> {
    let mut line = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padded = if index >= NUMBERS {
            format!("{cell:>width$}")
        } else {
            format!("{cell:<width$}")
        };
        if index == VERDICT {
            line += &format!("{style}{padded}{style:#}  ");
        } else {
            line += &format!("{padded}  ");
        }
    }
    writeln!(out, "{}", format!("{line}{why}").trim_end())
}

fn style(status: Status) -> Style {
    let colour = match status {
        Status::Pass => AnsiColor::Green,
        Status::KnownFailure | Status::Unsupported | Status::Skipped => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}
