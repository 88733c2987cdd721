//! The configuration file: TOML made options, and the place of each key, so that whatever turns out
//! to be wrong later is told by file, line and column too. Main thread.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::ServerOptions;

/// A file that has been read.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) options: ServerOptions,
    path: PathBuf,
    text: String,
}

/// Why a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("--config: cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It says something that cannot be.
    #[error("{place}{problem}")]
    Wrong {
        /// File, line and column, ending in a colon and a space.
        place: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

impl ConfigFile {
    /// Reads the file; its relative file names begin at its folder.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or has an unknown key or a wrong value.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path.to_owned(), text)
    }

    fn parse(path: PathBuf, text: String) -> Result<Self, FileError> {
        let mut options: ServerOptions =
            toml::from_str(&text).map_err(|error| FileError::Wrong {
                place: locate(&path, &text, error.span().unwrap_or(0..0)),
                problem: explain(error.message()),
            })?;
        options.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(Self {
            options,
            path,
            text,
        })
    }

    /// Where a key stands, such as `server.toml:7:1: `: in the listener of this number, or at the
    /// file's top. A key that is not there is missed where its listener begins.
    pub(super) fn place(&self, listener: Option<usize>, key: &str) -> String {
        locate(
            &self.path,
            &self.text,
            self.span(listener, key).unwrap_or(0..0),
        )
    }

    fn span(&self, listener: Option<usize>, key: &str) -> Option<Range<usize>> {
        let root = DeTable::parse(&self.text).ok()?;
        let Some(number) = listener else {
            return key_span(root.get_ref(), key);
        };
        let (_, listeners) = find(root.get_ref(), "listener")?;
        let DeValue::Array(listeners) = listeners.get_ref() else {
            return None;
        };
        let listener = listeners.get(number)?;
        match listener.get_ref() {
            DeValue::Table(table) => key_span(table, key).or(Some(listener.span())),
            _ => Some(listener.span()),
        }
    }
}

fn key_span(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    find(table, key).map(|(key, _)| key)
}

fn find<'a, 'i>(
    table: &'a DeTable<'i>,
    wanted: &str,
) -> Option<(Range<usize>, &'a Spanned<DeValue<'i>>)> {
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == wanted)?;
    Some((key.span(), value))
}

/// `file:line:column: `, both from 1, the column in characters.
fn locate(file: &Path, text: &str, span: Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    format!("{}:{line}:{column}: ", file.display())
}

/// What serde says, in the words of a configuration file; adds the valid word most like a wrong one.
fn explain(message: &str) -> String {
    for (prefix, what) in [
        ("unknown field `", "unknown key"),
        ("unknown variant `", "unknown value"),
    ] {
        if let Some((wrong, rest)) = message
            .strip_prefix(prefix)
            .and_then(|rest| rest.split_once('`'))
        {
            let valid: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
            let hint = nearest(wrong, &valid)
                .map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
            return format!("{what} `{wrong}`{hint}; valid here: {}", valid.join(", "));
        }
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key} is missing; add it");
    }
    let message = message.lines().collect::<Vec<_>>().join(" ");
    if let Some((found, right)) = message.rsplit_once(", expected ") {
        let right = KINDS.iter().find(|(kind, _)| right.starts_with(kind));
        if let Some((_, right)) = right {
            return format!("{found}; write {right}");
        }
    }
    match message.as_str() {
        "duplicate key" => message + "; leave one of the two out",
        _ if message.starts_with("unexpected key or value") => {
            message + "; a text needs quotation marks"
        }
        _ => message,
    }
}

/// Kinds of values as serde names them, and how they are written.
const KINDS: [(&str, &str); 6] = [
    (
        "a sequence",
        "a list in brackets, such as [\"a\", \"b\"]; each listener begins with [[listener]]",
    ),
    ("a boolean", "true or false"),
    ("a string", "a text in quotation marks"),
    ("a nonzero", "a whole number, 1 or more"),
    ("u16", "a whole number up to 65535"),
    ("struct", "a table in braces, such as { name = \"a\" }"),
];

/// The candidate most like `name`, or begun by it; none if more than half of the name would have to
/// change.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let distance = |candidate: &str| {
        if candidate.starts_with(name) {
            1
        } else {
            strsim::damerau_levenshtein(name, candidate)
        }
    };
    candidates
        .iter()
        .map(|candidate| (distance(candidate), *candidate))
        .filter(|(distance, _)| *distance <= name.chars().count().div_ceil(2))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, FileError> {
        ConfigFile::parse("etc/server.toml".into(), text.to_owned())
    }

    #[test]
    fn relative_file_names_begin_at_the_files_folder() {
        let file = parse(
            "keylog = \"keys\"\n[[listener]]\ncert = \"/a.pem\"\nkey = \"a.key\"\n\
             sni = [{ name = \"b\", cert = \"b.pem\", key = \"/b.key\" }]\n",
        )
        .unwrap();
        let listener = &file.options.listener[0];
        let named = &listener.sni.as_ref().unwrap()[0];
        assert_eq!(file.options.keylog, Some("etc/keys".into()));
        assert_eq!(listener.cert, Some("/a.pem".into()));
        assert_eq!(listener.key, Some("etc/a.key".into()));
        assert_eq!(named.cert, PathBuf::from("etc/b.pem"));
        assert_eq!(named.key, PathBuf::from("/b.key"));
    }

    #[test]
    fn a_key_has_its_place_and_a_missing_one_that_of_its_listener() {
        let file = parse(
            "drain-timeout = \"1s\"\n\n[[listener]]\nlisten = \"::1\"\n[[listener]]\n  service = \"echo\"\n",
        )
        .unwrap();
        for (listener, key, place) in [
            (None, "drain-timeout", "etc/server.toml:1:1: "),
            (Some(0), "listen", "etc/server.toml:4:1: "),
            (Some(0), "cert", "etc/server.toml:3:1: "),
            (Some(1), "service", "etc/server.toml:6:3: "),
            (Some(1), "listen", "etc/server.toml:5:1: "),
        ] {
            assert_eq!(file.place(listener, key), place, "{key}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_would_be_right() {
        for (text, place, words) in [
            (
                "[[listener]]\ncerts = \"a\"\n",
                ":2:1: ",
                "did you mean `cert`",
            ),
            ("[[listeners]]\n", ":1:3: ", "did you mean `listener`"),
            ("drain = \"1s\"\n", ":1:1: ", "did you mean `drain-timeout`"),
            (
                "[[listener]]\nsuites = \"iots\"\n",
                ":2:10: ",
                "did you mean `iot`",
            ),
            ("[[listener]]\nlisten = \"here\"\n", ":2:10: ", "[::]:4433"),
            (
                "[[listener]]\nidle-timeout = 60\n",
                ":2:16: ",
                "in quotation marks",
            ),
            (
                "[[listener]]\nidle-timeout = \"soon\"\n",
                ":2:16: ",
                "`none`",
            ),
            ("[[listener]]\nlink-mtu = 70000\n", ":2:12: ", "70000"),
            (
                "[[listener]]\nmax-connections = 0\n",
                ":2:19: ",
                "1 or more",
            ),
            (
                "[[listener]]\nheartbeat = \"yes\"\n",
                ":2:13: ",
                "true or false",
            ),
            (
                "[[listener]]\nalpn = \"coap\"\n",
                ":2:8: ",
                "list in brackets",
            ),
            (
                "[[listener]]\nclient-pin = [\"ab\"]\n",
                ":2:14: ",
                "64 hexadecimal",
            ),
            (
                "[[listener]]\nsni = [{ name = \"a\", cert = \"b\" }]\n",
                ":2:8: ",
                "`key` is missing; add it",
            ),
            (
                "[[listener]]\npreset = \"coap\"\n",
                ":2:10: ",
                "did you mean `coaps`",
            ),
            (
                "[[listener]]\ncert = \"a\"\ncert = \"b\"\n",
                ":3:1: ",
                "duplicate key",
            ),
            ("[[listener]\n", ":1:12: ", "array table"),
            ("[listener]\n", ":1:1: ", "[[listener]]"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("etc/server.toml{place}")),
                "{text}{error}"
            );
            assert!(error.contains(words), "{text}{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\[\\]a-z=\"\n{} 0-9.-]{0,80}") {
            drop(parse(&text));
        }
    }
}
