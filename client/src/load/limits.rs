//! The process's own limits, looked at before they are hit. Main thread.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The environment does not allow that many connections at once.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    #[error(
        "--concurrency {workers} needs {needed} descriptors, this process may have {limit}: lower it, \
         or raise the limit (ulimit -Hn)"
    )]
    Descriptors {
        workers: u32,
        needed: u64,
        limit: u64,
    },
    #[error("cannot read or raise the limit on descriptors: {0}")]
    System(#[from] Errno),
}

/// Beside the connections' sockets: standard streams, key log, signal pipe, resolver.
const OTHERS: u64 = 32;

/// Raises the soft limit on descriptors if a socket for each worker needs it.
pub(crate) fn allow_descriptors(workers: u32) -> Result<(), LimitError> {
    let needed = u64::from(workers) + OTHERS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(LimitError::Descriptors {
            workers,
            needed,
            limit: hard,
        });
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, needed, hard)?)
}
