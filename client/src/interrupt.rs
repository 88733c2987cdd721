//! SIGINT and SIGTERM: a flag for those who look, and a stop for those who wait on a connection.
//!
//! The handler runs on a thread of its own; each slot belongs to one thread that makes connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dtls::StreamHandle;

use crate::exit::FAILED;

/// Whether the person wants it to end, and whom to wake then.
#[derive(Debug)]
pub(crate) struct Interrupt {
    happened: AtomicBool,
    slots: Vec<Mutex<Option<StreamHandle>>>,
}

/// The signal handler could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install a handler for SIGINT: {0}")]
pub(crate) struct InterruptError(#[from] ctrlc::Error);

impl Interrupt {
    /// Takes over SIGINT and SIGTERM for the rest of the process; a second one ends it at once.
    pub(crate) fn install(slots: usize) -> Result<Arc<Self>, InterruptError> {
        let interrupt = Arc::new(Self {
            happened: AtomicBool::new(false),
            slots: (0..slots).map(|_| Mutex::new(None)).collect(),
        });
        let handler = Arc::clone(&interrupt);
        ctrlc::set_handler(move || handler.interrupt())?;
        Ok(interrupt)
    }

    /// Whether a signal has come.
    pub(crate) fn happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst)
    }

    /// Makes a signal stop this connection, which takes the place of the slot's former one.
    pub(crate) fn watch(&self, slot: usize, handle: &StreamHandle) {
        // In this order a signal finds the handle, or we find the flag.
        *self.slots[slot]
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(handle.clone());
        if self.happened() {
            handle.stop();
        }
    }

    /// Ends what goes on, as a signal would; the second time it ends the process.
    pub(crate) fn interrupt(&self) {
        if self.happened.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(FAILED));
        }
        for slot in &self.slots {
            if let Some(handle) = &*slot.lock().unwrap_or_else(PoisonError::into_inner) {
                handle.stop();
            }
        }
    }
}
