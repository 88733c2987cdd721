//! The engine between real sockets: one thread per run, in the wire's namespace.
//!
//! It reads frames from either end, asks the engine what becomes of them, and sends what the engine
//! returns when its time has come. It owns both packet sockets, the engine and the queue of frames
//! on their way; the run's thread talks to it through a pipe that wakes it and a short list of requests.

mod port;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::now;
use crate::netns::{NamespaceError, Network, WIRE_TO_CLIENT, WIRE_TO_SERVER};
use crate::observe::Watch;
use crate::packet::Direction;
use crate::wire::{Delivery, Engine, Origin};
use port::Port;

/// Why the relay could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Environment: no packet socket on one of our interfaces.
    #[error(
        "cannot open a packet socket on `{interface}` ({source}): does this kernel have AF_PACKET (`modprobe af_packet`)?"
    )]
    Port {
        /// The interface.
        interface: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Environment: the wire's namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Local: no pipe to wake the thread.
    #[error("cannot make a pipe ({0})")]
    Pipe(io::Error),
}

/// What the run asks of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Tell the engine that application data has flowed in every flow.
    Established,
    /// Stop; what is on its way is lost.
    Stop,
}

/// A running relay. Dropping it stops the thread.
#[derive(Debug)]
pub struct Relay {
    watch: Arc<Watch>,
    requests: Arc<Mutex<Vec<Request>>>,
    waker: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Opens both ends of the wire, from the calling thread, and starts the relay thread.
    /// `origin` is the run's zero of time.
    ///
    /// # Errors
    ///
    /// [`StartError`], when a socket cannot be had.
    pub fn start(network: &Network, engine: Engine, origin: Instant) -> Result<Self, StartError> {
        network.wire.enter()?;
        let open = |interface| {
            Port::open(interface).map_err(|source| StartError::Port { interface, source })
        };
        let ports = [open(WIRE_TO_CLIENT)?, open(WIRE_TO_SERVER)?];
        let (wake_up, waker) = io::pipe().map_err(StartError::Pipe)?;
        let watch = Arc::new(Watch::default());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let loop_ = Loop {
            ports,
            engine,
            origin,
            watch: Arc::clone(&watch),
            requests: Arc::clone(&requests),
            wake_up,
            on_their_way: BinaryHeap::new(),
            sequence: 0,
        };
        let thread = std::thread::spawn(move || loop_.run());
        Ok(Self {
            watch,
            requests,
            waker,
            thread: Some(thread),
        })
    }

    /// What the wire has seen.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Tells the engine that application data has flowed.
    pub fn established(&self) {
        self.request(Request::Established);
    }

    /// Stops the relay and waits for its thread.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.request(Request::Stop);
        if thread.join().is_err() {
            let mut trace = self.watch.lock();
            trace.relay_ended = Some(Err("the relay thread panicked".to_owned()));
        }
    }

    fn request(&self, request: Request) {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        // A full pipe would mean that the relay is already awake.
        if let Err(error) = (&self.waker).write_all(&[0]) {
            log::debug!("the relay is gone: {error}");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the relay thread owns.
struct Loop {
    /// The client's end, then the server's: a frame read at index `i` goes in direction `i`.
    ports: [Port; 2],
    engine: Engine,
    origin: Instant,
    watch: Arc<Watch>,
    requests: Arc<Mutex<Vec<Request>>>,
    wake_up: PipeReader,
    on_their_way: BinaryHeap<Reverse<Waiting>>,
    /// Frames queued so far: keeps those due at the same instant in order.
    sequence: u64,
}

impl Loop {
    fn run(mut self) {
        let ended = self
            .relay_until_stopped()
            .map_err(|error| error.to_string());
        self.watch.lock().relay_ended = Some(ended);
        self.watch.notify();
    }

    fn relay_until_stopped(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; LARGEST_FRAME];
        loop {
            self.wait()?;
            for request in self.take_requests() {
                match request {
                    Request::Stop => return Ok(()),
                    Request::Established => self.tell_established(),
                }
            }
            for (from, direction) in [(0, Direction::ToServer), (1, Direction::ToClient)] {
                // The bound lets the other end and the queue have their turn in a flood.
                for _ in 0..BURST {
                    let Some(length) = self.ports[from].receive(&mut buffer)? else {
                        break;
                    };
                    self.offer(direction, &buffer[..length]);
                    self.send_due()?;
                }
            }
            let due = self.engine.poll(self.elapsed());
            self.queue(due);
            self.send_due()?;
            self.watch.notify();
        }
    }

    fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.origin)
    }

    /// Sleeps until a frame, a request, or the next frame's time comes.
    fn wait(&mut self) -> io::Result<()> {
        let next = self
            .on_their_way
            .peek()
            .map(|Reverse(waiting)| waiting.delivery.at);
        let next = [next, self.engine.next_due()].into_iter().flatten().min();
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            // Rounded up: a wait of zero while something is due in half a millisecond would spin.
            let left = next
                .saturating_sub(self.elapsed())
                .as_micros()
                .div_ceil(1000);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.ports[0].as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ports[1].as_fd(), PollFlags::POLLIN),
            PollFd::new(self.wake_up.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let woken = fds[2].any().unwrap_or(false);
        if woken {
            let mut bytes = [0; 64];
            // Whatever was written only meant "look": how much is read does not matter.
            let _read: usize = self.wake_up.read(&mut bytes)?;
        }
        Ok(())
    }

    fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell_established(&mut self) {
        let flows = u32::try_from(self.engine.clients().len()).unwrap_or(u32::MAX);
        for flow in 0..flows {
            let deliveries = self.engine.established(self.elapsed(), flow);
            self.queue(deliveries);
        }
        self.watch.lock().attackers_told = true;
    }

    fn offer(&mut self, direction: Direction, frame: &[u8]) {
        let at = self.elapsed();
        let offered = self.engine.offer(at, direction, frame.to_vec());
        let mut trace = self.watch.lock();
        trace.offered(at, direction, frame, offered.decision, &offered.records);
        drop(trace);
        self.queue(offered.deliveries);
    }

    fn queue(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            if matches!(delivery.origin, Origin::Forged { .. }) {
                self.watch.lock().forgeries_due += 1;
            }
            self.on_their_way.push(Reverse(Waiting {
                sequence: self.sequence,
                delivery,
            }));
            self.sequence += 1;
        }
    }

    fn send_due(&mut self) -> io::Result<()> {
        while let Some(Reverse(waiting)) = self.on_their_way.peek() {
            let at = self.elapsed();
            if waiting.delivery.at > at {
                return Ok(());
            }
            let Some(Reverse(Waiting { delivery, .. })) = self.on_their_way.pop() else {
                break;
            };
            let to = match delivery.direction {
                Direction::ToServer => &self.ports[1],
                Direction::ToClient => &self.ports[0],
            };
            let taken = to.send(&delivery.frame)?;
            let mut trace = self.watch.lock();
            if taken {
                trace.delivered(at, delivery.direction, delivery.frame, delivery.origin);
            } else {
                trace.lost_by_lab(at, delivery.direction, &delivery.origin);
            }
        }
        Ok(())
    }
}

/// A frame on its way; ordered by time, then by when it was queued.
struct Waiting {
    sequence: u64,
    delivery: Delivery,
}

impl Waiting {
    const fn key(&self) -> (Duration, u64) {
        (self.delivery.at, self.sequence)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Bytes of the largest frame a veth can carry.
const LARGEST_FRAME: usize = 65_536 + 14;
/// Frames read from one end before the other has its turn.
const BURST: usize = 64;
