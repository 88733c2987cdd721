//! What a running server tells the people who run it: metrics, health, readiness and status over
//! HTTP on an address of its own, and the command that reads it. A thread, which only looks.

mod http;
mod metrics;
mod process;
mod status;
mod top;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::listener::{Counters, Watched};

pub(crate) use top::{Top, TopError};

/// What is told of the server.
#[derive(Debug)]
pub(crate) struct Ops {
    listeners: Vec<Watched>,
    started: Instant,
    draining: AtomicBool,
}

impl Ops {
    /// Nothing is told before [`Self::serve`].
    #[expect(
        clippy::disallowed_methods,
        reason = "the server's time of work counts from here"
    )]
    pub(crate) fn new(listeners: Vec<Watched>) -> Arc<Self> {
        Arc::new(Self {
            listeners,
            started: Instant::now(),
            draining: AtomicBool::new(false),
        })
    }

    /// From now on the server says that it is not ready for further clients.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Answers requests until the process ends.
    ///
    /// # Errors
    /// The system allows no further thread or descriptor.
    pub(crate) fn serve(self: &Arc<Self>, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let ops = Arc::clone(self);
        thread::Builder::new()
            .name("operations".to_owned())
            .spawn(move || http::serve(&listener, |path| ops.answer(path)))
            .map(drop)
    }

    fn answer(&self, path: &str) -> Option<http::Answer> {
        let ready = !self.draining.load(Ordering::SeqCst);
        Some(match path {
            "/metrics" => http::Answer::ok(metrics::CONTENT_TYPE, metrics::exposition(self)),
            // Who reads this is answered: the process lives. Should a listener break, it ends.
            "/health" => http::Answer::ok(http::TEXT, "alive\n".to_owned()),
            "/ready" if ready => http::Answer::ok(http::TEXT, "ready\n".to_owned()),
            "/ready" => http::Answer::unavailable("draining\n"),
            "/status" => http::Answer::ok(http::JSON, status::of(self, ready)),
            _ => return None,
        })
    }

    fn counters(&self) -> Vec<Counters> {
        self.listeners.iter().map(Watched::counters).collect()
    }
}

/// Binds the address of the operations pages.
///
/// # Errors
/// The port is taken, not permitted, or the address is not this host's.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}
