//! How a refused scenario file is told: what is wrong, where, and the nearest word that is right.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a scenario file is refused: the author's mistake, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {problem}", file.display())]
pub struct Refusal {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// What is wrong and where in the text, before it is known which file that is.
pub(crate) struct Problem {
    pub(crate) span: Range<usize>,
    pub(crate) text: String,
}

/// Refuses the text at `span`.
///
/// # Errors
///
/// Always; that is what it is for.
pub(crate) fn problem<T>(span: Range<usize>, text: impl Into<String>) -> Result<T, Problem> {
    Err(Problem {
        span,
        text: text.into(),
    })
}

pub(crate) fn locate(file: &Path, text: &str, problem: &Problem) -> Refusal {
    let before = text.get(..problem.span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Refusal {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        problem: problem.text.clone(),
    }
}

/// What serde says, in the words of a scenario file; adds the valid word most like a wrong one.
pub(crate) fn explain(message: &str) -> String {
    let kinds = [
        ("unknown field `", "unknown key"),
        ("unknown variant `", "unknown value"),
    ];
    for (prefix, what) in kinds {
        if let Some((wrong, rest)) = message
            .strip_prefix(prefix)
            .and_then(|rest| rest.split_once('`'))
        {
            let valid: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
            return format!(
                "{what} `{wrong}`{}; valid here: {}",
                did_you_mean(wrong, valid.iter().copied()),
                valid.join(", ")
            );
        }
    }
    // serde's way to say that `action = "delay"` should be `action = { delay = "10ms" }`.
    if message.contains("expected newtype variant") || message.contains("expected struct variant") {
        return "this word needs a value: write { word = value } instead of \"word\"".to_owned();
    }
    match message.strip_prefix("missing field ") {
        Some(key) => format!("the key {key} is missing"),
        None => message.lines().collect::<Vec<_>>().join(" "),
    }
}

pub(crate) fn did_you_mean<'a>(wrong: &str, valid: impl Iterator<Item = &'a str>) -> String {
    nearest(wrong, valid).map_or_else(String::new, |near| format!(", did you mean `{near}`?"))
}

/// The candidate most like `name`, or begun by it; none if more than half of the name would have
/// to change.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance = |candidate: &str| {
        if candidate.starts_with(name) {
            1
        } else {
            strsim::damerau_levenshtein(name, candidate)
        }
    };
    candidates
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, _)| *distance <= name.chars().count().div_ceil(2))
        .min()
        .map(|(_, candidate)| candidate)
}
