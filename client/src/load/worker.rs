//! One of the threads that make connections, and what they share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dtls::{ClientConfig, DtlsConnector, Session};

use crate::interrupt::Interrupt;

use super::exchange::Buffers;
use super::outcome::Outcome;
use super::plan::Plan;
use super::tally::Tally;

/// Tallies: enough that workers seldom wait for each other, few enough that thousands of workers
/// need no histograms of their own.
const SHARDS: u32 = 16;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) plan: Plan,
    pub(crate) config: ClientConfig,
    pub(crate) name: &'a str,
    pub(crate) peer: SocketAddr,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) started: AtomicU32,
    pub(crate) ended: AtomicU32,
    pub(crate) failed: AtomicU32,
    /// Handshakes.
    pub(crate) shaken: AtomicU32,
    shards: Vec<Mutex<Tally>>,
}

/// Why a run ended before all connections were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stopped {
    /// By a signal.
    Interrupted,
    /// Nothing but failures.
    GaveUp,
}

impl<'a> Run<'a> {
    /// Nothing done yet.
    pub(crate) fn new(
        plan: Plan,
        config: ClientConfig,
        name: &'a str,
        peer: SocketAddr,
        interrupt: &'a Interrupt,
    ) -> Self {
        let shards = plan.workers().min(SHARDS);
        Self {
            plan,
            config,
            name,
            peer,
            interrupt,
            started: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            shaken: AtomicU32::new(0),
            shards: (0..shards).map(|_| Mutex::new(Tally::new())).collect(),
        }
    }

    /// The tally of a worker.
    pub(crate) fn tally(&self, slot: u32) -> MutexGuard<'_, Tally> {
        let shard = &self.shards[slot as usize % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next connection to make, from 0, if one is left.
    fn next(&self) -> Option<u32> {
        if self.interrupt.happened() || self.is_hopeless() {
            return None;
        }
        self.started
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |started| {
                (started < self.plan.connections).then_some(started + 1)
            })
            .ok()
    }

    /// As many as run at once have failed, and no handshake has come to its end.
    fn is_hopeless(&self) -> bool {
        self.shaken.load(Ordering::Relaxed) == 0
            && self.failed.load(Ordering::Relaxed) >= self.plan.workers()
    }

    /// Why connections are missing, if any are.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        if self.interrupt.happened() {
            Some(Stopped::Interrupted)
        } else if self.started.load(Ordering::Relaxed) < self.plan.connections {
            Some(Stopped::GaveUp)
        } else {
            None
        }
    }

    /// The sum.
    pub(crate) fn into_tally(self) -> Tally {
        let mut sum = Tally::new();
        for shard in self.shards {
            sum.add(&shard.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }
}

/// One thread's part.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) slot: u32,
    /// A worker's own: what its counters gain during an attempt is that attempt's.
    pub(crate) connector: DtlsConnector,
    pub(crate) session: Option<Session>,
    pub(crate) buffers: Buffers,
}

impl<'a> Worker<'a> {
    /// Ready to work.
    pub(crate) fn new(run: &'a Run<'a>, slot: u32) -> Self {
        Self {
            run,
            slot,
            connector: DtlsConnector::new(run.config.clone()),
            session: None,
            buffers: Buffers::new(run.plan.size.into()),
        }
    }

    /// Makes connections until none is left to make.
    pub(crate) fn work(mut self) {
        while let Some(number) = self.run.next() {
            let outcome = self.attempt(number);
            if matches!(outcome, Outcome::Failed(_)) {
                self.run.failed.fetch_add(1, Ordering::Relaxed);
            }
            self.run.tally(self.slot).count(outcome);
            self.run.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}
