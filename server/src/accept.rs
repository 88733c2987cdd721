//! The listener thread: answers hellos while there is room, and passes verified peers on.
//!
//! Path: `dtls` (listener, cookie, hand-off) → [`Pool::submit`].

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;
use dtls::{AcceptError, Counter, DtlsListener};

use crate::complaint::Complaint;
use crate::pool::Pool;
use crate::shutdown::Cause;

/// Starts the thread. It ends when the listener is closed, or tells `causes` that it broke.
///
/// # Errors
/// The system allows no further thread.
pub(crate) fn start(
    mut listener: DtlsListener,
    pool: Arc<Pool>,
    causes: Sender<Cause>,
) -> io::Result<JoinHandle<()>> {
    // Where a thread of the listener's own reads, verified peers may wait to be submitted: they have
    // no worker yet, and are among the connections. A connection ends shortly before its worker
    // is free, so the workers are asked too.
    let room = Arc::clone(&pool);
    listener.set_admission(move |_, connections| connections < room.limit() && room.has_room());
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
    let complaint = Complaint::new();
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
