//! A connected UDP socket of the connection's own: source check, ICMP policy, and waiting.
//!
//! While the handshake runs, the thread waits for the socket and for the mailbox in which the
//! listener leaves early datagrams. Once settled it blocks in one `recvfrom` per datagram, and the
//! receive timeout changes only when the deadline really moves. Runs on the connection's thread.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::config::{Safeguard, Settings};
use crate::core::record::{HelloId, client_hello_sequence};
use crate::shell::bad_calls::{self, Call};
use crate::shell::handoff::Route;
use crate::shell::icmp::{Sending, SocketError, send_or_lose};
use crate::shell::mailbox::Mailbox;
use crate::shell::socket::{self, FourTuple, Judgement};
use crate::stats::{Counter, Stats};
use crate::sys::udp::Datagram;

use super::{Arrival, Stray, StrayPost, StreamHandle, WaitsIn, time_left};

/// Datagrams looked through when a connection ends; more than a receive queue of the default size
/// holds of hellos, and a bound if they come faster than they are read.
const HANDED_BACK: usize = 1024;

/// A connected socket and, until settled, its inbox.
#[derive(Debug)]
pub(crate) struct Connected {
    socket: Arc<UdpSocket>,
    stopped: Arc<AtomicBool>,
    tuple: FourTuple,
    inbox: Option<Mailbox<Vec<u8>>>,
    route: Option<Route>,
    strays: Option<StrayPost>,
    /// SO_RCVTIMEO as it is; `None` is for ever.
    armed: Option<Duration>,
}

/// A wait may last this much longer than asked, to spare the system call that would shorten it.
const SLACK: Duration = Duration::from_millis(10);

impl Connected {
    /// A server's side, as the hand-off makes it.
    pub(super) fn handed_off(
        socket: UdpSocket,
        tuple: FourTuple,
        route: Route,
        inbox: Mailbox<Vec<u8>>,
        strays: StrayPost,
    ) -> Self {
        Self {
            socket: Arc::new(socket),
            stopped: Arc::default(),
            tuple,
            inbox: Some(inbox),
            route: Some(route),
            strays: Some(strays),
            armed: None,
        }
    }

    /// A client's side: nobody shares its port, so it is settled from the start.
    pub(super) fn client(socket: UdpSocket, peer: SocketAddr) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self {
            socket: Arc::new(socket),
            stopped: Arc::default(),
            tuple: FourTuple { peer, local },
            inbox: None,
            route: None,
            strays: None,
            armed: None,
        })
    }

    pub(super) fn tuple(&self) -> FourTuple {
        self.tuple
    }

    pub(super) fn handle(&self) -> StreamHandle {
        StreamHandle {
            waits_in: WaitsIn::Socket(Arc::downgrade(&self.socket)),
            stopped: Arc::clone(&self.stopped),
        }
    }

    /// The handshake is complete: nothing early is missing any more.
    pub(super) fn settle(&mut self, hello: HelloId) {
        if let Some(route) = &mut self.route {
            route.establish(hello);
            route.stop_forwarding();
        }
        self.inbox = None;
    }

    /// Waits for a datagram of the peer.
    ///
    /// # Errors
    /// The socket is broken. ICMP errors are counted and ignored.
    pub(super) fn recv(
        &mut self,
        datagram: &mut Datagram,
        deadline: Option<Instant>,
        settings: &Settings,
        stats: &Stats,
    ) -> io::Result<Arrival> {
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Ok(Arrival::Stopped);
            }
            if let Some(early) = self.inbox.as_ref().and_then(Mailbox::take) {
                datagram.copy_from(&early);
                return Ok(Arrival::Datagram);
            }
            // With an inbox the waiting is for both, below.
            let wait = self.inbox.is_none() && self.prepare_wait(deadline)?;
            let received = match bad_calls::due(Call::Receive) {
                Some(error) => Err(error),
                None => datagram.recv_from(self.socket.as_fd(), wait),
            };
            match received.map_err(|error| (SocketError::of(&error), error)) {
                // A socket whose receiving side is shut down reads as an empty datagram of nobody.
                Ok(None) => return Ok(Arrival::Stopped),
                Ok(Some(from)) => {
                    if from == self.tuple.peer || !settings.keeps(Safeguard::SourceCheck) {
                        return Ok(Arrival::Datagram);
                    }
                    self.return_stray(datagram.bytes(), from, settings, stats);
                }
                Err((SocketError::Again, _)) => {}
                Err((SocketError::Empty, _)) => {
                    let left = time_left(deadline);
                    if let Some(inbox) = &self.inbox
                        && left.is_none_or(|left| !left.is_zero())
                    {
                        inbox.wait(std::iter::once(self.socket.as_fd()), left)?;
                        continue;
                    }
                }
                Err((SocketError::Icmp, _)) if settings.keeps(Safeguard::IcmpPolicy) => {
                    stats.count(Counter::IcmpOnReceive);
                    if settings.probe_when_idle.is_some() {
                        return Ok(Arrival::Hint);
                    }
                }
                Err((_, error)) => return Err(error),
            }
            // Strays and ICMP errors that come faster than they are read must not stop the clock.
            if time_left(deadline).is_some_and(|left| left.is_zero()) {
                return Ok(Arrival::TimedOut);
            }
        }
    }

    /// Sends a datagram, or loses it: an unsent datagram is a lost one, and the timers know what
    /// to do about those. Returns what the interface takes, if this was more.
    pub(super) fn send(&self, datagram: &[u8], stats: &Stats) -> Option<u16> {
        let attempt = || match bad_calls::due(Call::Send) {
            Some(error) => Err(error),
            None => self.socket.send(datagram),
        };
        if send_or_lose(attempt, stats) != Sending::TooLong {
            return None;
        }
        let judgement = socket::ask_interface(&self.socket, self.tuple.peer, datagram);
        let (sent, link_mtu) = match judgement {
            Judgement::Interface(link_mtu) => {
                stats.count(Counter::LinkMtuLowered);
                (self.socket.send(datagram).is_ok(), Some(link_mtu))
            }
            Judgement::Sent | Judgement::Unknown => {
                stats.add(Counter::IcmpOnSend, 2);
                (judgement == Judgement::Sent, None)
            }
        };
        stats.count(if sent {
            Counter::DatagramsSent
        } else {
            Counter::DatagramsUnsent
        });
        link_mtu
    }

    /// Arranges for the next receive to wait until about `deadline`; says whether it should wait at
    /// all.
    fn prepare_wait(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        let wanted = time_left(deadline);
        if wanted.is_some_and(|wanted| wanted.is_zero()) {
            return Ok(false);
        }
        let near_enough = match (wanted, self.armed) {
            (Some(wanted), Some(armed)) => armed >= wanted && armed - wanted <= SLACK,
            (wanted, armed) => wanted == armed,
        };
        if !near_enough {
            self.socket.set_read_timeout(wanted)?;
            self.armed = wanted;
        }
        Ok(true)
    }

    fn return_stray(&self, datagram: &[u8], from: SocketAddr, settings: &Settings, stats: &Stats) {
        let tuple = FourTuple {
            peer: from,
            local: self.tuple.local,
        };
        let forwarded = settings.keeps(Safeguard::StrayForwarding)
            && self.strays.as_ref().is_some_and(|post| {
                post.send(Stray {
                    tuple,
                    datagram: datagram.to_vec(),
                })
            });
        let outcome = if forwarded {
            Counter::StraysToListener
        } else {
            Counter::StraysDropped
        };
        stats.count(outcome);
    }
}

impl Drop for Connected {
    /// Hands what has come since the last receive back to the listener: a client that starts its
    /// next connection from the same port at once would otherwise lose its hello with the socket.
    fn drop(&mut self) {
        let (Some(route), Some(strays)) = (self.route.take(), &self.strays) else {
            return;
        };
        // The route first, or the listener would send the hello here again.
        drop(route);
        let mut datagram = Datagram::empty();
        for _ in 0..HANDED_BACK {
            let received = match bad_calls::due(Call::Receive) {
                Some(error) => Err(error),
                None => datagram.recv_from(self.socket.as_fd(), false),
            };
            let peer = match received {
                Ok(Some(peer)) => peer,
                // A pending ICMP error comes before what is in the queue.
                Err(error)
                    if matches!(
                        SocketError::of(&error),
                        SocketError::Icmp | SocketError::Again
                    ) =>
                {
                    continue;
                }
                Ok(None) | Err(_) => return,
            };
            let tuple = FourTuple {
                peer,
                local: self.tuple.local,
            };
            let bytes = datagram.bytes();
            // What belongs to the connection that ends here is of no use to anyone.
            if peer != self.tuple.peer || client_hello_sequence(bytes).is_some() {
                let datagram = bytes.to_vec();
                if !strays.send(Stray { tuple, datagram }) {
                    // Full: the rest is lost, as it would be in a full socket.
                    return;
                }
            }
        }
    }
}

impl AsFd for Connected {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
