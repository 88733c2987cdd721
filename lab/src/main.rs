//! `dtls-lab`: flags, scenarios, runs, report, exit status. Main thread.
#![forbid(unsafe_code)]

mod crossplay;
mod scenarios;
mod simulated;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use dtls_certs::TestPki;
use dtls_lab::adapter::Adapters;
use dtls_lab::cli::{Cli, Command, CompareArgs, Format, ListArgs, OUT, ProgramArgs, RulesArgs};
use dtls_lab::compare::{self, NotCompared, Question};
use dtls_lab::endpoint::{MissingProgram, Programs, faketime};
use dtls_lab::netem;
use dtls_lab::netns::{self, NamespaceError};
use dtls_lab::refusal::Refusal;
use dtls_lab::report::{
    SaveError, Verdicts, bug_rows, rule_rows, write_bugs, write_json, write_rules,
};
use dtls_lab::role::Role;
use dtls_lab::run::{Newest, evidence_folder, label, newest_reports};
use dtls_lab::scenario::Catalogue;
use dtls_lab::schedule::{PlanError, Planned};
use dtls_lab::sim::SimulationError;
use indicatif::{ProgressBar, ProgressStyle};
use simulated::CommandError;

/// Why the lab ended before it had verdicts.
#[derive(Debug, thiserror::Error)]
enum LabError {
    #[error(transparent)]
    Scenario(#[from] Refusal),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("{0}")]
    Requirement(String),
    #[error("cannot read {what} from {} ({source}): name a readable folder with --{what}", path.display())]
    Unreadable {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot read expectations from {} ({source}): name a readable file with --expectations", path.display())]
    NoExpectations { path: PathBuf, source: io::Error },
    #[error("no TOML file with {what} in {}: name another folder with --{what}", path.display())]
    NoFiles { what: &'static str, path: PathBuf },
    #[error("cannot write evidence below {} ({source}): name another folder with --out", path.display())]
    Evidence { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error("cannot read the report {} ({source}): name another with --report", path.display())]
    OldReport { path: PathBuf, source: io::Error },
    #[error("no {role} is named `{name}`; those there are: {valid}")]
    UnknownPlayer {
        role: &'static str,
        name: String,
        valid: String,
    },
    #[error("cannot make the test PKI: {0}")]
    Pki(#[from] dtls_certs::WriteError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Compare(#[from] NotCompared),
    #[error("LAB_REQUIRE=netem: {0}")]
    Netem(netem::Missing),
    #[error(transparent)]
    Missing(#[from] MissingProgram),
    #[error(transparent)]
    NoFaketime(#[from] faketime::NotInstalled),
    #[error(transparent)]
    Simulator(#[from] SimulationError),
    #[error(transparent)]
    Command(CommandError),
    #[error("cannot handle signals: {0}")]
    Signals(#[from] ctrlc::Error),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl From<CommandError> for LabError {
    fn from(error: CommandError) -> Self {
        match error {
            // One place decides what a closed pipe means.
            CommandError::Print(source) => Self::Print(source),
            error => Self::Command(error),
        }
    }
}

impl LabError {
    /// 2 for what the person wrote, 3 for what the machine lacks.
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Scenario(_)
            | Self::Plan(_)
            | Self::Requirement(_)
            | Self::Unreadable { .. }
            | Self::NoExpectations { .. }
            | Self::NoFiles { .. }
            | Self::UnknownPlayer { .. }
            | Self::OldReport { .. }
            | Self::Command(CommandError::Usage(_) | CommandError::Decisions { .. }) => 2,
            Self::Evidence { .. }
            | Self::Save(_)
            | Self::Pki(_)
            | Self::Namespace(_)
            | Self::Compare(_)
            | Self::Netem(_)
            | Self::Missing(_)
            | Self::NoFaketime(_)
            | Self::Simulator(_)
            | Self::Command(_)
            | Self::Signals(_)
            | Self::Print(_) => 3,
        }
    }
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let done = match Cli::parse().command {
        Command::List(arguments) => list(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Run(arguments) => scenarios::run(&arguments),
        Command::Oracle(arguments) => simulated::oracle(&arguments, &progress_bar(0))
            .map(exit)
            .map_err(LabError::from),
        Command::Explore(arguments) => simulated::explore(&arguments, &progress_bar(0))
            .map(exit)
            .map_err(LabError::from),
        Command::Compare(arguments) => compare(&arguments).map(exit),
        Command::Rules(arguments) => rules(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Matrix(arguments) => crossplay::matrix(&arguments, now()),
        Command::Adapters(arguments) => {
            crossplay::list_adapters(&arguments).map(|()| ExitCode::SUCCESS)
        }
        Command::Bugs(arguments) => bugs(&arguments).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        // `dtls-lab list | head` closes our output on purpose.
        if let LabError::Print(source) = &error
            && source.kind() == io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            source = inner.source();
        }
        eprintln!("dtls-lab: {text}");
        ExitCode::from(error.exit_code())
    })
}

fn list(arguments: &ListArgs) -> Result<(), LabError> {
    let catalogue = catalogue(arguments.scenarios.as_deref(), &Adapters::built_in())?;
    let mut out = io::stdout().lock();
    for scenario in catalogue.iter() {
        writeln!(out, "{}\n    {}", scenario.name, scenario.claim)?;
        for play in &scenario.plays {
            write!(
                out,
                "    {} / {}",
                label(play, Role::Server),
                label(play, Role::Client)
            )?;
            match &play.fails_because {
                Some(reason) => writeln!(out, ": fails, {reason}")?,
                None => writeln!(out)?,
            }
        }
    }
    Ok(())
}

fn rules(arguments: &RulesArgs) -> Result<(), LabError> {
    let catalogue = catalogue(arguments.scenarios.as_deref(), &Adapters::built_in())?;
    let rows = rule_rows(&catalogue, &verdicts(&arguments.report)?);
    match arguments.format {
        Format::Text => write_rules(&mut anstream::stdout().lock(), &rows)?,
        Format::Json => write_json(&mut io::stdout().lock(), &rows)?,
    }
    Ok(())
}

fn bugs(arguments: &RulesArgs) -> Result<(), LabError> {
    let catalogue = catalogue(arguments.scenarios.as_deref(), &Adapters::built_in())?;
    let rows = bug_rows(&catalogue, &verdicts(&arguments.report)?);
    match arguments.format {
        Format::Text => write_bugs(&mut anstream::stdout().lock(), &rows)?,
        Format::Json => write_json(&mut io::stdout().lock(), &rows)?,
    }
    Ok(())
}

/// What these reports say, or else the newest of each backend. Before anything was run there are none, and
/// the rules stand all the same.
fn verdicts(reports: &[PathBuf]) -> Result<Verdicts, LabError> {
    let unreadable = |path: &Path, source| LabError::OldReport {
        path: path.to_owned(),
        source,
    };
    let mut verdicts = Verdicts::default();
    let mut add = |path: &Path, of: &dyn Fn(&str) -> bool| {
        let text = std::fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
        verdicts
            .add(&text, of)
            .map_err(|error| unreadable(path, error.into()))
    };
    for path in reports {
        add(path, &|_| true)?;
    }
    if reports.is_empty() {
        let newest = newest_reports(Path::new(OUT));
        for Newest { path, backends } in newest.map_err(|it| unreadable(Path::new(OUT), it))? {
            add(&path, &|backend| backends.contains(backend))?;
        }
    }
    Ok(verdicts)
}

/// Compares wire and netem; whether they agree.
fn compare(arguments: &CompareArgs) -> Result<bool, LabError> {
    netns::claim_privileges()?;
    let question = Question {
        datagrams: arguments.datagrams,
        seed: arguments.seed.unwrap_or_else(rand::random),
    };
    let bar = progress_bar(0);
    let rows = question.answer(&|link| bar.set_message(link.to_owned()))?;
    bar.finish_and_clear();
    match arguments.format {
        Format::Text => compare::report::write_table(&mut anstream::stdout().lock(), &rows)?,
        Format::Json => write_json(&mut io::stdout().lock(), &rows)?,
    }
    Ok(rows.iter().all(|row| row.agrees))
}

const fn exit(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Exit status of a lab that a signal ended, as shells say it of SIGINT.
const INTERRUPTED: i32 = 130;

/// The scenarios of a folder, or those built in.
fn catalogue(folder: Option<&Path>, adapters: &Adapters) -> Result<Catalogue, LabError> {
    let Some(folder) = folder else {
        return Ok(Catalogue::parse_with(BUILT_IN.iter().copied(), adapters)?);
    };
    let files = toml_files(folder, "scenarios")?;
    Ok(Catalogue::parse_with(files, adapters)?)
}

/// The implementations built in, and those of a folder.
fn adapters(folder: Option<&Path>) -> Result<Adapters, LabError> {
    let mut adapters = Adapters::built_in();
    if let Some(folder) = folder {
        for (file, text) in toml_files(folder, "adapters")? {
            adapters.add(&file, &text)?;
        }
    }
    Ok(adapters)
}

/// The TOML files of a folder with their texts, in order of name.
fn toml_files(folder: &Path, what: &'static str) -> Result<Vec<(PathBuf, String)>, LabError> {
    let unreadable = |source| LabError::Unreadable {
        what,
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = std::fs::read_to_string(&path).map_err(unreadable)?;
            files.push((std::path::absolute(&path).unwrap_or(path), text));
        }
    }
    if files.is_empty() {
        return Err(LabError::NoFiles {
            what,
            path: folder.to_owned(),
        });
    }
    files.sort();
    Ok(files)
}

/// The files of `lab/scenarios`: name and text.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

/// Where our programs are: where the flags say, else beside this one.
fn programs(arguments: &ProgramArgs) -> Programs {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned))
        .unwrap_or_default();
    let folder = arguments.bin_dir.clone().unwrap_or(beside);
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    Programs {
        folder: absolute(folder),
        server: arguments.server_bin.clone().map(absolute),
        client: arguments.client_bin.clone().map(absolute),
        server_args: arguments.server_arg.clone(),
    }
}

/// Ours must be there if anything needs them: a lab that skips what it was built for is no lab.
/// Other implementations may be missing; their runs are skipped and counted.
fn require_ours(programs: &Programs, plan: &[Planned<'_>]) -> Result<(), MissingProgram> {
    for Planned { job, .. } in plan {
        for role in [Role::Server, Role::Client] {
            let end = job.play.end(role);
            if end.required && end.side(role).is_some() {
                programs.require(end, role)?;
            }
        }
    }
    Ok(())
}

/// Makes the folder of this run, its PKI, and the link `latest`.
fn prepare(out: &Path, seed: u64) -> Result<(PathBuf, PathBuf), LabError> {
    let trouble = |source| LabError::Evidence {
        path: out.to_owned(),
        source,
    };
    let out = std::path::absolute(out).map_err(trouble)?;
    let evidence = evidence_folder(&out, seed).map_err(trouble)?;
    let pki = evidence.join("pki");
    TestPki::generate(&pki)?;
    let (link, new) = (out.join("latest"), evidence.join("latest.tmp"));
    if let Some(name) = evidence.file_name() {
        // Renamed into place: two labs at once must not find the link missing.
        std::os::unix::fs::symlink(name, &new).map_err(trouble)?;
        std::fs::rename(&new, &link).map_err(trouble)?;
    }
    Ok((evidence, pki))
}

/// Drawn on stderr, and only if that is a terminal.
fn progress_bar(runs: usize) -> ProgressBar {
    let bar = ProgressBar::new(runs as u64);
    let template = "{bar:30} {pos}/{len}  {elapsed}  {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures how long the whole took"
)]
fn now() -> Instant {
    Instant::now()
}
