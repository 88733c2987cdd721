//! The engine between real sockets: one thread per run, in the wire's namespace.
//!
//! It reads frames from either end, asks the engine what becomes of them, and sends what the engine
//! returns when its time has come. It owns both packet sockets, the engine and the queue of frames
//! on their way; the run's thread talks to it through a pipe that wakes it and a short list of requests.
//!
//! Where the kernel makes the links, every datagram is handed to them at once, and a second pair of
//! sockets watches what comes out.

mod behind;
mod port;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::clock::Clock;
use crate::netem;
use crate::netns::{NamespaceError, Network, WIRE_TO_CLIENT, WIRE_TO_SERVER};
use crate::observe::Watch;
use crate::packet::Direction;
use crate::wire::{Cause, Delivery, Engine, Origin};
use behind::Behind;
use port::{Port, Sees};

/// Who makes the links between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The engine.
    Engine,
    /// Qdiscs on the wire's interfaces.
    Kernel,
}

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
    /// `clock` tells the time of everything that is seen.
    ///
    /// # Errors
    ///
    /// [`StartError`], when a socket cannot be had.
    pub fn start(
        network: &Network,
        engine: Engine,
        links: Links,
        clock: Clock,
    ) -> Result<Self, StartError> {
        network.wire.enter()?;
        let open = |sees| -> Result<[Port; 2], StartError> {
            let open = |interface| {
                Port::open(interface, sees).map_err(|source| StartError::Port { interface, source })
            };
            Ok([open(WIRE_TO_CLIENT)?, open(WIRE_TO_SERVER)?])
        };
        let ports = open(Sees::Arriving)?;
        let behind = match links {
            Links::Engine => None,
            Links::Kernel => Some(Behind::new(open(Sees::Leaving)?)),
        };
        let (wake_up, waker) = io::pipe().map_err(StartError::Pipe)?;
        let watch = Arc::new(Watch::default());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let loop_ = Loop {
            ports,
            behind,
            engine,
            clock,
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
    /// The kernel's links, where it makes them.
    behind: Option<Behind>,
    engine: Engine,
    clock: Clock,
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
        let mut trace = self.watch.lock();
        if let Some(behind) = &self.behind {
            trace.settle(&behind.fates());
        }
        trace.relay_ended = Some(ended);
        drop(trace);
        self.watch.notify();
    }

    fn relay_until_stopped(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; LARGEST_FRAME];
        let mut buffer_behind = vec![0; LARGEST_FRAME];
        loop {
            self.wait()?;
            self.look_behind(&mut buffer_behind)?;
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
                    // What this answers has come out before it was sent.
                    self.look_behind(&mut buffer_behind)?;
                    self.offer(direction, &buffer[..length])?;
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
        self.clock.elapsed()
    }

    /// Sleeps until a frame, a request, or the next frame's time comes.
    fn wait(&mut self) -> io::Result<()> {
        let next = self
            .on_their_way
            .peek()
            .map(|Reverse(waiting)| waiting.delivery.at);
        let next = [next, self.engine.next_due()].into_iter().flatten().min();
        let timeout = next.map(|next| {
            let left = next.saturating_sub(self.elapsed());
            TimeSpec::from_duration(self.clock.real(left))
        });
        let watched = [
            self.wake_up.as_fd(),
            self.ports[0].as_fd(),
            self.ports[1].as_fd(),
        ];
        let behind = self.behind.iter().flat_map(Behind::fds);
        let mut fds: Vec<PollFd<'_>> = watched
            .into_iter()
            .chain(behind)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let woken = fds[0].any().unwrap_or(false);
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

    fn offer(&mut self, direction: Direction, frame: &[u8]) -> io::Result<()> {
        let at = self.elapsed();
        let mut offered = self.engine.offer(at, direction, frame.to_vec());
        let mut priority = 0;
        if self.behind.is_some()
            && let Some(decision) = &mut offered.decision
        {
            match decision.cause {
                Cause::Rule(_) => priority = netem::PASSES,
                _ => decision.cause = Cause::Netem,
            }
        }
        let mut trace = self.watch.lock();
        trace.offered(at, direction, frame, offered.decision, &offered.records);
        drop(trace);
        if self.behind.is_some() {
            for delivery in offered.deliveries {
                self.hand_to_kernel(&delivery, priority)?;
            }
        } else {
            self.queue(offered.deliveries);
        }
        Ok(())
    }

    fn hand_to_kernel(&mut self, delivery: &Delivery, priority: i32) -> io::Result<()> {
        if let Some(behind) = &mut self.behind {
            behind.enters(delivery.direction, &delivery.origin, &delivery.frame);
        }
        let to = self.port_to(delivery.direction);
        // What a full queue does not take is lost by the link, and is seen not to come out.
        let _taken: bool = to.send_with_priority(&delivery.frame, priority)?;
        Ok(())
    }

    /// Notes what has come out behind the kernel's links.
    fn look_behind(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        while let Some(behind) = &mut self.behind {
            let Some((direction, frame, origin)) = behind.next(buffer)? else {
                break;
            };
            let at = self.elapsed();
            self.watch.lock().delivered(at, direction, frame, origin);
        }
        Ok(())
    }

    fn port_to(&self, direction: Direction) -> &Port {
        match direction {
            Direction::ToServer => &self.ports[1],
            Direction::ToClient => &self.ports[0],
        }
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
            let taken = self.port_to(delivery.direction).send(&delivery.frame)?;
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
