//! The report for people: what was asked, what came of it, how long it took, what went wrong.
//! Main thread.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::{Percentiles, Report, Stopped};

const BAD: Style = AnsiColor::Red.on_default().bold();
const HEAD: Style = Style::new().bold();

/// Prints it on standard output, in colour where that is a terminal.
pub(crate) fn print(report: &Report) -> io::Result<()> {
    write(&mut anstream::stdout().lock(), report)
}

fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let plan = &report.plan;
    let peer = report.peer.to_string();
    let peer = if peer == report.target {
        String::new()
    } else {
        format!(" ({peer})")
    };
    write!(
        out,
        "{} to {}{peer}, {} at once, {} of {} bytes each",
        number(plan.connections, "connection"),
        report.target,
        plan.workers(),
        number(plan.messages, "message"),
        plan.size
    )?;
    if !plan.hold.is_zero() {
        write!(
            out,
            ", then held for {}",
            humantime::format_duration(plan.hold)
        )?;
    }
    writeln!(out, "\n")?;
    match report.stopped {
        Some(Stopped::Interrupted) => writeln!(out, "{BAD}interrupted{BAD:#}: partial results")?,
        Some(Stopped::GaveUp) => writeln!(
            out,
            "{BAD}gave up{BAD:#}: the first {} connections failed",
            report.failed
        )?,
        None => {}
    }
    let connections = [
        (report.completed, "completed", false),
        (report.failed, "failed", true),
        (report.interrupted, "interrupted", true),
    ];
    let shown = if report.interrupted > 0 { 3 } else { 2 };
    counts(out, "connections", &connections[..shown])?;
    counts(
        out,
        "handshakes",
        &[
            (report.handshakes, "completed", false),
            (report.resumed, "resumed", false),
            (report.retransmissions, "flights sent again", false),
        ],
    )?;
    counts(
        out,
        "messages",
        &[
            (report.sent, "sent", false),
            (report.received, "received", false),
            (report.lost, "lost", true),
            (report.late, "late", true),
            (report.duplicated, "duplicated", true),
            (report.corrupted, "corrupted", true),
        ],
    )?;
    writeln!(
        out,
        "{:<12} {}, {:.0} handshakes/s, {:.0} messages/s",
        "took",
        duration(report.seconds * 1e3),
        report.handshakes_per_second,
        report.messages_per_second
    )?;
    if report.handshakes > 0 {
        writeln!(
            out,
            "\n{HEAD}{:<18} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}{HEAD:#}",
            "latency", "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
    }
    latency(out, "full handshake", report.latency.full_handshake)?;
    latency(out, "resumed handshake", report.latency.resumed_handshake)?;
    latency(out, "message", report.latency.message)?;
    if !report.failures.is_empty() {
        writeln!(
            out,
            "\n{HEAD}{:<9} {:>6}  why{HEAD:#}",
            "failed at", "count"
        )?;
    }
    for failures in &report.failures {
        let (stage, count) = (failures.stage.name(), failures.count);
        writeln!(out, "{BAD}{stage:<9}{BAD:#} {count:>6}  {}", failures.error)?;
    }
    out.flush()
}

fn number(count: u32, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// One line of counts. Those that should be 0 and are not are red.
fn counts(out: &mut impl Write, name: &str, counts: &[(u64, &str, bool)]) -> io::Result<()> {
    write!(out, "{name:<12}")?;
    for (at, &(count, what, bad)) in counts.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        if bad && count > 0 {
            write!(out, "{comma} {BAD}{count} {what}{BAD:#}")?;
        } else {
            write!(out, "{comma} {count} {what}")?;
        }
    }
    writeln!(out)
}

fn latency(out: &mut impl Write, name: &str, found: Option<Percentiles>) -> io::Result<()> {
    let Some(found) = found else {
        return Ok(());
    };
    write!(out, "{name:<18} {:>8}", found.count)?;
    for milliseconds in [
        found.p50_ms,
        found.p90_ms,
        found.p99_ms,
        found.p99_9_ms,
        found.max_ms,
    ] {
        write!(out, " {:>9}", duration(milliseconds))?;
    }
    writeln!(out)
}

/// With three digits and a unit.
fn duration(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 0.9995 => format!("{:.0} µs", ms * 1e3),
        ms if ms < 9.995 => format!("{ms:.2} ms"),
        ms if ms < 99.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_995.0 => format!("{:.2} s", ms / 1e3),
        ms if ms < 99_950.0 => format!("{:.1} s", ms / 1e3),
        ms => format!("{:.0} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_three_digits_and_the_unit_that_fits() {
        for (milliseconds, text) in [
            (0.0004, "0 µs"),
            (0.0214, "21 µs"),
            (0.9994, "999 µs"),
            (0.9996, "1.00 ms"),
            (9.994, "9.99 ms"),
            (9.996, "10.0 ms"),
            (99.96, "100 ms"),
            (999.6, "1.00 s"),
            (61_000.0, "61.0 s"),
            (3_600_000.0, "3600 s"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
    }
}
