//! The report for programs: one JSON object, on standard output or read back from a file. Main
//! thread.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{FORM, Report};

/// Why a file is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{} is no report of dtls-client load --format json: {source}",
        path.display()
    )]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{} has form {form}, this program reads {FORM}: use the program that wrote it", path.display())]
    Form { path: PathBuf, form: u32 },
}

/// Prints it.
pub(crate) fn print(report: &Report) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    io::stdout().write_all(text.as_bytes())
}

/// Reads one.
pub(crate) fn read(path: &Path) -> Result<Report, ReadError> {
    /// What tells one form from another.
    #[derive(Deserialize)]
    struct Head {
        form: u32,
    }
    let text = std::fs::read_to_string(path).map_err(|source| ReadError::File {
        path: path.to_owned(),
        source,
    })?;
    let failed = |source| ReadError::Json {
        path: path.to_owned(),
        source,
    };
    let Head { form } = serde_json::from_str(&text).map_err(failed)?;
    if form != FORM {
        return Err(ReadError::Form {
            path: path.to_owned(),
            form,
        });
    }
    serde_json::from_str(&text).map_err(failed)
}
