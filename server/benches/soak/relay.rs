//! The network between clients and server: a UDP relay that loses datagrams by chance. A thread of its
//! own.
//!
//! ```text
//!  client A ──┐                    ┌── socket of A, 127.2.0.1 ──┐
//!  client B ──┴─► one front socket ┴── socket of B, 127.2.0.2 ──┴─► server
//! ```
//!
//! With several servers, clients are shared out in turn.
//!
//! Each client has a socket of its own towards its server, so that the server tells clients apart as it
//! would without the relay. A client that comes back from the same address and port within
//! [`FORGOTTEN`] has the same one again.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::{Failure, now, roomy};

/// A client's socket is closed after this long without a datagram: longer than the server waits for
/// a silent client, so that what the server sends last has somewhere to go.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(100);

/// Where the relay's sockets are: below those that Linux gives out by itself.
const PORTS: Range<u16> = 10_007..32_768;

/// Ports that are tried for a client; somebody may have one of them.
const TRIES: usize = 16;

/// How often idle sockets are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// The longest wait; the end is looked for so often.
const WAIT_MS: u16 = 50;

/// Datagrams taken from one socket before the others get their turn.
const ROUND: usize = 64;

/// The front socket's place in the event list; clients follow.
const FRONT: u64 = u64::MAX;

/// What happened to datagrams.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// From clients, all.
    pub(crate) to_server: AtomicU64,
    /// Of those, lost on purpose.
    pub(crate) to_server_lost: AtomicU64,
    /// From the server, all.
    pub(crate) to_client: AtomicU64,
    /// Of those, lost on purpose.
    pub(crate) to_client_lost: AtomicU64,
    /// The kernel would not send, or there was no socket for a client.
    pub(crate) unsent: AtomicU64,
}

/// A running relay; ends when dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) counts: Arc<Counts>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Between whoever sends to the address it gets and one of `servers`; each datagram is lost with
    /// probability `loss`.
    pub(crate) fn start(servers: Vec<SocketAddr>, loss: f64, seed: u64) -> Result<Self, Failure> {
        let front = roomy(UdpSocket::bind("127.0.0.1:0")?)?;
        front.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&front, EpollEvent::new(EpollFlags::EPOLLIN, FRONT))?;
        let (counts, done) = (
            Arc::new(Counts::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let address = front.local_addr()?;
        let work = Work {
            front,
            epoll,
            servers,
            loss,
            random: StdRng::seed_from_u64(seed),
            places: HashMap::new(),
            clients: Vec::new(),
            free: Vec::new(),
            opened: 0,
            counts: Arc::clone(&counts),
            datagram: vec![0; 1 << 16],
        };
        let end = Arc::clone(&done);
        let thread = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || work.run(&end))?;
        Ok(Self {
            address,
            counts,
            done,
            thread: Some(thread),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// One client.
struct Client {
    address: SocketAddr,
    socket: UdpSocket,
    last: Instant,
}

/// The thread's own.
struct Work {
    front: UdpSocket,
    epoll: Epoll,
    /// Each new client gets the next.
    servers: Vec<SocketAddr>,
    loss: f64,
    random: StdRng,
    /// Where a client stands in `clients`.
    places: HashMap<SocketAddr, usize>,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    opened: u32,
    counts: Arc<Counts>,
    datagram: Vec<u8>,
}

impl Work {
    fn run(mut self, done: &AtomicBool) {
        let mut events = vec![EpollEvent::empty(); 1024];
        let mut swept = now();
        while !done.load(Ordering::Relaxed) {
            // Interrupted or not: what is there is looked at the next time.
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(WAIT_MS));
            let at = now();
            for event in &events[..ready.unwrap_or(0)] {
                match event.data() {
                    FRONT => self.hear_clients(at),
                    place => self.hear_server(usize::try_from(place).unwrap_or(usize::MAX), at),
                }
            }
            if at > swept + SWEEP {
                swept = at;
                self.forget_idle(at);
            }
        }
    }

    fn hear_clients(&mut self, at: Instant) {
        for _ in 0..ROUND {
            match self.front.recv_from(&mut self.datagram) {
                Ok((length, from)) => self.carry_to_server(length, from, at),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // ICMP: a client that is gone.
                Err(_) => {}
            }
        }
    }

    fn carry_to_server(&mut self, length: usize, from: SocketAddr, at: Instant) {
        count(&self.counts.to_server);
        if self.random.random_bool(self.loss) {
            count(&self.counts.to_server_lost);
            return;
        }
        let sent = self.client(from, at).is_some_and(|place| {
            let client = self.clients[place].as_ref();
            client.is_some_and(|client| send(&client.socket, &self.datagram[..length], None))
        });
        if !sent {
            count(&self.counts.unsent);
        }
    }

    fn hear_server(&mut self, place: usize, at: Instant) {
        for _ in 0..ROUND {
            let Some(Some(client)) = self.clients.get_mut(place) else {
                return;
            };
            match client.socket.recv(&mut self.datagram) {
                Ok(length) => {
                    client.last = at;
                    count(&self.counts.to_client);
                    if self.random.random_bool(self.loss) {
                        count(&self.counts.to_client_lost);
                    } else if !send(&self.front, &self.datagram[..length], Some(client.address)) {
                        count(&self.counts.unsent);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    /// The place of a client, known or new.
    fn client(&mut self, address: SocketAddr, at: Instant) -> Option<usize> {
        if let Some(&place) = self.places.get(&address) {
            if let Some(client) = &mut self.clients[place] {
                client.last = at;
            }
            return Some(place);
        }
        let socket = (0..TRIES).find_map(|_| self.bind())?;
        socket
            .connect(self.servers[self.opened as usize % self.servers.len()])
            .ok()?;
        socket.set_nonblocking(true).ok()?;
        let place = self.free.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
        if self.epoll.add(&socket, event).is_err() {
            self.free.push(place);
            return None;
        }
        self.clients[place] = Some(Client {
            address,
            socket,
            last: at,
        });
        self.places.insert(address, place);
        Some(place)
    }

    /// A socket towards the server, from many addresses: one alone might run out of ports. Not from
    /// the ports that the kernel gives out: it would not give these to the server's own sockets
    /// towards the backend any more, which are bound to no address in particular.
    fn bind(&mut self) -> Option<UdpSocket> {
        self.opened = self.opened.wrapping_add(1);
        let [_, _, third, fourth] = (self.opened % 10_000 + 1).to_be_bytes();
        let port = u32::from(PORTS.start) + self.opened % u32::from(PORTS.end - PORTS.start);
        let port = u16::try_from(port).ok()?;
        UdpSocket::bind((Ipv4Addr::new(127, 2, third, fourth), port)).ok()
    }

    fn forget_idle(&mut self, at: Instant) {
        for (place, client) in self.clients.iter_mut().enumerate() {
            if let Some(idle) = client.take_if(|client| at > client.last + FORGOTTEN) {
                self.places.remove(&idle.address);
                self.free.push(place);
            }
        }
    }
}

/// A pending ICMP error takes the place of the first attempt.
fn send(socket: &UdpSocket, datagram: &[u8], to: Option<SocketAddr>) -> bool {
    let attempt = || match to {
        Some(to) => socket.send_to(datagram, to),
        None => socket.send(datagram),
    };
    attempt().or_else(|_| attempt()).is_ok()
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
