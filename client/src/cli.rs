//! What was typed. Main thread.

mod server;

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::load::MIN_SIZE;
use crate::target::Target;

pub(crate) use server::ServerArgs;

/// Exit code: the run failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: wrong usage or configuration.
pub(crate) const USAGE: u8 = 2;
/// Exit code: the environment does not allow it.
pub(crate) const ENVIRONMENT: u8 = 3;

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
    Connect(ConnectArgs),
    /// Make many connections to an echoing server, count and time what happens
    #[command(after_help = LOAD_HELP)]
    Load(LoadArgs),
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

const LOAD_HELP: &str = "\
Each of --concurrency threads makes one connection after another until --connections are made.
On each it sends --messages, one at a time, waits for its echo, then closes. A name with several
addresses: the first one is used.

A message holds its connection's and its own number and a pattern made from both, so that
answers are told apart: lost (no good answer within --timeout), late (a good answer, but to a
message already counted as lost), duplicated, corrupted.

It gives up when as many connections as run at once have failed and none has come through. SIGINT
or SIGTERM ends it early. Both report what happened until then.

Exit codes: 0 good; 1 a connection failed, a message was lost or corrupted, or the run was cut
short; 2 wrong usage or configuration; 3 the environment does not allow it: the name does not
resolve, not enough descriptors or threads.";

/// `dtls-client load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The server: name or address and port, an IPv6 address in brackets
    #[arg(value_name = "HOST:PORT")]
    pub(crate) target: Target,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// How many connections in all
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,

    /// How many connections at once, a thread each
    #[arg(long, value_name = "C", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: u32,

    /// How many messages on each connection
    #[arg(long, value_name = "M", default_value_t = 10)]
    pub(crate) messages: u32,

    /// Size of a message in bytes, at least 16
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u16).range(i64::from(MIN_SIZE)..=16_384))]
    pub(crate) size: u16,

    /// Count a message as lost after this long
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// Resume: a full handshake on each thread's first connection, abbreviated ones from then on
    #[arg(long)]
    pub(crate) resume: bool,

    /// After its messages keep each connection open for this long, with one message a second
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration_up_to_an_hour)]
    pub(crate) hold: Duration,

    /// How to print the report on standard output
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
