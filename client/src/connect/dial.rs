//! From a name's addresses to one connection: each address gets a short head start over the next,
//! and the first that answers decides. A datagram into the void gives no error, so trying them
//! strictly one after another would cost a handshake timeout each.
//!
//! The main thread waits; a thread per address shakes hands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dtls::{
    ClientConfig, ConnectError, Counter, DtlsConnector, DtlsStream, HandshakeError, Stats,
    StreamHandle,
};

use crate::advice::advice;
use crate::clock::now;
use crate::exit::{ENVIRONMENT, FAILED, USAGE};
use crate::interrupt::Interrupt;

/// Over the next address. RFC 8305 §5 recommends 250 ms; a handshake has two round trips.
const HEAD_START: Duration = Duration::from_millis(300);

/// A person wants to know then what goes on.
const LONG: Duration = Duration::from_secs(2);

/// Why no address gave a connection.
#[derive(Debug, thiserror::Error)]
#[error("{peer}: failed to {error}{}", advice(error, *silent, *unreachable))]
pub(crate) struct DialError {
    peer: SocketAddr,
    error: ConnectError,
    /// Not one datagram came back.
    silent: bool,
    /// ICMP said that nothing listens there, or that there is no way.
    unreachable: bool,
}

impl DialError {
    fn new(peer: SocketAddr, error: ConnectError, stats: &Stats) -> Self {
        Self {
            peer,
            error,
            silent: stats.get(Counter::DatagramsReceived) == 0,
            unreachable: is_unreachable(stats),
        }
    }

    /// The exit code it asks for.
    pub(crate) fn exit_code(&self) -> u8 {
        match &self.error {
            ConnectError::Config(_) => USAGE,
            ConnectError::Socket { .. }
            | ConnectError::NoFreePort { .. }
            | ConnectError::Handshake(HandshakeError::Io(_)) => ENVIRONMENT,
            _ => FAILED,
        }
    }

    /// Whether another address may do better: this one gave no answer at all.
    fn is_no_answer(&self) -> bool {
        matches!(
            &self.error,
            ConnectError::Socket { .. }
                | ConnectError::NoFreePort { .. }
                | ConnectError::Handshake(HandshakeError::TimedOut { .. })
        )
    }
}

/// Whether ICMP said so.
fn is_unreachable(stats: &Stats) -> bool {
    stats.get(Counter::IcmpOnReceive) + stats.get(Counter::IcmpOnSend) > 0
}

/// Connects to the first address that answers. `waiting` is called once if that takes long, with
/// whether the network calls an address unreachable.
pub(crate) fn dial(
    config: &ClientConfig,
    name: &str,
    addresses: &[SocketAddr],
    interrupt: &Interrupt,
    waiting: impl FnOnce(bool),
) -> Result<DtlsStream, DialError> {
    let long = now() + LONG;
    let mut waiting = Some(waiting);
    let mut counters: Vec<Arc<Stats>> = Vec::new();
    thread::scope(|scope| {
        let (sender, outcomes) = crossbeam_channel::unbounded();
        let mut running: Vec<(usize, StreamHandle)> = Vec::new();
        let mut start = |slot: usize, counters: &mut Vec<Arc<Stats>>| {
            let peer = addresses[slot];
            // A connector each: its counters then tell of this address alone.
            let connector = DtlsConnector::new(config.clone());
            let stats = connector.stats();
            counters.push(Arc::clone(&stats));
            let sender = sender.clone();
            match connector.prepare(name, peer, None) {
                Ok(outgoing) => {
                    interrupt.watch(slot, &outgoing.handle());
                    running.push((slot, outgoing.handle()));
                    scope.spawn(move || {
                        let outcome = outgoing.connect();
                        let outcome = outcome.map_err(|error| DialError::new(peer, error, &stats));
                        // Nobody waits any more if another address was faster.
                        drop(sender.send((slot, outcome)));
                    });
                }
                Err(error) => {
                    let error = DialError::new(peer, error, &stats);
                    drop(sender.send((slot, Err(error))));
                }
            }
        };
        start(0, &mut counters);
        let (mut started, mut ended) = (1, 0);
        let mut first_error = None;
        let (winner, decided) = loop {
            let mut wait = if started < addresses.len() {
                HEAD_START
            } else {
                Duration::MAX
            };
            let left = long.saturating_duration_since(now());
            if left.is_zero() {
                if let Some(waiting) = waiting.take() {
                    waiting(counters.iter().any(|stats| is_unreachable(stats)));
                }
            } else {
                wait = wait.min(left);
            }
            match outcomes.recv_timeout(wait) {
                Ok((slot, Err(error))) if error.is_no_answer() => {
                    ended += 1;
                    // Of several the first is the one the resolver prefers.
                    let error = first_error.take().unwrap_or(error);
                    if ended == addresses.len() {
                        break (slot, Err(error));
                    }
                    first_error = Some(error);
                }
                Ok(decided) => break decided,
                Err(_) => {}
            }
            if started < addresses.len() {
                start(started, &mut counters);
                started += 1;
            }
        };
        for (slot, handle) in running {
            if slot != winner {
                handle.stop();
            }
        }
        decided
    })
}
