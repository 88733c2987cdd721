//! A network between client and server that delays, drops and stalls as a test says: a thread that
//! forwards datagrams, with a socket of its own towards the server for each client.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::now;

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Deliver it after this long.
    After(Duration),
    /// Deliver it at this time since the network began.
    At(Duration),
    Drop,
}

/// A datagram's place: which client it is of, by order of appearance, and the how-manieth it is in
/// its direction, both from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) to_server: bool,
    pub(crate) client: usize,
    pub(crate) nth: usize,
    /// Since the network began.
    pub(crate) at: Duration,
}

/// A network; gone when dropped.
pub(crate) struct Network {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A datagram on its way: when it is due, in which order it came, of which client, whether it goes to
/// the server, and its bytes.
type Waiting = (Instant, usize, usize, bool, Vec<u8>);

struct Flow {
    client: SocketAddr,
    upstream: UdpSocket,
    counts: [usize; 2],
}

impl Network {
    /// In front of `server`.
    pub(crate) fn start(
        server: SocketAddr,
        mut fate: impl FnMut(Place) -> Fate + Send + 'static,
    ) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        front.set_nonblocking(true).unwrap();
        let address = front.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let began = now();
            let mut flows: Vec<Flow> = Vec::new();
            let mut places: HashMap<SocketAddr, usize> = HashMap::new();
            let mut queue: BinaryHeap<Reverse<Waiting>> = BinaryHeap::new();
            let mut order = 0;
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                while queue.peek().is_some_and(|next| next.0.0 <= now()) {
                    let Reverse((_, _, client, to_server, bytes)) = queue.pop().unwrap();
                    let flow = &flows[client];
                    // An end that is gone is no matter of the network's.
                    let sent = if to_server {
                        flow.upstream.send(&bytes)
                    } else {
                        front.send_to(&bytes, flow.client)
                    };
                    drop(sent);
                }
                let next = queue
                    .peek()
                    .map(|next| next.0.0.saturating_duration_since(now()));
                let wait = next
                    .unwrap_or(Duration::from_millis(20))
                    .min(Duration::from_millis(20));
                let wait = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap();
                {
                    let sockets = flows.iter().map(|flow| &flow.upstream);
                    let mut watched: Vec<PollFd<'_>> = std::iter::once(&front)
                        .chain(sockets)
                        .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
                        .collect();
                    poll(&mut watched, PollTimeout::from(wait)).unwrap();
                }
                let mut arrived: Vec<(usize, bool, Vec<u8>)> = Vec::new();
                while let Ok((length, client)) = front.recv_from(&mut buffer) {
                    let place = *places.entry(client).or_insert_with(|| {
                        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
                        upstream.connect(server).unwrap();
                        upstream.set_nonblocking(true).unwrap();
                        flows.push(Flow {
                            client,
                            upstream,
                            counts: [0, 0],
                        });
                        flows.len() - 1
                    });
                    arrived.push((place, true, buffer[..length].to_vec()));
                }
                for (place, flow) in flows.iter().enumerate() {
                    while let Ok(length) = flow.upstream.recv(&mut buffer) {
                        arrived.push((place, false, buffer[..length].to_vec()));
                    }
                }
                for (client, to_server, bytes) in arrived {
                    let at = now();
                    let count = &mut flows[client].counts[usize::from(to_server)];
                    let nth = *count;
                    *count += 1;
                    let since = at.saturating_duration_since(began);
                    let due = match fate(Place {
                        to_server,
                        client,
                        nth,
                        at: since,
                    }) {
                        Fate::After(delay) => at + delay,
                        Fate::At(time) => (began + time).max(at),
                        Fate::Drop => continue,
                    };
                    queue.push(Reverse((due, order, client, to_server, bytes)));
                    order += 1;
                }
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
