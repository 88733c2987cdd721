//! The known-peers file: which certificate each server showed first.
//!
//! One server a line, `host:port SHA256:…`; `#` starts a comment. The file is read anew for every
//! handshake, so that edits count at once, and written whole under another name that then takes
//! its place. Runs on the connection's thread.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::ConfigError;

use super::Fingerprint;

/// A file of servers and the certificate that each showed first (trust on first use).
///
/// A server that is not in the file is believed and noted once its handshake is complete. One that
/// shows another certificate later is refused, with an error that names the file, the line and the
/// remedy. Several lines for one server mean any of them. Clones share the file.
#[derive(Debug, Clone)]
pub struct KnownPeers {
    path: Arc<PathBuf>,
}

/// One line of a known-peers file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// `host:port`, in lower case; an IPv6 address stands in brackets.
    pub peer: String,
    /// Of its certificate.
    pub fingerprint: Fingerprint,
    /// Counted from 1.
    pub line: usize,
}

/// A line of a known-peers file that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}; a line reads \"host:port SHA256:…\"")]
pub struct KnownPeersLineError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl KnownPeers {
    /// Takes a file, which need not exist yet, in a directory that does.
    ///
    /// # Errors
    /// The file cannot be read or has a line that is none, or there is no such directory.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let path = path.into();
        let failed = |source| ConfigError::Read {
            what: WHAT,
            path: path.clone(),
            source,
        };
        let text = read(&path).map_err(failed)?;
        fs::metadata(directory(&path)).map_err(failed)?;
        Self::parse(&text).map_err(|error| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                error.to_string(),
            ))
        })?;
        Ok(Self {
            path: Arc::new(path),
        })
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// A line that is neither empty, nor a comment, nor a server.
    pub fn parse(text: &str) -> Result<Vec<KnownPeer>, KnownPeersLineError> {
        let mut peers = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            if let Some(peer) =
                parse_line(text, line).map_err(|problem| KnownPeersLineError { line, problem })?
            {
                peers.push(peer);
            }
        }
        Ok(peers)
    }

    /// Whether the server is known by this certificate; `false` if it is not known at all.
    pub(super) fn look_up(&self, name: &str, port: u16, leaf: Fingerprint) -> Result<bool, String> {
        let text = read(&self.path).map_err(|error| self.broken("read", &error))?;
        self.look_up_in(&text, name, port, leaf)
    }

    fn look_up_in(
        &self,
        text: &str,
        name: &str,
        port: u16,
        leaf: Fingerprint,
    ) -> Result<bool, String> {
        let peer = peer_key(name, port)?;
        let known = Self::parse(text).map_err(|error| self.broken("read", &error))?;
        let mut lines = known.iter().filter(|known| known.peer == peer).peekable();
        let Some(first) = lines.peek().copied() else {
            return Ok(false);
        };
        if lines.any(|known| known.fingerprint == leaf) {
            return Ok(true);
        }
        Err(format!(
            "the certificate of {peer} has changed: it shows {leaf}, but line {} of {} says {}; if \
             the change is meant to be, delete that line and connect again; if not, somebody may \
             be in between",
            first.line,
            self.path.display(),
            first.fingerprint,
        ))
    }

    /// Adds the server, unless it has become known meanwhile.
    pub(super) fn note(&self, name: &str, port: u16, leaf: Fingerprint) -> Result<(), String> {
        let failed = |error: io::Error| self.broken("write", &error);
        let directory = directory(&self.path);
        // The file itself is replaced, so the lock that other processes see is the directory's.
        let lock = File::open(directory).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut text = read(&self.path).map_err(failed)?;
        if self.look_up_in(&text, name, port, leaf)? {
            return Ok(());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{} {leaf}\n", peer_key(name, port)?));
        // Mode 0600 from the moment it exists.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&*self.path)
            .map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn broken(&self, verb: &str, error: &dyn std::error::Error) -> String {
        format!("cannot {verb} {WHAT} {}: {error}", self.path.display())
    }
}

const WHAT: &str = "the known-peers file";

/// The file's text; a missing file is an empty one.
fn read(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text,
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn parse_line(text: &str, line: usize) -> Result<Option<KnownPeer>, String> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let mut words = text.split_whitespace();
    let (Some(peer), Some(fingerprint), None) = (words.next(), words.next(), words.next()) else {
        return Err("two words are needed".to_owned());
    };
    let (host, port) = peer
        .rsplit_once(':')
        .ok_or_else(|| format!("\"{peer}\" has no port"))?;
    let port = port.parse().map_err(|_| format!("\"{port}\" is no port"))?;
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("the IPv6 address \"{host}\" lacks its brackets"));
    }
    let peer = peer_key(host, port)?;
    if !fingerprint.starts_with("SHA256:") {
        return Err(format!("\"{fingerprint}\" does not start with SHA256:"));
    }
    let fingerprint = fingerprint
        .parse()
        .map_err(|error: super::FingerprintError| error.to_string())?;
    Ok(Some(KnownPeer {
        peer,
        fingerprint,
        line,
    }))
}

/// How a server stands in the file.
fn peer_key(host: &str, port: u16) -> Result<String, String> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]:{port}"));
    }
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '[' | ']' | ':');
    if bare.is_empty() || bare.starts_with('#') || !bare.chars().all(plain) {
        return Err(format!("{host:?} is no host"));
    }
    if port == 0 {
        return Err("0 is no port".to_owned());
    }
    Ok(format!("{}:{port}", bare.to_ascii_lowercase()))
}

#[cfg(test)]
#[path = "known_peers/tests.rs"]
mod tests;
