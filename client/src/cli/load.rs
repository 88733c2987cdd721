//! The flags of `dtls-client load`. Main thread.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::{Format, ServerArgs, duration, duration_up_to_an_hour};
use crate::load::message::MIN_SIZE;
use crate::load::metrics::MetricsUrl;
use crate::load::plan::mix::Mix;
use crate::load::plan::mode::{Arrivals, Mode};
use crate::load::plan::rate::Rate;
use crate::target::Target;

pub(super) const HELP: &str = "\
ARRIVALS. By default the loop is open: connections begin when --rate says, whether or not the server
keeps up, and latencies count from the moment at which each was meant to begin. With --concurrency it
is closed: so many clients, each of which waits for its own end before it begins again; a slow server
then slows its clients down, and the latencies are those of patient clients.

  --rate 500 --duration 20s          500 connections a second for 20 s
  --rate 100..5000/30s --p99 20ms    up to 5000, evenly: finds the knee, the highest rate with nothing
                                     failed and p99 within the bound
  --rate 100,200,400/10s             in steps
  --concurrency 64 --connections 10000

MODES. What each connection does:
  echo         a full handshake, --messages one after another, each waits for its echo, then close.
               With --message-rate they go out in time, whether or not answers come
  handshake    a full handshake, then close
  resume       an abbreviated handshake, then close; the first ones are full and make the sessions
  half-open    the hello exchange, then silence for --hold: the server is left waiting
  hold         all connections are made and stay open for --hold, then each is probed with a message
  reconnect    a handshake, then, without a word, another from the same port, as after a restart, and
               one message
  hello-flood  first hellos alone, from many ports and --source addresses; counts the answers
  mix          --mix handshake=7,resume=2,half-open=1

A message holds its connection's and its own number and a pattern made from both and --seed, so that
answers are told apart: lost (no good answer within --timeout), late (a good answer, but to a message
already counted as lost), duplicated, reordered, corrupted.

DOUBTS stand before the numbers: reasons not to trust them, such as a generator that could not keep up,
a percentile of too few samples, datagrams that this host dropped.

It gives up when nothing has come through and as many connections as run at once (open loop: 10) have
failed, or the network says that nothing listens there. SIGINT or SIGTERM ends it early. Both report
what happened until then.

`dtls-client compare` tells two reports in JSON apart, `dtls-client merge` adds several up.

Exit codes: 0 good; 1 a connection failed, a message was lost or corrupted, or the run was cut
short; 2 wrong usage or configuration; 3 the environment does not allow it: the name does not
resolve, not enough descriptors, ports or threads.";

/// `dtls-client load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The servers, one after another in turn: name or address and port, an IPv6 address in
    /// brackets. Of a name with several addresses the first is used
    #[arg(value_name = "HOST:PORT", required = true, num_args = 1..=100)]
    pub(crate) targets: Vec<Target>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// What each connection does
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Echo, help_heading = "Load")]
    pub(crate) mode: Mode,

    /// With --mode mix: how many of each mode, such as handshake=7,resume=2,half-open=1
    #[arg(long, value_name = "MODE=N,…", help_heading = "Load")]
    pub(crate) mix: Option<Mix>,

    /// Open loop: begin so many connections a second [default: 100, unless --concurrency is given]
    #[arg(
        long,
        value_name = "RATE",
        conflicts_with = "concurrency",
        help_heading = "Load"
    )]
    pub(crate) rate: Option<Rate>,

    /// How the beginnings lie at that rate
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Arrivals::Constant, help_heading = "Load")]
    pub(crate) arrivals: Arrivals,

    /// Closed loop: so many connections at once
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Load")]
    pub(crate) concurrency: Option<u32>,

    /// How many connections in all [default: 100, unless --duration or --rate says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub(crate) connections: Option<u32>,

    /// Begin connections for this long
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Load")]
    pub(crate) duration: Option<Duration>,

    /// How many messages on each connection that exchanges any [default: 10]
    #[arg(long, value_name = "M", help_heading = "Load")]
    pub(crate) messages: Option<u32>,

    /// Send so many messages a second on each connection, whether or not answers come; by default
    /// the next goes out when the answer to the last has come
    #[arg(long, value_name = "RATE", value_parser = message_rate, help_heading = "Load")]
    pub(crate) message_rate: Option<f64>,

    /// Size of a message in bytes, at least 16
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u16).range(i64::from(MIN_SIZE)..=16_384), help_heading = "Load")]
    pub(crate) size: u16,

    /// Count a message as lost after this long
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration, help_heading = "Load")]
    pub(crate) timeout: Duration,

    /// Resume: in every mode, offer the session of the last connection
    #[arg(long, help_heading = "Load")]
    pub(crate) resume: bool,

    /// Keep each connection open for this long: after its messages, with one message a second; in
    /// the modes half-open and hold, silently [default: 0s; in the mode hold: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration_up_to_an_hour, help_heading = "Load")]
    pub(crate) hold: Option<Duration>,

    /// The bound of the knee: handshakes from their intended start
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration, help_heading = "Load")]
    pub(crate) p99: Duration,

    /// Send from these addresses in turn, each a host's own or a network of its own such as
    /// 127.1.0.0/24; one address has some 28,000 ports
    #[arg(
        long,
        value_name = "ADDR[/BITS]",
        value_delimiter = ',',
        help_heading = "Load"
    )]
    pub(crate) source: Vec<Sources>,

    /// Begin at this time, to line up several machines: RFC 3339, such as 2026-11-23T18:00:00Z, or
    /// +10s
    #[arg(long, value_name = "TIME", value_parser = start_time, help_heading = "Load")]
    pub(crate) start_at: Option<SystemTime>,

    /// Makes the beginnings, the mix and the messages' contents; the same seed, the same run
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub(crate) seed: u64,

    /// Threads that make connections [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Load")]
    pub(crate) threads: Option<u16>,

    /// The server's process on this host: its processor time and memory go into the report
    #[arg(long, value_name = "PID", help_heading = "Report")]
    pub(crate) server_pid: Option<i32>,

    /// The server's metrics, such as `http://127.0.0.1:9464/metrics`: its counters go into the report,
    /// and where they differ from ours it says so
    #[arg(long, value_name = "URL", help_heading = "Report")]
    pub(crate) server_metrics: Option<MetricsUrl>,

    /// How to print the report on standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text, help_heading = "Report")]
    pub(crate) format: Format,

    /// Write the latencies to this file, as an HDR histogram log
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) hdr: Option<PathBuf>,

    /// Write the report to this file, as one page that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) html: Option<PathBuf>,
}

/// Addresses to send from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sources(pub(crate) Vec<IpAddr>);

/// More would only be more of the same.
const MOST_SOURCES: u32 = 1 << 16;

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("`{address}` is no address"))?;
        let Some(bits) = bits else {
            return Ok(Self(vec![address]));
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits: u32 = bits
            .parse()
            .ok()
            .filter(|&bits| bits <= width)
            .ok_or_else(|| format!("`{bits}` is no number of bits, 0 to {width}"))?;
        let count = 1u32
            .checked_shl(width - bits)
            .filter(|&count| width - bits < 32 && count <= MOST_SOURCES)
            .ok_or_else(|| format!("more than {MOST_SOURCES} addresses"))?;
        let nth = |n: u32| match address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() / count * count + n).into()),
            IpAddr::V6(v6) => IpAddr::V6(
                (v6.to_bits() / u128::from(count) * u128::from(count) + u128::from(n)).into(),
            ),
        };
        // The first and the last of an IPv4 network are no host's.
        let hosts = if address.is_ipv4() && count > 2 {
            1..count - 1
        } else {
            0..count
        };
        Ok(Self(hosts.map(nth).collect()))
    }
}

fn message_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1e-3..=1e6).contains(&rate) => Ok(rate),
        _ => Err(
            "must be a number of messages a second, more than 0, from 0.001 to 1000000".to_owned(),
        ),
    }
}

fn start_time(text: &str) -> Result<SystemTime, String> {
    if let Some(delay) = text.strip_prefix('+') {
        return Ok(SystemTime::now() + duration_up_to_an_hour(delay)?);
    }
    humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; write for example 2026-11-23T18:00:00Z or +10s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_all_its_hosts_and_an_address_itself() {
        let sources = |text: &str| text.parse::<Sources>().map(|sources| sources.0);
        let v4 = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(sources("127.0.0.9"), Ok(vec![v4("127.0.0.9")]));
        let network = sources("127.1.2.3/30").unwrap();
        assert_eq!(network, [v4("127.1.2.1"), v4("127.1.2.2")]);
        assert_eq!(sources("127.1.0.0/24").unwrap().len(), 254);
        assert_eq!(
            sources("fd00::/127").unwrap(),
            [v4("fd00::"), v4("fd00::1")]
        );
        for (bad, words) in [
            ("localhost", "no address"),
            ("127.0.0.0/8", "more than 65536"),
            ("::/0", "more than 65536"),
            ("127.0.0.1/33", "0 to 32"),
        ] {
            assert!(sources(bad).unwrap_err().contains(words), "{bad}");
        }
    }
}
