//! The comparison of the backends, as a table. Main thread.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::Row;

/// Writes the table; colours are for `out` to keep or to strip.
///
/// # Errors
///
/// What the output says.
pub fn write_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let bold = Style::new().bold();
    let widest = |text: fn(&Row) -> &str| rows.iter().map(|row| text(row).len()).max();
    let link = widest(|row| &row.link).unwrap_or_default();
    let what = widest(|row| row.what).unwrap_or_default();
    writeln!(
        out,
        "{bold}{:link$}  {:what$}  {:>10}  {:>10}  {:>8}  {:>7}  verdict{bold:#}",
        "link", "of the datagrams", "wire", "netem", "distance", "bound"
    )?;
    for row in rows {
        let (colour, word) = match (row.agrees, row.measured) {
            (true, 1) => (AnsiColor::Green, "agrees".to_owned()),
            (true, times) => (AnsiColor::Yellow, format!("agrees, measured {times} times")),
            (false, times) => (AnsiColor::Red, format!("DIFFERS, measured {times} times")),
        };
        let style = Style::new().fg_color(Some(colour.into()));
        let [wire, netem] = [row.wire, row.netem].map(|value| format!("{value:.1} {}", row.unit));
        writeln!(
            out,
            "{:link$}  {:what$}  {wire:>10}  {netem:>10}  {:>8.4}  {:>7.4}  {style}{word}{style:#}",
            row.link, row.what, row.distance, row.bound
        )?;
    }
    Ok(())
}
