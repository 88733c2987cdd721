//! Latencies without losing the tail: an HDR histogram of nanoseconds. Pure.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Unpack, Serializer as _, V2DeflateSerializer};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Decimal digits that survive: an error of at most one in a thousand.
const DIGITS: u8 = 3;

/// The longest latency told apart from longer ones, in nanoseconds: an hour, as the longest timeout.
const LONGEST: u64 = 3_600_000_000_000;

/// Of a window of time: an error of at most one in a hundred, for a tenth of the memory.
const WINDOW_DIGITS: u8 = 2;

/// The distribution of one kind of latency. In JSON it is what an HDR histogram log holds, V2
/// compressed and in base64, so that reports can be added up exactly.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Latency(Histogram<u64>);

/// The percentiles that reports give, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// How many were measured.
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p99_9_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latency {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self::with_digits(DIGITS)
    }

    /// Empty, for a window of time.
    pub(crate) fn coarse() -> Self {
        Self::with_digits(WINDOW_DIGITS)
    }

    fn with_digits(digits: u8) -> Self {
        // It grows to what it has to hold: most never see more than some milliseconds.
        let histogram = Histogram::new_with_bounds(1, 1 << 16, digits);
        let mut histogram =
            histogram.expect("the bounds are constants in order, the digits at most 5");
        histogram.auto(true);
        Self(histogram)
    }

    /// Adds one measurement.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST);
        self.0
            .record(nanoseconds.min(LONGEST))
            .expect("it grows to an hour, which the counts' array can hold");
    }

    /// Adds all of another's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("it grows to what the other holds");
    }

    /// How many were measured.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds, if anything was measured.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| milliseconds(self.0.value_at_quantile(quantile)))
    }

    /// Steps of the distribution, in order: a latency in milliseconds, and the part of all that took
    /// at most so long.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.0
            .iter_recorded()
            .map(|step| (milliseconds(step.value_iterated_to()), step.quantile()))
    }

    /// For a log of histograms.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// `None` when nothing was measured.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| milliseconds(self.0.value_at_quantile(quantile));
        Some(Percentiles {
            count: self.0.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p99_9_ms: at(0.999),
            max_ms: milliseconds(self.0.max()),
        })
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(serde::ser::Error::custom)?;
        to.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        let mut histogram: Histogram<u64> = Unpack::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| D::Error::custom(format!("no HDR histogram: {error:?}")))?;
        histogram.auto(true);
        Ok(Self(histogram))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an hour of nanoseconds is exact in 53 bits"
)]
fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds.min(LONGEST) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(measured: f64, exact: f64) {
        assert!(
            (measured / exact - 1.0).abs() <= 0.001,
            "{measured} is not near {exact}"
        );
    }

    #[test]
    fn percentiles_of_one_to_ten_thousand_are_right_to_a_thousandth() {
        // In two histograms, in no order.
        let (mut odd, mut even) = (Latency::new(), Latency::new());
        for n in 1..=10_000 {
            let latency = Duration::from_micros(n * 7919 % 10_007 % 10_001);
            let target = if n % 2 == 0 { &mut even } else { &mut odd };
            target.record(latency);
        }
        odd.add(&even);
        let mut exact: Vec<u64> = (1..=10_000).map(|n| n * 7919 % 10_007 % 10_001).collect();
        exact.sort_unstable();
        let found = odd.percentiles().unwrap();
        assert_eq!(found.count, 10_000);
        for (measured, rank) in [
            (found.p50_ms, 5_000),
            (found.p90_ms, 9_000),
            (found.p99_ms, 9_900),
            (found.p99_9_ms, 9_990),
            (found.max_ms, 10_000),
        ] {
            let exact = u32::try_from(exact[rank - 1]).unwrap();
            assert_near(measured, f64::from(exact) / 1e3);
        }
    }

    #[test]
    fn one_outlier_in_a_thousand_shows_in_the_maximum_and_not_in_p99() {
        let mut latency = Latency::new();
        for _ in 0..999 {
            latency.record(Duration::from_millis(1));
        }
        latency.record(Duration::from_secs(5));
        let found = latency.percentiles().unwrap();
        assert_near(found.p99_ms, 1.0);
        assert_near(found.p99_9_ms, 1.0);
        assert_near(found.max_ms, 5000.0);
    }

    #[test]
    fn what_is_written_and_read_again_is_the_same_and_adds_up_exactly() {
        let (mut first, mut second) = (Latency::new(), Latency::new());
        for n in 1..=1000 {
            first.record(Duration::from_micros(n));
            second.record(Duration::from_millis(n));
        }
        let text = serde_json::to_string(&second).unwrap();
        let read: Latency = serde_json::from_str(&text).unwrap();
        assert_eq!(read.percentiles(), second.percentiles());
        first.add(&read);
        assert_eq!(first.count(), 2000);
        assert_near(first.percentiles().unwrap().max_ms, 1000.0);
        assert!(serde_json::from_str::<Latency>("\"AAAA\"").is_err());
        assert!(serde_json::from_str::<Latency>("\"no base64!\"").is_err());
    }

    #[test]
    fn nothing_measured_has_no_percentiles_and_more_than_an_hour_counts_as_an_hour() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), None);
        latency.record(Duration::from_secs(7200));
        assert_near(latency.percentiles().unwrap().max_ms, 3_600_000.0);
    }
}
