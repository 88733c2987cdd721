//! Pre-shared keys in a file: one `IDENTITY:KEY` a line, the form that psktool(1) writes. Read on
//! the main thread, asked on the worker threads.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use dtls::PskKey;
use sha2::{Digest as _, Sha256};

/// Keys by identity.
#[derive(Debug)]
pub(crate) struct PskFile {
    keys: HashMap<Vec<u8>, PskKey>,
    digest: [u8; 32],
}

/// Why a file of pre-shared keys is refused. No message holds any part of a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PskFileError {
    /// The file cannot be read.
    #[error("cannot read the pre-shared keys {}: {source}", path.display())]
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
    /// There is no key in it.
    #[error("{} holds no pre-shared key; write a line IDENTITY:KEY for each client", .0.display())]
    Empty(PathBuf),
}

/// RFC 4279 §5.3: every implementation takes identities up to 128 bytes.
const LONGEST_IDENTITY: usize = 128;

impl PskFile {
    /// Reads the keys.
    ///
    /// # Errors
    /// The file cannot be read, holds no key, or a line of it is wrong.
    pub(crate) fn read(path: &Path) -> Result<Self, PskFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| PskFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let keys = parse(&text).map_err(|(line, problem)| PskFileError::Line {
            path: path.to_owned(),
            line,
            problem,
        })?;
        if keys.is_empty() {
            return Err(PskFileError::Empty(path.to_owned()));
        }
        Ok(Self {
            keys,
            digest: Sha256::digest(&text).into(),
        })
    }

    /// Stands for the whole file.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// How many clients have a key.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key of an identity.
    pub(crate) fn find(&self, identity: &[u8]) -> Option<PskKey> {
        self.keys.get(identity).cloned()
    }
}

/// The keys, or the first wrong line and what is wrong with it.
fn parse(text: &str) -> Result<HashMap<Vec<u8>, PskKey>, (usize, String)> {
    let mut keys = HashMap::new();
    let mut lines = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (identity, key) = entry(line).map_err(|problem| (number, problem))?;
        if let Some(first) = lines.insert(identity, number) {
            return Err((
                number,
                format!("the identity `{identity}` is already that of line {first}; remove one"),
            ));
        }
        keys.insert(identity.as_bytes().to_vec(), key);
    }
    Ok(keys)
}

fn entry(line: &str) -> Result<(&str, PskKey), String> {
    // An identity may hold colons, a key cannot.
    let (identity, key) = line
        .rsplit_once(':')
        .ok_or("there is no colon; write IDENTITY:KEY, the key as 32 to 128 hexadecimal digits")?;
    let (identity, key) = (identity.trim_end(), key.trim_start());
    if identity.is_empty() || identity.len() > LONGEST_IDENTITY || identity.contains('\0') {
        return Err(format!(
            "the identity has {} bytes; it must have 1 to {LONGEST_IDENTITY}, none of them zero",
            identity.len()
        ));
    }
    let key = PskKey::from_hex(key).map_err(|error| error.to_string())?;
    Ok((identity, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "6f1ed002ab5595859014ebf0951522d9";

    #[test]
    fn identities_may_hold_colons_and_spaces_and_lines_may_be_comments() {
        let text = format!("# all sensors\n\n  urn:dev:17 a:{KEY}\r\nb: {KEY}\n");
        let keys = parse(&text).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(keys.contains_key(&b"urn:dev:17 a"[..]));
        assert!(keys.contains_key(&b"b"[..]));
    }

    #[test]
    fn a_wrong_line_is_named_without_its_key() {
        for (text, line, word) in [
            (format!("a:{KEY}\n{KEY}\n"), 2, "no colon"),
            (format!(":{KEY}\n"), 1, "identity"),
            (format!("{}:{KEY}\n", "a".repeat(129)), 1, "129"),
            (format!("#\n\na:{}\n", &KEY[..30]), 3, "16 to 64"),
            (format!("a:{KEY}g\n"), 1, "hexadecimal"),
            (format!("a:{KEY}\nb:{KEY}\na:{KEY}\n"), 3, "line 1"),
        ] {
            let (at, problem) = parse(&text).unwrap_err();
            assert_eq!(at, line, "{problem}");
            assert!(problem.contains(word), "{problem}");
            assert!(!problem.contains(&KEY[..8]), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_found(
            identities in prop::collection::btree_set("[a-z0-9:._@-]{1,40}", 1..20),
        ) {
            let text: String =
                identities.iter().map(|identity| format!("{identity}:{KEY}\n")).collect();
            let keys = parse(&text).unwrap();
            prop_assert_eq!(keys.len(), identities.len());
            for identity in identities {
                prop_assert!(keys.contains_key(identity.as_bytes()));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            drop(parse(&text));
        }
    }
}
