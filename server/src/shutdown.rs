//! The end: a signal or a broken listener, then every connection closed within a bound. The signal
//! handler runs on a thread of its own, everything else on the main thread.

use std::fmt;
use std::process;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use dtls::{AcceptError, ListenerHandle};

use crate::pool::Pool;

/// Why the server ends.
#[derive(Debug)]
pub(crate) enum Cause {
    /// SIGINT, SIGTERM or SIGHUP.
    Signal,
    /// No further connection is accepted.
    ListenerFailed(AcceptError),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal => f.write_str("ended by a signal"),
            Self::ListenerFailed(error) => write!(f, "failed to {error}"),
        }
    }
}

/// Tells `causes` of the first signal; the second one ends the process at once.
///
/// # Errors
/// The system refuses the handler or its thread.
pub(crate) fn on_signals(causes: Sender<Cause>) -> Result<(), ctrlc::Error> {
    let mut first = true;
    ctrlc::set_handler(move || {
        if !first {
            process::exit(1);
        }
        first = false;
        // Full means that the listener broke first, and the end is under way.
        drop(causes.try_send(Cause::Signal));
    })
}

/// Answers no further hello, closes every connection, and waits for all threads within `timeout`.
/// Returns how many connections are left.
pub(crate) fn drain(
    listener: &ListenerHandle,
    accepting: JoinHandle<()>,
    pool: &Pool,
    timeout: Duration,
) -> usize {
    listener.close();
    // The listener thread never blocks for longer than it takes to hear of the closing. After a
    // panic, which it has reported, the connections still end in order.
    drop(accepting.join());
    pool.drain(timeout)
}
