//! The key log: session secrets in the NSS format, for a network analyser. Lines are written on
//! the worker threads, from within a handshake.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dtls::KeyLog;

/// Appends to `path`, which is made for its owner alone if it is missing.
///
/// # Errors
/// The file cannot be opened for writing.
pub(crate) fn append(path: &Path) -> io::Result<KeyLog> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let path = path.to_owned();
    let failed = AtomicBool::new(false);
    Ok(Arc::new(move |line| {
        // In one write: appending keeps the lines of several threads apart.
        let written = (&file).write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written
            && !failed.swap(true, Ordering::Relaxed)
        {
            log::warn!("the key log {} is incomplete: {error}", path.display());
        }
    }))
}
