//! The files of a report, beside the folders of its runs. Main thread.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::oracle::report::Answer;

use super::{Report, page, write_json, write_junit, write_table};

/// A report that could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {} ({source}): name another folder with --out", path.display())]
pub struct SaveError {
    path: PathBuf,
    source: io::Error,
}

/// Writes `report.json`, `report.txt`, `junit.xml` and `index.html` into the folder that holds the folders
/// of the runs.
///
/// # Errors
///
/// [`SaveError`] when one of them cannot be written.
pub fn save(folder: &Path, report: &Report) -> Result<(), SaveError> {
    write(folder, "report.json", |out| write_json(out, report))?;
    write(folder, "report.txt", |out| {
        let mut text = anstream::StripStream::new(Vec::new());
        write_table(&mut text, report, Path::new(""))?;
        out.write_all(&text.into_inner())
    })?;
    save_page(folder, report)
}

/// Writes `junit.xml` and `index.html` into the folder that holds the folders of the runs.
///
/// # Errors
///
/// [`SaveError`] when one of them cannot be written.
pub fn save_page(folder: &Path, report: &Report) -> Result<(), SaveError> {
    write(folder, "junit.xml", |out| write_junit(out, report))?;
    let oracle = folder.parent().and_then(read_oracle);
    write(folder, "index.html", |out| {
        page::write(out, folder, report, oracle.as_ref())
    })
}

/// Writes the oracle's answer to `oracle.json` and `oracle.html`, beside the folders of reports, whose pages
/// show it from then on.
///
/// # Errors
///
/// [`SaveError`] when one of them cannot be written.
pub fn save_oracle(out: &Path, answer: &Answer) -> Result<(), SaveError> {
    std::fs::create_dir_all(out).map_err(|source| SaveError {
        path: out.to_owned(),
        source,
    })?;
    write(out, ORACLE, |out| write_json(out, answer))?;
    write(out, "oracle.html", |out| page::write_oracle(out, answer))
}

/// The newest answer of the oracle, if there is one.
fn read_oracle(out: &Path) -> Option<Answer> {
    let path = out.join(ORACLE);
    let text = std::fs::read_to_string(&path).ok()?;
    let answer: Result<Answer, _> = serde_json::from_str(&text);
    // Of another version, perhaps; the verdicts do not depend on it.
    let answer = answer
        .inspect_err(|error| log::warn!("the report leaves {} out: {error}", path.display()))
        .ok();
    // A planted defect says nothing of what was run.
    answer.filter(|answer| answer.defect.is_none())
}

const ORACLE: &str = "oracle.json";

fn write(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), SaveError> {
    let path = folder.join(name);
    let written = File::create(&path).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.flush()
    });
    written.map_err(|source| SaveError { path, source })
}
