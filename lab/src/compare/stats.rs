//! When two samples are called different. Pure.
//!
//! The bounds are such that two samples of one distribution exceed them less than once in a million
//! times, and three times running less than once in 10^18: chance alone never makes a difference. What a
//! second and a third try cost is power. Where a single measurement would miss a true difference with
//! chance b, one of three does with at most 3b; so a difference of eight standard deviations, 1.6 of the
//! bound on shares, is missed less than 5 times in 1,000 instead of 2.

/// How far two shares of so many each may lie apart, and a share from what is said of it: five standard
/// deviations.
#[must_use]
pub(super) fn bound_on_shares([one, other]: [Share; 2]) -> f64 {
    let pooled = (one.count + other.count) / (one.of + other.of);
    // A share of nothing or all has no spread of its own, but one more or less is no surprise.
    let spread = (pooled * (1.0 - pooled)).max(1.0 / (one.of + other.of));
    5.0 * (spread * (1.0 / one.of + 1.0 / other.of)).sqrt()
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) count: f64,
    pub(super) of: f64,
}

impl Share {
    /// How many of `all` are `wanted`.
    pub(super) fn of<T>(all: &[T], wanted: impl Fn(&T) -> bool) -> Self {
        let count = all.iter().filter(|one| wanted(one)).count();
        Self {
            count: count as f64,
            of: all.len() as f64,
        }
    }

    pub(super) fn value(self) -> f64 {
        self.count / self.of.max(1.0)
    }
}

/// The greatest distance between the distributions of two samples when each may lie so much to the left
/// or right of the other (Kolmogorov and Smirnov).
pub(super) fn distance(one: &[f64], other: &[f64], tolerance: f64) -> f64 {
    let sorted = |sample: &[f64]| {
        let mut sample = sample.to_vec();
        sample.sort_by(f64::total_cmp);
        sample
    };
    let (one, other) = (sorted(one), sorted(other));
    let below = |sample: &[f64], limit: f64| {
        sample.partition_point(|value| *value <= limit) as f64 / sample.len().max(1) as f64
    };
    let excess = |one: &[f64], other: &[f64]| {
        one.iter()
            .map(|at| below(one, *at) - below(other, *at + tolerance))
            .fold(0.0, f64::max)
    };
    excess(&one, &other).max(excess(&other, &one))
}

/// What that distance stays below (Dvoretzky, Kiefer, Wolfowitz and Massart, for two samples).
#[must_use]
pub(super) fn bound_on_distance(one: usize, other: usize) -> f64 {
    let (one, other) = (one.max(1) as f64, other.max(1) as f64);
    ((2.0_f64 / 1e-6).ln() / 2.0 * (one + other) / (one * other)).sqrt()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn draws(seed: u64, from: f64, to: f64) -> Vec<f64> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        (0..2000).map(|_| rng.random_range(from..to)).collect()
    }

    #[test]
    fn samples_of_one_distribution_agree_and_of_another_do_not() {
        let bound = bound_on_distance(2000, 2000);
        let uniform = draws(1, 0.05, 0.35);
        assert!(distance(&uniform, &draws(2, 0.05, 0.35), 0.0) < bound);
        let narrower = draws(2, 0.08, 0.32);
        assert!(distance(&uniform, &narrower, 0.0) > bound);
        assert!(
            distance(&narrower, &uniform, 0.0) > bound,
            "either way round"
        );
    }

    #[test]
    fn tolerance_forgives_a_shift_of_its_size_and_no_more() {
        let bound = bound_on_distance(2000, 2000);
        let (early, late) = (draws(1, 0.0, 0.3), draws(2, 0.05, 0.35));
        assert!(distance(&early, &late, 0.0) > bound);
        assert!(distance(&early, &late, 0.05) < bound);
        assert!(distance(&early, &late, 0.01) > bound);
    }

    #[test]
    fn shares_differ_beyond_five_deviations() {
        let share = |count| Share { count, of: 2000.0 };
        let differs = |one, other| {
            let pair = [share(one), share(other)];
            (pair[0].value() - pair[1].value()).abs() > bound_on_shares(pair)
        };
        assert!(!differs(200.0, 240.0));
        assert!(differs(200.0, 320.0));
        assert!(!differs(0.0, 0.0) && !differs(0.0, 1.0));
        assert!(differs(0.0, 60.0));
    }
}
