//! The oracle's answer, as a table or as JSON. Main thread.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::{Deserialize, Serialize};

use super::Compared;
use super::silence::Silence;

/// Everything that is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// When the question was asked (RFC 3339, UTC).
    pub made_at: String,
    /// The kind of handshake.
    pub handshake: String,
    /// The defect that was planted to be found.
    pub defect: Option<String>,
    /// The seed, in hexadecimal as `--seed` takes it.
    pub seed: String,
    /// The silence probe of each flight.
    pub silences: Vec<Silence>,
    /// Each loss rate.
    pub compared: Vec<Compared>,
}

impl Answer {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.silences.iter().all(|it| it.right) && self.compared.iter().all(|it| it.agrees)
    }
}

/// Writes one JSON document.
///
/// # Errors
///
/// What the output says.
pub fn write_json(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, answer)?;
    writeln!(out)
}

/// Writes the tables; colours are for `out` to keep or to strip.
///
/// # Errors
///
/// What the output says.
pub fn write_tables(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let bold = Style::new().bold();
    writeln!(
        out,
        "{bold}silent peer, {} handshake{bold:#}",
        answer.handshake
    )?;
    for it in &answer.silences {
        let style = verdict(it.right);
        let word = if it.right { "right" } else { "WRONG" };
        let times = list(&it.times);
        write!(
            out,
            "  flight {} sent at {times} s  {style}{word}{style:#}",
            it.flight
        )?;
        if it.right {
            writeln!(out)?;
        } else {
            writeln!(out, ", expected {} s", list(&it.expected))?;
        }
    }
    writeln!(
        out,
        "\n{bold}{:>6}  {:>10}  {:>15}  {:>13}  {:>13}  {:>15}  {:>8}  {:>7}  verdict{bold:#}",
        "loss", "handshakes", "no resend", "p50", "p90", "p99", "distance", "bound"
    )?;
    for it in &answer.compared {
        let style = verdict(it.agrees);
        let word = if it.agrees { "agrees" } else { "DIFFERS" };
        let [p50, p90, p99] = it.quantiles.map(pair);
        writeln!(
            out,
            "{:>4} %  {:>10}  {:>7.4}/{:>7.4}  {p50:>13}  {p90:>13}  {p99:>15}  {:>8.4}  {:>7.4}  {style}{word}{style:#}",
            it.loss, it.handshakes, it.at_once[0], it.at_once[1], it.distance, it.bound
        )?;
    }
    let handshakes: u64 = answer
        .compared
        .iter()
        .map(|it| u64::from(it.handshakes))
        .sum();
    let seconds: f64 = answer
        .compared
        .iter()
        .map(|it| f64::from(it.handshakes) / it.rate)
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = handshakes as f64 / seconds.max(1e-6);
    writeln!(
        out,
        "\nsimulated/computed; {handshakes} handshakes in {seconds:.1} s, {rate:.0}/s; replay: --seed {}",
        answer.seed
    )
}

fn verdict(good: bool) -> Style {
    let colour = if good {
        AnsiColor::Green
    } else {
        AnsiColor::Red
    };
    Style::new().fg_color(Some(colour.into()))
}

fn pair([simulated, computed]: [Option<f64>; 2]) -> String {
    let one = |time: Option<f64>| time.map_or("never".to_owned(), |time| format!("{time}"));
    format!("{}/{} s", one(simulated), one(computed))
}

fn list(times: &[f64]) -> String {
    let words: Vec<String> = times.iter().map(|time| format!("{time}")).collect();
    words.join(", ")
}
