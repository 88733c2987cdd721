//! The report for programs: one JSON object on standard output. Main thread.

use std::io::{self, Write};

use super::Report;

/// Prints it.
pub(crate) fn print(report: &Report) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    io::stdout().write_all(text.as_bytes())
}
