//! What was typed. Main thread.

use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use strum::VariantNames;

use crate::explore::space::Kind;
use crate::report::quoted;
use crate::scenario::Chance;
use crate::scenario::Shape;
use crate::sim::Defect;

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
    /// Play every server with every client, of all implementations that are installed.
    Matrix(Box<MatrixArgs>),
    /// List the implementations that can play, and where their programs are.
    Adapters(AdaptersArgs),
    /// Play every case of a kind of fault, in every kind of handshake, on the simulator.
    Explore(ExploreArgs),
    /// Compare how long handshakes take on a lossy wire, simulated, with what flights and timers say.
    Oracle(OracleArgs),
    /// Compare what the wire does to datagrams with what the kernel's netem does.
    Compare(CompareArgs),
    /// List the rules of DTLS 1.2, the scenarios that show each, and what the newest runs say.
    Rules(RulesArgs),
    /// List bugs that DTLS implementations have had, the scenarios that would find each, and what the
    /// newest runs say.
    Bugs(RulesArgs),
}

/// `dtls-lab compare`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each link is made twice, by the wire and by a netem qdisc; plain UDP datagrams go \
    through both. Shares may differ by five standard deviations, distributions of latency by the bound \
    of Dvoretzky, Kiefer and Wolfowitz: links that are alike exceed either less than once in a million \
    times. What is out of its bound is measured again, up to three times in all, for a busy machine is the likelier \
    reason; it differs when it was out each time. Needs a kernel with sch_netem; `make lab-netem` has one.\n\n\
    Exit status: 0 they agree; 1 they do not; 3 no netem here, or the machine is too busy to tell."
)]
pub struct CompareArgs {
    /// Datagrams through each link, on each backend.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(500..=50_000))]
    pub datagrams: u32,

    /// Seed of the wire's chances, in hexadecimal; a random one by default. Netem has its own.
    #[arg(long, value_name = "HEX", value_parser = parse_seed)]
    pub seed: Option<u64>,

    /// How to print the comparison.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `dtls-lab list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Read the scenarios from this folder instead of the built-in set.
    #[arg(long, value_name = "DIR")]
    pub scenarios: Option<PathBuf>,
}

/// `dtls-lab rules` and `dtls-lab bugs`.
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// Read the scenarios from this folder instead of the built-in set.
    #[arg(long, value_name = "DIR")]
    pub scenarios: Option<PathBuf>,

    /// A report that holds verdicts, as a run leaves it; may be given several times. By default the newest of
    /// each backend below `target/lab`.
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,

    /// How to print the list.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `dtls-lab run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Scenarios to run, by name or by a pattern with `*`; all of them by default.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// Where to play.
    #[arg(long, value_name = "BACKEND", value_enum, default_value_t = BackendArg::Auto)]
    pub backend: BackendArg,

    /// Plant this defect in the simulated ends, to see which scenarios notice.
    #[arg(long, value_name = "NAME", value_parser = one_of::<Defect>())]
    pub defect: Option<Defect>,

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
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,

    /// What `matrix` takes as well.
    #[command(flatten)]
    pub play: PlayArgs,
}

/// What `run` and `matrix` have in common.
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// Seed of every decision left to chance, in hexadecimal; a random one by default.
    #[arg(long, value_name = "HEX", value_parser = parse_seed)]
    pub seed: Option<u64>,

    /// Read the scenarios from this folder instead of the built-in set.
    #[arg(long, value_name = "DIR")]
    pub scenarios: Option<PathBuf>,

    /// Read more adapters from this folder; one of a name that exists replaces it.
    #[arg(long, value_name = "DIR")]
    pub adapters: Option<PathBuf>,

    /// Let the programs' clocks run N times as fast, where a probe of each shows that this works: what waits for
    /// timers takes 1/N of the time. All times shown are the programs'. Needs libfaketime and the wire.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=20))]
    pub dilate: Option<u32>,

    /// Where the evidence goes: a folder per run, and the link `latest`.
    #[arg(long, value_name = "DIR", default_value = OUT)]
    pub out: PathBuf,

    /// How to print the verdicts.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Where the programs are.
    #[command(flatten)]
    pub programs: ProgramArgs,
}

/// Where the programs are.
#[derive(Debug, Args)]
pub struct ProgramArgs {
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

impl PlayArgs {
    /// What a replay needs besides its run, each word with a space before it: where scenarios, adapters and
    /// programs come from, and, of `real` programs, the pace of their clocks.
    #[must_use]
    pub fn besides(&self, real: bool) -> String {
        let folders = [
            ("--scenarios", &self.scenarios),
            ("--adapters", &self.adapters),
            ("--bin-dir", &self.programs.bin_dir),
            ("--server-bin", &self.programs.server_bin),
            ("--client-bin", &self.programs.client_bin),
        ];
        let folders = folders.into_iter().filter_map(|(flag, path)| {
            let path = quoted(&path.as_ref()?.display().to_string());
            Some(format!(" {flag} {path}"))
        });
        let more = self.programs.server_arg.iter();
        folders
            .chain(more.map(|word| format!(" --server-arg={}", quoted(word))))
            .chain(
                self.dilate
                    .filter(|_| real)
                    .map(|times| format!(" --dilate {times}")),
            )
            .collect()
    }
}

impl RunArgs {
    /// What a replay needs besides its run, each word with a space before it.
    #[must_use]
    pub fn besides(&self, real: bool) -> String {
        let mut words = self.play.besides(real);
        if let Some(defect) = self.defect {
            words.push_str(&format!(" --defect {defect}"));
        }
        words
    }
}

impl MatrixArgs {
    /// What was asked for, but for the seed, as arguments that ask for it again.
    #[must_use]
    pub fn asked(&self) -> String {
        let family = self.family.to_possible_value();
        let family = family.map(|family| family.get_name().to_owned());
        let expectations = self.expectations.as_ref();
        let some = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
        let options = [
            ("--server", some(&self.server)),
            ("--client", some(&self.client)),
            (
                "--repeat",
                (self.repeat > 1).then(|| self.repeat.to_string()),
            ),
            ("--family", family.filter(|family| family != "ipv4")),
            (
                "--expectations",
                expectations.map(|path| path.display().to_string()),
            ),
        ];
        let options = options
            .into_iter()
            .filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(&value?))));
        let names = self.names.iter().map(|name| format!(" {}", quoted(name)));
        names.chain(options).collect::<String>() + &self.play.besides(true)
    }
}

/// Where evidence goes if nobody says otherwise.
pub const OUT: &str = "target/lab";

/// `dtls-lab matrix`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each cell is ok, FAIL, flaky (n of m with --repeat), unsupported or skipped; a letter stands for each \
    scenario. What is known to fail stands in lab/expectations.toml with its reason.\n\nExamples:\n  \
    dtls-lab matrix                                     everybody with everybody: a quarter of an hour\n  \
    dtls-lab matrix --server gnutls --client 'openssl*,ours'\n  \
    dtls-lab matrix 'icmp-*' loss-20 --repeat 5\n  \
    dtls-lab matrix --adapters my-adapters --server mine"
)]
pub struct MatrixArgs {
    /// Scenarios to play, by name or by a pattern with `*`; by default twenty that ask nothing of the ends but a
    /// handshake and data.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// Servers, by name or pattern; all of them by default.
    #[arg(long, value_name = "ADAPTER", value_delimiter = ',')]
    pub server: Vec<String>,

    /// Clients, by name or pattern; all of them by default.
    #[arg(long, value_name = "ADAPTER", value_delimiter = ',')]
    pub client: Vec<String>,

    /// How often each cell is played, each time with other chances.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub repeat: u8,

    /// Over this address family.
    #[arg(long, value_name = "FAMILY", value_enum, default_value_t = FamilyArg::Ipv4)]
    pub family: FamilyArg,

    /// What is known to fail, instead of the built-in list.
    #[arg(long, value_name = "FILE")]
    pub expectations: Option<PathBuf>,

    /// Runs at the same time, each in namespaces of its own. They mostly wait for timers.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,

    /// What `run` takes as well.
    #[command(flatten)]
    pub play: PlayArgs,
}

/// `dtls-lab adapters`.
#[derive(Debug, Args)]
pub struct AdaptersArgs {
    /// Read more adapters from this folder; one of a name that exists replaces it.
    #[arg(long, value_name = "DIR")]
    pub adapters: Option<PathBuf>,

    /// Where the programs are.
    #[command(flatten)]
    pub programs: ProgramArgs,
}

/// `dtls-lab explore`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dtls-lab explore                                   everything: some minutes\n  \
    dtls-lab explore --space drops3,permutations --handshake full,resumed\n  \
    dtls-lab explore --space drops3 --handshake full --case 77  one case, every datagram of it\n  \
    dtls-lab explore --handshake psk --faults 'to_client#1=drop,server.send#2=ECONNRESET'\n  \
    dtls-lab explore --handshake full --decisions target/lab/latest/RUN/decisions.jsonl\n\n\
    A failing case is shrunk to the faults that matter and told with the command that plays it. Late \
    cases took a timeout more than their faults explain; they do not fail.")]
pub struct ExploreArgs {
    /// Spaces to play: drops3 (up to three lost datagrams), permutations (of each flight), duplicates,
    /// replays, errno (each socket error at each call), icmp (each forged error at each step); all of them
    /// by default.
    #[arg(long, value_name = "SPACE", value_delimiter = ',', value_parser = one_of::<Kind>())]
    pub space: Vec<Kind>,

    /// Handshakes to play them in; all of them by default. `-split` sends each record in a datagram of
    /// its own.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = one_of::<Shape>())]
    pub handshake: Vec<Shape>,

    /// Only this case of one space, with every datagram of it.
    #[arg(long, value_name = "N", conflicts_with_all = ["faults", "decisions"])]
    pub case: Option<u64>,

    /// Only these faults, separated by commas, as a finding prints them.
    #[arg(long, value_name = "LIST", conflicts_with = "decisions")]
    pub faults: Option<String>,

    /// Only what the wire decided in an earlier run, from its `decisions.jsonl`.
    #[arg(long, value_name = "FILE")]
    pub decisions: Option<PathBuf>,

    /// Plant this defect in the ends, to see it found.
    #[arg(long, value_name = "NAME", value_parser = one_of::<Defect>())]
    pub defect: Option<Defect>,

    /// Threads; one for each core by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: Option<u8>,

    /// How to print the findings.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `dtls-lab oracle`.
#[derive(Debug, Args)]
#[command(
    after_help = "First each flight is met with silence: its retransmissions must come after 1, 3, 7, \
    15… s. Then handshakes are simulated at each loss rate, and the share that is complete by each time \
    compared with a model that knows only flights, timers and loss. They agree when they are nowhere \
    further apart than the bound of Dvoretzky, Kiefer and Wolfowitz, which chance exceeds once in 1/alpha \
    times.\n\nExamples:\n  \
    dtls-lab oracle --plot oracle.svg\n  \
    dtls-lab oracle --loss 20 --defect no-backoff       a planted defect: exit status 1"
)]
pub struct OracleArgs {
    /// Loss rates in percent, each datagram by itself, both ways.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "5,10,20,30", value_parser = parse_loss)]
    pub loss: Vec<Chance>,

    /// Handshakes for each loss rate.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub handshakes: u32,

    /// Kind of handshake: those for which the model is exact. `full` has a flight of several datagrams, cut
    /// smaller when it is lost again.
    #[arg(long, value_name = "KIND", default_value = "psk", value_parser = PossibleValuesParser::new(["psk", "full"]).try_map(|name| name.parse::<Shape>()))]
    pub handshake: Shape,

    /// Chance that a sound implementation is called wrong, for each loss rate.
    #[arg(long, value_name = "CHANCE", default_value_t = 0.001, value_parser = parse_alpha)]
    pub alpha: f64,

    /// Let the model's ends answer a repeated flight with their own (RFC 6347 §4.2.4, figure 2), which
    /// OpenSSL does for the last flight only.
    #[arg(long)]
    pub answers_duplicates: bool,

    /// Plant this defect in the simulated ends, to see it found.
    #[arg(long, value_name = "NAME", value_parser = one_of::<Defect>())]
    pub defect: Option<Defect>,

    /// Draw the distributions into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Where the page `oracle.html` goes, and `oracle.json`, which the pages of later runs in the same
    /// folder show too.
    #[arg(long, value_name = "DIR", default_value = "target/lab")]
    pub out: PathBuf,

    /// Seed of every loss, in hexadecimal; a random one by default.
    #[arg(long, value_name = "HEX", value_parser = parse_seed)]
    pub seed: Option<u64>,

    /// Threads; one for each core by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: Option<u8>,

    /// How to print the answer.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

fn parse_loss(text: &str) -> Result<Chance, String> {
    let refuse = || format!("`{text}` is no loss rate: give percent from 0 to 90, like 12.5");
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| refuse())?;
    if !(0.0..=90.0).contains(&percent) {
        return Err(refuse());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 900,000"
    )]
    let parts = (percent * 10_000.0).round() as u32;
    Chance::per_million(parts).ok_or_else(refuse)
}

fn parse_alpha(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(alpha) if 0.0 < alpha && alpha < 0.5 => Ok(alpha),
        _ => Err(format!(
            "`{text}` is no such chance: give a number between 0 and 0.5, like 0.001"
        )),
    }
}

/// Takes the names of an enum's variants, and shows them where another word is given.
fn one_of<T>() -> impl TypedValueParser<Value = T>
where
    T: VariantNames + FromStr + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(T::VARIANTS.iter().copied()).map(|name| match name.parse() {
        Ok(value) => value,
        Err(_) => unreachable!("clap lets only the names of variants pass"),
    })
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Text,
    /// One JSON document for programs.
    Json,
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// Kernel netem where it is there and the faults are links that it can make, else the wire; with
    /// --seed or --dilate the wire, whose decisions alone can be played again, and hurried.
    Auto,
    /// Real programs in network namespaces, and our own wire between them.
    Wire,
    /// The same with the kernel's netem as its links; what needs more than links is skipped.
    Netem,
    /// Both ends in this process, which takes milliseconds and skips what needs sockets.
    Sim,
    /// First sim, then as auto: each scenario on each that can play it, in one report.
    All,
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
