//! The end: a signal or a broken listener, time for connections to end by themselves, then a
//! close_notify to each that is left. The signal handler runs on a thread of its own, everything
//! else on the main thread.
//!
//! ```text
//! signal ─► no hello is answered ─► wait for the last    ─► close_notify ─► wait for the workers,
//!                                   connection, at most     to all left     at most CLOSING
//!                                   --drain-timeout
//! ```

use std::fmt;
use std::process;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use dtls::AcceptError;

use crate::listener::Running;
use crate::pool::Pool;

/// How long workers may take to send a close_notify and end. Only one that hangs in the system
/// takes longer.
pub(crate) const CLOSING: Duration = Duration::from_secs(5);

/// Why the server ends.
#[derive(Debug)]
pub(crate) enum Cause {
    /// SIGINT or SIGTERM. SIGHUP never arrives here, see `reload`.
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

/// Waits for `timeout` at most until the connections of listeners that refuse further ones have ended
/// by themselves, then closes those that are left. Returns how many did not let themselves be closed.
#[expect(
    clippy::disallowed_methods,
    reason = "the main thread waits here for real time to pass"
)]
pub(crate) fn drain(listeners: &[Running], timeout: Duration) -> usize {
    // A time beyond the clock's range is for ever.
    let deadline = Instant::now().checked_add(timeout);
    let pools = || listeners.iter().map(Running::pool);
    wait(pools(), deadline);
    let closed: usize = pools().map(Pool::stop_all).sum();
    if closed > 0 {
        log::info!("closed {closed} connections");
    }
    let left = wait(pools(), Instant::now().checked_add(CLOSING));
    if left == 0 {
        pools().for_each(Pool::join);
    }
    left
}

/// Waits until all workers have ended; returns how many have not.
#[expect(
    clippy::disallowed_methods,
    reason = "the main thread waits here for real time to pass"
)]
fn wait<'a>(pools: impl Iterator<Item = &'a Pool>, deadline: Option<Instant>) -> usize {
    pools
        .map(|pool| {
            pool.wait(deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())))
        })
        .sum()
}
