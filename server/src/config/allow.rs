//! Allow lists: which of the clients that prove who they are may come in. Read on the main thread,
//! asked on the worker threads, in the middle of a handshake.
//!
//! A list narrows what `client-ca`, `client-pin` and `psk-file` admit; it admits nobody by itself.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use dtls::{CertificateInfo, Fingerprint, Trust};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::stats::{Counter, Stats};

/// One client, or all whose certificates share a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Entry {
    /// `SHA256:…`, the fingerprint of a certificate.
    Certificate(Fingerprint),
    /// `san:…`, a subject alternative name; `*.` stands for one label.
    Name(String),
    /// `psk:…`, the identity of a pre-shared key.
    Psk(String),
}

/// A text is no entry.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is no client; write SHA256:FINGERPRINT of its certificate, san:NAME of its certificate's \
     subject alternative names, or psk:IDENTITY"
)]
pub(crate) struct EntryError(String);

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entry = match text.split_once(':') {
            Some(("san", name)) if !name.is_empty() => Some(Self::Name(name.to_ascii_lowercase())),
            Some(("psk", identity)) if !identity.is_empty() => Some(Self::Psk(identity.to_owned())),
            _ => text.parse().ok().map(Self::Certificate),
        };
        entry.ok_or_else(|| EntryError(beginning(text)))
    }
}

/// What was pasted may be a key: no more of it than a word before a colon.
fn beginning(text: &str) -> String {
    let (word, rest) = text.split_once(':').unwrap_or((text, ""));
    let mut shown: String = word.chars().take(12).collect();
    if !rest.is_empty() || shown.len() < word.len() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(fingerprint) => fingerprint.fmt(f),
            Self::Name(name) => write!(f, "san:{name}"),
            Self::Psk(identity) => write!(f, "psk:{identity}"),
        }
    }
}

/// Why a file of entries is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AllowFileError {
    /// The file cannot be read.
    #[error("cannot read the allow list {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is wrong.
    #[error("{}:{line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: EntryError,
    },
}

/// The clients that may come in.
#[derive(Debug, Default)]
pub(super) struct AllowList {
    entries: HashSet<Entry>,
}

impl AllowList {
    /// Those given, and those of a file: one a line, `#` starts a comment line.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is wrong.
    pub(super) fn read(given: &[Entry], file: Option<&Path>) -> Result<Self, AllowFileError> {
        let mut entries: HashSet<Entry> = given.iter().cloned().collect();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| AllowFileError::Read {
                path: path.to_owned(),
                source,
            })?;
            let of_file = parse(&text).map_err(|(line, source)| AllowFileError::Line {
                path: path.to_owned(),
                line,
                source,
            })?;
            entries.extend(of_file);
        }
        Ok(Self { entries })
    }

    /// Stands for the whole list: equal lists have equal digests.
    pub(super) fn digest(&self) -> String {
        let mut entries: Vec<String> = self.entries.iter().map(Entry::to_string).collect();
        entries.sort();
        let mut digest = Sha256::new();
        for entry in entries {
            digest.update(entry);
            digest.update([0]);
        }
        Fingerprint::from(<[u8; 32]>::from(digest.finalize())).to_string()
    }

    /// Whether the client with this pre-shared key may come in.
    pub(super) fn has_psk(&self, identity: &[u8]) -> bool {
        let identity = std::str::from_utf8(identity).map(str::to_owned);
        identity.is_ok_and(|identity| self.entries.contains(&Entry::Psk(identity)))
    }

    /// Takes, of the certificates that are good otherwise, those on the list; refusals are counted.
    pub(super) fn narrow(self: &Arc<Self>, trust: Trust, stats: &Arc<Stats>) -> Trust {
        let (list, stats) = (Arc::clone(self), Arc::clone(stats));
        // Sessions are bound to the check's name: under another list they begin anew.
        let name = format!("allow list {}", self.digest());
        trust.and(Trust::check(name, move |presented| {
            let leaf = &presented.chain[0];
            if list.has_certificate(leaf) {
                return Ok(());
            }
            stats.count(Counter::RefusedCertificateNotAllowed);
            Err(format!(
                "neither SHA256:{} nor its names {:?} are on it",
                leaf.fingerprint, leaf.names
            ))
        }))
    }

    fn has_certificate(&self, leaf: &CertificateInfo) -> bool {
        let fingerprint = leaf.fingerprint.parse().map(Entry::Certificate);
        fingerprint.is_ok_and(|entry| self.entries.contains(&entry))
            || leaf.names.iter().any(|name| self.has_name(name))
    }

    fn has_name(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let is_label = |label: &str| {
            let mut bytes = label.bytes();
            bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        // A star stands for a label of a host name, not for the beginning of an address or a URI.
        let star = name
            .split_once('.')
            .filter(|(label, _)| is_label(label))
            .map(|(_, parent)| Entry::Name(format!("*.{parent}")));
        self.entries.contains(&Entry::Name(name))
            || star.is_some_and(|star| self.entries.contains(&star))
    }
}

/// The entries, or the first wrong line and what is wrong with it.
fn parse(text: &str) -> Result<Vec<Entry>, (usize, EntryError)> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !(line.is_empty() || line.starts_with('#')) {
            entries.push(line.parse().map_err(|error| (number, error))?);
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> AllowList {
        let entries = parse(text).unwrap();
        AllowList::read(&entries, None).unwrap()
    }

    #[test]
    fn names_match_in_any_case_and_a_star_stands_for_one_label() {
        let list = list("# meters\n\nsan:*.Meters.example\nsan:192.0.2.9\nsan:urn:dev:17\n");
        for (name, allowed) in [
            ("a.meters.example", true),
            ("A.METERS.EXAMPLE", true),
            ("meters.example", false),
            ("a.b.meters.example", false),
            ("192.0.2.9", true),
            ("192.0.2.8", false),
            ("urn:dev:17", true),
            // Other kinds of names than those of hosts.
            ("mallory@evil.meters.example", false),
            ("mallory@a.meters.example", false),
            ("https://a.meters.example", false),
        ] {
            assert_eq!(list.has_name(name), allowed, "{name}");
        }
    }

    #[test]
    fn identities_are_taken_as_they_are() {
        let list = list("psk:sensor:17\n");
        assert!(list.has_psk(b"sensor:17"));
        assert!(!list.has_psk(b"sensor:18"));
        assert!(!list.has_psk(b"Sensor:17"));
        assert!(!list.has_psk(b"\xff"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let (line, error) = parse("psk:a\n\ncn:b\n").unwrap_err();
        assert_eq!(line, 3);
        assert!(error.to_string().contains("\"cn…\""), "{error}");
        let secret = "6f1ed002ab5595859014ebf0951522d9";
        for key in [
            format!("sensor-17:{secret}"),
            format!("1:{secret}"),
            secret.to_owned(),
        ] {
            let error = key.parse::<Entry>().unwrap_err().to_string();
            assert!(!error.contains(&secret[..13]), "{error}");
        }
        for bad in ["psk:", "san:", "SHA256:12", "x"] {
            assert!(bad.parse::<Entry>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_entries_and_not_of_their_order() {
        assert_eq!(
            list("psk:a\npsk:b\n").digest(),
            list("psk:b\n#\npsk:a\n").digest()
        );
        assert_ne!(list("psk:a\n").digest(), list("psk:b\n").digest());
        assert_ne!(list("psk:a\n").digest(), list("san:a\n").digest());
    }

    proptest! {
        #[test]
        fn entries_are_printed_as_they_are_read(text in "(psk:[ -~]{1,30}|san:[a-z0-9.*:-]{1,30}|[0-9a-f]{64})") {
            let entry: Entry = text.parse().unwrap();
            prop_assert_eq!(entry.to_string().parse::<Entry>().unwrap(), entry);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            drop(parse(&text));
        }
    }
}
