//! The oracle: how long handshakes take on a lossy wire, simulated against computed, and how long an
//! end waits before it sends again.
//!
//! ```text
//! sim      n handshakes at each loss rate ─► times ─┐
//!                                                   ├─► greatest distance, against the DKW bound ─► verdict
//! model    flights and timers of RFC 6347 ─► times ─┘
//!
//! silence  the peer is silent from flight k on ─► times of every transmission, exactly (rule T1)
//! ```
//!
//! The model shares nothing with the simulator but how each flight is cut into datagrams. The silence
//! probe sees any wrong timer in one run; the distribution sees what no single run shows, such as a
//! last flight that is not repeated.

pub mod model;
pub mod plot;
pub mod report;
pub mod silence;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::now;
use crate::scenario::Shape;
use crate::scenario::{Chance, Family, Link};
use crate::sim::shape::{Cast, Setup};
use crate::sim::world::World;
use crate::sim::{Defect, SimulationError, check_clock};
use crate::wire::Engine;
use model::{Distribution, Model};

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The kind of handshake.
    pub shape: Shape,
    /// Planted in the ends, and unknown to the model.
    pub defect: Option<Defect>,
    /// Whether the model's ends answer a duplicate with their own flight.
    pub answers_duplicates: bool,
    /// Handshakes for each loss rate.
    pub handshakes: u32,
    /// Chance that a right simulation is called wrong, for one loss rate.
    pub alpha: f64,
    /// Seed of every loss.
    pub seed: u64,
    /// Threads.
    pub workers: usize,
}

/// One loss rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compared {
    /// In percent.
    pub loss: f64,
    /// Handshakes simulated.
    pub handshakes: u32,
    /// The greatest distance of the two distributions.
    pub distance: f64,
    /// What chance alone exceeds once in 1/alpha times (Dvoretzky, Kiefer and Wolfowitz).
    pub bound: f64,
    /// Whether the simulation keeps the bound.
    pub agrees: bool,
    /// Share of handshakes without any retransmission; the model's beside it.
    pub at_once: [f64; 2],
    /// Medians, 90 % and 99 % of all, in seconds; `None` beyond the horizon. The model's beside them.
    pub quantiles: [[Option<f64>; 2]; 3],
    /// Handshakes for each second of real time.
    pub rate: f64,
    /// The simulated distribution.
    pub simulated: Distribution,
    /// The model's.
    pub computed: Distribution,
}

/// Simulated handshakes give up after this, and the model counts no further.
pub const HORIZON: Duration = Duration::from_secs(119);

impl Question {
    /// The two ends.
    ///
    /// # Errors
    ///
    /// [`SimulationError`]
    pub(crate) fn cast(&self) -> Result<Cast, SimulationError> {
        check_clock()?;
        Cast::new(&Setup::of(self.shape, self.defect))
    }

    /// Simulates and computes the handshakes of one loss rate, the same both ways.
    ///
    /// # Errors
    ///
    /// [`SimulationError`] when a handshake could not be played at all.
    pub fn compare(&self, loss: Chance) -> Result<Compared, SimulationError> {
        let cast = self.cast()?;
        let flights = silence::cuts(&cast)?;
        let computed = Model {
            flights,
            loss: loss.as_f64(),
            answers_duplicates: self.answers_duplicates,
        }
        .distribution(HORIZON);
        let started = now();
        let times = self.simulate(&cast, loss)?;
        let seconds = now().saturating_duration_since(started).as_secs_f64();
        let simulated = Distribution::of_samples(&times, self.handshakes);
        let distance = simulated.distance(&computed);
        let n = f64::from(self.handshakes);
        let bound = ((2.0 / self.alpha).ln() / (2.0 * n)).sqrt();
        let both = |share: f64| [simulated.quantile(share), computed.quantile(share)];
        Ok(Compared {
            loss: loss.as_f64() * 100.0,
            handshakes: self.handshakes,
            distance,
            bound,
            agrees: distance <= bound,
            at_once: [simulated.at(Duration::ZERO), computed.at(Duration::ZERO)],
            quantiles: [both(0.5), both(0.9), both(0.99)],
            rate: n / seconds.max(1e-6),
            simulated,
            computed,
        })
    }

    /// The times of those handshakes that come to their end.
    fn simulate(&self, cast: &Cast, loss: Chance) -> Result<Vec<Duration>, SimulationError> {
        let next = AtomicU32::new(0);
        let all = Mutex::new(Ok(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..self.workers.max(1) {
                scope.spawn(|| {
                    let mut times = Vec::new();
                    let mut broken = None;
                    while broken.is_none() {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.handshakes {
                            break;
                        }
                        match self.one(cast, loss, number) {
                            Ok(time) => times.extend(time),
                            Err(error) => broken = Some(error),
                        }
                    }
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *all, broken) {
                        (Ok(all), None) => all.append(&mut times),
                        (all, Some(error)) => *all = Err(error),
                        (Err(_), None) => {}
                    }
                });
            }
        });
        all.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(
        &self,
        cast: &Cast,
        loss: Chance,
        number: u32,
    ) -> Result<Option<Duration>, SimulationError> {
        let link = Link {
            loss,
            ..Link::default()
        };
        // Each handshake a stream of chances of its own, whichever thread plays it.
        let seed = self.seed.wrapping_add(u64::from(number) << 32);
        let engine = Engine::made_of(Vec::new(), &link, seed);
        let mut world = World::new(cast, engine, &[], Family::Ipv4, None)?;
        Ok(world.finish_handshake(HORIZON))
    }
}

#[cfg(test)]
mod tests;
