//! The report for programs: one JSON document.

use std::io::{self, Write};

use serde::Serialize;

/// Writes a whole report.
///
/// # Errors
///
/// What the output says.
pub fn write_json(out: &mut impl Write, report: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}
