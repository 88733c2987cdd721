//! When a handshake is complete, computed from flights, timers and loss alone.
//!
//! No delay but waiting; every datagram is lost with the same chance, independently. The client repeats
//! its flight after 1, 3, 7, 15… s (RFC 6347 §4.2.4.1: 1 s, doubling, 60 s at most), and so does the server
//! with flight 4; flights 2 and 6 are only answers. Four exchanges follow one another:
//!
//! ```text
//!    client                     server
//! 1  ClientHello      ──1──►
//!                     ◄──2──    HelloVerifyRequest, without a timer
//! 2  ClientHello      ──3──►                        the client's timer until it has flight 4
//!                     ◄──4──    ServerHello…        the server's timer from flight 3 on, until it has 5
//! 3  …Finished        ──5──►                        the client's timer from flight 4 on, until it has 6
//!                     ◄──6──    …Finished           an answer to each flight 5
//! ```
//!
//! A flight of several datagrams is complete when each of its pieces has come, in whichever
//! transmission. Exact where an end keeps whatever comes, as it does of messages in the clear: for
//! handshakes whose sealed flights have one datagram each. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Flights, loss and habits.
#[derive(Debug, Clone)]
pub struct Model {
    /// Of each flight, how each transmission is cut; the last holds for all later ones.
    pub flights: [Vec<Cut>; 6],
    /// Chance that a datagram is lost.
    pub loss: f64,
    /// Whether an end that gets a flight again, which it has answered, answers again (RFC 6347 §4.2.4,
    /// figure 2).
    pub answers_duplicates: bool,
}

/// A transmission: each datagram as the set of the pieces of its flight that it carries.
pub type Cut = Vec<u64>;

/// The share of handshakes that are complete by a time: a function of steps.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(f64, f64)>", into = "Vec<(f64, f64)>")]
pub struct Distribution {
    /// Time of a step, and its height, in order of time.
    steps: Vec<(Duration, f64)>,
}

/// Seconds and shares; in JSON a distribution is a list of its steps.
impl From<Distribution> for Vec<(f64, f64)> {
    fn from(distribution: Distribution) -> Self {
        distribution.steps().collect()
    }
}

/// What is no time counts as the beginning.
impl From<Vec<(f64, f64)>> for Distribution {
    fn from(steps: Vec<(f64, f64)>) -> Self {
        let step = |(at, share)| (Duration::try_from_secs_f64(at).unwrap_or_default(), share);
        Self {
            steps: steps.into_iter().map(step).collect(),
        }
    }
}

/// Chances by time in milliseconds.
type Chances = BTreeMap<u64, f64>;

impl Model {
    /// The distribution of times until the client is done, up to `horizon`.
    #[must_use]
    pub fn distribution(&self, horizon: Duration) -> Distribution {
        let horizon = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
        let timer = timer(horizon);
        let hello = self.hello(&timer);
        let rest = self.rest(&timer, horizon);
        let mut chances = Chances::new();
        for (first, chance) in &hello {
            for (second, other) in rest.range(..=horizon.saturating_sub(*first)) {
                *chances.entry(first + second).or_default() += chance * other;
            }
        }
        Distribution::from_chances(&chances)
    }

    /// Flights 1 and 2: the client's timer, and a server that answers each hello anew.
    fn hello(&self, timer: &[u64]) -> Chances {
        let through = self.whole(0, 0) * self.whole(1, 0);
        let mut left = 1.0;
        let mut chances = Chances::new();
        for at in timer {
            chances.insert(*at, left * through);
            left *= 1.0 - through;
        }
        chances
    }

    /// Flights 3 to 6.
    fn rest(&self, timer: &[u64], horizon: u64) -> Chances {
        let mut chances = Chances::new();
        let mut missing = 1.0;
        for (hello, started) in timer.iter().enumerate() {
            let arrives = missing * self.whole(2, hello);
            missing -= arrives;
            let repeats: Vec<u64> = timer[hello + 1..].to_vec();
            self.server_started(*started, &repeats, arrives, timer, horizon, &mut chances);
        }
        chances
    }

    /// The server has flight 3 since `started`; the client would repeat it at `repeats`.
    fn server_started(
        &self,
        started: u64,
        repeats: &[u64],
        chance: f64,
        timer: &[u64],
        horizon: u64,
        chances: &mut Chances,
    ) {
        // Times at which flight 4 is sent, and the chance that it is sent at all.
        let mut sendings: Vec<(u64, f64)> =
            timer.iter().map(|wait| (started + wait, 1.0)).collect();
        if self.answers_duplicates {
            let answered = self.whole(2, 1);
            sendings.extend(repeats.iter().map(|at| (*at, answered)));
            sendings.sort_by_key(|(at, _)| *at);
        }
        let mut attempts = Attempts::new(&self.flights[3], self.loss);
        let mut missing = 1.0;
        for (number, (at, sent)) in sendings.iter().enumerate() {
            if *at > horizon {
                break;
            }
            let left = attempts.still_missing_after(number, *sent);
            let arrives = missing - left;
            missing = left;
            let own = timer.iter().map(|wait| (started + wait, 1.0));
            let own = own.filter(|(later, _)| later > at);
            // What the client has sent at this very instant is on its way already.
            let crossing = repeats.iter().filter(|repeat| *repeat == at);
            let crossing = crossing.map(|repeat| (*repeat, self.whole(2, 1)));
            let later: Vec<(u64, f64)> = own.chain(crossing).collect();
            self.client_answers(*at, &later, chance * arrives, timer, horizon, chances);
        }
    }

    /// The client has flight 4 since `at`; the server repeats it at `later`, with these chances, until it
    /// has flight 5.
    fn client_answers(
        &self,
        at: u64,
        later: &[(u64, f64)],
        chance: f64,
        timer: &[u64],
        horizon: u64,
        chances: &mut Chances,
    ) {
        let mut sendings: Vec<(u64, f64, bool)> =
            timer.iter().map(|wait| (at + wait, 1.0, true)).collect();
        if self.answers_duplicates {
            let answered = self.whole(3, 1);
            let answers = later.iter().map(|(at, sent)| (*at, sent * answered, false));
            sendings.extend(answers);
            sendings.sort_by_key(|(at, _, _)| *at);
        }
        let answer = self.whole(5, 0);
        let mut attempts = Attempts::new(&self.flights[4], self.loss);
        let mut missing = 1.0;
        for (number, (at, sent, _)) in sendings.iter().enumerate() {
            if *at > horizon {
                break;
            }
            let left = attempts.still_missing_after(number, *sent);
            let arrives = chance * (missing - left);
            missing = left;
            *chances.entry(*at).or_default() += arrives * answer;
            // The server is done and has no timer: from here on only the client's moves, and what was
            // on its way already.
            let mut unanswered = arrives * (1.0 - answer);
            for (again, sent, own) in &sendings[number + 1..] {
                if *again > horizon || !(*own || again == at) {
                    continue;
                }
                let through = sent * self.whole(4, 1) * answer;
                *chances.entry(*again).or_default() += unanswered * through;
                unanswered *= 1.0 - through;
            }
        }
    }

    /// Chance that one transmission of a flight arrives whole.
    fn whole(&self, flight: usize, transmission: usize) -> f64 {
        let cuts = &self.flights[flight];
        let cut = cuts.get(transmission).or(cuts.last());
        let datagrams = cut.map_or(1, Vec::len);
        (1.0 - self.loss).powi(i32::try_from(datagrams).unwrap_or(i32::MAX))
    }
}

/// A flight sent again and again, whose pieces may arrive in different transmissions.
struct Attempts<'a> {
    cuts: &'a [Cut],
    loss: f64,
    /// The chance of each set of pieces to be what has come.
    arrived: BTreeMap<u64, f64>,
}

impl<'a> Attempts<'a> {
    fn new(cuts: &'a [Cut], loss: f64) -> Self {
        Self {
            cuts,
            loss,
            arrived: BTreeMap::from([(0, 1.0)]),
        }
    }

    /// The chance that the flight is not complete after one more transmission, which takes place with
    /// the chance `sent`.
    fn still_missing_after(&mut self, number: usize, sent: f64) -> f64 {
        let cut = self.cuts.get(number).or(self.cuts.last());
        let mut after = self.arrived.clone();
        for datagram in cut.into_iter().flatten() {
            let mut next = BTreeMap::new();
            for (set, chance) in after {
                *next.entry(set).or_default() += chance * self.loss;
                *next.entry(set | datagram).or_default() += chance * (1.0 - self.loss);
            }
            after = next;
        }
        let mut mixed: BTreeMap<u64, f64> = BTreeMap::new();
        for (set, chance) in &self.arrived {
            *mixed.entry(*set).or_default() += chance * (1.0 - sent);
        }
        for (set, chance) in after {
            *mixed.entry(set).or_default() += chance * sent;
        }
        self.arrived = mixed;
        let whole = self.cuts.iter().flatten().fold(0, |all, set| all | set);
        1.0 - self.arrived.get(&whole).copied().unwrap_or_default()
    }
}

/// When a flight is sent, counted from its first transmission.
fn timer(horizon: u64) -> Vec<u64> {
    let mut at = 0;
    let mut wait = FIRST;
    let mut times = Vec::new();
    while at <= horizon {
        times.push(at);
        at += wait;
        wait = (2 * wait).min(LONGEST);
    }
    times
}

/// Milliseconds (RFC 6347 §4.2.4.1).
const FIRST: u64 = 1000;
const LONGEST: u64 = 60_000;

impl Distribution {
    fn from_chances(chances: &Chances) -> Self {
        let mut sum = 0.0;
        let steps = chances
            .iter()
            .map(|(at, chance)| {
                sum += chance;
                (Duration::from_millis(*at), sum)
            })
            .collect();
        Self { steps }
    }

    /// The distribution of these times, of `all` of which the others never came.
    #[must_use]
    pub fn of_samples(times: &[Duration], all: u32) -> Self {
        let mut counts: BTreeMap<Duration, u32> = BTreeMap::new();
        for time in times {
            *counts.entry(*time).or_default() += 1;
        }
        let mut sum = 0;
        let steps = counts
            .into_iter()
            .map(|(at, count)| {
                sum += count;
                (at, f64::from(sum) / f64::from(all))
            })
            .collect();
        Self { steps }
    }

    /// The share by `time`.
    #[must_use]
    pub fn at(&self, time: Duration) -> f64 {
        let after = self.steps.partition_point(|(at, _)| *at <= time);
        after
            .checked_sub(1)
            .map_or(0.0, |index| self.steps[index].1)
    }

    /// The earliest time, in seconds, by which this share is reached.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let step = self.steps.iter().find(|(_, sum)| *sum >= share)?;
        Some(step.0.as_secs_f64())
    }

    /// The greatest difference from another, over all times.
    #[must_use]
    pub fn distance(&self, other: &Self) -> f64 {
        let times = self.steps.iter().chain(&other.steps).map(|(at, _)| *at);
        times
            .map(|at| (self.at(at) - other.at(at)).abs())
            .fold(0.0, f64::max)
    }

    /// The steps: time and height.
    pub fn steps(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.steps.iter().map(|(at, sum)| (at.as_secs_f64(), *sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(loss: f64, answers_duplicates: bool) -> Model {
        Model {
            flights: std::array::from_fn(|_| vec![vec![1]]),
            loss,
            answers_duplicates,
        }
    }

    const HORIZON: Duration = Duration::from_secs(119);

    #[test]
    fn timer_doubles_from_one_second_to_sixty() {
        let seconds: Vec<u64> = timer(200_000).iter().map(|at| at / 1000).collect();
        assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    }

    #[test]
    fn handshake_without_loss_is_complete_at_once() {
        let distribution = model(0.0, false).distribution(HORIZON);
        assert!((distribution.at(Duration::ZERO) - 1.0).abs() < 1e-12);
    }

    /// Figures worked out elsewhere, by a simulation of both timers: six datagrams, and the mean.
    #[test]
    fn figures_are_those_known_for_one_datagram_a_flight() {
        for (loss, at_once, p95) in [(0.05, 0.7351, 2.0), (0.1, 0.5314, 3.0), (0.2, 0.2621, 8.0)] {
            let distribution = model(loss, false).distribution(HORIZON);
            assert!((distribution.at(Duration::ZERO) - at_once).abs() < 1e-4);
            let quantile = distribution.quantile(0.95).unwrap();
            assert!((quantile - p95).abs() <= 1.0, "{loss}: {quantile}");
        }
    }

    #[test]
    fn answering_duplicates_never_makes_it_slower() {
        let (deaf, answering) = (
            model(0.2, false).distribution(HORIZON),
            model(0.2, true).distribution(HORIZON),
        );
        for seconds in 0..119 {
            let at = Duration::from_secs(seconds);
            assert!(answering.at(at) >= deaf.at(at) - 1e-12, "{seconds} s");
        }
        assert!(answering.distance(&deaf) > 0.02);
    }

    #[test]
    fn flight_of_several_datagrams_needs_them_all_but_not_at_once() {
        let cuts = [vec![0b001, 0b010, 0b100]];
        let mut attempts = Attempts::new(&cuts, 0.5);
        let first = attempts.still_missing_after(0, 1.0);
        assert!((first - (1.0 - 0.125)).abs() < 1e-12);
        let second = attempts.still_missing_after(1, 1.0);
        assert!((second - (1.0 - 0.75_f64.powi(3))).abs() < 1e-12);
    }

    #[test]
    fn pieces_of_different_cuts_complete_a_flight() {
        // In two halves, then in one and a half.
        let cuts = [vec![0b0011, 0b1100], vec![0b0001, 0b1110]];
        let mut attempts = Attempts::new(&cuts, 0.5);
        attempts.still_missing_after(0, 1.0);
        let second = attempts.still_missing_after(1, 1.0);
        // Both halves; the first half and the long end; the second half and nothing that helps but both.
        let complete = 0.25 + 0.25 * 0.5 + 0.25 * 0.25 + 0.25 * 0.25;
        assert!((second - (1.0 - complete)).abs() < 1e-12, "{second}");
    }

    #[test]
    fn distance_is_the_greatest_gap_between_steps() {
        let seconds = |list: &[u64]| {
            list.iter()
                .map(|s| Duration::from_secs(*s))
                .collect::<Vec<_>>()
        };
        let one = Distribution::of_samples(&seconds(&[0, 0, 1, 2]), 4);
        let other = Distribution::of_samples(&seconds(&[0, 1, 1, 1]), 4);
        assert!((one.distance(&other) - 0.25).abs() < 1e-12);
        assert_eq!(one.quantile(0.6), Some(1.0));
        let cut = Distribution::of_samples(&seconds(&[0, 0]), 4);
        assert_eq!(cut.quantile(0.6), None);
    }
}
