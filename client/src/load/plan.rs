//! What a run is to do, after the flags. Plain values.

pub(crate) mod mode;
pub(crate) mod mix;
pub(crate) mod rate;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::{LoadArgs, SuiteChoice};

pub(crate) use mix::Mix;
pub(crate) use mode::{Arrivals, Mode};
pub(crate) use rate::Rate;

/// The plan of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    /// What connections do and in which proportion; one entry but in the mode mix.
    pub(crate) mix: Mix,
    /// Of an open loop: connections a second.
    pub(crate) rate: Option<Rate>,
    pub(crate) arrivals: Arrivals,
    /// In all, where that is known beforehand.
    pub(crate) connections: Option<u32>,
    /// Of a closed loop: at once.
    pub(crate) concurrency: Option<u32>,
    /// For how long connections begin, where that is known beforehand.
    #[serde(rename = "duration_ms", with = "milliseconds")]
    pub(crate) duration: Option<Duration>,
    /// On each connection.
    pub(crate) messages: u32,
    /// Messages a second on each connection; one at a time without.
    pub(crate) message_rate: Option<f64>,
    /// Of a message, in bytes.
    pub(crate) size: u16,
    /// When a message counts as lost.
    #[serde(rename = "timeout_ms", with = "milliseconds")]
    pub(crate) timeout: Duration,
    /// When a handshake is given up.
    #[serde(rename = "handshake_timeout_ms", with = "milliseconds")]
    pub(crate) handshake_timeout: Duration,
    /// Whether connections offer the session of an earlier one.
    pub(crate) resume: bool,
    /// How long a connection stays open.
    #[serde(rename = "hold_ms", with = "milliseconds")]
    pub(crate) hold: Duration,
    /// The bound of the knee.
    #[serde(rename = "p99_bound_ms", with = "milliseconds")]
    pub(crate) p99_bound: Duration,
    /// Offered.
    pub(crate) suites: SuiteChoice,
    /// Offered; none: the usual ones.
    pub(crate) groups: Vec<String>,
    pub(crate) link_mtu: u16,
    pub(crate) seed: u64,
    pub(crate) threads: u16,
    /// Addresses sent from; 0: the system chooses.
    pub(crate) sources: u32,
}

/// Flags that contradict each other.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("--mode mix needs --mix: write for example --mix handshake=7,resume=2,half-open=1")]
    NoMix,
    #[error("--mix is for --mode mix")]
    StrayMix,
    #[error("--duration: {rate} says itself how long it lasts; leave one out")]
    TwoDurations { rate: Rate },
    #[error("--rate {rate} for {} would begin more than {} connections", humane(*duration), u32::MAX)]
    TooMany { rate: Rate, duration: Duration },
    #[error("--mode hold must know how many connections to wait for; give --connections")]
    HoldWithoutEnd,
}

const DEFAULT_RATE: Rate = Rate::Constant(100.0);
const DEFAULT_CONNECTIONS: u32 = 100;
const DEFAULT_MESSAGES: u32 = 10;
const SHORTEST_WINDOW: Duration = Duration::from_millis(50);
const UNKNOWN: Duration = Duration::from_secs(120);
const MOST_WINDOWS: u32 = 200;
const DEFAULT_HOLD: Duration = Duration::from_secs(10);

impl Plan {
    /// As the flags say.
    pub(crate) fn new(args: &LoadArgs) -> Result<Self, PlanError> {
        let mix = match (args.mode, &args.mix) {
            (Mode::Mix, None) => return Err(PlanError::NoMix),
            (Mode::Mix, Some(mix)) => mix.clone(),
            (_, Some(_)) => return Err(PlanError::StrayMix),
            (mode, None) => Mix::of(mode),
        };
        let rate = match (&args.rate, args.concurrency) {
            (Some(rate), _) => Some(rate.clone()),
            (None, None) => Some(DEFAULT_RATE),
            (None, Some(_)) => None,
        };
        let (connections, duration) = match &rate {
            Some(rate) => open(rate, args)?,
            None => closed(args),
        };
        if args.mode == Mode::Hold && connections.is_none() {
            return Err(PlanError::HoldWithoutEnd);
        }
        let threads = args.threads.unwrap_or_else(|| {
            let available = std::thread::available_parallelism();
            available.map_or(1, |threads| {
                u16::try_from(threads.get()).unwrap_or(256).min(256)
            })
        });
        let sources = args
            .source
            .iter()
            .map(|sources| sources.0.len())
            .sum::<usize>();
        let most = args.concurrency.unwrap_or(u32::MAX);
        let most = most.min(connections.unwrap_or(u32::MAX));
        let default_hold = if mix.has(Mode::Hold) {
            DEFAULT_HOLD
        } else {
            Duration::ZERO
        };
        Ok(Self {
            mode: args.mode,
            mix,
            rate,
            arrivals: args.arrivals,
            connections,
            concurrency: args.concurrency.map(|at_once| at_once.min(most)),
            duration,
            messages: args.messages.unwrap_or(DEFAULT_MESSAGES),
            message_rate: args.message_rate,
            size: args.size,
            timeout: args.timeout,
            handshake_timeout: args.server.handshake_timeout,
            resume: args.resume,
            hold: args.hold.unwrap_or(default_hold),
            p99_bound: args.p99,
            suites: args.server.suites.clone(),
            groups: args.server.groups.clone(),
            link_mtu: args.server.link_mtu,
            seed: args.seed,
            // More than connections would have nothing to do.
            threads: threads.min(u16::try_from(most).unwrap_or(u16::MAX)),
            sources: u32::try_from(sources).unwrap_or(u32::MAX),
        })
    }

    /// Of a command line's flags, for tests.
    #[cfg(test)]
    pub(crate) fn of_flags(flags: &[&str]) -> Self {
        use clap::Parser as _;
        let command = ["dtls-client", "load", "localhost:1"];
        let cli = crate::cli::Cli::parse_from(command.iter().chain(flags));
        let crate::cli::Command::Load(args) = cli.command else {
            unreachable!("the command is load")
        };
        Self::new(&args).expect("a plan")
    }

    /// The settings in which the two differ, by their names in reports, but for those in `beside`.
    pub(crate) fn differences(&self, other: &Self, beside: &[&str]) -> Vec<String> {
        let settings = |plan: &Self| match serde_json::to_value(plan) {
            Ok(serde_json::Value::Object(settings)) => settings,
            _ => serde_json::Map::new(),
        };
        let theirs = settings(other);
        let differing = settings(self)
            .into_iter()
            .filter(|(name, ours)| theirs.get(name) != Some(ours))
            .map(|(name, _)| name);
        let mut differing: Vec<String> = differing
            .filter(|name| !beside.contains(&name.as_str()))
            .map(|name| name.trim_end_matches("_ms").replace('_', "-"))
            .collect();
        differing.sort_unstable();
        differing
    }

    /// How many windows the report has, and how long each is: the steps of a rate in steps, else so
    /// many that a chart has something to show.
    pub(crate) fn windows(&self) -> (u32, Duration) {
        let counted = self.rate.as_ref().zip(self.connections);
        let counted = counted.map(|(rate, connections)| rate.time_of(connections.into()));
        // A closed loop that is only counted: what comes after is in no window.
        let whole = self
            .duration
            .or(counted)
            .unwrap_or(UNKNOWN)
            .max(SHORTEST_WINDOW);
        let width = match &self.rate {
            Some(Rate::Steps { each, .. }) => *each,
            Some(Rate::Ramp { over, .. }) => twentieth(*over),
            _ if self.duration.or(counted).is_none() => Duration::from_secs(1),
            _ => twentieth(whole).clamp(SHORTEST_WINDOW, Duration::from_secs(1).max(whole / 100)),
        };
        let count = whole.as_nanos().div_ceil(width.as_nanos().max(1));
        (
            u32::try_from(count)
                .unwrap_or(MOST_WINDOWS)
                .min(MOST_WINDOWS),
            width,
        )
    }

    /// Whether any connection exchanges messages.
    pub(crate) fn has_messages(&self) -> bool {
        let echoes = self.mix.has(Mode::Echo) && (self.messages > 0 || !self.hold.is_zero());
        echoes || self.mix.has(Mode::Hold) || self.mix.has(Mode::Reconnect)
    }
}

/// Rounded up, or a last nanosecond would be a window of its own.
fn twentieth(duration: Duration) -> Duration {
    (duration + Duration::from_nanos(19)) / 20
}

/// Connections, and for how long they begin, as far as each is known beforehand.
type Extent = (Option<u32>, Option<Duration>);

fn open(rate: &Rate, args: &LoadArgs) -> Result<Extent, PlanError> {
    let duration = match (rate.duration(), args.duration) {
        (Some(_), Some(_)) => return Err(PlanError::TwoDurations { rate: rate.clone() }),
        (its, given) => its.or(given),
    };
    let Some(duration) = duration else {
        return Ok((Some(args.connections.unwrap_or(DEFAULT_CONNECTIONS)), None));
    };
    // The first begins at once; one that would begin at the very end does not.
    let inside = (rate.area(duration) - 1e-6).ceil().max(1.0);
    if inside > u32::MAX.into() {
        return Err(PlanError::TooMany {
            rate: rate.clone(),
            duration,
        });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and in range"
    )]
    let inside = inside as u32;
    let connections = match (args.arrivals, args.connections) {
        (Arrivals::Constant, given) => Some(given.map_or(inside, |given| given.min(inside))),
        // Chance says how many.
        (Arrivals::Poisson, given) => given,
    };
    Ok((connections, Some(duration)))
}

fn closed(args: &LoadArgs) -> Extent {
    match (args.connections, args.duration) {
        (None, None) => (Some(DEFAULT_CONNECTIONS), None),
        given => given,
    }
}

/// A time for people, without digits that nobody reads.
pub(crate) fn humane(duration: Duration) -> String {
    let rounded = match duration {
        long if long >= Duration::from_secs(10) => Duration::from_secs(long.as_secs()),
        long if long >= Duration::from_millis(10) => {
            Duration::from_millis(u64::try_from(long.as_millis()).unwrap_or(u64::MAX))
        }
        short => Duration::from_micros(u64::try_from(short.as_micros()).unwrap_or(u64::MAX)),
    };
    humantime::format_duration(rounded).to_string()
}

mod milliseconds {
    //! Durations, or their absence, as milliseconds.

    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) trait Milliseconds: Sized {
        fn out(&self) -> Option<f64>;
        fn back(milliseconds: Option<f64>) -> Option<Self>;
    }

    impl Milliseconds for Duration {
        fn out(&self) -> Option<f64> {
            Some(self.as_secs_f64() * 1e3)
        }

        fn back(milliseconds: Option<f64>) -> Option<Self> {
            Self::try_from_secs_f64(milliseconds? / 1e3).ok()
        }
    }

    impl Milliseconds for Option<Duration> {
        fn out(&self) -> Option<f64> {
            self.as_ref().and_then(Milliseconds::out)
        }

        fn back(milliseconds: Option<f64>) -> Option<Self> {
            match milliseconds {
                None => Some(None),
                some => Duration::back(some).map(Some),
            }
        }
    }

    pub(super) fn serialize<T: Milliseconds, S: Serializer>(
        duration: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        duration.out().serialize(to)
    }

    pub(super) fn deserialize<'de, T: Milliseconds, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        let milliseconds = Option::deserialize(from)?;
        T::back(milliseconds).ok_or_else(|| serde::de::Error::custom("no time in milliseconds"))
    }
}
