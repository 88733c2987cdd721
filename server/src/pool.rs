//! The worker threads: made when needed up to a limit, used again, ended when long idle.
//!
//! A thread that serves its next connection saves some 40 µs over a new one. Room for a connection
//! and a thread to run it are the same thing here: there is room while a worker is idle or another
//! may be made, and a worker becomes idle only after its connection's socket is closed. So nothing
//! is queued that no worker waits for, and no second count can disagree with the first.
//!
//! ```text
//! listener thread ── submit ──┬─► new worker ────► serve ──► idle ──┬─► gone after IDLE_TIME
//!                             └─► last idle worker ───────────────► ┴─► serve …
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Sender;
use dtls::{Incoming, StreamHandle};

use crate::worker::{self, Context};

/// How long a worker waits for its next connection. Long enough that a steady trickle keeps its
/// threads, short enough that the memory of a rush is given back.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// A handshake in OpenSSL 3.6 with RSA-4096 certificates on both sides touches 20 KiB, in a debug
/// build too; the rest is for a panic that prints its backtrace. Only touched pages cost memory.
const STACK_BYTES: usize = 128 * 1024;

/// Names a worker in the pool, and in its thread's name.
pub(crate) type WorkerId = u64;

/// All workers of the server.
#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    context: Context,
    state: Mutex<State>,
    /// Rung whenever a worker has ended.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    workers: BTreeMap<WorkerId, Worker>,
    next_id: WorkerId,
    /// The way to each worker that waits for a connection. The last one to fall idle is the first
    /// to be used again: its stack and its arena are still in the processor's caches.
    idle: Vec<(WorkerId, Sender<Incoming>)>,
    /// No further connection is taken.
    draining: bool,
    /// Connections are closed as soon as they can be.
    stopping: bool,
    /// While draining: threads that have nothing left to do but to exit.
    exiting: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Worker {
    thread: JoinHandle<()>,
    /// Stops its present connection.
    connection: Option<StreamHandle>,
}

/// Why a connection found no worker; it is dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The limit is reached, or the pool drains.
    #[error("no worker is free for another connection")]
    NoRoom,
    /// The system allows no further thread.
    #[error(
        "cannot start a worker thread: {0}; lower --max-connections, or raise the limit on threads \
         (ulimit -u, or TasksMax in a systemd unit)"
    )]
    Spawn(#[from] io::Error),
}

impl Pool {
    /// A pool of no threads yet.
    pub(crate) fn new(limit: usize, context: Context) -> Self {
        Self {
            limit,
            context,
            state: Mutex::new(State {
                workers: BTreeMap::new(),
                next_id: 0,
                idle: Vec::new(),
                draining: false,
                stopping: false,
                exiting: Vec::new(),
            }),
            ended: Condvar::new(),
        }
    }

    /// Whether one more connection would find a worker.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        !state.draining && (!state.idle.is_empty() || state.workers.len() < self.limit)
    }

    /// Connections allowed at once.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Connections being served or about to be.
    pub(crate) fn connections(&self) -> usize {
        let state = self.lock();
        state.workers.len() - state.idle.len()
    }

    /// Gives a connection to an idle worker or to a new one. Listener thread only.
    ///
    /// # Errors
    /// There is no room, or no thread to be had.
    pub(crate) fn submit(self: &Arc<Self>, incoming: Incoming) -> Result<(), SubmitError> {
        let mut state = self.lock();
        if state.draining {
            return Err(SubmitError::NoRoom);
        }
        if let Some((_, job)) = state.idle.pop() {
            // It waits, or will look once more under the lock.
            return job.try_send(incoming).map_err(|_| SubmitError::NoRoom);
        }
        if state.workers.len() >= self.limit {
            return Err(SubmitError::NoRoom);
        }
        let id = state.next_id;
        state.next_id += 1;
        let pool = Arc::clone(self);
        // It cannot end, and look for itself in the list, before the lock is released.
        let thread = thread::Builder::new()
            .name(format!("worker-{id}"))
            .stack_size(STACK_BYTES)
            .spawn(move || pool.work(id, incoming))?;
        let connection = None;
        state.workers.insert(id, Worker { thread, connection });
        Ok(())
    }

    /// Takes no further connection, and lets idle workers go. Those at work go when their connection
    /// ends.
    pub(crate) fn refuse(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.idle.clear();
    }

    /// Closes every connection; returns how many there were.
    pub(crate) fn stop_all(&self) -> usize {
        let mut state = self.lock();
        state.stopping = true;
        let open = state
            .workers
            .values()
            .filter_map(|worker| worker.connection.as_ref());
        open.map(StreamHandle::stop).count()
    }

    /// Waits until all workers have ended, or for `timeout`. Returns how many have not.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> usize {
        let state = self.lock();
        let busy = |state: &mut State| !state.workers.is_empty();
        let state = match timeout {
            Some(timeout) => self
                .ended
                .wait_timeout_while(state, timeout, busy)
                .map(|(state, _)| state)
                .unwrap_or_else(|poisoned| poisoned.into_inner().0),
            None => self
                .ended
                .wait_while(state, busy)
                .unwrap_or_else(PoisonError::into_inner),
        };
        state.workers.len()
    }

    /// Waits for the threads of workers that have ended while draining.
    pub(crate) fn join(&self) {
        let exiting = std::mem::take(&mut self.lock().exiting);
        for thread in exiting {
            // A panic has been reported by the thread itself.
            drop(thread.join());
        }
    }

    /// A worker thread.
    fn work(&self, id: WorkerId, first: Incoming) {
        let _entry = Entry { pool: self, id };
        let mut next = Some(first);
        while let Some(incoming) = next {
            worker::serve(incoming, &self.context, |handle| self.enlist(id, handle));
            next = self.next_job(id);
        }
    }

    /// Makes the worker's connection stoppable until the guard is dropped. The handle shares the
    /// connection's socket, which stays open for as long as either lives.
    fn enlist(&self, id: WorkerId, handle: StreamHandle) -> Enlisted<'_> {
        let mut state = self.lock();
        if state.stopping {
            handle.stop();
        } else if let Some(worker) = state.workers.get_mut(&id) {
            worker.connection = Some(handle);
        }
        Enlisted { pool: self, id }
    }

    /// Waits for the worker's next connection; `None` ends the worker.
    fn next_job(&self, id: WorkerId) -> Option<Incoming> {
        let (job, jobs) = crossbeam_channel::bounded(1);
        {
            let mut state = self.lock();
            if state.draining {
                return None;
            }
            state.idle.push((id, job));
        }
        if let Ok(incoming) = jobs.recv_timeout(IDLE_TIME) {
            return Some(incoming);
        }
        let mut state = self.lock();
        state.idle.retain(|(idle, _)| *idle != id);
        // One may have come after this worker stopped waiting.
        jobs.try_recv().ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that can be stopped from outside for as long as this lives.
pub(crate) struct Enlisted<'a> {
    pool: &'a Pool,
    id: WorkerId,
}

impl Drop for Enlisted<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if let Some(worker) = state.workers.get_mut(&self.id) {
            worker.connection = None;
        }
    }
}

/// A worker's place in the list; given back however the thread ends, be it by a panic.
struct Entry<'a> {
    pool: &'a Pool,
    id: WorkerId,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let worker = state.workers.remove(&self.id);
        if state.draining {
            state.exiting.extend(worker.map(|worker| worker.thread));
        }
        drop(state);
        self.pool.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::backtrace::Backtrace;

    use super::*;

    #[test]
    fn a_panic_with_a_backtrace_fits_on_a_workers_stack_above_a_handshake() {
        // An overflow would end the whole process.
        let worker = thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
            let handshake = std::hint::black_box([1_u8; 32 * 1024]);
            let backtrace = Backtrace::force_capture().to_string();
            assert!(backtrace.is_empty(), "{backtrace} {}", handshake[0]);
        });
        let panic = worker.unwrap().join().unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("pool.rs"), "{text}");
    }
}
