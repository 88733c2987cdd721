//! The report for people: what was asked, what came of it, how long it took, what went wrong.
//! Main thread.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use strum::IntoEnumIterator;

use super::{Consumption, Knee, Percentiles, Report};
use crate::load::doubts::Kind;
use crate::load::measure::{Agreed, Phase, Wire};
use crate::load::plan::humane;
use crate::load::plan::{Arrivals, Mode};
use crate::load::run::Stopped;

const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBT: Style = AnsiColor::Yellow.on_default();
const HEAD: Style = Style::new().bold();

/// Prints it on standard output, in colour where that is a terminal.
pub(crate) fn print(report: &Report) -> io::Result<()> {
    write(&mut anstream::stdout().lock(), report)
}

fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{}\n", title(report))?;
    for doubt in &report.doubts {
        writeln!(out, "{DOUBT}doubt{DOUBT:#}        {}", doubt.text)?;
    }
    if !report.doubts.is_empty() {
        writeln!(out)?;
    }
    match report.stopped {
        Some(Stopped::Interrupted) => writeln!(out, "{BAD}interrupted{BAD:#}: partial results")?,
        Some(Stopped::GaveUp) => writeln!(
            out,
            "{BAD}gave up{BAD:#}: nothing came through; {} failed",
            report.failed
        )?,
        None => {}
    }
    totals(out, report)?;
    let measured = Phase::iter().any(|phase| report.percentiles(phase).is_some());
    if measured {
        writeln!(
            out,
            "\n{HEAD}{:<18} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}{HEAD:#}",
            "latency", "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
    }
    for phase in Phase::iter() {
        // Of interest only where it is none: then it is a doubt.
        if phase != Phase::StartDelay {
            latency(out, phase.words(), report.percentiles(phase))?;
        }
    }
    if let Some(knee) = &report.knee {
        writeln!(
            out,
            "\n{HEAD}knee{HEAD:#}         {}",
            knee_words(knee, report)
        )?;
        rates(out, report)?;
    }
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

/// What was asked for.
pub(crate) fn title(report: &Report) -> String {
    let plan = &report.plan;
    let mut text = match plan.connections {
        Some(connections) => number(connections.into(), "connection"),
        None => "connections".to_owned(),
    };
    text.push_str(&format!(" to {}", report.target));
    if report.peer != report.target {
        text.push_str(&format!(" ({})", report.peer));
    }
    match (&plan.rate, plan.concurrency) {
        (Some(rate), _) => {
            let arrivals = match plan.arrivals {
                Arrivals::Constant => "",
                Arrivals::Poisson => ", Poisson",
            };
            text.push_str(&format!(", open loop, {}{arrivals}", rate.words()));
        }
        (None, at_once) => {
            text.push_str(&format!(", {} at once", at_once.unwrap_or(1)));
        }
    }
    match plan.mode {
        Mode::Echo => text.push_str(&format!(
            ", {} of {} bytes each",
            number(plan.messages.into(), "message"),
            plan.size
        )),
        Mode::Mix => text.push_str(&format!(", mixed {}", plan.mix)),
        mode => {
            let name = clap::ValueEnum::to_possible_value(&mode);
            let name = name.as_ref().map_or("", |name| name.get_name());
            text.push_str(&format!(", mode {name}"));
        }
    }
    if !plan.hold.is_zero() {
        text.push_str(&format!(", held for {}", humane(plan.hold)));
    }
    text
}

fn totals(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let plan = &report.plan;
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
    for agreed in &report.agreed {
        writeln!(out, "{:<12} {}", "agreed on", agreed_words(agreed))?;
    }
    if plan.mix.has(Mode::HalfOpen) || plan.mix.has(Mode::HelloFlood) {
        counts(out, "cookies", &[(report.cookies, "received", false)])?;
    }
    if plan.has_messages() {
        counts(
            out,
            "messages",
            &[
                (report.sent, "sent", false),
                (report.received, "received", false),
                (report.lost, "lost", true),
                (report.late, "late", true),
                (report.reordered, "reordered", false),
                (report.duplicated, "duplicated", true),
                (report.corrupted, "corrupted", true),
            ],
        )?;
    }
    write!(
        out,
        "{:<12} {}, {:.0} handshakes/s",
        "took",
        duration(report.seconds * 1e3),
        report.handshakes_per_second,
    )?;
    if plan.has_messages() {
        write!(out, ", {:.0} messages/s", report.messages_per_second)?;
    }
    writeln!(out)?;
    wire(out, "full", &report.wire.full)?;
    wire(out, "resumed", &report.wire.resumed)?;
    consumption(out, "client", &report.client)?;
    if let Some(server) = &report.server {
        consumption(out, "server", server)?;
    }
    if let Some(counters) = &report.server_counters {
        let agree = !report
            .doubts
            .iter()
            .any(|doubt| doubt.kind == Kind::ServerDisagrees);
        let words = if agree {
            "agree with ours"
        } else {
            "differ from ours, see the doubts"
        };
        writeln!(
            out,
            "{:<12} {} of the server's have grown; they {words}",
            "counters",
            counters.len()
        )?;
    }
    Ok(())
}

/// What handshakes agreed on.
pub(super) fn agreed_words(agreed: &Agreed) -> String {
    let mut text = format!("{}, {}", agreed.version, agreed.cipher);
    for part in [&agreed.group, &agreed.alpn].into_iter().flatten() {
        text.push_str(&format!(", {}", part.escape_debug()));
    }
    text
}

/// What one handshake takes on the wire.
#[expect(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
fn wire(out: &mut impl Write, name: &str, wire: &Wire) -> io::Result<()> {
    if wire.handshakes == 0 {
        return Ok(());
    }
    let mean = |count: u64| count as f64 / wire.handshakes as f64;
    writeln!(
        out,
        "{:<12} {:.1} datagrams out, {:.1} in; {:.0} bytes out, {:.0} in per {name} handshake",
        "on the wire",
        mean(wire.datagrams_sent),
        mean(wire.datagrams_received),
        mean(wire.bytes_sent),
        mean(wire.bytes_received),
    )
}

fn consumption(out: &mut impl Write, who: &str, used: &Consumption) -> io::Result<()> {
    write!(
        out,
        "{who:<12} {:.2} s of processor time",
        used.processor_seconds
    )?;
    // Handshakes cost more, so messages explain the time only where there are many more of them.
    match (used.per_handshake_us, used.per_message_us) {
        (Some(handshake), Some(message)) if message * 20.0 < handshake => {
            write!(out, ", {message:.1} µs per message")?;
        }
        (Some(each), _) => write!(out, ", {each:.0} µs per handshake")?,
        (None, _) => {}
    }
    write!(out, "; {} MiB at most", used.memory_most >> 20)?;
    if let Some(each) = used.memory_per_connection {
        write!(out, ", {:.1} KiB per connection", each / 1024.0)?;
    }
    writeln!(out)
}

/// The knee in a sentence.
pub(super) fn knee_words(knee: &Knee, report: &Report) -> String {
    let bound = humane(report.plan.p99_bound);
    let reached = match (knee.rate, knee.p99_ms) {
        (Some(rate), Some(p99)) => {
            format!("{rate:.0} connections a second with p99 {}", duration(p99))
        }
        _ if knee.limit.is_none() => "none found".to_owned(),
        _ => "none: not even the lowest rate was good".to_owned(),
    };
    let limit = match &knee.limit {
        None if knee.cut_short => "; the run ended before the next could be judged".to_owned(),
        None => format!("; all were good, so it lies higher (bound {bound})"),
        Some(limit) if limit.failed > 0 => {
            format!("; at {:.0} a second {} failed", limit.rate, limit.failed)
        }
        Some(limit) => match limit.p99_ms {
            Some(p99) => format!(
                "; at {:.0} a second p99 was {}, beyond {bound}",
                limit.rate,
                duration(p99)
            ),
            None => format!("; at {:.0} a second nothing came through", limit.rate),
        },
    };
    reached + &limit
}

/// The stretches of a ramp or of steps.
fn rates(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(
        out,
        "\n{HEAD}{:>10} {:>8} {:>8} {:>9} {:>9} {:>9}{HEAD:#}",
        "rate", "begun", "failed", "p50", "p99", "max"
    )?;
    for window in report
        .windows
        .iter()
        .filter(|window| window.window.begun > 0)
    {
        let cut = if window.window.cut_short {
            "  cut short"
        } else {
            ""
        };
        let time = |milliseconds: Option<f64>| milliseconds.map_or("-".to_owned(), duration);
        writeln!(
            out,
            "{:>8.0}/s {:>8} {:>8} {:>9} {:>9} {:>9}{cut}",
            window.rate,
            window.window.begun,
            window.window.failed,
            time(window.p50_ms),
            time(window.p99_ms),
            time(window.max_ms),
        )?;
    }
    Ok(())
}

fn number(count: u64, what: &str) -> String {
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
pub(crate) fn duration(milliseconds: f64) -> String {
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
