//! When each connection of an open loop is meant to begin. Pure: times are distances from the start
//! of the run, and the same seed gives the same times.
//!
//! Latencies count from these times, whether or not the connection could begin then: a server or a
//! client that falls behind must not make its own delay disappear (coordinated omission).

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::plan::{Arrivals, Rate};

/// The times of all connections, in order, without end.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    rate: Rate,
    arrivals: Arrivals,
    random: ChaCha8Rng,
    /// Connections that the area under the rate has room for so far.
    area: f64,
}

impl Pacer {
    /// From the start of the run.
    pub(crate) fn new(rate: &Rate, arrivals: Arrivals, seed: u64) -> Self {
        Self {
            rate: rate.clone(),
            arrivals,
            random: ChaCha8Rng::seed_from_u64(seed),
            area: 0.0,
        }
    }
}

impl Iterator for Pacer {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let gap = match self.arrivals {
            Arrivals::Constant => 1.0,
            // The gaps of a Poisson process are exponential; 1 - u is never 0.
            Arrivals::Poisson => -(1.0 - self.random.random::<f64>()).ln(),
        };
        // The first connection of a constant rate begins at once.
        let at = match self.arrivals {
            Arrivals::Constant => self.area,
            Arrivals::Poisson => self.area + gap,
        };
        self.area += gap;
        Some(self.rate.time_of(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(rate: &str, arrivals: Arrivals, seed: u64) -> Pacer {
        Pacer::new(&rate.parse().unwrap(), arrivals, seed)
    }

    #[test]
    fn a_constant_rate_has_equal_gaps_from_the_first_moment_on() {
        let times: Vec<Duration> = pacer("200", Arrivals::Constant, 1).take(4).collect();
        assert_eq!(times, [0, 5, 10, 15].map(Duration::from_millis));
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_the_exponential_distribution() {
        let times: Vec<f64> = pacer("1000", Arrivals::Poisson, 7)
            .take(20_000)
            .map(|time| time.as_secs_f64() * 1e3)
            .collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let count = 19_999.0;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        // Five standard errors of 20,000 samples.
        assert!((mean - 1.0).abs() < 0.036, "{mean}");
        assert!((variance.sqrt() - 1.0).abs() < 0.06, "{variance}");
    }

    #[test]
    fn the_same_seed_gives_the_same_times_and_another_gives_others() {
        let times = |seed| {
            pacer("10..90/1s", Arrivals::Poisson, seed)
                .take(50)
                .collect::<Vec<_>>()
        };
        assert_eq!(times(3), times(3));
        assert_ne!(times(3), times(4));
        assert!(times(3).is_sorted());
    }

    #[test]
    fn a_ramp_has_as_many_connections_as_its_area() {
        let inside = pacer("100..300/2s", Arrivals::Constant, 1)
            .take_while(|&time| time < Duration::from_secs(2))
            .count();
        assert_eq!(inside, 400);
    }
}
