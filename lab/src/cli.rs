//! What was typed. Main thread.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs real DTLS programs across a network that is broken on purpose, and says what survived.
#[derive(Debug, Parser)]
#[command(
    name = "dtls-lab",
    version,
    after_help = "Exit status: 0 every verdict is the expected one; 1 some verdict is not; \
                  2 wrong usage or scenario file; 3 the machine does not allow it.\n\n\
                  Environment: LAB_REQUIRE=netns,openssl,… or LAB_REQUIRE=all turns a skipped run \
                  with that reason into a failure."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the scenarios with their claims.
    List(ListArgs),
    /// Run scenarios and judge them.
    Run(Box<RunArgs>),
}

/// `dtls-lab list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Read the scenarios from this folder instead of the built-in set.
    #[arg(long, value_name = "DIR")]
    pub scenarios: Option<PathBuf>,
}

/// `dtls-lab run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Scenarios to run, by name or by a pattern with `*`; all of them by default.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// Seed of every decision left to chance, in hexadecimal; a random one by default.
    #[arg(long, value_name = "HEX", value_parser = parse_seed)]
    pub seed: Option<u64>,

    /// Read the scenarios from this folder instead of the built-in set.
    #[arg(long, value_name = "DIR")]
    pub scenarios: Option<PathBuf>,

    /// Only over this address family.
    #[arg(long, value_name = "FAMILY", value_enum)]
    pub family: Option<FamilyArg>,

    /// Only with this server.
    #[arg(long, value_name = "ENDPOINT")]
    pub server: Option<String>,

    /// Only with this client.
    #[arg(long, value_name = "ENDPOINT")]
    pub client: Option<String>,

    /// Runs at the same time, each in namespaces of its own. They mostly wait for timers.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,

    /// Where the evidence goes: a folder per run, and the link `latest`.
    #[arg(long, value_name = "DIR", default_value = "target/lab")]
    pub out: PathBuf,

    /// How to print the verdicts.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Where `dtls-server` and `dtls-client` are; beside `dtls-lab` by default.
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,

    /// The program that plays our server, instead of `dtls-server` from `--bin-dir`.
    #[arg(long, value_name = "FILE")]
    pub server_bin: Option<PathBuf>,

    /// The program that plays our client, instead of `dtls-client` from `--bin-dir`.
    #[arg(long, value_name = "FILE")]
    pub client_bin: Option<PathBuf>,

    /// One more argument for our server; may be given several times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub server_arg: Vec<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Text,
    /// One JSON document for programs.
    Json,
}

/// `--family`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FamilyArg {
    /// IP version 4.
    Ipv4,
    /// IP version 6.
    Ipv6,
}

fn parse_seed(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map_err(|_| format!("`{text}` is no hexadecimal number of up to 16 digits, like 7c1e"))
}
