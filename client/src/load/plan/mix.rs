//! What connections do and in which proportion, as typed. Pure.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::mode::Mode;

/// Modes with their weights. Shown as it is typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Mix(Vec<(Mode, u32)>);

/// More than that is no proportion that a person means.
const HEAVIEST: u32 = 1_000_000;

impl Mix {
    /// One mode alone.
    pub(crate) fn of(mode: Mode) -> Self {
        Self(vec![(mode, 1)])
    }

    /// Whether any connection is of this mode.
    pub(crate) fn has(&self, mode: Mode) -> bool {
        self.0.iter().any(|&(its, _)| its == mode)
    }

    /// The mode of a connection: the same for the same seed and number.
    pub(crate) fn mode_of(&self, seed: u64, number: u32) -> Mode {
        let whole: u64 = self.0.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let mut at = super::super::message::mix(seed ^ u64::from(number) << 20) % whole.max(1);
        for &(mode, weight) in &self.0 {
            let weight = u64::from(weight);
            if at < weight {
                return mode;
            }
            at -= weight;
        }
        self.0.first().map_or(Mode::Echo, |&(mode, _)| mode)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<(Mode, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` has no weight: write for example handshake=7"))?;
            let mode = Mode::from_str(name, false)
                .ok()
                .filter(|&mode| !matches!(mode, Mode::Mix | Mode::Hold))
                .ok_or_else(|| format!("`{name}` is no mode that can be mixed"))?;
            let weight = weight
                .parse()
                .ok()
                .filter(|weight| (1..=HEAVIEST).contains(weight))
                .ok_or_else(|| format!("`{weight}` is no weight, 1 to {HEAVIEST}"))?;
            if parts.iter().any(|&(its, _)| its == mode) {
                return Err(format!("`{name}` is given twice"));
            }
            parts.push((mode, weight));
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (mode, weight)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let mode = mode.to_possible_value();
            let name = mode.as_ref().map_or("", |mode| mode.get_name());
            write!(f, "{comma}{name}={weight}")?;
        }
        Ok(())
    }
}

impl From<Mix> for String {
    fn from(mix: Mix) -> Self {
        mix.to_string()
    }
}

impl TryFrom<String> for Mix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // What a report says of a run with one mode may be the one mode that cannot be mixed.
        if text == "hold=1" {
            return Ok(Self::of(Mode::Hold));
        }
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_mixed_in_proportion_and_the_same_way_for_the_same_seed() {
        let mix: Mix = "handshake=7,half-open=3".parse().unwrap();
        let count = |seed| {
            (0..10_000)
                .filter(|&number| mix.mode_of(seed, number) == Mode::HalfOpen)
                .count()
        };
        // Five standard deviations of a binomial distribution.
        assert!((2770..=3230).contains(&count(1)), "{}", count(1));
        assert_eq!(count(5), count(5));
        assert_ne!(
            (0..100).map(|n| mix.mode_of(1, n)).collect::<Vec<_>>(),
            (0..100).map(|n| mix.mode_of(2, n)).collect::<Vec<_>>()
        );
        assert_eq!(mix.to_string(), "handshake=7,half-open=3");
    }

    #[test]
    fn what_is_no_mix_is_refused_for_its_own_reason() {
        for (bad, words) in [
            ("", "has no weight"),
            ("echo", "has no weight"),
            ("echo=0", "no weight, 1 to"),
            ("mix=1", "no mode that can be mixed"),
            ("hold=1", "no mode that can be mixed"),
            ("echo=1,echo=2", "given twice"),
        ] {
            assert!(bad.parse::<Mix>().unwrap_err().contains(words), "{bad}");
        }
    }
}
