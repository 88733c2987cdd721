//! A client that starts over from the same address and port (RFC 6347 §4.2.8).
//!
//! It has lost its keys, so its new ClientHello arrives in the clear on a live connection, where
//! OpenSSL ignores it for ever. But anyone who knows the 4-tuple can send one, so an established
//! connection is left alone until the whole new handshake is complete:
//!
//! ```text
//! 1. ClientHello without cookie     HelloVerifyRequest, no state kept
//! 2. ClientHello with good cookie   a candidate beside the live connection
//! 3. handshake of the candidate     plaintext and protected records go to both
//! 4. Finished                       the candidate succeeds; the live connection is over
//! ```
//!
//! While the live connection is itself still in its handshake there is nothing authenticated to
//! protect, and the candidate of step 2 takes its place at once.
//!
//! Runs on the connection's own thread, without I/O and clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::ServerConfig;
use crate::stats::{Counter, Stats};

use super::connection::{Connection, Progress};
use super::cookie::UnixSeconds;
use super::hello::{Asker, HelloOutcome, HelloVerifier};
use super::record::{HelloRandom, client_hello_random};

/// Hellos looked at per second. A client that starts over sends two; each costs an `SSL`, one with a
/// good cookie a key exchange, and none of them passes the listener's admission.
const HELLOS_PER_SECOND: u32 = 20;

/// Watches the datagrams of one 4-tuple for a client that starts over.
#[derive(Debug)]
pub(crate) struct Reconnect {
    config: Arc<ServerConfig>,
    stats: Arc<Stats>,
    peer: SocketAddr,
    local: SocketAddr,
    /// Of the hello that began the live connection: a replay of it begins nothing.
    live: HelloRandom,
    /// Of the one before, which ended as this one began: a repetition of its hello may still be on its
    /// way.
    previous: Option<HelloRandom>,
    /// Both clocks as they were at that hello, to tell one by the other. Cookies are issued and
    /// verified here alone, so a step of the wall clock meanwhile does no harm.
    began: (UnixSeconds, Instant),
    /// One at most, and it watches for nothing itself.
    candidate: Option<Candidate>,
    answer: Option<Vec<u8>>,
    /// When the present second began, and the hellos in it.
    hellos: (Instant, u32),
}

#[derive(Debug)]
struct Candidate {
    random: HelloRandom,
    connection: Box<Connection>,
}

impl Reconnect {
    /// Watches `peer` at `local`, whose live connection began with `hello` at `began`.
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        stats: Arc<Stats>,
        peer: SocketAddr,
        local: SocketAddr,
        hello: HelloRandom,
        began: (UnixSeconds, Instant),
    ) -> Self {
        Self {
            config,
            stats,
            peer,
            local,
            live: hello,
            previous: None,
            began,
            candidate: None,
            answer: None,
            hellos: (began.1, 0),
        }
    }

    /// Whether [`Self::receive`] has a use for this datagram. The live connection gets it anyway.
    pub(crate) fn concerns(&self, datagram: &[u8]) -> bool {
        self.candidate.is_some()
            || client_hello_random(datagram).is_some_and(|random| !self.has_begun(&random))
    }

    /// Takes a datagram of the peer.
    pub(crate) fn receive(&mut self, datagram: &[u8], now: Instant) {
        let known = self.candidate.as_ref().map(|candidate| candidate.random);
        match client_hello_random(datagram) {
            Some(random) if self.has_begun(&random) => {}
            Some(random) if Some(random) != known => self.hello(datagram, random, now),
            _ => {
                if let Some(candidate) = &mut self.candidate {
                    candidate.connection.receive(datagram, now);
                }
            }
        }
    }

    /// Has the candidate build shorter datagrams, see [`Connection::limit_link_mtu`].
    pub(crate) fn limit_link_mtu(&mut self, link_mtu: u16) {
        if let Some(candidate) = &mut self.candidate {
            candidate.connection.limit_link_mtu(link_mtu);
        }
    }

    /// The candidate, whose handshake goes on as the live connection's.
    pub(crate) fn take_candidate(&mut self) -> Option<Box<Connection>> {
        let candidate = self.candidate.take()?;
        self.previous = Some(std::mem::replace(&mut self.live, candidate.random));
        self.stats.count(Counter::Reconnects);
        Some(candidate.connection)
    }

    /// Goes on with the candidate's handshake. `true`: it is complete, and [`Self::take_candidate`]
    /// has the live connection's successor.
    pub(crate) fn proceed(&mut self, now: Instant) -> bool {
        let Some(candidate) = self.candidate.as_mut() else {
            return false;
        };
        match candidate.connection.handshake(now) {
            Ok(Progress::Waiting) => false,
            Ok(Progress::Established) => true,
            Err(_) => {
                // Its alert, for the client; the handshake has counted the failure.
                self.answer = candidate.connection.transmit();
                self.candidate = None;
                false
            }
        }
    }

    /// The next datagram to send to the peer.
    pub(crate) fn transmit(&mut self) -> Option<Vec<u8>> {
        let candidate = self.candidate.as_mut();
        self.answer
            .take()
            .or_else(|| candidate.and_then(|candidate| candidate.connection.transmit()))
    }

    /// When [`Self::handle_timeout`] wants to be called: a candidate exists.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.candidate.as_ref()?.connection.deadline()
    }

    /// Sends the candidate's flight again if that is due, or gives the candidate up.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let gone = self
            .candidate
            .as_mut()
            .is_some_and(|candidate| candidate.connection.handle_timeout(now).is_err());
        if gone {
            self.candidate = None;
        }
    }

    /// Whether the live connection or the one before began with this hello.
    fn has_begun(&self, random: &HelloRandom) -> bool {
        *random == self.live || self.previous.as_ref() == Some(random)
    }

    fn hello(&mut self, datagram: &[u8], random: HelloRandom, now: Instant) {
        if now.saturating_duration_since(self.hellos.0) >= Duration::from_secs(1) {
            self.hellos = (now, 0);
        }
        self.hellos.1 += 1;
        if self.hellos.1 > HELLOS_PER_SECOND {
            self.stats.count(Counter::HellosRefused);
            return;
        }
        let (unix_then, then) = self.began;
        let unix_now = unix_then + now.saturating_duration_since(then).as_secs();
        // Made for this hello and gone with it: an unverified hello pins nothing.
        let verifier = HelloVerifier::new(self.config.latest(), Arc::clone(&self.stats));
        let asker = Asker {
            peer: self.peer,
            local: self.local,
            now: unix_now,
            live: true,
        };
        let outcome = verifier.and_then(|mut verifier| verifier.examine(datagram, asker, now));
        match outcome {
            Ok(HelloOutcome::Answer(answer)) => {
                self.stats.count(Counter::HelloVerifyRequests);
                self.answer = Some(answer);
            }
            Ok(HelloOutcome::Verified(hello)) => match hello.accept() {
                Ok(connection) => self.candidate = Some(Candidate { random, connection }),
                Err(_) => self.stats.count(Counter::HellosRejected),
            },
            Ok(HelloOutcome::Noise) => {}
            Err(_) => self.stats.count(Counter::HellosRejected),
        }
    }
}
