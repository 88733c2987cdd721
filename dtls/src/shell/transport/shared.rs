//! A connection on the listening socket: the listener's thread puts the peer's datagrams into its
//! inbox, and it answers through the same socket, from the address that the peer sent to.
//!
//! The thread waits for its inbox alone. No ICMP error arrives here: the kernel reports them on
//! connected sockets, or to those that ask for them (`IP_RECVERR`, `ip(7)`), which a socket of many
//! peers must not. Runs on the connection's thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::core::record::client_hello_sequence;
use crate::shell::handoff::Route;
use crate::shell::icmp;
use crate::shell::mailbox::Mailbox;
use crate::shell::socket::{FourTuple, ListeningSocket};
use crate::stats::{Counter, Stats};
use crate::sys::udp::Datagram;

use super::{Arrival, Stray, StrayPost, StreamHandle, WaitsIn, time_left};

/// An inbox and the shared socket.
#[derive(Debug)]
pub(crate) struct Shared {
    socket: Arc<ListeningSocket>,
    stopped: Arc<AtomicBool>,
    tuple: FourTuple,
    inbox: Mailbox<Vec<u8>>,
    route: Option<Route>,
    strays: StrayPost,
}

impl Shared {
    pub(super) fn new(
        socket: Arc<ListeningSocket>,
        tuple: FourTuple,
        route: Route,
        inbox: Mailbox<Vec<u8>>,
        strays: StrayPost,
    ) -> Self {
        Self {
            socket,
            stopped: Arc::default(),
            tuple,
            inbox,
            route: Some(route),
            strays,
        }
    }

    pub(super) fn tuple(&self) -> FourTuple {
        self.tuple
    }

    pub(super) fn handle(&self) -> StreamHandle {
        StreamHandle {
            waits_in: WaitsIn::Inbox(Arc::downgrade(self.inbox.bell())),
            stopped: Arc::clone(&self.stopped),
        }
    }

    /// The handshake is complete.
    pub(super) fn settle(&mut self) {
        if let Some(route) = &mut self.route {
            route.establish();
        }
    }

    pub(super) fn recv(
        &mut self,
        datagram: &mut Datagram,
        deadline: Option<Instant>,
    ) -> io::Result<Arrival> {
        let mut due = false;
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Ok(Arrival::Stopped);
            }
            if let Some(arrived) = self.inbox.take() {
                datagram.copy_from(&arrived);
                return Ok(Arrival::Datagram);
            }
            if due {
                return Ok(Arrival::TimedOut);
            }
            let left = time_left(deadline);
            // The wait silences the bell, even if it is none: who polls the descriptor would never
            // come to rest. So there is one more look after it.
            self.inbox.wait_for_letter(left)?;
            due = left.is_some_and(|left| left.is_zero());
        }
    }

    /// Sends a datagram, or loses it. One that is longer than the interface takes leaves in fragments:
    /// the socket is everybody's, and cannot refuse one peer's and take another's.
    pub(super) fn send(&self, datagram: &[u8], stats: &Stats) {
        loop {
            match self.socket.send(datagram, self.tuple, true) {
                Ok(()) => return stats.count(Counter::DatagramsSent),
                Err(error) if icmp::is_interrupted(&error) => {}
                Err(_) => return stats.count(Counter::DatagramsUnsent),
            }
        }
    }
}

impl Drop for Shared {
    /// Hands a hello that has come since the last receive back to the listener: it begins the
    /// client's next connection from the same port.
    fn drop(&mut self) {
        // The route first: from then on the inbox gets nothing more, and the listener takes the
        // peer for a stranger.
        drop(self.route.take());
        while let Some(datagram) = self.inbox.take() {
            if client_hello_sequence(&datagram).is_some() {
                let tuple = self.tuple;
                if !self.strays.send(Stray { tuple, datagram }) {
                    // Full: the rest is lost, as it would be in a full socket.
                    return;
                }
            }
        }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.bell().as_fd()
    }
}
