//! What was typed. Main thread.

mod load;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::USAGE;
use crate::target::Target;

pub(crate) use load::LoadArgs;
pub(crate) use server::{ServerArgs, SuiteChoice};

/// Speaks DTLS 1.2 with a server, by hand or by the thousand.
#[derive(Debug, Parser)]
#[command(name = "dtls-client", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  good
  1  connect: the handshake failed or the connection ended out of order
     load: a connection failed, a message was lost or corrupted, or the run was cut short
  2  wrong usage or configuration: a flag, a file
  3  the environment does not allow it: the name does not resolve, no descriptors left";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect, show what the handshake agreed on, then send lines and print answers
    #[command(after_help = CONNECT_HELP)]
    Connect(Box<ConnectArgs>),
    /// Make many connections to one or more servers, count and time what happens
    #[command(after_help = load::HELP)]
    Load(Box<LoadArgs>),
    /// Tell two reports of `load --format json` apart, with 95 % confidence intervals
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
    /// Add up reports of `load --format json`: of several machines at the same time, or repetitions
    #[command(after_help = MERGE_HELP)]
    Merge(MergeArgs),
}

const COMPARE_HELP: &str = "\
The interval of a percentile is that of the ranks between which the true one lies with 95 %
probability, whatever the distribution. Two runs differ where their intervals do not touch. One run
of each says nothing about what differs from run to run: repeat them, in turn.

Exit codes: 0 the comparison is printed, whatever it says; 2 a file that is no report; 3 it cannot
be printed.";

/// `dtls-client compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The first report
    #[arg(value_name = "A.json")]
    pub(crate) a: PathBuf,

    /// The second one
    #[arg(value_name = "B.json")]
    pub(crate) b: PathBuf,

    /// How to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

const MERGE_HELP: &str = "\
Histograms are added, so the percentiles are those of all connections together. Line the machines up
with load --start-at: the rates of runs that began together add up, over time too, and so have a knee.
Runs that did not are taken for repetitions, and a doubt says so.

Runs with different plans are refused. Of those that began together, --rate and --concurrency may
differ; of all, --connections, --threads, --source and --seed.

Exit codes: 0 good; 1 one of the runs was not; 2 a file that is no report, runs that do not add up;
3 it cannot be printed.";

/// `dtls-client merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The reports
    #[arg(value_name = "REPORT.json", required = true)]
    pub(crate) reports: Vec<PathBuf>,

    /// How to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

const CONNECT_HELP: &str = "\
Each line of standard input goes out as one datagram, without its line end; each datagram that
comes back is printed as one line. What the handshake agreed on goes to standard error.
It ends when the server closes the connection, at SIGINT or SIGTERM, and at the end of the input
after waiting --linger for the last answers.

A name with several addresses: they are tried in the resolver's order, each 0.3 s after the one
before; the first that answers decides.

With --format json every line on standard output is an object:
  {\"event\":\"connected\",\"peer\":…,\"version\":…,\"cipher\":…,\"group\":…,\"alpn\":…,\"resumed\":…,
   \"handshake_ms\":…,\"cookie_ms\":…,\"retransmissions\":…,\"datagrams\":…,\"bytes\":…,\"heartbeat\":…,
   \"verified\":…,\"verification\":…,\"proof\":…,\"psk_identity\":…,
   \"chain\":[{\"subject\",\"issuer\",\"not_after\",\"fingerprint\"}]}
   \"proof\" is \"certificate\", \"pin\", \"known_peer\", \"first_use\", \"psk\", or null: nothing was proved
  {\"event\":\"probe\",\"result\":\"alive\",\"rtt_ms\":…}   or \"silent\", or \"not_negotiated\"
  {\"event\":\"datagram\",\"text\":…}    and \"hex\" where the bytes are no UTF-8
  {\"event\":\"closed\",\"by\":\"peer\"}   or \"us\"
  {\"event\":\"failed\",\"error\":…}

Exit codes: 0 good; 1 the handshake failed or the connection ended out of order; 2 wrong usage or
configuration; 3 the environment does not allow it, for example the name does not resolve.";

/// `dtls-client connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The server: name or address and port, an IPv6 address in brackets
    #[arg(value_name = "HOST:PORT")]
    pub(crate) target: Target,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Ask the server for a sign of life this often (heartbeats, RFC 6520) and print what came;
    /// each question waits at most as long for its answer, and lines wait meanwhile
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) probe_every: Option<Duration>,

    /// Wait this long for the last answers after the end of the input
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration_up_to_an_hour)]
    pub(crate) linger: Duration,

    /// How to print on standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Cli {
    /// Parses the command line; if there is nothing to run, prints why and gives the exit code.
    pub(crate) fn from_command_line() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            let asked_for_help = matches!(
                error.kind(),
                ErrorKind::DisplayHelp
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            if asked_for_help {
                error.exit();
            }
            eprintln!("dtls-client: {}", one_line(&error.to_string()));
            ExitCode::from(USAGE)
        })
    }
}

/// Clap's error without its usage text, on one line.
fn one_line(error: &str) -> String {
    let said: Vec<&str> = error
        .split("\n\n")
        .map(|paragraph| paragraph.trim().trim_start_matches("error: "))
        .filter(|paragraph| !paragraph.starts_with("Usage:"))
        .filter(|paragraph| !paragraph.starts_with("For more information"))
        .collect();
    let words: Vec<&str> = said
        .iter()
        .flat_map(|text| text.split_whitespace())
        .collect();
    format!("{}; see dtls-client --help", words.join(" "))
}

fn duration(text: &str) -> Result<Duration, String> {
    match duration_up_to_an_hour(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        duration => Ok(duration),
    }
}

fn duration_up_to_an_hour(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= Duration::from_secs(3600) => Ok(duration),
        Ok(_) => Err("must be at most 1h".to_owned()),
        Err(error) => Err(format!("{error}; write for example 500ms or 30s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line_without_the_usage_text() {
        let error = Cli::try_parse_from(["dtls-client", "connect", "localhost:1", "--insecur"]);
        let line = one_line(&error.unwrap_err().to_string());
        assert_eq!(
            line,
            "unexpected argument '--insecur' found tip: a similar argument exists: '--insecure'; \
             see dtls-client --help"
        );
    }

    #[test]
    fn zero_is_no_handshake_timeout_but_a_fine_linger() {
        assert!(duration("0s").is_err());
        assert_eq!(duration_up_to_an_hour("0s"), Ok(Duration::ZERO));
        assert!(duration("2h").is_err());
        assert!(duration("soon").unwrap_err().contains("30s"));
    }
}
