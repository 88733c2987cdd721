//! How many connections a second, as typed, and when each of them is meant to begin. Pure.
//!
//! A schedule is a rate over time; connection `n` begins where the area under it reaches `n`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The rate of an open loop over time. Shown as it is typed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Rate {
    /// The same all the time.
    Constant(f64),
    /// From one to another, evenly, in this time.
    Ramp { from: f64, to: f64, over: Duration },
    /// One after another, each for this time.
    Steps { rates: Vec<f64>, each: Duration },
}

/// Why a text is no rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RateError {
    #[error(
        "\"{0}\" is no rate: write connections a second, such as 500, or a ramp, such as \
         100..5000/30s, or steps, such as 100,200,400/10s"
    )]
    Form(String),
    #[error("a rate must be more than 0, from 0.001 to 1000000 connections a second, not {0}")]
    Range(String),
    #[error("\"{0}\" is no time for a ramp or a step: write for example 500ms or 30s, at most 1h")]
    Time(String),
    #[error("{0} rates have no time: write for example 100,200,400/10s")]
    NoTime(usize),
    #[error("more than {MAX_STEPS} steps")]
    Steps,
}

/// Each is a window of the report.
const MAX_STEPS: usize = 100;

const HIGHEST: f64 = 1e6;
/// A connection in a quarter of an hour; below, times leave the range of the clock.
const LOWEST: f64 = 1e-3;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (rates, time) = match text.split_once('/') {
            Some((rates, time)) => (rates, Some(time)),
            None => (text, None),
        };
        let form = || RateError::Form(text.to_owned());
        let number = |text: &str| {
            let number: f64 = text.trim().parse().map_err(|_| form())?;
            if (LOWEST..=HIGHEST).contains(&number) {
                Ok(number)
            } else {
                Err(RateError::Range(text.to_owned()))
            }
        };
        let time = time.map(|time| match humantime::parse_duration(time) {
            Ok(parsed) if !parsed.is_zero() && parsed <= Duration::from_secs(3600) => Ok(parsed),
            _ => Err(RateError::Time(time.to_owned())),
        });
        let time = time.transpose()?;
        if let Some((from, to)) = rates.split_once("..") {
            return Ok(Self::Ramp {
                from: number(from)?,
                to: number(to)?,
                over: time.ok_or_else(form)?,
            });
        }
        let rates: Vec<f64> = rates.split(',').map(number).collect::<Result<_, _>>()?;
        match (rates.as_slice(), time) {
            (&[rate], None) => Ok(Self::Constant(rate)),
            (_, None) => Err(RateError::NoTime(rates.len())),
            (_, Some(_)) if rates.len() > MAX_STEPS => Err(RateError::Steps),
            (_, Some(each)) => Ok(Self::Steps { rates, each }),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(rate) => write!(f, "{rate}"),
            Self::Ramp { from, to, over } => write!(f, "{from}..{to}/{}", tight(*over)),
            Self::Steps { rates, each } => {
                let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
                write!(f, "{}/{}", rates.join(","), tight(*each))
            }
        }
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

/// A time without blanks, as on the command line.
fn tight(duration: Duration) -> String {
    let mut text = humantime::format_duration(duration).to_string();
    text.retain(|character| character != ' ');
    text
}

impl Rate {
    /// For people.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Constant(rate) => format!("{rate}/s"),
            Self::Ramp { from, to, over } => format!("{from}..{to}/s over {}", tight(*over)),
            Self::Steps { rates, each } => {
                let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
                format!("{}/s, {} each", rates.join(", "), tight(*each))
            }
        }
    }

    /// Both at once, where that is a rate of the same kind.
    pub(crate) fn plus(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Constant(a), Self::Constant(b)) => Some(Self::Constant(a + b)),
            (
                Self::Ramp { from, to, over },
                Self::Ramp {
                    from: from_b,
                    to: to_b,
                    over: over_b,
                },
            ) if over == over_b => Some(Self::Ramp {
                from: from + from_b,
                to: to + to_b,
                over: *over,
            }),
            (
                Self::Steps { rates, each },
                Self::Steps {
                    rates: rates_b,
                    each: each_b,
                },
            ) if each == each_b && rates.len() == rates_b.len() => Some(Self::Steps {
                rates: rates.iter().zip(rates_b).map(|(a, b)| a + b).collect(),
                each: *each,
            }),
            _ => None,
        }
    }

    /// How long it lasts, if it says so itself.
    pub(crate) fn duration(&self) -> Option<Duration> {
        match self {
            Self::Constant(_) => None,
            Self::Ramp { over, .. } => Some(*over),
            Self::Steps { rates, each } => {
                Some(each.saturating_mul(u32::try_from(rates.len()).unwrap_or(u32::MAX)))
            }
        }
    }

    /// Connections meant to begin before a time: the area under the rate.
    pub(crate) fn area(&self, time: Duration) -> f64 {
        let seconds = time.as_secs_f64();
        match self {
            Self::Constant(rate) => rate * seconds,
            Self::Ramp { from, to, over } => {
                let over = over.as_secs_f64();
                let inside = seconds.min(over);
                from * inside
                    + (to - from) * inside * inside / (2.0 * over)
                    + to * (seconds - inside)
            }
            Self::Steps { rates, each } => {
                let each = each.as_secs_f64();
                let (mut left, mut area) = (seconds, 0.0);
                for rate in rates {
                    area += rate * left.clamp(0.0, each);
                    left -= each;
                }
                area + rates.last().copied().unwrap_or_default() * left.max(0.0)
            }
        }
    }

    /// The time at which the area is this: the inverse of [`Self::area`].
    pub(crate) fn time_of(&self, area: f64) -> Duration {
        let seconds = match self {
            Self::Constant(rate) => area / rate,
            Self::Ramp { from, to, over } => {
                let over = over.as_secs_f64();
                let whole = (from + to) / 2.0 * over;
                if area >= whole {
                    over + (area - whole) / to
                } else {
                    // from·t + slope/2·t² = area; this form of the root holds for a slope of 0.
                    let slope = (to - from) / over;
                    2.0 * area / (from + (from * from + 2.0 * slope * area).sqrt())
                }
            }
            Self::Steps { rates, each } => {
                let each = each.as_secs_f64();
                let (mut left, mut time) = (area, 0.0);
                for rate in rates {
                    if left < rate * each {
                        return Duration::from_secs_f64(time + left / rate);
                    }
                    left -= rate * each;
                    time += each;
                }
                time + left / rates.last().copied().unwrap_or(1.0)
            }
        };
        Duration::from_secs_f64(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_typed_is_what_is_meant_and_everything_else_says_how_to_write_it() {
        assert_eq!(rate("0.5"), Rate::Constant(0.5));
        let ramp = Rate::Ramp {
            from: 100.0,
            to: 5000.0,
            over: Duration::from_secs(30),
        };
        assert_eq!(rate("100..5000/30s"), ramp);
        assert_eq!(rate("100,200/1s").duration(), Some(Duration::from_secs(2)));
        for text in ["0.5", "100..5000/1m30s", "1,2,3/100ms"] {
            assert_eq!(rate(text).to_string(), text);
        }
        for (bad, words) in [
            ("", "is no rate"),
            ("fast", "100..5000/30s"),
            ("0", "more than 0"),
            ("-1", "more than 0"),
            ("1e-30", "0.001"),
            ("1e7", "to 1000000"),
            ("NaN", "more than 0"),
            ("1..2", "is no rate"),
            ("1..0/3s", "more than 0"),
            ("1,2", "no time"),
            ("1..2/soon", "30s"),
            ("1..2/0s", "is no time"),
        ] {
            let error = bad.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn rates_of_the_same_kind_add_up_and_others_do_not() {
        for (a, b, both) in [
            ("10", "5.5", Some("15.5")),
            ("10..20/3s", "1..2/3s", Some("11..22/3s")),
            ("1,2/1s", "10,20/1s", Some("11,22/1s")),
            ("10..20/3s", "1..2/4s", None),
            ("1,2/1s", "1,2,3/1s", None),
            ("1", "1..2/1s", None),
        ] {
            assert_eq!(rate(a).plus(&rate(b)), both.map(rate), "{a} and {b}");
        }
    }

    #[test]
    fn the_area_is_the_number_of_connections_meant_to_begin() {
        for (text, seconds, area) in [
            ("7", 3, 21.0),
            ("10..30/10s", 10, 200.0),
            ("10..30/10s", 5, 75.0),
            ("10..30/10s", 11, 230.0),
            ("10,100,20/3s", 2, 20.0),
            ("10,100,20/3s", 4, 130.0),
            ("10,100,20/3s", 10, 410.0),
        ] {
            let found = rate(text).area(Duration::from_secs(seconds));
            assert!(
                (found - area).abs() < 1e-6,
                "{text} at {seconds} s: {found}"
            );
        }
    }

    #[test]
    fn time_and_area_are_inverse_to_each_other() {
        for text in [
            "7",
            "10..1000/20s",
            "1000..10/20s",
            "5..5/1s",
            "10,100,20/3s",
        ] {
            let rate = rate(text);
            for tenth in 0..300 {
                let time = Duration::from_millis(tenth * 100 + 1);
                let area = rate.area(time);
                let back = rate.time_of(area);
                assert!(
                    (back.as_secs_f64() - time.as_secs_f64()).abs() < 1e-6,
                    "{text} at {time:?}: {back:?}"
                );
            }
        }
    }
}
