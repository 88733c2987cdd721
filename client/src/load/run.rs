//! What all threads of a run share: the plan, the servers, how far the run is, whether there is hope.
//! Any of its threads.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dtls::ClientConfig;

use crate::interrupt::Interrupt;

use super::measure::Tally;
use super::plan::Plan;

/// A server under load.
#[derive(Debug)]
pub(crate) struct Destination<'a> {
    pub(crate) config: ClientConfig,
    pub(crate) name: &'a str,
    pub(crate) peer: SocketAddr,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) plan: Plan,
    pub(crate) targets: Vec<Destination<'a>>,
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) began: Instant,
    pub(crate) progress: Progress,
    /// Connections open at once in an open loop, at most.
    pub(crate) room: u32,
    /// Of a window of the report.
    pub(crate) width: Duration,
    /// When all connections of the mode hold were made.
    pub(crate) all_made: OnceLock<Instant>,
    ports: Mutex<HashSet<SocketAddr>>,
    tallies: Vec<Mutex<Tally>>,
}

/// How far the run is.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) begun: AtomicU32,
    pub(crate) ended: AtomicU32,
    pub(crate) failed: AtomicU32,
    /// Handshakes, or what stands in their place.
    pub(crate) made: AtomicU32,
    settled: AtomicU32,
    /// When the first connection that was meant to begin and never did was meant to, in nanoseconds
    /// since the start.
    cut_at: AtomicU64,
    /// Whether the open loop had to wait for room.
    pub(crate) was_full: AtomicBool,
    heard: AtomicBool,
    refused: AtomicU64,
    gave_up: AtomicBool,
    /// Nobody listens at the other end.
    pub(crate) nobody: AtomicBool,
}

impl Progress {
    /// Nothing done, nothing left out.
    fn new() -> Self {
        Self {
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            made: AtomicU32::new(0),
            settled: AtomicU32::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            was_full: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            gave_up: AtomicBool::new(false),
            nobody: AtomicBool::new(false),
        }
    }

    /// A datagram came.
    pub(crate) fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// ICMP says that nobody is there.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a run ended before all connections were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stopped {
    /// By a signal.
    Interrupted,
    /// Nothing but failures.
    GaveUp,
}

/// ICMP alone ends a run after this long without any datagram from the server.
const REFUSED_FOR: Duration = Duration::from_secs(3);

/// Failures that end an open loop in which nothing came through.
const HOPELESS: u32 = 10;

impl<'a> Run<'a> {
    /// Nothing done yet.
    pub(crate) fn new(
        plan: Plan,
        targets: Vec<Destination<'a>>,
        sources: Vec<IpAddr>,
        interrupt: &'a Interrupt,
        room: u32,
        began: Instant,
    ) -> Self {
        let (windows, width) = plan.windows();
        let tallies = (0..plan.threads).map(|_| Mutex::new(Tally::new(windows, width)));
        Self {
            targets,
            sources,
            interrupt,
            began,
            progress: Progress::new(),
            room,
            width,
            all_made: OnceLock::new(),
            ports: Mutex::default(),
            tallies: tallies.collect(),
            plan,
        }
    }

    /// The tally of a worker.
    pub(crate) fn tally(&self, slot: u16) -> MutexGuard<'_, Tally> {
        self.tallies[usize::from(slot)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The sum so far.
    pub(crate) fn sum(&self) -> Tally {
        let (windows, width) = self.plan.windows();
        let mut sum = Tally::new(windows, width);
        for slot in 0..self.plan.threads {
            sum.add(&self.tally(slot));
        }
        sum.cut_short(Duration::from_nanos(
            self.progress.cut_at.load(Ordering::Relaxed),
        ));
        sum
    }

    /// The window of the report that a time belongs to.
    pub(crate) fn window_of(&self, time: Instant) -> usize {
        let since = time.saturating_duration_since(self.began);
        usize::try_from(since.as_nanos() / self.width.as_nanos()).unwrap_or(usize::MAX)
    }

    /// Where a connection comes from; `None`: the system chooses.
    pub(crate) fn source_of(
        &self,
        number: u32,
        peer: SocketAddr,
    ) -> std::io::Result<Option<SocketAddr>> {
        if self.sources.is_empty() {
            return Ok(None);
        }
        let source = self.sources[number as usize % self.sources.len()];
        if source.is_ipv4() == peer.is_ipv4() {
            Ok(Some(SocketAddr::new(source, 0)))
        } else {
            Err(std::io::Error::other(format!(
                "--source {source} and the server {peer} are of different families"
            )))
        }
    }

    /// Whether an earlier connection had this address and port.
    pub(crate) fn has_seen(&self, local: SocketAddr) -> bool {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        // Beyond this it is certain, and the set shall not grow without bound.
        ports.len() >= MOST_PORTS || !ports.insert(local)
    }

    /// A connection's handshake has ended, well or not.
    pub(crate) fn settled(&self, well: bool, now: Instant) {
        if well {
            self.progress.made.fetch_add(1, Ordering::Relaxed);
        }
        let settled = self.progress.settled.fetch_add(1, Ordering::Relaxed) + 1;
        if self.plan.connections == Some(settled) {
            // Only one of all counts to the end.
            self.all_made.get_or_init(|| now);
        }
    }

    /// A connection that was meant to begin at this time since the start never will.
    pub(crate) fn cut_short(&self, since: Duration) {
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.progress.cut_at.fetch_min(since, Ordering::Relaxed);
    }

    /// Whether no more connections shall begin.
    pub(crate) fn is_over(&self) -> bool {
        self.interrupt.happened() || self.progress.gave_up.load(Ordering::Acquire)
    }

    /// Gives up if nothing has come through and nothing will.
    pub(crate) fn look_for_hope(&self, now: Instant) {
        let progress = &self.progress;
        if progress.made.load(Ordering::Relaxed) > 0 {
            return;
        }
        let enough = match (self.plan.concurrency, self.plan.connections) {
            (Some(at_once), _) => at_once,
            (None, Some(connections)) => connections.min(HOPELESS),
            (None, None) => HOPELESS,
        };
        let begun = progress.begun.load(Ordering::Relaxed);
        let more = self
            .plan
            .connections
            .is_none_or(|connections| begun < connections);
        let failed = more && progress.failed.load(Ordering::Relaxed) >= enough;
        let nobody = !progress.heard.load(Ordering::Relaxed)
            && progress.refused.load(Ordering::Relaxed) > 0
            && now.saturating_duration_since(self.began) >= REFUSED_FOR;
        if nobody {
            progress.nobody.store(true, Ordering::Relaxed);
        }
        if failed || nobody {
            progress.gave_up.store(true, Ordering::Release);
        }
    }

    /// Why connections are missing, if any are.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        if self.interrupt.happened() {
            Some(Stopped::Interrupted)
        } else if self.progress.gave_up.load(Ordering::Relaxed) {
            Some(Stopped::GaveUp)
        } else {
            None
        }
    }

    /// The number of the next connection of a closed loop, from 0, if one is left.
    pub(crate) fn next(&self, now: Instant) -> Option<u32> {
        if let Some(duration) = self.plan.duration
            && now >= self.began + duration
        {
            return None;
        }
        let next =
            self.progress
                .begun
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |begun| {
                    self.plan
                        .connections
                        .is_none_or(|connections| begun < connections)
                        .then(|| begun.checked_add(1))
                        .flatten()
                });
        if next.is_err() {
            self.cut_short(now.saturating_duration_since(self.began));
        }
        next.ok()
    }
}

const MOST_PORTS: usize = 1 << 22;
