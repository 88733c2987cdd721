//! `dtls-client compare`: two reports side by side, with what chance alone would explain. Main
//! thread.
//!
//! The interval of a percentile is that of the ranks between which the true one lies with 95 %
//! probability, whatever the distribution; that of a part, Wilson's. Two runs differ where their
//! intervals do not touch, which errs on the side of "no difference".

use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::cli::{CompareArgs, Format};
use crate::exit::{ENVIRONMENT, USAGE};
use crate::load::report::json::{self, ReadError};
use crate::load::report::text::duration;
use crate::load::report::{COMPARED, Report};

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// A number and where it lies with 95 % probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Estimate {
    value: f64,
    low: f64,
    high: f64,
}

/// What the second run is, compared with the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Better,
    Worse,
    /// Chance explains the difference.
    Same,
    /// Too few measurements to say.
    Unknown,
}

/// One line of the comparison. Less is better in all of them.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    unit: Unit,
    a: Option<Estimate>,
    b: Option<Estimate>,
    /// Of B's value to A's.
    ratio: Option<f64>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Milliseconds,
    Part,
}

#[derive(Debug, Serialize)]
struct Comparison {
    a: String,
    b: String,
    /// The settings in which the plans differ, but for what need not be the same.
    differences: Vec<String>,
    lines: Vec<Line>,
}

/// Two-sided, of the normal distribution.
const Z95: f64 = 1.96;

/// Runs it.
pub(crate) fn run(args: &CompareArgs) -> ExitCode {
    match compare(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dtls-client: {error}");
            ExitCode::from(match error {
                CompareError::Read(_) => USAGE,
                CompareError::Print(_) => ENVIRONMENT,
            })
        }
    }
}

fn compare(args: &CompareArgs) -> Result<(), CompareError> {
    let (a, b) = (json::read(&args.a)?, json::read(&args.b)?);
    let comparison = Comparison {
        a: args.a.display().to_string(),
        b: args.b.display().to_string(),
        differences: a
            .plan
            .differences(&b.plan, &["connections", "seed", "sources", "threads"]),
        lines: lines(&a, &b),
    };
    match args.format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(&comparison).map_err(io::Error::from)?;
            text.push('\n');
            io::stdout().write_all(text.as_bytes())?;
        }
        Format::Text => print(&mut anstream::stdout().lock(), &comparison, [&a, &b])?,
    }
    Ok(())
}

fn lines(a: &Report, b: &Report) -> Vec<Line> {
    let mut lines = Vec::new();
    for phase in COMPARED {
        for (quantile, name) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99")] {
            let at = |report: &Report| {
                let latency = report.histogram(phase)?;
                percentile(latency.count(), quantile, |q| latency.quantile_ms(q))
            };
            let what = format!("{} {name}", phase.words());
            lines.extend(Line::new(what, Unit::Milliseconds, at(a), at(b)));
        }
    }
    let failed = |report: &Report| part(report.failed, report.begun);
    lines.extend(Line::new(
        "connections failed".into(),
        Unit::Part,
        failed(a),
        failed(b),
    ));
    let lost = |report: &Report| part(report.lost, report.sent);
    lines.extend(Line::new(
        "messages lost".into(),
        Unit::Part,
        lost(a),
        lost(b),
    ));
    lines
}

impl Line {
    /// `None` where neither run has it.
    fn new(what: String, unit: Unit, a: Option<Estimate>, b: Option<Estimate>) -> Option<Self> {
        if a.is_none() && b.is_none() {
            return None;
        }
        let both = a.zip(b);
        Some(Self {
            what,
            unit,
            a,
            b,
            ratio: both
                .filter(|(a, _)| a.value > 0.0)
                .map(|(a, b)| b.value / a.value),
            verdict: match both {
                None => Verdict::Unknown,
                Some((a, b)) if b.low > a.high => Verdict::Worse,
                Some((a, b)) if b.high < a.low => Verdict::Better,
                Some(_) => Verdict::Same,
            },
        })
    }
}

/// A percentile of `count` measurements; `None` where there are too few for an interval.
#[expect(clippy::cast_precision_loss, reason = "a rank needs no more digits")]
fn percentile(
    count: u64,
    quantile: f64,
    value_at: impl Fn(f64) -> Option<f64>,
) -> Option<Estimate> {
    let n = count as f64;
    // In parts of all, the standard deviation of the rank.
    let spread = Z95 * (quantile * (1.0 - quantile) / n).sqrt();
    if count == 0 || quantile + spread >= 1.0 || quantile - spread <= 0.0 {
        return None;
    }
    Some(Estimate {
        value: value_at(quantile)?,
        low: value_at(quantile - spread)?,
        high: value_at((quantile + spread + 1.0 / n).min(1.0))?,
    })
}

/// So many of so many.
#[expect(clippy::cast_precision_loss, reason = "a part needs no more digits")]
fn part(some: u64, all: u64) -> Option<Estimate> {
    if all == 0 {
        return None;
    }
    let (n, value) = (all as f64, some as f64 / all as f64);
    let z2 = Z95 * Z95;
    let middle = (value + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z95 / (1.0 + z2 / n) * (value * (1.0 - value) / n + z2 / (4.0 * n * n)).sqrt();
    Some(Estimate {
        value,
        low: (middle - half).max(0.0),
        high: (middle + half).min(1.0),
    })
}

const HEAD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBT: Style = AnsiColor::Yellow.on_default();

fn print(out: &mut impl Write, comparison: &Comparison, reports: [&Report; 2]) -> io::Result<()> {
    for (name, file, report) in [
        ("A", &comparison.a, reports[0]),
        ("B", &comparison.b, reports[1]),
    ] {
        let doubts = match report.doubts.len() {
            0 => String::new(),
            1 => ", 1 doubt".to_owned(),
            many => format!(", {many} doubts"),
        };
        writeln!(out, "{name}  {file}: {} connections{doubts}", report.begun)?;
    }
    writeln!(out)?;
    if !comparison.differences.is_empty() {
        let differences = comparison.differences.join(", ");
        writeln!(
            out,
            "{DOUBT}doubt{DOUBT:#}  the plans differ in {differences}: the runs may not be comparable\n"
        )?;
    }
    writeln!(
        out,
        "{HEAD}{:<24} {:>9}  {:<23} {:>9}  {:<23} {:>7}{HEAD:#}",
        "", "A", "95 %", "B", "95 %", "B/A"
    )?;
    for line in &comparison.lines {
        let [a, b] = [line.a, line.b].map(|estimate| match estimate {
            None => ("-".to_owned(), String::new()),
            Some(found) => {
                let [value, low, high] =
                    [found.value, found.low, found.high].map(|n| line.unit.show(n));
                (value, format!("{low} to {high}"))
            }
        });
        let ratio = line
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.2}"));
        write!(
            out,
            "{:<24} {:>9}  {:<23} {:>9}  {:<23} {ratio:>7}  ",
            line.what, a.0, a.1, b.0, b.1
        )?;
        match line.verdict {
            Verdict::Better => writeln!(out, "{GOOD}better{GOOD:#}")?,
            Verdict::Worse => writeln!(out, "{BAD}worse{BAD:#}")?,
            Verdict::Same => writeln!(out, "no difference shown")?,
            Verdict::Unknown => writeln!(out, "too few measurements")?,
        }
    }
    out.flush()
}

impl Unit {
    fn show(self, number: f64) -> String {
        match self {
            Self::Milliseconds => duration(number),
            Self::Part => format!("{:.2} %", number * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the numbers 1 to `count`, in order.
    fn of_ranks(count: u32, quantile: f64) -> Option<Estimate> {
        percentile(count.into(), quantile, |q| Some(q * f64::from(count)))
    }

    #[test]
    fn the_interval_of_a_percentile_is_that_of_its_rank() {
        let median = of_ranks(10_000, 0.5).unwrap();
        // The rank's standard deviation is 50.
        assert!((median.value - 5000.0).abs() < 1.0);
        assert!((median.low - 4902.0).abs() < 2.0 && (median.high - 5099.0).abs() < 2.0);
        assert_eq!(
            of_ranks(50, 0.99),
            None,
            "its upper end is beyond the largest"
        );
        assert_eq!(of_ranks(0, 0.5), None);
    }

    #[test]
    fn the_interval_of_a_part_is_wilsons_and_holds_for_none_and_all() {
        let tenth = part(10, 100).unwrap();
        assert!((tenth.low - 0.0552).abs() < 1e-3 && (tenth.high - 0.1744).abs() < 1e-3);
        let none = part(0, 1000).unwrap();
        assert!(
            none.low == 0.0 && (none.high - 0.00383).abs() < 1e-4,
            "{none:?}"
        );
        assert!(part(5, 5).unwrap().high == 1.0);
        assert_eq!(part(0, 0), None);
    }

    #[test]
    fn runs_differ_only_where_their_intervals_do_not_touch() {
        let estimate = |low, high| {
            Some(Estimate {
                value: f64::midpoint(low, high),
                low,
                high,
            })
        };
        let verdict = |a, b| Line::new(String::new(), Unit::Part, a, b).unwrap().verdict;
        assert_eq!(
            verdict(estimate(1.0, 2.0), estimate(2.0, 3.0)),
            Verdict::Same
        );
        assert_eq!(
            verdict(estimate(1.0, 2.0), estimate(2.1, 3.0)),
            Verdict::Worse
        );
        assert_eq!(
            verdict(estimate(2.1, 3.0), estimate(1.0, 2.0)),
            Verdict::Better
        );
        assert_eq!(verdict(None, estimate(1.0, 2.0)), Verdict::Unknown);
    }
}
