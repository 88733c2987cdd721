//! How far a run is: on a terminal a few lines that are drawn anew, otherwise a plain line every few
//! seconds. Standard error; main thread.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::clock::now;

use super::measure::Phase;
use super::report::text::duration;
use super::run::Run;

/// The view.
#[derive(Debug)]
pub(crate) struct Live {
    terminal: Option<Terminal>,
    /// When the next plain line is due.
    next_line: Option<Instant>,
    /// Handshakes in each of the last seconds, the present one last.
    rates: VecDeque<u64>,
    second: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Terminal {
    _all: MultiProgress,
    bar: ProgressBar,
    counts: ProgressBar,
    latencies: ProgressBar,
    trend: ProgressBar,
}

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Seconds in the trend.
const TREND: usize = 40;

const SECOND: Duration = Duration::from_secs(1);

impl Live {
    /// Nothing shown yet.
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let line = |template: &str| {
                let bar = all.add(ProgressBar::no_length());
                match ProgressStyle::with_template(template) {
                    Ok(style) => bar.set_style(style.progress_chars("━╸ ")),
                    Err(error) => log::debug!("progress bar: {error}"),
                }
                bar
            };
            Terminal {
                bar: line("{elapsed_precise} {wide_bar:.cyan/blue} {msg}"),
                // Cut off where the terminal ends, or the lines could not be drawn anew.
                counts: line("  now      {wide_msg}"),
                latencies: line("  latency  {wide_msg}"),
                trend: line("  trend    {wide_msg}"),
                _all: all,
            }
        });
        Self {
            terminal,
            next_line: None,
            rates: VecDeque::new(),
            second: None,
        }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, run: &Run<'_>) {
        let at = now();
        let progress = &run.progress;
        let [begun, ended, failed, made] = [
            &progress.begun,
            &progress.ended,
            &progress.failed,
            &progress.made,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        let rate = self.follow(at, made);
        let open = begun.saturating_sub(ended);
        let since = at.saturating_duration_since(run.began);
        let asked = run.plan.rate.as_ref().map_or(String::new(), |asked| {
            let last_second = asked.area(since) - asked.area(since.saturating_sub(SECOND));
            format!(" (begun at {last_second:.0}/s)")
        });
        let counts =
            format!("{rate} handshakes/s{asked}, {made} made, {open} open, {failed} failed");
        if let Some(terminal) = &self.terminal {
            let (position, length, of) = match (run.plan.connections, run.plan.duration) {
                (Some(connections), _) => {
                    let of = format!("{ended}/{connections} connections");
                    (u64::from(ended), u64::from(connections), of)
                }
                (None, duration) => {
                    let length = duration.unwrap_or_default().as_millis();
                    let gone = at.saturating_duration_since(run.began).as_millis();
                    let number = |ms: u128| u64::try_from(ms).unwrap_or(u64::MAX);
                    (
                        number(gone.min(length)),
                        number(length),
                        format!("{ended} connections"),
                    )
                }
            };
            terminal.bar.set_length(length);
            terminal.bar.set_position(position);
            terminal.bar.set_message(of);
            terminal.counts.set_message(counts);
            terminal.latencies.set_message(latencies(run));
            terminal.trend.set_message(trend(&self.rates));
        } else if self.next_line.is_some_and(|due| due <= at) {
            eprintln!("{:>4} s: {counts}; {}", since.as_secs(), latencies(run));
            self.next_line = Some(at + LINE_EVERY);
        }
        // A short run needs no line.
        self.next_line.get_or_insert(at + LINE_EVERY);
    }

    /// Leaves the terminal as it was.
    pub(crate) fn finish(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            for line in [
                terminal.bar,
                terminal.counts,
                terminal.latencies,
                terminal.trend,
            ] {
                line.finish_and_clear();
            }
        }
    }

    /// Keeps the rates of the last seconds; gives that of the last whole one.
    fn follow(&mut self, at: Instant, made: u32) -> u64 {
        let (since, before) = *self.second.get_or_insert((at, made));
        let now = u64::from(made.saturating_sub(before));
        if at.saturating_duration_since(since) >= SECOND {
            self.rates.push_back(now);
            if self.rates.len() > TREND {
                self.rates.pop_front();
            }
            self.second = Some((at, made));
        }
        self.rates.back().copied().unwrap_or(now)
    }
}

/// The phases that have been measured so far, shortly.
fn latencies(run: &Run<'_>) -> String {
    let sum = run.sum();
    let parts: Vec<String> = [
        Phase::FullHandshake,
        Phase::ResumedHandshake,
        Phase::Cookie,
        Phase::Message,
    ]
    .into_iter()
    .filter_map(|phase| {
        let (p50, p99) = (sum[phase].quantile_ms(0.5)?, sum[phase].quantile_ms(0.99)?);
        let words = phase.words();
        Some(format!(
            "{words} p50 {} p99 {}",
            duration(p50),
            duration(p99)
        ))
    })
    .collect();
    if parts.is_empty() {
        "nothing measured yet".to_owned()
    } else {
        parts.join(" · ")
    }
}

/// Handshakes in each of the last seconds.
fn trend(rates: &VecDeque<u64>) -> String {
    let most = rates.iter().copied().max().unwrap_or(0);
    format!("{}  handshakes/s, at most {most}", sparkline(rates))
}

/// A character for each number, the highest one full.
fn sparkline(numbers: &VecDeque<u64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.iter().copied().max().unwrap_or(0).max(1);
    numbers
        .iter()
        .map(|&number| {
            let step = usize::try_from(number * 7 / most).unwrap_or(0);
            BARS[step.min(7)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_is_a_full_bar_and_nothing_is_the_lowest() {
        assert_eq!(sparkline(&VecDeque::from([0, 5, 10])), "▁▄█");
        assert_eq!(sparkline(&VecDeque::from([0, 0])), "▁▁");
        assert_eq!(sparkline(&VecDeque::new()), "");
    }
}
