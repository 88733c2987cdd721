//! `dtls-certs`: writes the test PKI and tells what is in it. One thread.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use dtls_certs::{Existing, File, HostName, IssueError, PkiFiles, Profile, TestPki, WriteError};
use serde::Serialize;

/// Makes certificates for DTLS tests: good ones, and ones that are each wrong in exactly one way
#[derive(Parser)]
#[command(name = "dtls-certs", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 good; 1 the run failed, or `list DIR` misses a file; \
    2 wrong usage, or files are in the way; 3 the file system refused.";

#[derive(Subcommand)]
enum Command {
    /// Write a new PKI: authorities, leaves with their keys, revocation lists
    Generate {
        /// The directory; it is made if it is missing
        dir: PathBuf,
        /// Replace the PKI that is there
        #[arg(long)]
        force: bool,
        /// A further DNS name or IP address for the server's certificates; may be repeated
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<HostName>,
    },
    /// Tell what each file is and what a verifier must say about it
    List {
        /// Also tell which of the files are there
        dir: Option<PathBuf>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Generate { dir, force, names } => generate(&dir, force, names),
        Command::List { dir, format } => list(dir.as_deref(), format),
    };
    outcome.unwrap_or_else(|failure| {
        let mut line = format!("dtls-certs: {failure}");
        let mut cause = std::error::Error::source(&failure);
        while let Some(error) = cause {
            line.push_str(&format!(": {error}"));
            cause = error.source();
        }
        eprintln!("{line}");
        failure.exit_code()
    })
}

/// Writes a PKI and says where.
///
/// # Errors
///
/// When files are in the way, or it cannot be made or written.
fn generate(dir: &Path, force: bool, names: Vec<HostName>) -> Result<ExitCode, Failure> {
    let existing = if force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let files = TestPki::with_server_names(names)?.write(dir, existing)?;
    print(&format!(
        "{} files in {}\n\
         trust   {}\n\
         server  {} {}\n\
         client  {} {}\n\
         the others: dtls-certs list {}\n",
        File::all().count(),
        files.dir().display(),
        files.ca().display(),
        files.chain(Profile::SERVER).display(),
        files.key(Profile::SERVER).display(),
        files.chain(Profile::CLIENT).display(),
        files.key(Profile::CLIENT).display(),
        files.dir().display(),
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// One file as `list` tells of it.
#[derive(Serialize)]
struct Entry {
    file: String,
    claim: String,
    /// What a verifier that trusts `ca.pem` must say; `null` for a file one cannot verify.
    verification: Option<String>,
    /// The host names and addresses it carries, without those added by `generate --name`.
    names: Vec<&'static str>,
    /// `null` when no directory was given.
    present: Option<bool>,
}

/// Tells of every file.
///
/// # Errors
///
/// When `dir` is no directory.
fn list(dir: Option<&Path>, format: Format) -> Result<ExitCode, Failure> {
    if let Some(dir) = dir.filter(|dir| !dir.is_dir()) {
        return Err(Failure::NoDirectory {
            path: dir.to_owned(),
        });
    }
    let entries: Vec<Entry> = File::all()
        .map(|file| Entry {
            file: file.name(),
            claim: file.claim(),
            verification: file.verification(),
            names: match file {
                File::Chain(profile) => profile.names().to_vec(),
                _ => Vec::new(),
            },
            present: dir.map(|dir| PkiFiles::in_dir(dir).path(file).is_file()),
        })
        .collect();
    let text = match format {
        Format::Text => table(&entries),
        Format::Json => json(&entries),
    };
    print(&text)?;
    let complete = entries.iter().all(|entry| entry.present != Some(false));
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn json(entries: &[Entry]) -> String {
    let mut json =
        serde_json::to_string_pretty(entries).expect("strings and booleans always serialize");
    json.push('\n');
    json
}

fn table(entries: &[Entry]) -> String {
    let file_width = entries
        .iter()
        .map(|entry| entry.file.len())
        .max()
        .unwrap_or(0);
    let claim_width = entries
        .iter()
        .map(|entry| entry.claim.len())
        .max()
        .unwrap_or(0);
    let mut text = format!(
        "{:file_width$}  {:claim_width$}  verification\n",
        "file", "what it is"
    );
    for entry in entries {
        let verification = match entry.present {
            Some(false) => "missing",
            _ => entry.verification.as_deref().unwrap_or("-"),
        };
        writeln!(
            text,
            "{:file_width$}  {:claim_width$}  {verification}",
            entry.file, entry.claim
        )
        .expect("a String takes any text");
    }
    text
}

/// Prints to standard output; a reader that went away, as `head` does, is no failure.
///
/// # Errors
///
/// When the output cannot be written, on a full disk for one.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Stdout(source)),
        _ => Ok(()),
    }
}

/// Why the program ends with something else than 0.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{} is not a directory; make a PKI there with: dtls-certs generate {0}", path.display())]
    NoDirectory { path: PathBuf },
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Issue(_) | Self::Write(WriteError::Issue(_)) => 1,
            Self::NoDirectory { .. }
            | Self::Write(WriteError::Exists { .. } | WriteError::NotADirectory { .. }) => 2,
            Self::Write(WriteError::Io { .. }) | Self::Stdout(_) => 3,
        })
    }
}
