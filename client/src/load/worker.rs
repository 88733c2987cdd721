//! One of the threads that make connections.
//!
//! A worker waits for all of its connections' sockets and for the next time at which something is
//! due: a connection to begin, a message, a retransmission. So thousands of connections need no
//! thread each, and a server that stalls does not keep new ones from beginning.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::{Enumerate, Skip, StepBy};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use dtls::core::Connection;
use dtls::{Session, Stats};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use super::plan::Mode;
use crate::clock::now;

use super::attempt::Attempt;
use super::measure::Tally;
use super::outcome::{Failure, Outcome, Stage};
use super::pacer::Pacer;
use super::run::Run;
use super::socket::Inbox;

/// What a worker's connections need of it.
#[derive(Debug)]
pub(crate) struct Hands<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) slot: u16,
    pub(crate) stats: Arc<Stats>,
    /// The latest of each target.
    pub(crate) sessions: Vec<Option<Session>>,
    /// The first hello to each target, for a flood.
    hellos: Vec<Option<Vec<u8>>>,
    pub(crate) inbox: Inbox,
    pub(crate) answer: Vec<u8>,
    pub(crate) message: Vec<u8>,
    pub(crate) scratch: Vec<u8>,
}

impl Hands<'_> {
    /// Its tally.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.run.tally(self.slot)
    }

    /// A first hello, made once.
    pub(crate) fn hello(&mut self, target: usize, now: Instant) -> Result<Vec<u8>, Outcome> {
        if let Some(hello) = &self.hellos[target] {
            return Ok(hello.clone());
        }
        let destination = &self.run.targets[target];
        let (config, peer) = (&destination.config, destination.peer);
        let hello = Connection::connect(config, destination.name, peer, None, &self.stats, now)
            .ok()
            .and_then(|mut connection| {
                connection.handshake(now).ok()?;
                connection.transmit()
            });
        let hello = hello.ok_or_else(|| {
            Outcome::Failed(Failure {
                stage: Stage::Socket,
                error: "OpenSSL makes no hello".to_owned(),
            })
        })?;
        Ok(self.hellos[target].insert(hello).clone())
    }
}

/// One thread's part.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    hands: Hands<'a>,
    epoll: Epoll,
    /// Connections by their places, which epoll's events name.
    places: Vec<Option<Place>>,
    free: Vec<usize>,
    open: u32,
    shaking: u32,
    /// When to look at a place; at most one counts for each, see [`Place::armed`].
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    arrivals: Arrivals,
    released: bool,
}

#[derive(Debug)]
struct Place {
    attempt: Attempt,
    /// The earliest of its entries in `due`.
    armed: Option<Instant>,
    shaking: bool,
}

/// A worker's share of all connections, with their numbers.
type Share = StepBy<Skip<Enumerate<Pacer>>>;

/// When connections of a worker begin.
#[derive(Debug)]
enum Arrivals {
    /// In time: those of all workers, of which every `threads`th is this one's.
    Open {
        pacer: Box<Share>,
        next: Option<(u32, Instant)>,
        room: u32,
    },
    /// So many at once.
    Closed { at_once: u32, exhausted: bool },
}

/// The longest wait: a signal and the other workers' news are looked for so often.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Connections begun, and events taken, before the others get their turn.
const ROUND: usize = 64;

impl<'a> Worker<'a> {
    /// Ready to work.
    pub(crate) fn new(run: &'a Run<'a>, slot: u16) -> Result<Self, Errno> {
        let (plan, threads) = (&run.plan, u32::from(run.plan.threads));
        let share = |whole: u32| whole / threads + u32::from(u32::from(slot) < whole % threads);
        let arrivals = match (&plan.rate, plan.concurrency) {
            (Some(rate), _) => Arrivals::Open {
                pacer: Box::new(
                    Pacer::new(rate, plan.arrivals, plan.seed)
                        .enumerate()
                        .skip(slot.into())
                        .step_by(plan.threads.into()),
                ),
                next: None,
                room: share(run.room).max(1),
            },
            (None, at_once) => Arrivals::Closed {
                at_once: share(at_once.unwrap_or(1)),
                exhausted: false,
            },
        };
        let mut worker = Self {
            hands: Hands {
                run,
                slot,
                stats: Arc::default(),
                sessions: vec![None; run.targets.len()],
                hellos: vec![None; run.targets.len()],
                inbox: Inbox::new(),
                answer: vec![0; 1 << 14],
                message: vec![0; plan.size.into()],
                scratch: vec![0; plan.size.into()],
            },
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            places: Vec::new(),
            free: Vec::new(),
            open: 0,
            shaking: 0,
            due: BinaryHeap::new(),
            arrivals,
            released: false,
        };
        worker.take_next_arrival();
        Ok(worker)
    }

    /// Makes connections until none is left to make and all have ended.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub(crate) fn work(mut self) -> Result<(), Errno> {
        let began = now();
        let mut events = vec![EpollEvent::empty(); 4 * ROUND];
        loop {
            let at = now();
            self.hands.run.look_for_hope(at);
            if self.hands.run.is_over() {
                self.end_early(at);
                break;
            }
            self.begin_due(at);
            self.do_due();
            self.release_parked();
            if self.open == 0 && self.is_exhausted() {
                break;
            }
            self.wait()?;
            let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                let place = usize::try_from(event.data()).unwrap_or(usize::MAX);
                self.touch(place, Attempt::on_readable);
            }
        }
        let wall = now().saturating_duration_since(began).as_secs_f64();
        if let Ok(spent) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) {
            let mut tally = self.hands.tally();
            tally.processor = spent.into();
            tally.busiest = tally.processor.as_secs_f64() / wall.max(1e-9);
        }
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        match &self.arrivals {
            Arrivals::Open { next, .. } => next.is_none(),
            Arrivals::Closed { exhausted, .. } => *exhausted,
        }
    }

    /// Begins the connections whose time has come, as far as there is room.
    fn begin_due(&mut self, at: Instant) {
        for _ in 0..ROUND {
            let begin = match &mut self.arrivals {
                Arrivals::Open { next, room, .. } => match *next {
                    Some((number, intended)) if intended <= at => {
                        if self.open >= *room {
                            self.hands
                                .run
                                .progress
                                .was_full
                                .store(true, Ordering::Relaxed);
                            None
                        } else {
                            self.hands
                                .run
                                .progress
                                .begun
                                .fetch_add(1, Ordering::Relaxed);
                            Some((number, intended))
                        }
                    }
                    _ => None,
                },
                Arrivals::Closed { at_once, exhausted } => {
                    // In the mode hold, those that are made make room for others.
                    let busy = if self.hands.run.plan.mode == Mode::Hold {
                        self.shaking
                    } else {
                        self.open
                    };
                    if busy >= *at_once || *exhausted {
                        None
                    } else {
                        let number = self.hands.run.next(at);
                        *exhausted = number.is_none();
                        number.map(|number| (number, at))
                    }
                }
            };
            let Some((number, intended)) = begin else {
                return;
            };
            self.take_next_arrival();
            let at = now();
            match Attempt::begin(number, intended.min(at), at, &mut self.hands) {
                Ok(attempt) => self.settle_in(attempt),
                Err(outcome) => {
                    if outcome.is_before_handshake() {
                        self.hands.run.settled(false, at);
                    }
                    let window = self.hands.run.window_of(intended);
                    self.count(outcome, window);
                }
            }
        }
    }

    fn take_next_arrival(&mut self) {
        let run = self.hands.run;
        if let Arrivals::Open { pacer, next, .. } = &mut self.arrivals {
            *next = pacer.next().and_then(|(number, since)| {
                let number = u32::try_from(number).ok()?;
                if run.plan.duration.is_some_and(|duration| since >= duration) {
                    return None;
                }
                if run.plan.connections.is_some_and(|most| number >= most) {
                    run.cut_short(since);
                    return None;
                }
                Some((number, run.began + since))
            });
        }
    }

    /// Gives a connection a place.
    fn settle_in(&mut self, attempt: Attempt) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
        let added = self.epoll.add(attempt.socket(), event);
        self.open += 1;
        self.shaking += u32::from(attempt.is_shaking());
        self.places[place] = Some(Place {
            shaking: attempt.is_shaking(),
            attempt,
            armed: None,
        });
        // It may have to look at its time at once, or have failed to be watched.
        self.touch(place, |attempt, hands| match added {
            Ok(()) => None,
            Err(error) => {
                drop(attempt.stop(hands));
                Some(Outcome::no_socket(&error.into()))
            }
        });
    }

    /// Lets a connection do something, and sees to what follows.
    fn touch(
        &mut self,
        place: usize,
        act: impl FnOnce(&mut Attempt, &mut Hands<'_>) -> Option<Outcome>,
    ) {
        let Some(Some(found)) = self.places.get_mut(place) else {
            // An event that was on its way when the connection ended.
            return;
        };
        let outcome = act(&mut found.attempt, &mut self.hands);
        let shaking = outcome.is_none() && found.attempt.is_shaking();
        if found.shaking && !shaking {
            self.shaking -= 1;
        } else if shaking && !found.shaking {
            self.shaking += 1;
        }
        found.shaking = shaking;
        if let Some(outcome) = outcome {
            let window = found.attempt.window;
            self.places[place] = None;
            self.free.push(place);
            self.open -= 1;
            self.count(outcome, window);
            return;
        }
        // An entry that is too early is looked at in vain once; one that is too late is no use.
        let deadline = found.attempt.deadline();
        if let Some(at) = deadline
            && found.armed.is_none_or(|armed| at < armed)
        {
            found.armed = Some(at);
            self.due.push(Reverse((at, place)));
        }
    }

    fn count(&self, outcome: Outcome, window: usize) {
        let progress = &self.hands.run.progress;
        if matches!(outcome, Outcome::Failed(_)) {
            progress.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.hands.tally().count(outcome, window);
        progress.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Does what is due.
    fn do_due(&mut self) {
        for _ in 0..4 * ROUND {
            let at = now();
            let Some(&Reverse((due, place))) = self.due.peek().filter(|due| due.0.0 <= at) else {
                return;
            };
            self.due.pop();
            let Some(Some(found)) = self.places.get_mut(place) else {
                continue;
            };
            if found.armed != Some(due) {
                // Of an earlier connection in this place, or overtaken by an earlier time.
                continue;
            }
            found.armed = None;
            let is_due = found
                .attempt
                .deadline()
                .is_some_and(|deadline| deadline <= at);
            self.touch(place, |attempt, hands| {
                if is_due {
                    attempt.on_time(at, hands)
                } else {
                    None
                }
            });
        }
    }

    /// Once all connections of the mode hold are made, says how long each has to stay: they are
    /// probed one after another.
    fn release_parked(&mut self) {
        let run = self.hands.run;
        let Some(&all_made) = run.all_made.get().filter(|_| !self.released) else {
            return;
        };
        self.released = true;
        for place in 0..self.places.len() {
            let parked = self.places[place].as_ref();
            if parked.is_some_and(|found| found.attempt.is_parked()) {
                let until =
                    all_made + run.plan.hold + PROBE_GAP * u32::try_from(place).unwrap_or(0);
                self.touch(place, |attempt, _| {
                    attempt.unpark(until);
                    None
                });
            }
        }
    }

    fn wait(&mut self) -> Result<(), Errno> {
        let at = now();
        let arrival = match &self.arrivals {
            Arrivals::Open { next, room, .. } if self.open < *room => next.map(|next| next.1),
            _ => None,
        };
        let due = self.due.peek().map(|due| due.0.0);
        let next = [arrival, due].into_iter().flatten().min();
        let wait = next.map_or(LONGEST_WAIT, |next| next.saturating_duration_since(at));
        if wait.is_zero() {
            return Ok(());
        }
        // Unlike epoll_wait's own, this timeout has nanoseconds.
        let mut watched = [PollFd::new(
            std::os::fd::AsFd::as_fd(&self.epoll.0),
            PollFlags::POLLIN,
        )];
        match ppoll(
            &mut watched,
            Some(TimeSpec::from(wait.min(LONGEST_WAIT))),
            None,
        ) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends all connections, in order; where nobody listens, as failures that say so.
    fn end_early(&mut self, at: Instant) {
        let run = self.hands.run;
        let left_out = match &self.arrivals {
            Arrivals::Open { next, .. } => next.map(|(_, intended)| intended),
            Arrivals::Closed { exhausted, .. } => (!exhausted).then_some(at),
        };
        if let Some(intended) = left_out {
            run.cut_short(intended.saturating_duration_since(run.began));
        }
        let nobody = self.hands.run.progress.nobody.load(Ordering::Relaxed);
        for place in 0..self.places.len() {
            self.touch(place, |attempt, hands| {
                Some(if nobody && attempt.is_shaking() {
                    attempt.abandon(at, hands)
                } else {
                    attempt.stop(hands)
                })
            });
        }
    }
}

/// Between the probes of held connections of one worker.
const PROBE_GAP: Duration = Duration::from_millis(1);
