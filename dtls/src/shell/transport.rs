//! How a connection's datagrams come and go: over a connected socket of its own, or through an inbox
//! and a socket that it shares. Both wait, send, stop and end alike. Runs on the connection's thread.

mod connected;
mod shared;

use std::io;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use socket2::SockRef;

use crate::config::Settings;
use crate::core::record::HelloId;
use crate::stats::Stats;
use crate::sys::udp::Datagram;

use super::handoff::Route;
use super::mailbox::{Bell, Letter, Mailbox, Post};
use super::socket::{FourTuple, ListeningSocket};

use connected::Connected;
use shared::Shared;

/// A datagram that another peer's socket received, or a hello that a connection found as it ended.
#[derive(Debug)]
pub(crate) struct Stray {
    pub(crate) tuple: FourTuple,
    pub(crate) datagram: Vec<u8>,
}

impl Letter for Stray {
    fn len(&self) -> usize {
        self.datagram.len()
    }
}

/// Where strays go.
pub(crate) type StrayPost = Post<Stray>;

/// What waiting for a datagram brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A datagram of the peer.
    Datagram,
    /// Nothing until the deadline.
    TimedOut,
    /// An ICMP error, where the configuration wants to know.
    Hint,
    /// The connection was stopped from another thread.
    Stopped,
}

/// Lets another thread end the waiting.
#[derive(Debug, Clone)]
pub struct StreamHandle {
    waits_in: WaitsIn,
    stopped: Arc<AtomicBool>,
}

/// What the connection's thread waits for. Not an owner: a socket outliving its stream would take
/// the client's next hello and never answer.
#[derive(Debug, Clone)]
enum WaitsIn {
    Socket(Weak<UdpSocket>),
    Inbox(Weak<Bell>),
}

impl StreamHandle {
    /// Makes the connection's present or next wait return: a handshake fails with
    /// [`HandshakeError::Stopped`](crate::HandshakeError::Stopped), a receive gives
    /// [`Recv::Stopped`](crate::Recv::Stopped). Sending stays possible.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        match &self.waits_in {
            WaitsIn::Socket(socket) => {
                if let Some(socket) = socket.upgrade() {
                    // Wakes the blocked thread; an error means that nobody can be waiting.
                    drop(SockRef::from(&*socket).shutdown(Shutdown::Read));
                }
            }
            WaitsIn::Inbox(bell) => {
                if let Some(bell) = bell.upgrade() {
                    bell.ring();
                }
            }
        }
    }
}

/// A connection's way to its peer.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The kernel sorts the datagrams.
    Connected(Connected),
    /// The listener does.
    Shared(Shared),
}

impl Transport {
    /// A server's side with a socket of its own.
    pub(crate) fn connected(
        socket: UdpSocket,
        tuple: FourTuple,
        route: Route,
        inbox: Mailbox<Vec<u8>>,
        strays: StrayPost,
    ) -> Self {
        Self::Connected(Connected::handed_off(socket, tuple, route, inbox, strays))
    }

    /// A server's side on the listening socket.
    pub(crate) fn shared(
        socket: Arc<ListeningSocket>,
        tuple: FourTuple,
        route: Route,
        inbox: Mailbox<Vec<u8>>,
        strays: StrayPost,
    ) -> Self {
        Self::Shared(Shared::new(socket, tuple, route, inbox, strays))
    }

    /// A client's side.
    ///
    /// # Errors
    /// The kernel does not tell the socket's address.
    pub(crate) fn client(socket: UdpSocket, peer: SocketAddr) -> io::Result<Self> {
        Connected::client(socket, peer).map(Self::Connected)
    }

    /// The peer's address.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.tuple().peer
    }

    /// The local address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.tuple().local
    }

    fn tuple(&self) -> FourTuple {
        match self {
            Self::Connected(connected) => connected.tuple(),
            Self::Shared(shared) => shared.tuple(),
        }
    }

    /// A handle for other threads.
    pub(crate) fn handle(&self) -> StreamHandle {
        match self {
            Self::Connected(connected) => connected.handle(),
            Self::Shared(shared) => shared.handle(),
        }
    }

    /// The server's handshake that began with this hello is complete: nothing early is missing any more.
    pub(crate) fn settle(&mut self, hello: HelloId) {
        match self {
            Self::Connected(connected) => connected.settle(hello),
            Self::Shared(shared) => shared.settle(hello),
        }
    }

    /// Waits for a datagram of the peer.
    ///
    /// # Errors
    /// The socket is broken. ICMP errors are counted and ignored.
    pub(crate) fn recv(
        &mut self,
        datagram: &mut Datagram,
        deadline: Option<Instant>,
        settings: &Settings,
        stats: &Stats,
    ) -> io::Result<Arrival> {
        match self {
            Self::Connected(connected) => connected.recv(datagram, deadline, settings, stats),
            Self::Shared(shared) => shared.recv(datagram, deadline),
        }
    }

    /// Waits until something can be received here or from `other`, or for `deadline`; says for which
    /// of the two.
    ///
    /// # Errors
    /// The kernel has no memory; an interruption is not an error.
    pub(crate) fn poll(
        &self,
        other: BorrowedFd<'_>,
        deadline: Option<Instant>,
    ) -> io::Result<(bool, bool)> {
        let readable = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut descriptors = [readable(self.as_fd()), readable(other)];
        let left = time_left(deadline).map(TimeSpec::from_duration);
        match ppoll(&mut descriptors, left, None) {
            // An error that waits to be fetched counts as readable.
            Ok(_) => Ok(descriptors.map(|found| found.any() != Some(false)).into()),
            Err(nix::Error::EINTR) => Ok((false, false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a datagram, or loses it: an unsent datagram is a lost one, and the timers know what
    /// to do about those. Returns what the interface takes, if this was more and the kernel says so.
    pub(crate) fn send(&self, datagram: &[u8], stats: &Stats) -> Option<u16> {
        match self {
            Self::Connected(connected) => connected.send(datagram, stats),
            Self::Shared(shared) => {
                shared.send(datagram, stats);
                None
            }
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Connected(connected) => connected.as_fd(),
            Self::Shared(shared) => shared.as_fd(),
        }
    }
}

fn time_left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(clock()))
}

/// The thread's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell is where threads wait for time to pass"
)]
pub(crate) fn clock() -> Instant {
    Instant::now()
}
