//! A secret in a file that every replica has: `ID:SECRET` a line, the first to issue cookies and
//! session tickets with, the second to take as well. Main thread, and the reload thread.

use std::io;
use std::path::{Path, PathBuf};

use dtls::SharedSecret;

/// What the file says.
#[derive(Debug)]
pub(super) struct SharedKeys {
    pub(super) current: SharedSecret,
    pub(super) other: Option<SharedSecret>,
}

/// Why a file of shared secrets is refused. No message holds any part of a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharedKeysError {
    /// The file cannot be read.
    #[error("cannot read the shared keys {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl SharedKeys {
    /// Reads the secrets.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is wrong.
    pub(super) fn read(path: &Path) -> Result<Self, SharedKeysError> {
        let text = std::fs::read_to_string(path).map_err(|source| SharedKeysError::Read {
            path: path.to_owned(),
            source,
        })?;
        parse(&text).map_err(|(line, problem)| SharedKeysError::Line {
            path: path.to_owned(),
            line,
            problem,
        })
    }
}

/// The secrets, or the first wrong line and what is wrong with it.
fn parse(text: &str) -> Result<SharedKeys, (usize, String)> {
    let mut secrets: Vec<SharedSecret> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret = entry(line).map_err(|problem| (number, problem))?;
        if secrets.iter().any(|earlier| earlier.id() == secret.id()) {
            let problem = format!(
                "the number {} is taken; give each secret its own",
                secret.id()
            );
            return Err((number, problem));
        }
        if secrets.len() == 2 {
            let problem = "a third secret; two are enough: the one to issue with, and the one before \
                           or after it";
            return Err((number, problem.to_owned()));
        }
        secrets.push(secret);
    }
    let mut secrets = secrets.into_iter();
    match secrets.next() {
        Some(current) => Ok(SharedKeys {
            current,
            other: secrets.next(),
        }),
        None => Err((1, format!("there is no secret; {FORM}"))),
    }
}

const FORM: &str =
    "write NUMBER:SECRET with a number up to 255 and what \"openssl rand -hex 32\" prints";

fn entry(line: &str) -> Result<SharedSecret, String> {
    let parts = line.split_once(':');
    let parts = parts.and_then(|(id, secret)| Some((id.trim().parse::<u8>().ok()?, secret.trim())));
    let (id, secret) = parts.ok_or_else(|| format!("it begins with no number; {FORM}"))?;
    SharedSecret::from_hex(id, secret).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_secret_is_the_one_to_issue_with() {
        let secret = "ab".repeat(32);
        let keys = parse(&format!("# made yesterday\n\n2:{secret}\n1:{secret}\n")).unwrap();
        assert_eq!(keys.current.id(), 2);
        assert_eq!(keys.other.unwrap().id(), 1);
        assert!(parse(&format!("2:{secret}")).unwrap().other.is_none());
    }

    #[test]
    fn a_wrong_line_is_named_without_its_secret() {
        let secret = "ab".repeat(32);
        for (text, line, word) in [
            (String::new(), 1, "no secret"),
            (secret.clone(), 1, "no number"),
            (format!("#\n256:{secret}\n"), 2, "up to 255"),
            (format!("1:{}\n", &secret[2..]), 1, "64 hexadecimal digits"),
            (format!("1:{secret}\n1:{secret}\n"), 2, "taken"),
            (format!("1:{secret}\n2:{secret}\n3:{secret}\n"), 3, "third"),
        ] {
            let (at, problem) = parse(&text).unwrap_err();
            assert_eq!(at, line, "{problem}");
            assert!(problem.contains(word), "{problem}");
            assert!(!problem.contains("abab"), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            drop(parse(&text));
        }
    }
}
