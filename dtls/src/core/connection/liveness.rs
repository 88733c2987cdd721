//! A connection's side of heartbeats: probes, answers, and the record numbers they take from
//! OpenSSL. The reasoning stands in [`super::super::heartbeat`].
//!
//! ```text
//! 1. probe               a request is written               transmit, wait until deadline()
//! 2. receive             the answer settles it              liveness()
//! 2. handle_timeout      the request again, or given up     transmit; liveness()
//! ```
//!
//! Runs on the thread that owns the connection.

use std::time::{Duration, Instant};

use crate::core::heartbeat::protection::{Placeholder, Suite};
use crate::core::heartbeat::{Cause, Heard, Liveness};
use crate::core::record::{HEARTBEAT, split_record};
use crate::core::timers::Due;
use crate::stats::Counter;
use crate::sys;

use super::Connection;

impl Connection {
    /// Asks the peer whether it is there; transmit the request. The answer shows in
    /// [`Self::liveness`]; until then [`Self::deadline`] and [`Self::handle_timeout`] send the
    /// request again by the retransmission timer of flights, and give up after `timeout`.
    ///
    /// Says no if the peer cannot be asked. A probe that goes on already is not repeated, it only
    /// gets the new timeout: one request may be in flight (RFC 6520 §3).
    pub fn probe(&mut self, timeout: Duration, now: Instant) -> bool {
        self.start_probe(Cause::Application, timeout, now)
    }

    /// Whether the peer can be asked for a sign of life: heartbeats were agreed on, and it takes
    /// requests.
    #[must_use]
    pub fn may_probe(&self) -> bool {
        self.heartbeat
            .as_ref()
            .is_some_and(|heartbeat| heartbeat.may_ask())
    }

    /// What the last probe found: `None` while it goes on, and before the first.
    #[must_use]
    pub fn liveness(&self) -> Option<Liveness> {
        match &self.heartbeat {
            Some(heartbeat) if heartbeat.may_ask() => heartbeat.liveness(),
            _ => Some(Liveness::NotNegotiated),
        }
    }

    /// Takes an unauthenticated hint that the peer may be gone, such as an ICMP error: probes it if
    /// the configuration says `probe_when_idle`, and else does nothing.
    pub fn suspect(&mut self, now: Instant) {
        // Hints that keep coming must not put the verdict off.
        let policy = self.probe_policy().filter(|_| !self.is_probing());
        if let Some(timeout) = policy {
            self.start_probe(Cause::Policy, timeout, now);
        }
    }

    /// What is due of the probe going on, and a new one when the idle timeout asks for it.
    pub(crate) fn beat(&mut self, now: Instant) {
        let Some(heartbeat) = &mut self.heartbeat else {
            return;
        };
        if heartbeat.is_probing() {
            if heartbeat.handle_timeout(now, &self.stats) {
                self.send_request();
            }
            return;
        }
        let idle = self.timers.due(now) == Some(Due::Idle);
        if idle && !self.found_silent() {
            self.suspect(now);
        }
    }

    /// Whether the idle timeout waits for the outcome of a probe.
    pub(super) fn is_probing(&self) -> bool {
        self.heartbeat
            .as_ref()
            .is_some_and(|heartbeat| heartbeat.is_probing())
    }

    /// When [`Self::beat`] wants to be called.
    pub(super) fn beat_deadline(&self) -> Option<Instant> {
        self.heartbeat.as_ref()?.deadline()
    }

    /// Whether a probe that the policy asked for has stayed unanswered, and nothing has been heard
    /// since.
    pub(super) fn found_silent(&self) -> bool {
        let since = self
            .heartbeat
            .as_ref()
            .and_then(|heartbeat| heartbeat.found_silent());
        since.is_some_and(|since| self.timers.last_heard() < since)
    }

    /// How long the policy waits for an answer; `None` without a policy or a peer to ask.
    pub(super) fn probe_policy(&self) -> Option<Duration> {
        let heartbeat = self.heartbeat.as_ref()?;
        self.settings
            .probe_when_idle
            .filter(|_| heartbeat.may_ask())
    }

    /// Takes the heartbeat records out of a datagram; OpenSSL never sees them.
    pub(super) fn receive_heartbeats(&mut self, datagram: &[u8], now: Instant) {
        let mut rest = datagram;
        while let Some((record, tail)) = split_record(rest) {
            rest = tail;
            if record.content_type != HEARTBEAT || record.epoch != 1 {
                continue;
            }
            // Nor during the handshake (RFC 6520 §3): there are none yet.
            let Some(heartbeat) = &mut self.heartbeat else {
                self.stats.count(Counter::DroppedHeartbeatUnexpected);
                continue;
            };
            match heartbeat.receive(&record, self.max_payload, now, &self.stats) {
                Heard::Noise => {}
                Heard::Peer => self.timers.heard(now),
                Heard::Request(answer) => {
                    self.timers.heard(now);
                    if self.send_heartbeat(&answer) {
                        self.stats.count(Counter::HeartbeatResponsesSent);
                    }
                }
            }
        }
    }

    fn start_probe(&mut self, cause: Cause, timeout: Duration, now: Instant) -> bool {
        let Some(heartbeat) = self.heartbeat.as_mut().filter(|h| h.may_ask()) else {
            return false;
        };
        if heartbeat.probe(cause, timeout, now) {
            self.send_request();
        }
        true
    }

    fn send_request(&mut self) {
        let request = self.heartbeat.as_ref().map(|heartbeat| heartbeat.request());
        if let Some(Ok(Some(request))) = request
            && self.send_heartbeat(&request)
        {
            self.stats.count(Counter::HeartbeatRequestsSent);
        }
    }

    /// Seals a message and queues it. A connection that has failed or said its close_notify gives
    /// no number for it; then it is a lost one.
    fn send_heartbeat(&mut self, message: &[u8]) -> bool {
        let Some(suite) = self
            .heartbeat
            .as_ref()
            .map(|heartbeat| heartbeat.protection().suite())
        else {
            return false;
        };
        let placeholder = self.take_placeholder(suite);
        let sealed = placeholder.and_then(|placeholder| {
            let heartbeat = self.heartbeat.as_ref()?;
            heartbeat.protection().seal(placeholder, message).ok()
        });
        let Some(record) = sealed else { return false };
        self.stream.get_mut().push(record);
        true
    }

    /// Has OpenSSL use up a record number and nonce on one byte that the slot withholds.
    fn take_placeholder(&mut self, suite: Suite) -> Option<Placeholder> {
        sys::ssl::clear_errors();
        // Before the write: from here on the slot lets no application data through.
        self.stream.get_mut().withhold_data(suite);
        let written = self.stream.ssl_write(&[0]);
        let placeholder = self.stream.get_mut().stop_withholding();
        sys::ssl::clear_errors();
        placeholder.filter(|_| written.is_ok())
    }
}

#[cfg(test)]
mod tests;
