//! Hand-off: from the listening socket to a socket of the connection's own, without losing a
//! datagram on the way.
//!
//! A peer's datagrams that arrive before connect() takes effect lie in the listening socket's
//! queue: the other fragments of its hello, a repeated hello. The routes tell the listener whose
//! they are. Runs on the listener's thread; a route is taken down by the connection's.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::PortSharing;

use super::mailbox::{Mailbox, Post, mailbox};
use super::socket::{self, FourTuple};
use super::transport::{StrayPost, Transport};

/// Datagrams kept for a connection that has not settled: a hello's fragments and a repetition.
const INBOX: usize = 16;

/// Where the listener forwards a connected peer's datagrams.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<HashMap<FourTuple, Option<Post<Vec<u8>>>>>);

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
    /// Forwards a datagram to the connection with this 4-tuple, if there is one.
    pub(crate) fn forward(&self, tuple: FourTuple, datagram: &[u8]) -> Routed {
        match self.lock().get(&tuple) {
            None => Routed::Unknown,
            Some(Some(post)) if post.send(datagram.to_vec()) => Routed::Forwarded,
            Some(_) => Routed::Dropped,
        }
    }

    /// Connections alive.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FourTuple, Option<Post<Vec<u8>>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's entry in the routes; gone when dropped.
#[derive(Debug)]
pub(crate) struct Route {
    routes: Arc<Routes>,
    tuple: FourTuple,
}

impl Route {
    fn open(routes: &Arc<Routes>, tuple: FourTuple) -> io::Result<(Self, Mailbox<Vec<u8>>)> {
        let (post, inbox) = mailbox(INBOX)?;
        routes.lock().insert(tuple, Some(post));
        Ok((
            Self {
                routes: Arc::clone(routes),
                tuple,
            },
            inbox,
        ))
    }

    /// Stops forwarding: what still lies in the listener's queue was sent before the handshake was
    /// complete and can only be a repetition.
    pub(crate) fn settle(&self) {
        if let Some(post) = self.routes.lock().get_mut(&self.tuple) {
            *post = None;
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.routes.lock().remove(&self.tuple);
    }
}

/// Makes the transport of a verified peer.
///
/// # Errors
/// No descriptor or memory is left, or the address is gone.
pub(crate) fn hand_off(
    tuple: FourTuple,
    sharing: PortSharing,
    routes: &Arc<Routes>,
    strays: &StrayPost,
) -> io::Result<Transport> {
    // The route first: from the moment the socket exists no datagram may find neither.
    let (route, inbox) = Route::open(routes, tuple)?;
    let socket = socket::connected(tuple, sharing)?;
    Ok(Transport::handed_off(
        socket,
        tuple,
        route,
        inbox,
        strays.clone(),
    ))
}
