//! What was asked for, checked. Main thread.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::Failure;

const AFTER_HELP: &str = "\
Exit codes: 0 all checks hold; 1 one does not, or the run failed; 2 wrong usage; 3 the environment
does not allow it: too few descriptors, ports or memory mappings, or no dtls-client was built.";

/// Keeps a server busy through a lossy network, and checks that it neither leaks nor drops anybody.
///
/// Clients that stay, clients that come and go, and a flood of hellos from other addresses meet
/// `dtls-server --service forward` in front of a plain UDP echo, while certificates are replaced. A
/// relay loses datagrams on the way, all but the flood's.
#[derive(Debug, Parser, Serialize)]
#[command(name = "soak", after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// How long, the end not counted: another minute or two, until the server has noticed that
    /// everybody is gone
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,

    /// Connections that stay from begin to end
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) connections: u32,

    /// How many of them are made in a second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,

    /// How often each of them sends a message; the server's idle timeout is six times that
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) every: Duration,

    /// Clients that come and go, in a second
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) comings: u32,

    /// Hellos of strangers in a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) flood: u32,

    /// Share of the datagrams that is lost, each way
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub(crate) loss: f64,

    /// How often the server gets a new certificate and a SIGHUP
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    pub(crate) reload_every: Duration,

    /// The server's transport
    #[arg(long, value_name = "HOW", default_value = "connected", value_parser = ["connected", "shared"])]
    pub(crate) transport: String,

    /// Servers that share the connections, with shared keys; by default as few as this host's limit on
    /// descriptors allows, which is one where a process may have some 22,000 for 10,000 connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) servers: Option<u32>,

    /// Makes the losses and the clients' contents
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// How to print the result on standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    #[serde(skip)]
    pub(crate) format: Format,

    // cargo-bench(1) gives it to every benchmark.
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub(crate) bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

impl Options {
    /// After so many messages' time a silent client is gone: by chance so many in a row are not lost.
    pub(crate) fn idle_timeout(&self) -> Duration {
        (6 * self.every).max(Duration::from_secs(1))
    }

    /// Refuses what would measure nothing.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let made = Duration::from_secs((self.connections / self.rate).into());
        if self.time < Duration::from_secs(10) || self.time > Duration::from_secs(7 * 24 * 3600) {
            return Err(Failure::Usage(
                "--time: ten seconds to seven days".to_owned(),
            ));
        }
        if made + Duration::from_secs(3) > self.time / 2 {
            return Err(Failure::Usage(format!(
                "--connections {} at --rate {} take {made:?} to make, and memory is looked at in the \
                 second half: raise --time or --rate",
                self.connections, self.rate
            )));
        }
        if self.every < Duration::from_millis(100) || self.every > Duration::from_secs(600) {
            return Err(Failure::Usage("--every: 100ms to 10m".to_owned()));
        }
        if self.reload_every < Duration::from_secs(5) || self.reload_every > self.time {
            return Err(Failure::Usage(
                "--reload-every: 5s, and --time at most".to_owned(),
            ));
        }
        Ok(())
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=0.2).contains(&share) => Ok(share),
        _ => Err("must be a number from 0 to 0.2, such as 0.01 for one in a hundred".to_owned()),
    }
}
