//! `dtls-client merge`: reports of several machines added up as if one had made all connections.
//! Histograms are added, not averages, so the percentiles are exact. Main thread.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{Format, MergeArgs};
use crate::exit::{ENVIRONMENT, FAILED, USAGE};
use crate::load::report::json::{self, ReadError};
use crate::load::report::{Report, Unlike, text};

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
enum MergeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{} is given twice: its connections would count twice", path.display())]
    Twice { path: PathBuf },
    #[error("{} cannot be added to {}: {unlike}", path.display(), first.display())]
    Unlike {
        path: PathBuf,
        first: PathBuf,
        unlike: Unlike,
    },
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

/// Runs it.
pub(crate) fn run(args: &MergeArgs) -> ExitCode {
    match merge(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("dtls-client: {error}");
            ExitCode::from(match error {
                MergeError::Print(_) => ENVIRONMENT,
                _ => USAGE,
            })
        }
    }
}

fn merge(args: &MergeArgs) -> Result<bool, MergeError> {
    let mut reports = Vec::new();
    for (at, path) in args.reports.iter().enumerate() {
        if args.reports[..at].contains(path) {
            return Err(MergeError::Twice { path: path.clone() });
        }
        reports.push(json::read(path)?);
    }
    let merged = Report::merge(reports).map_err(|(at, unlike)| MergeError::Unlike {
        path: args.reports[at].clone(),
        first: args.reports[0].clone(),
        unlike,
    })?;
    let Some(merged) = merged else {
        return Ok(true);
    };
    match args.format {
        Format::Text => text::print(&merged)?,
        Format::Json => json::print(&merged)?,
    }
    Ok(merged.is_good())
}
