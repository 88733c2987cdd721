//! Whether our wire does to datagrams what the kernel's netem does: the same links on both, thousands
//! of plain UDP datagrams through each, and what came out compared.
//!
//! ```text
//! links ─┬─► wire  ─► arrivals ─┬─► shares, gaps, latencies ─► bounds ─► verdict
//!        └─► netem ─► arrivals ─┘
//! ```
//!
//! Main thread; each measurement has a relay thread and one that receives.

pub mod report;
mod stats;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;

use crate::clock::Clock;
use crate::netem;
use crate::netns::{NamespaceError, Network, client_addr, server_addr};
use crate::relay::{Links, Relay, StartError};
use crate::scenario::{Chance, Family, GeModel, Link, Rate};
use crate::wire::Engine;
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
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Datagrams through each link, on each backend.
    pub datagrams: u32,
    /// Seed of the wire's chances; netem has its own.
    pub seed: u64,
}

/// What came of the datagrams through one link.
struct Sample {
    sent: u32,
    /// In the order in which they came.
    arrivals: Vec<Arrival>,
}

struct Arrival {
    number: u32,
    /// Since it was sent.
    latency: Duration,
    /// Since the start.
    at: Duration,
    intact: bool,
}

impl Question {
    /// Sends all datagrams through all links; `tell` hears which is next.
    ///
    /// # Errors
    ///
    /// [`NotCompared`], all of them the environment's.
    pub fn answer(&self, tell: &dyn Fn(&str)) -> Result<Vec<Row>, NotCompared> {
        netem::available()?;
        let both = |link: &Link| -> Result<[Sample; 2], NotCompared> {
            tell(&netem::words(link));
            let measure = |links| self.measure(link, links);
            Ok([measure(Links::Engine)?, measure(Links::Kernel)?])
        };
        // What the machine itself adds to every latency, more on one than on the other.
        let noise: f64 = both(&Link::default())?
            .iter()
            .map(|sample| quantile(&sample.latencies(), 0.99))
            .sum();
        if noise > MOST_NOISE {
            return Err(NotCompared::TooBusy(noise * 1000.0));
        }
        let mut rows = Vec::new();
        for (link, compare) in cases() {
            let samples = both(&link)?;
            let words = netem::words(&link);
            rows.extend(compare(&samples, noise).into_iter().map(|row| Row {
                link: words.clone(),
                ..row
            }));
        }
        Ok(rows)
    }

    fn measure(&self, link: &Link, links: Links) -> Result<Sample, NotCompared> {
        let network = Network::build(Family::Ipv4)?;
        // A socket stays in the namespace where it was made.
        network.server.enter()?;
        let receiver = UdpSocket::bind(SocketAddr::new(server_addr(Family::Ipv4), PORT))?;
        if setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&receiver, sockopt::RcvBuf, &RECEIVE_BUFFER).map_err(io::Error::from)?;
        }
        receiver.set_read_timeout(Some(link.delay + link.jitter + SILENCE))?;
        network.client.enter()?;
        let sender = UdpSocket::bind(SocketAddr::new(client_addr(Family::Ipv4), 0))?;
        sender.connect(receiver.local_addr()?)?;
        network.wire.enter()?;
        let engine = match links {
            Links::Engine => Engine::made_of(Vec::new(), link, self.seed),
            Links::Kernel => {
                netem::set_up([link, &Link::default()], false)?;
                Engine::perfect()
            }
        };
        let clock = Clock::start(1);
        let mut relay = Relay::start(&network, engine, links, clock)?;
        let all_sent = AtomicBool::new(false);
        let arrivals = std::thread::scope(|scope| {
            let receiving = scope.spawn(|| receive(&receiver, clock, &all_sent));
            let sent = send(&sender, self.datagrams, clock);
            all_sent.store(true, Ordering::Release);
            let received = receiving
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the receiving thread panicked")));
            sent.and(received)
        })?;
        relay.stop();
        Ok(Sample {
            sent: self.datagrams,
            arrivals,
        })
    }
}

/// Sends them at a pace that both backends and the receiver can follow.
fn send(sender: &UdpSocket, datagrams: u32, clock: Clock) -> io::Result<()> {
    let pace = crossbeam_channel::tick(PACE);
    for number in 0..datagrams {
        let sent_at = clock.elapsed();
        sender.send(&payload(number, sent_at))?;
        pace.recv().map_err(io::Error::other)?;
    }
    Ok(())
}

/// Receives until all were sent and nothing came for a while.
fn receive(receiver: &UdpSocket, clock: Clock, all_sent: &AtomicBool) -> io::Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    let mut buffer = [0; 2 * LENGTH];
    loop {
        let over = all_sent.load(Ordering::Acquire);
        match receiver.recv(&mut buffer) {
            Ok(length) => {
                let at = clock.elapsed();
                arrivals.extend(arrival(&buffer[..length], at));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if over {
                    return Ok(arrivals);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Number and time, filled up, and number and time again.
fn payload(number: u32, sent_at: Duration) -> [u8; LENGTH] {
    let mut payload = [FILL; LENGTH];
    let nanos = u64::try_from(sent_at.as_nanos()).expect("no run takes centuries");
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&number.to_be_bytes());
    head[4..].copy_from_slice(&nanos.to_be_bytes());
    payload[..HEAD].copy_from_slice(&head);
    payload[LENGTH - HEAD..].copy_from_slice(&head);
    payload
}

fn arrival(payload: &[u8], at: Duration) -> Option<Arrival> {
    let (head, rest) = payload.split_first_chunk::<HEAD>()?;
    let (number, nanos) = head.split_first_chunk::<4>()?;
    let number = u32::from_be_bytes(*number);
    let sent_at = Duration::from_nanos(u64::from_be_bytes(nanos.try_into().ok()?));
    let (fill, tail) = rest.split_last_chunk::<HEAD>()?;
    Some(Arrival {
        number,
        latency: at.saturating_sub(sent_at),
        at,
        intact: fill.iter().all(|byte| *byte == FILL) && head == tail,
    })
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

impl Sample {
    /// How often each has come; only those that nothing has touched, if asked for.
    fn counts(&self, intact: bool) -> Vec<u32> {
        let mut counts = vec![0; self.sent as usize];
        for arrival in self.arrivals.iter().filter(|one| one.intact || !intact) {
            if let Some(count) = counts.get_mut(arrival.number as usize) {
                *count += 1;
            }
        }
        counts
    }

    fn lost(&self) -> Share {
        Share::of(&self.counts(false), |count| *count == 0)
    }

    /// How many are lost of those behind one that was lost, or was not.
    fn lost_behind(&self, behind_lost: bool) -> Share {
        let counts = self.counts(false);
        let behind: Vec<u32> = counts
            .windows(2)
            .filter(|pair| (pair[0] == 0) == behind_lost)
            .map(|pair| pair[1])
            .collect();
        Share::of(&behind, |count| *count == 0)
    }

    /// In seconds.
    fn latencies(&self) -> Vec<f64> {
        let latencies = self.arrivals.iter().map(|one| one.latency.as_secs_f64());
        latencies.collect()
    }

    /// Seconds from one arrival to the next.
    fn mean_gap(&self) -> f64 {
        match (self.arrivals.first(), self.arrivals.last()) {
            (Some(first), Some(last)) => {
                (last.at - first.at).as_secs_f64() / (self.arrivals.len() - 1).max(1) as f64
            }
            _ => 0.0,
        }
    }
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
    }
}

/// The value below which so much of the sample lies; 0 of an empty one.
fn quantile(sample: &[f64], share: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index, rounded down on purpose"
    )]
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index).or(sorted.last()).copied().unwrap_or(0.0)
}

/// UDP port of the receiver.
const PORT: u16 = 5684;
/// Bytes of each datagram: enough that most flipped bits hit the payload.
const LENGTH: usize = 400;
/// Bytes of number and time.
const HEAD: usize = 12;
const FILL: u8 = 0x5a;
/// Time between two datagrams.
const PACE: Duration = Duration::from_millis(1);
/// When nothing comes for so long beyond the link's own delay, nothing is on its way.
const SILENCE: Duration = Duration::from_millis(700);
/// Bytes; room for everything.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Seconds by which the relay's own timer may be late.
const TIMER: f64 = 0.005;
/// Seconds; more would hide a difference in the links.
const MOST_NOISE: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrivals with these numbers, 10 ms apart, each after 5 ms on its way.
    fn sample(sent: u32, numbers: &[u32]) -> Sample {
        let arrivals = (1..).zip(numbers).map(|(place, number)| {
            let at = Duration::from_millis(10 * place);
            let sent_at = at - Duration::from_millis(5);
            arrival(&payload(*number, sent_at), at).unwrap()
        });
        Sample {
            sent,
            arrivals: arrivals.collect(),
        }
    }

    #[test]
    fn datagram_tells_its_number_its_latency_and_any_damage() {
        let good = payload(7, Duration::from_millis(3));
        let seen = arrival(&good, Duration::from_millis(5)).unwrap();
        assert_eq!((seen.number, seen.intact), (7, true));
        assert_eq!(seen.latency, Duration::from_millis(2));
        for bit in 0..LENGTH * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let seen = arrival(&bad, Duration::from_millis(5)).unwrap();
            assert!(!seen.intact, "bit {bit}");
        }
        assert!(arrival(&good[..20], Duration::ZERO).is_none());
    }

    #[test]
    fn losses_copies_and_times_are_counted_as_they_came() {
        let seen = sample(6, &[0, 1, 1, 5, 4]);
        assert_eq!(seen.counts(false), [1, 2, 0, 0, 1, 1]);
        assert_eq!(
            seen.lost(),
            Share {
                count: 2.0,
                of: 6.0
            }
        );
        let behind_loss = Share {
            count: 1.0,
            of: 2.0,
        };
        assert_eq!(seen.lost_behind(true), behind_loss);
        let behind_none = Share {
            count: 1.0,
            of: 3.0,
        };
        assert_eq!(seen.lost_behind(false), behind_none);
        assert!((seen.mean_gap() - 0.01).abs() < 1e-9);
        assert!(
            seen.latencies()
                .iter()
                .all(|one| (one - 0.005).abs() < 1e-9)
        );
    }

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
}
