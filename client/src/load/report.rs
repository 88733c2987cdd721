//! What a run found, ready to print. Main thread.
//!
//! As JSON it is one object; times are milliseconds, `null` stands for what was not measured:
//!
//! ```text
//! target, peer             HOST:PORT as typed, and the address used
//! plan                     connections, concurrency, messages, size, timeout_ms,
//!                          handshake_timeout_ms, resume, hold_ms
//! stopped                  null, "interrupted" (by a signal) or "gave_up" (nothing but failures)
//! completed, failed,       connections that ended in order with all messages sent, ended otherwise,
//! interrupted              were stopped by a signal; fewer than plan.connections if stopped
//! handshakes, resumed      handshakes completed, and how many of them resumed a session
//! retransmissions          flights sent again by this side
//! sent                     messages sent: received + lost, and at most one for each interrupted
//! received                 answered within the timeout by a perfect copy
//! lost                     not answered so
//! late                     of those lost: answered by a perfect copy after the timeout
//! duplicated, corrupted    further perfect copies; answers that are no copy of anything sent
//! seconds                  from the first hello to the last close
//! handshakes_per_second, messages_per_second
//! latency                  full_handshake, resumed_handshake, message: each null or
//!                          { count, p50_ms, p90_ms, p99_ms, p99_9_ms, max_ms }
//! failures                 [ { stage, error, count } ], stage is "socket", "handshake",
//!                          "exchange" or "hold"
//! ```

pub(crate) mod json;
pub(crate) mod text;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Percentiles;
use super::outcome::Stage;
use super::plan::Plan;
use super::tally::Tally;
use super::worker::Stopped;

/// The whole report; see the module for each field.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    target: String,
    peer: SocketAddr,
    plan: Plan,
    stopped: Option<Stopped>,
    completed: u64,
    failed: u64,
    interrupted: u64,
    handshakes: u64,
    resumed: u64,
    retransmissions: u64,
    sent: u64,
    received: u64,
    lost: u64,
    late: u64,
    duplicated: u64,
    corrupted: u64,
    seconds: f64,
    handshakes_per_second: f64,
    messages_per_second: f64,
    latency: Latencies,
    failures: Vec<Failures>,
}

#[derive(Debug, Serialize)]
struct Latencies {
    full_handshake: Option<Percentiles>,
    resumed_handshake: Option<Percentiles>,
    message: Option<Percentiles>,
}

/// All connections that failed for the same reason.
#[derive(Debug, Serialize)]
struct Failures {
    stage: Stage,
    error: String,
    count: u64,
}

impl Report {
    /// From what was counted in `took`.
    pub(crate) fn new(
        target: String,
        peer: SocketAddr,
        plan: &Plan,
        tally: &Tally,
        took: Duration,
        stopped: Option<Stopped>,
    ) -> Self {
        let messages = &tally.messages;
        let mut failures: Vec<Failures> = tally
            .failures
            .iter()
            .map(|(failure, &count)| Failures {
                stage: failure.stage,
                error: failure.error.clone(),
                count,
            })
            .collect();
        failures.sort_by_key(|failures| std::cmp::Reverse(failures.count));
        Self {
            target,
            peer,
            plan: *plan,
            stopped,
            completed: tally.completed,
            failed: tally.failed,
            interrupted: tally.interrupted,
            handshakes: tally.handshakes,
            resumed: tally.resumed,
            retransmissions: tally.retransmissions,
            sent: messages.sent,
            received: messages.received,
            lost: messages.lost,
            late: messages.late,
            duplicated: messages.duplicated,
            corrupted: messages.corrupted,
            seconds: took.as_secs_f64(),
            handshakes_per_second: rate(tally.handshakes, took),
            messages_per_second: rate(messages.received, took),
            latency: Latencies {
                full_handshake: tally.full_handshake.percentiles(),
                resumed_handshake: tally.resumed_handshake.percentiles(),
                message: tally.message.percentiles(),
            },
            failures,
        }
    }

    /// Whether the run did all it was asked for and nothing was amiss.
    pub(crate) fn is_good(&self) -> bool {
        self.stopped.is_none() && self.failed == 0 && self.lost == 0 && self.corrupted == 0
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more digits than 53 bits hold"
)]
fn rate(count: u64, took: Duration) -> f64 {
    if took.is_zero() {
        0.0
    } else {
        count as f64 / took.as_secs_f64()
    }
}
