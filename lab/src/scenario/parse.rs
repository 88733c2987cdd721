//! TOML to [`Scenario`]: the file's own shape, the checks, and errors that name the place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Scenario;

/// Why a scenario file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The author's: something in the file is not as it must be.
    #[error("{file}:{line}:{column}: {problem}", file = file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

pub(super) fn scenario(file: PathBuf, text: &str) -> Result<Scenario, ScenarioError> {
    todo!("{file:?} {text}")
}

pub(super) fn catalogue<T: AsRef<str>>(
    files: Vec<(PathBuf, T)>,
) -> Result<BTreeMap<String, Scenario>, ScenarioError> {
    files
        .into_iter()
        .map(|(file, text)| scenario(file, text.as_ref()).map(|parsed| (parsed.name.clone(), parsed)))
        .collect()
}

/// The candidate most like `name`, if any is like it at all.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates.into_iter().find(|candidate| *candidate == name)
}
