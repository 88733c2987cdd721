//! Hand-off: from the listening socket to the connection, without losing a datagram on the way.
//!
//! The routes tell the listener whose a datagram is. Where connections share the listening socket,
//! each one's stays for as long as it lives. Where each has a socket of its own, its route serves until
//! it settles: the peer's datagrams that arrive before connect() takes effect lie in the listening
//! socket's queue, the other fragments of its hello, a repeated hello. Runs on the listener's
//! thread; a route is taken down by the connection's, which leaves behind what hello it began with.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::PortSharing;
use crate::core::ended::Ended;
use crate::core::limits::{Census, Limits, Prefix, PrefixLengths};
use crate::core::record::HelloId;
use crate::stats::Counter;

use super::mailbox::{Bell, Mailbox, Post, mailbox};
use super::socket::{self, FourTuple, ListeningSocket};
use super::transport::{StrayPost, Transport, clock};

/// Bytes kept for a connection that has not settled: a hello's fragments and a repetition.
const EARLY: usize = 32 * 1024;

/// Bytes kept for a connection that has no socket of its own: what a socket keeps by default on
/// Linux (`rmem_default`, `socket(7)`), whose count includes more per datagram.
const INBOX: usize = 128 * 1024;

/// Where the listener forwards a connection's datagrams.
pub(crate) struct Routes {
    table: Mutex<Table>,
    lengths: PrefixLengths,
    /// Wakes the listener when the last route is gone.
    bell: Arc<Bell>,
}

/// Without the table: it is long, and would have to be locked.
impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

struct Table {
    inboxes: HashMap<FourTuple, Option<Post<Vec<u8>>>>,
    census: Census,
    ended: Ended,
}

/// What became of a datagram at the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routed {
    /// No connection has this 4-tuple.
    Unknown,
    /// Its worker has it.
    Forwarded,
    /// Its connection does not need it, or cannot take more.
    Dropped,
}

impl Routes {
    /// No routes; `bell` wakes the listener, and `lengths` say what a prefix is.
    pub(crate) fn new(bell: Arc<Bell>, lengths: PrefixLengths) -> Self {
        Self {
            table: Mutex::new(Table {
                inboxes: HashMap::new(),
                census: Census::default(),
                ended: Ended::new(clock()),
            }),
            lengths,
            bell,
        }
    }

    /// Forwards a datagram to the connection with this 4-tuple, if there is one.
    pub(crate) fn forward(&self, tuple: FourTuple, datagram: &[u8]) -> Routed {
        match self.lock().inboxes.get(&tuple) {
            None => Routed::Unknown,
            Some(Some(post)) if post.send(datagram.to_vec()) => Routed::Forwarded,
            Some(_) => Routed::Dropped,
        }
    }

    /// Whether the connection that this hello began has ended lately.
    pub(crate) fn has_ended(&self, tuple: FourTuple, hello: &HelloId, now: Instant) -> bool {
        let FourTuple { peer, local } = tuple;
        self.lock().ended.knows(peer, local, hello, now)
    }

    /// Connections alive.
    pub(crate) fn len(&self) -> usize {
        self.lock().inboxes.len()
    }

    /// Which limit another connection from `prefix` would exceed.
    pub(crate) fn refusal(&self, prefix: Prefix, limits: &Limits) -> Option<Counter> {
        self.lock().census.refusal(prefix, limits)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's entry in the routes; gone when dropped.
#[derive(Debug)]
pub(crate) struct Route {
    routes: Arc<Routes>,
    tuple: FourTuple,
    prefix: Prefix,
    /// The hello that began it, once its handshake is complete.
    established: Option<HelloId>,
}

impl Route {
    fn open(
        routes: &Arc<Routes>,
        tuple: FourTuple,
        capacity: usize,
    ) -> io::Result<(Self, Mailbox<Vec<u8>>)> {
        let (post, inbox) = mailbox(capacity)?;
        let prefix = routes.lengths.prefix(tuple.peer.ip());
        let mut table = routes.lock();
        table.inboxes.insert(tuple, Some(post));
        table.census.enter(prefix);
        drop(table);
        let route = Self {
            routes: Arc::clone(routes),
            tuple,
            prefix,
            established: None,
        };
        Ok((route, inbox))
    }

    /// The handshake that began with `hello` is complete. If there was another before it, the client
    /// has started over, and that connection has ended.
    pub(crate) fn establish(&mut self, hello: HelloId) {
        let mut table = self.routes.lock();
        match self.established.replace(hello) {
            None => table.census.establish(),
            Some(before) => {
                let FourTuple { peer, local } = self.tuple;
                table.ended.remember(peer, local, &before, clock());
            }
        }
    }

    /// Stops forwarding: what still lies in the listener's queue was sent before the handshake was
    /// complete and can only be a repetition.
    pub(crate) fn stop_forwarding(&self) {
        if let Some(post) = self.routes.lock().inboxes.get_mut(&self.tuple) {
            *post = None;
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        let mut table = self.routes.lock();
        table.inboxes.remove(&self.tuple);
        table.census.leave(self.prefix, self.established.is_none());
        if let Some(hello) = &self.established {
            let FourTuple { peer, local } = self.tuple;
            table.ended.remember(peer, local, hello, clock());
        }
        if table.inboxes.is_empty() {
            self.routes.bell.ring();
        }
    }
}

/// Makes the transport of a verified peer, with a socket of its own.
///
/// # Errors
/// No descriptor or memory is left, or the address is gone.
pub(crate) fn to_connected_socket(
    tuple: FourTuple,
    sharing: PortSharing,
    routes: &Arc<Routes>,
    strays: &StrayPost,
) -> io::Result<Transport> {
    // The route first: from the moment the socket exists no datagram may find neither.
    let (route, inbox) = Route::open(routes, tuple, EARLY)?;
    let socket = socket::connected(tuple, sharing)?;
    let strays = strays.clone();
    Ok(Transport::connected(socket, tuple, route, inbox, strays))
}

/// Makes the transport of a verified peer, on the listening socket.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn to_inbox(
    tuple: FourTuple,
    socket: &Arc<ListeningSocket>,
    routes: &Arc<Routes>,
    strays: &StrayPost,
) -> io::Result<Transport> {
    let (route, inbox) = Route::open(routes, tuple, INBOX)?;
    let (socket, strays) = (Arc::clone(socket), strays.clone());
    Ok(Transport::shared(socket, tuple, route, inbox, strays))
}
