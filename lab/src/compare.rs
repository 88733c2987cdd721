//! Whether our wire does to datagrams what the kernel's netem does: the same links on both, thousands
//! of plain UDP datagrams through each, and what came out compared.
//!
//! ```text
//! links ─┬─► wire  ─► arrivals ─┬─► shares, gaps, latencies ─► bounds ─► verdict
//!        └─► netem ─► arrivals ─┘
//! ```
//!
//! What is out of its bound is measured again, since a busy machine is the likelier reason: it differs when
//! it was out [`TRIES`] times.
//!
//! Main thread.

mod measure;
pub mod report;
mod stats;

use std::io;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::Serialize;

use crate::netem;
use crate::netns::NamespaceError;
use crate::relay::{Links, StartError};
use crate::scenario::{Chance, GeModel, Link, Rate};
use measure::{Sample, measure, quantile};
use stats::Share;

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum NotCompared {
    /// Environment.
    #[error(transparent)]
    Netem(#[from] netem::Missing),
    /// Environment.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Environment.
    #[error(transparent)]
    Relay(#[from] StartError),
    /// Environment: sockets of our own.
    #[error("cannot send datagrams to ourselves ({0})")]
    Socket(#[from] io::Error),
    /// Environment: nothing can be said of latencies here and now.
    #[error(
        "this machine is too busy: without any delay a datagram in a hundred takes {0:.0} ms and more"
    )]
    TooBusy(f64),
}

/// One property of one link, on both.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The link, as tc-netem takes it.
    pub link: String,
    /// What was measured.
    pub what: &'static str,
    /// On our wire.
    pub wire: f64,
    /// On the kernel's netem.
    pub netem: f64,
    /// The unit of both.
    pub unit: &'static str,
    /// How far they lie apart: of shares the difference, of latencies the greatest distance of their
    /// distributions, of times the ratio beyond 1.
    pub distance: f64,
    /// What that may be.
    pub bound: f64,
    /// Whether it is.
    pub agrees: bool,
    /// How often it was measured: again where it was not.
    pub measured: u32,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Datagrams through each link, on each backend.
    pub datagrams: u32,
    /// Seed of the wire's chances; netem has its own.
    pub seed: u64,
}

impl Question {
    /// Sends all datagrams through all links; `tell` hears which is next.
    ///
    /// # Errors
    ///
    /// [`NotCompared`], all of them the environment's.
    pub fn answer(&self, tell: &dyn Fn(&str)) -> Result<Vec<Row>, NotCompared> {
        netem::available()?;
        let both = |link: &Link, again: u32| -> Result<[Sample; 2], NotCompared> {
            let times = if again > 0 { ", again" } else { "" };
            tell(&format!("{}{times}", netem::words(link)));
            // Other chances each time, or the wire would lose the same.
            let seed = self.seed.wrapping_add(again.into());
            let measure = |links| measure(link, links, self.datagrams, seed);
            Ok([measure(Links::Engine)?, measure(Links::Kernel)?])
        };
        let noise = quiet_moment(|again| {
            // What the machine itself adds to every latency, more on one than on the other.
            let samples = both(&Link::default(), again)?;
            let latest = |sample: &Sample| quantile(&sample.latencies(), 0.99);
            Ok(samples.iter().map(latest).sum())
        })?;
        let mut rows = Vec::new();
        for (link, compare) in cases() {
            let words = netem::words(&link);
            let settled = settle(|again| Ok(compare(&both(&link, again)?, noise)))?;
            rows.extend(settled.into_iter().map(|row| Row {
                link: words.clone(),
                ..row
            }));
        }
        Ok(rows)
    }
}

/// The first noise that hides no difference, of up to [`TRIES`].
fn quiet_moment(
    mut measure: impl FnMut(u32) -> Result<f64, NotCompared>,
) -> Result<f64, NotCompared> {
    let mut noise = measure(0)?;
    for again in 1..TRIES {
        if noise <= MOST_NOISE {
            break;
        }
        noise = measure(again)?;
    }
    if noise > MOST_NOISE {
        return Err(NotCompared::TooBusy(noise * 1000.0));
    }
    Ok(noise)
}

/// The rows of one link: each as soon as it agrees, or as it was the last time of [`TRIES`].
fn settle(
    mut compare: impl FnMut(u32) -> Result<Vec<Row>, NotCompared>,
) -> Result<Vec<Row>, NotCompared> {
    let mut rows = compare(0)?;
    for again in 1..TRIES {
        if rows.iter().all(|row| row.agrees) {
            break;
        }
        for (row, newer) in rows.iter_mut().zip(compare(again)?) {
            if !row.agrees {
                *row = Row {
                    measured: again + 1,
                    ..newer
                };
            }
        }
    }
    Ok(rows)
}

type Compare = fn(&[Sample; 2], f64) -> Vec<Row>;

/// The links, and what is compared of each.
fn cases() -> Vec<(Link, Compare)> {
    let percent = |percent: u32| Chance::per_million(percent * 10_000).expect("at most 100 %");
    // Long against what a busy machine adds.
    let slow = Duration::from_secs(1);
    vec![
        (
            Link {
                loss: percent(10),
                ..Link::default()
            },
            |samples, _| vec![shares("lost", samples, |sample| sample.lost())],
        ),
        (
            Link {
                gemodel: Some(GeModel {
                    p: percent(5),
                    r: percent(20),
                    loss_in_bad: Chance::ALWAYS,
                    loss_in_good: Chance::default(),
                }),
                ..Link::default()
            },
            |samples, _| {
                vec![
                    shares("lost behind a loss", samples, |it| it.lost_behind(true)),
                    shares("lost behind none", samples, |it| it.lost_behind(false)),
                ]
            },
        ),
        (
            Link {
                duplicate: percent(20),
                ..Link::default()
            },
            |samples, _| {
                let twice = |sample: &Sample| Share::of(&sample.counts(false), |count| *count == 2);
                vec![shares("come twice", samples, twice)]
            },
        ),
        (
            Link {
                corrupt: percent(10),
                ..Link::default()
            },
            |samples, _| {
                let none = |sample: &Sample| Share::of(&sample.counts(true), |count| *count == 0);
                vec![shares("not intact", samples, none)]
            },
        ),
        (
            Link {
                delay: slow,
                jitter: Duration::from_millis(800),
                limit: NonZeroU32::new(100_000),
                ..Link::default()
            },
            |samples, noise| vec![latencies(samples, noise)],
        ),
        (
            Link {
                delay: slow,
                reorder: percent(25),
                limit: NonZeroU32::new(100_000),
                ..Link::default()
            },
            |samples, _| {
                let spared = |sample: &Sample| {
                    Share::of(&sample.arrivals, |one| {
                        one.latency < Duration::from_millis(500)
                    })
                };
                vec![shares("spared the delay", samples, spared)]
            },
        ),
        (
            Link {
                rate: NonZeroU64::new(100_000).map(Rate),
                limit: NonZeroU32::new(10),
                ..Link::default()
            },
            |samples, noise| {
                let gap = |sample: &Sample| sample.mean_gap();
                // Behind a full queue each waits for nine others.
                let wait = |sample: &Sample| quantile(&sample.latencies(), 0.5);
                vec![
                    times("time between two", samples, gap, 0.05 + noise / 2.0),
                    times("wait in a full queue", samples, wait, 0.1 + noise / 0.3),
                ]
            },
        ),
    ]
}

fn shares(what: &'static str, samples: &[Sample; 2], share: impl Fn(&Sample) -> Share) -> Row {
    let pair = [share(&samples[0]), share(&samples[1])];
    let [wire, netem] = pair.map(|share| share.value());
    let (distance, bound) = ((wire - netem).abs(), stats::bound_on_shares(pair));
    row(what, [wire * 100.0, netem * 100.0], "%", distance, bound)
}

/// A part of the tolerance in time comes from the machine, not from the links.
fn latencies(samples: &[Sample; 2], noise: f64) -> Row {
    let [wire, netem] = [samples[0].latencies(), samples[1].latencies()];
    let distance = stats::distance(&wire, &netem, noise + TIMER);
    let bound = stats::bound_on_distance(wire.len(), netem.len());
    let medians = [
        quantile(&wire, 0.5) * 1000.0,
        quantile(&netem, 0.5) * 1000.0,
    ];
    row("latency, median", medians, "ms", distance, bound)
}

fn times(
    what: &'static str,
    samples: &[Sample; 2],
    time: impl Fn(&Sample) -> f64,
    bound: f64,
) -> Row {
    let [wire, netem] = [time(&samples[0]), time(&samples[1])];
    let distance = (wire / netem - 1.0).abs();
    row(what, [wire * 1000.0, netem * 1000.0], "ms", distance, bound)
}

fn row(
    what: &'static str,
    [wire, netem]: [f64; 2],
    unit: &'static str,
    distance: f64,
    bound: f64,
) -> Row {
    Row {
        link: String::new(),
        what,
        wire,
        netem,
        unit,
        distance,
        bound,
        // A distance that is no number agrees with nothing.
        agrees: distance <= bound,
        measured: 1,
    }
}

/// How often what is out of its bound is measured in all.
pub const TRIES: u32 = 3;
/// Seconds by which the relay's own timer may be late.
const TIMER: f64 = 0.005;
/// Seconds; more would hide a difference in the links.
const MOST_NOISE: f64 = 0.25;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use super::measure::tests::sample;
    use super::*;

    #[test]
    fn backends_that_differ_are_told() {
        let (all, few) = (0..1000).partition::<Vec<u32>, _>(|number| number % 10 != 0);
        let lost = |samples: &[Sample; 2]| shares("lost", samples, |sample| sample.lost()).agrees;
        assert!(lost(&[sample(1000, &all), sample(1000, &all)]));
        assert!(!lost(&[sample(1000, &all), sample(1000, &few)]));
        let gap = |sample: &Sample| sample.mean_gap();
        let nothing = [sample(1000, &all), sample(1000, &[])];
        assert!(!times("gap", &nothing, gap, 0.05).agrees, "nothing came");
    }

    /// What comes of 2,000 datagrams on a link that loses each by this chance.
    fn lossy(loss: f64, seed: u64) -> Sample {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let come: Vec<u32> = (0..2000).filter(|_| !rng.random_bool(loss)).collect();
        sample(2000, &come)
    }

    fn lost(wire: f64, netem: f64, seed: u64) -> Row {
        let samples = [lossy(wire, 2 * seed), lossy(netem, 2 * seed + 1)];
        shares("lost", &samples, |sample| sample.lost())
    }

    #[test]
    fn link_that_loses_too_much_differs_however_often_it_is_measured() {
        // Eight standard deviations between 10 and 19 %: of 1,000 measured once one would agree, of three tries three.
        let mut agreed = 0;
        for round in 0..40 {
            let rows = settle(|again| {
                let seed = 3 * round + u64::from(again);
                Ok(vec![lost(0.10, 0.19, seed), lost(0.10, 0.10, seed)])
            });
            let rows = rows.expect("nothing can go wrong here");
            agreed += usize::from(rows[0].agrees);
            assert!(rows[0].agrees || rows[0].measured == TRIES);
            assert!(rows[1].agrees && rows[1].measured == 1, "that one is alike");
        }
        assert!(agreed <= 1, "{agreed} of 40");
    }

    #[test]
    fn property_out_of_its_bound_once_is_measured_again_and_says_so() {
        let rows = settle(|again| {
            let disturbed = if again == 0 { 0.5 } else { 0.10 };
            let seed = u64::from(again);
            // What has agreed is not judged again, however it comes out.
            let later = if again == 0 { 0.10 } else { 0.5 };
            Ok(vec![lost(0.10, disturbed, seed), lost(0.10, later, seed)])
        });
        let rows = rows.expect("nothing can go wrong here");
        assert!(rows.iter().all(|row| row.agrees), "{rows:?}");
        assert_eq!([rows[0].measured, rows[1].measured], [2, 1]);
    }

    #[test]
    fn machine_is_too_busy_only_when_it_is_so_each_time() {
        let noisy = |until: u32| {
            quiet_moment(|again| {
                Ok(if again < until {
                    2.0 * MOST_NOISE
                } else {
                    0.01
                })
            })
        };
        for quiet_at in 0..TRIES {
            assert!(noisy(quiet_at).is_ok(), "quiet at {quiet_at}");
        }
        assert!(matches!(noisy(TRIES), Err(NotCompared::TooBusy(_))));
    }
}
