//! One listener at work: its port, its thread, its workers and what they count. Main thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use dtls::{DtlsListener, ListenerHandle};

use serde::Serialize;

use crate::accept;
use crate::pool::Pool;
use crate::report::Values;
use crate::shutdown::Cause;
use crate::stats::Stats;
use crate::worker::Context;

/// A port that is bound and not served yet.
pub(crate) struct Bound {
    listener: DtlsListener,
    context: Context,
    max_connections: usize,
}

/// A port that is served.
pub(crate) struct Running {
    watched: Watched,
    handle: ListenerHandle,
    accepting: Option<JoinHandle<()>>,
}

impl Bound {
    /// A listener whose connections are served in this context.
    pub(crate) fn new(listener: DtlsListener, context: Context, max_connections: usize) -> Self {
        Self {
            listener,
            context,
            max_connections,
        }
    }

    /// Starts the listener's thread, which tells `causes` if it breaks.
    ///
    /// # Errors
    /// The system allows no further thread.
    pub(crate) fn start(self, causes: Sender<Cause>) -> io::Result<Running> {
        let (address, handle) = (self.listener.local_addr(), self.listener.handle());
        let (dtls, stats) = (self.listener.stats(), Arc::clone(&self.context.stats));
        let service = self.context.service.to_string();
        let pool = Arc::new(Pool::new(self.max_connections, self.context));
        let accepting = accept::start(self.listener, Arc::clone(&pool), causes)?;
        Ok(Running {
            watched: Watched {
                address,
                service,
                pool,
                dtls,
                stats,
            },
            handle,
            accepting: Some(accepting),
        })
    }
}

/// What a listener has counted so far.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Counters {
    /// Its address.
    pub(crate) listener: String,
    /// The library's counters, then the server's.
    pub(crate) counters: Values,
}

impl Counters {
    /// The present values of both sets.
    pub(crate) fn of(listener: &str, dtls: &dtls::Stats, server: &Stats) -> Self {
        let dtls = dtls.iter().map(|(counter, value)| (counter.name(), value));
        let server = server
            .iter()
            .map(|(counter, value)| (counter.name(), value));
        Self {
            listener: listener.to_owned(),
            counters: Values(dtls.chain(server).collect()),
        }
    }

    /// One counter's value.
    pub(crate) fn get(&self, name: &str) -> u64 {
        let found = self.counters.0.iter().find(|(other, _)| *other == name);
        found.map_or(0, |(_, value)| *value)
    }
}

/// What can be seen of a listener from other threads.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) address: SocketAddr,
    /// In a few words.
    pub(crate) service: String,
    pub(crate) pool: Arc<Pool>,
    pub(crate) dtls: Arc<dtls::Stats>,
    pub(crate) stats: Arc<Stats>,
}

impl Watched {
    /// What the listener has counted so far.
    pub(crate) fn counters(&self) -> Counters {
        Counters::of(&self.address.to_string(), &self.dtls, &self.stats)
    }
}

impl Running {
    /// Lets other threads look.
    pub(crate) fn watched(&self) -> Watched {
        self.watched.clone()
    }

    /// What it has counted so far.
    pub(crate) fn counters(&self) -> Counters {
        self.watched.counters()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.watched.address
    }

    /// Its workers.
    pub(crate) fn pool(&self) -> &Pool {
        &self.watched.pool
    }

    /// Changes it from another thread.
    pub(crate) fn handle(&self) -> ListenerHandle {
        self.handle.clone()
    }

    /// Answers no further hello. Connections go on.
    pub(crate) fn refuse(&mut self) {
        self.handle.close();
        // The listener thread never blocks for longer than it takes to hear of the closing. After a
        // panic, which it has reported, the connections still end in order.
        drop(self.accepting.take().map(JoinHandle::join));
        self.pool().refuse();
    }
}
