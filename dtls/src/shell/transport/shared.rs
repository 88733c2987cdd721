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

use crate::core::record::{HelloId, client_hello_sequence};
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
    pub(super) fn settle(&mut self, hello: HelloId) {
        if let Some(route) = &mut self.route {
            route.establish(hello);
        }
    }

    pub(super) fn recv(
        &mut self,
        datagram: &mut Datagram,
        deadline: Option<Instant>,
    ) -> io::Result<Arrival> {
        let (mut waited, mut due) = (false, false);
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Ok(Arrival::Stopped);
            }
            let arrived = if waited {
                self.inbox.take_after_wait()
            } else {
                self.inbox.take()
            };
            if let Some(arrived) = arrived {
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
            waited = true;
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::thread;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::super::{Transport, clock};
    use super::*;
    use crate::core::limits::PrefixLengths;
    use crate::shell::handoff::{Routed, Routes, to_inbox};
    use crate::shell::mailbox::mailbox;

    #[test]
    fn the_descriptor_is_readable_while_a_datagram_lies_behind_the_one_that_ended_a_wait() {
        const ROUNDS: usize = 200;
        let socket = ListeningSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
        let tuple = FourTuple {
            peer: (Ipv4Addr::LOCALHOST, 9).into(),
            local: socket.local(),
        };
        let (stray_post, strays) = mailbox(4096).unwrap();
        let routes = Arc::new(Routes::new(
            Arc::clone(strays.bell()),
            PrefixLengths::default(),
        ));
        let transport = to_inbox(tuple, &Arc::new(socket), &routes, &stray_post).unwrap();
        let Transport::Shared(mut shared) = transport else {
            panic!("{transport:?}");
        };
        let (next, rounds) = crossbeam_channel::bounded(0);
        let posting = thread::spawn(move || {
            for () in rounds {
                for datagram in [b"noise", b"data."] {
                    assert_eq!(routes.forward(tuple, datagram), Routed::Forwarded);
                }
            }
        });
        let mut datagram = Datagram::empty();
        for _ in 0..ROUNDS {
            next.send(()).unwrap();
            for expected in [b"noise", b"data."] {
                let deadline = clock() + Duration::from_secs(10);
                let arrival = shared.recv(&mut datagram, Some(deadline)).unwrap();
                assert_eq!(arrival, Arrival::Datagram);
                assert_eq!(datagram.bytes(), expected);
                if expected == b"noise" {
                    let mut descriptors = [PollFd::new(shared.as_fd(), PollFlags::POLLIN)];
                    let patience = PollTimeout::from(2000_u16);
                    assert_eq!(
                        poll(&mut descriptors, patience).unwrap(),
                        1,
                        "data lies there"
                    );
                }
            }
        }
        drop(next);
        posting.join().unwrap();
    }
}
