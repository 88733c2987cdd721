//! The listener thread: answers hellos while there is room, and passes verified peers on.
//!
//! Path: `dtls` (listener, cookie, hand-off) → [`Pool::submit`].

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use dtls::{AcceptError, Counter, DtlsListener};

use crate::pool::{Pool, SubmitError};
use crate::shutdown::Cause;

/// A shortage is logged at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Starts the thread. It ends when the listener is closed, or tells `causes` that it broke.
///
/// # Errors
/// The system allows no further thread.
pub(crate) fn start(
    mut listener: DtlsListener,
    pool: Arc<Pool>,
    causes: Sender<Cause>,
) -> io::Result<JoinHandle<()>> {
    // Room seen here cannot vanish before the same datagram becomes a submission: this thread is
    // the only one that takes any.
    let room = Arc::clone(&pool);
    listener.set_admission(move |_| room.has_room());
    thread::Builder::new()
        .name("listener".to_owned())
        .spawn(move || {
            // A panic must not leave a server that answers nobody.
            let accepting = AssertUnwindSafe(|| accept(&mut listener, &pool));
            let outcome = panic::catch_unwind(accepting).unwrap_or_else(|_| {
                Err(AcceptError::Io(io::Error::other(
                    "the listener thread panicked",
                )))
            });
            if let Err(error) = outcome {
                // Full means that a signal came first, and the end is near anyway.
                drop(causes.try_send(Cause::ListenerFailed(error)));
            }
        })
}

fn accept(listener: &mut DtlsListener, pool: &Arc<Pool>) -> Result<(), AcceptError> {
    let stats = listener.stats();
    let mut complaint = Complaint::default();
    loop {
        let incoming = match listener.accept() {
            Ok(incoming) => incoming,
            Err(AcceptError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        // The client's next hello asks again.
        if let Err(error) = pool.submit(incoming) {
            stats.count(Counter::HandoffsFailed);
            complaint.make(&error);
        }
    }
}

/// Logs a shortage now and then, with how often it was met.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
    since: u64,
}

impl Complaint {
    #[expect(
        clippy::disallowed_methods,
        reason = "the listener's main loop; read only when a thread could not be had"
    )]
    fn make(&mut self, error: &SubmitError) {
        self.since += 1;
        let now = Instant::now();
        if self
            .last
            .is_none_or(|last| now - last >= COMPLAINT_INTERVAL)
        {
            log::warn!("{error} ({} since the last such line)", self.since);
            self.last = Some(now);
            self.since = 0;
        }
    }
}
