//! Heartbeats (RFC 6520): "are you there?", asked and answered beside OpenSSL, which dropped them in
//! 1.1.1 and for which a heartbeat record is a fatal surprise.
//!
//! ```text
//! in    datagram ─► RecordFilter ─ type 24 ─► Protection::open ─► Message::parse ─► Heartbeat
//! out   Heartbeat ─► OpenSSL seals one byte ─► slot keeps header, drops the rest = Placeholder
//!                    Protection::seal(Placeholder, message) ─► slot ─► datagram
//! ```
//!
//! A heartbeat record needs a record number and a nonce that OpenSSL will never use again, and only
//! OpenSSL can give one up. So it is asked to seal one byte of application data, the placeholder;
//! the heartbeat is sealed under the number and nonce that the placeholder used up. What makes that
//! sound:
//!
//! 1. *The placeholder never leaves.* Under one nonce two plaintexts are sealed; with both
//!    ciphertexts an observer of AES-GCM could compute the authentication key. The slot is told
//!    before the write to withhold application data, and while it does, it copies nothing of such
//!    a record but the header and the explicit nonce, which the heartbeat carries anyway. The
//!    placeholder's ciphertext and tag exist in OpenSSL's buffer alone: no queue, no variable of
//!    ours could send them. The slot never refuses a write, so OpenSSL never keeps one for later.
//! 2. *One nonce seals one heartbeat.* A [`Placeholder`](protection::Placeholder) cannot be copied
//!    and sealing consumes it. A request that is sent again takes a new one.
//! 3. *The keys cannot change.* Renegotiation is refused, so all data lies in epoch 1, and a
//!    placeholder of another epoch is not used. The keys come from the session's master secret and
//!    both randoms as in RFC 5246 §6.3, and are wiped when the connection is dropped.
//! 4. *Nothing is believed unauthenticated.* A record whose tag is wrong, or whose number was seen
//!    (a window of 64, as in RFC 6347 §4.1.2.6), is counted and otherwise as if it had not come.
//!    Its number is invisible to OpenSSL's own window, which knows gaps as lost records; the
//!    content type is authenticated, so neither window's records can be replayed through the other.
//! 5. *A length is only ever compared.* `payload_length` and 16 bytes of padding must fit into what
//!    was decrypted (the check whose absence was Heartbleed); an answer carries a slice of the
//!    received message, not a count of bytes.
//! 6. *Answers amplify nothing.* An answer is never longer than its request, never longer than a
//!    datagram may be, and there are at most [`ANSWERS_PER_SECOND`].
//!
//! Runs on the thread that owns the connection; time is an argument.

pub(crate) mod extension;
pub(crate) mod message;
pub(crate) mod protection;
mod replay;

use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::SslRef;

use crate::stats::{Counter, Stats};
use crate::sys::ssl::RetransmissionTimer;

use super::record::Record;
use extension::PeerMode;
use message::{Kind, Message, OVERHEAD};
use protection::Protection;
use replay::Window;

/// What a probe found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// The peer answered.
    Alive {
        /// From the first request to the answer: more than a round trip if the first was lost.
        rtt: Duration,
    },
    /// No answer came in time: the peer is gone, or datagrams do not get there or back. Data that
    /// arrived meanwhile says which.
    Silent,
    /// The peer cannot be asked: heartbeats were not agreed on in the handshake, or it forbade
    /// requests.
    NotNegotiated,
}

/// Answers per second at most; a peer that asks more often gets none for the rest of the second.
/// RFC 6520 §3 allows one request in flight, so an honest one needs a round trip for each.
const ANSWERS_PER_SECOND: u32 = 10;

/// Random bytes by which an answer is recognised: enough that no answer fits two probes.
const PAYLOAD: usize = 16;

/// One connection's heartbeats; exists only where both ends agreed on them.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    protection: Protection,
    peer: PeerMode,
    /// RFC 6520 §3: the same as for flights.
    schedule: RetransmissionTimer,
    seen: Window,
    probe: Option<Probe>,
    verdict: Option<Verdict>,
    /// When the present second of answering began, and the answers in it.
    answers: Option<(Instant, u32)>,
}

/// The one request in flight.
#[derive(Debug)]
struct Probe {
    payload: [u8; PAYLOAD],
    /// When it was first sent.
    asked: Instant,
    resend: Instant,
    timer: Duration,
    /// A time beyond the clock's range is for ever.
    give_up: Option<Instant>,
    cause: Cause,
}

/// Who wanted to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The application.
    Application,
    /// The policy: the idle timeout passed, or ICMP called the peer unreachable.
    Policy,
}

/// How the last probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Alive { rtt: Duration },
    Silent { since: Instant, cause: Cause },
}

/// What an incoming heartbeat record was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Dropped and counted; nothing is known to have come from the peer.
    Noise,
    /// Authentic: the peer was there a moment ago.
    Peer,
    /// The same, and it wants this message back.
    Request(Vec<u8>),
}

impl Heartbeat {
    /// After the handshake: `None` if heartbeats were not agreed on. Unanswered requests are sent
    /// again by `schedule`.
    ///
    /// # Errors
    /// OpenSSL is out of memory.
    pub(crate) fn negotiated(
        ssl: &SslRef,
        schedule: RetransmissionTimer,
    ) -> Result<Option<Self>, ErrorStack> {
        let Some(peer) = extension::peer_mode(ssl) else {
            return Ok(None);
        };
        let protection = Protection::of(ssl)?;
        Ok(protection.map(|protection| Self {
            protection,
            peer,
            schedule,
            seen: Window::default(),
            probe: None,
            verdict: None,
            answers: None,
        }))
    }

    /// The keys.
    pub(crate) fn protection(&self) -> &Protection {
        &self.protection
    }

    /// Whether the peer takes requests.
    pub(crate) fn may_ask(&self) -> bool {
        self.peer == PeerMode::AllowedToSend
    }

    /// Starts a probe and returns whether a request must be sent now. One that is in flight goes
    /// on with the new timeout instead: RFC 6520 §3 allows no second.
    pub(crate) fn probe(&mut self, cause: Cause, timeout: Duration, now: Instant) -> bool {
        self.verdict = None;
        let give_up = now.checked_add(timeout);
        if let Some(probe) = &mut self.probe {
            probe.give_up = give_up;
            return false;
        }
        let mut payload = [0; PAYLOAD];
        if openssl::rand::rand_bytes(&mut payload).is_err() {
            // Without randomness no padding can be made either, so no request will leave.
            log::debug!("no randomness for a heartbeat");
        }
        let timer = self.schedule.after(Duration::ZERO);
        self.probe = Some(Probe {
            payload,
            asked: now,
            resend: now + timer,
            timer,
            give_up,
            cause,
        });
        true
    }

    /// The request in flight as a message with new padding.
    ///
    /// # Errors
    /// OpenSSL has no randomness.
    pub(crate) fn request(&self) -> Result<Option<Vec<u8>>, ErrorStack> {
        let payload = self.probe.as_ref().map(|probe| &probe.payload);
        payload
            .map(|payload| message::write(Kind::Request, payload))
            .transpose()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let probe = self.probe.as_ref()?;
        let give_up = probe.give_up.unwrap_or(probe.resend);
        Some(probe.resend.min(give_up))
    }

    /// Gives up a probe whose time is over; returns whether its request must be sent again.
    pub(crate) fn handle_timeout(&mut self, now: Instant, stats: &Stats) -> bool {
        let Some(probe) = &mut self.probe else {
            return false;
        };
        if probe.give_up.is_some_and(|give_up| give_up <= now) {
            self.verdict = Some(Verdict::Silent {
                since: now,
                cause: probe.cause,
            });
            self.probe = None;
            stats.count(Counter::ProbesUnanswered);
            return false;
        }
        if probe.resend > now {
            return false;
        }
        probe.timer = self.schedule.after(probe.timer);
        probe.resend = now + probe.timer;
        true
    }

    /// Whether a request is in flight.
    pub(crate) fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// What the last probe found; `None` while one goes on, or before the first.
    pub(crate) fn liveness(&self) -> Option<Liveness> {
        self.verdict.map(|verdict| match verdict {
            Verdict::Alive { rtt } => Liveness::Alive { rtt },
            Verdict::Silent { .. } => Liveness::Silent,
        })
    }

    /// When a probe of the policy ended in silence, if it was the last one.
    pub(crate) fn found_silent(&self) -> Option<Instant> {
        match self.verdict {
            Some(Verdict::Silent {
                since,
                cause: Cause::Policy,
            }) => Some(since),
            _ => None,
        }
    }

    /// Takes a record of the heartbeat type. An answer must not be longer than `limit`.
    pub(crate) fn receive(
        &mut self,
        record: &Record<'_>,
        limit: usize,
        now: Instant,
        stats: &Stats,
    ) -> Heard {
        match self.judge(record, limit, now) {
            Ok(heard) => {
                if heard == Heard::Peer {
                    stats.count(Counter::HeartbeatResponsesReceived);
                }
                heard
            }
            Err((reason, heard)) => {
                stats.count(reason);
                heard
            }
        }
    }

    fn judge(
        &mut self,
        record: &Record<'_>,
        limit: usize,
        now: Instant,
    ) -> Result<Heard, (Counter, Heard)> {
        if !self.seen.is_new(record.sequence) {
            return Err((Counter::DroppedHeartbeatReplayed, Heard::Noise));
        }
        let Some(plaintext) = self.protection.open(record) else {
            return Err((Counter::DroppedHeartbeatForged, Heard::Noise));
        };
        self.seen.mark(record.sequence);
        // From here on the peer itself sent it, whatever it thinks a heartbeat is.
        let Some(message) = Message::parse(&plaintext) else {
            return Err((Counter::DroppedHeartbeatMalformed, Heard::Peer));
        };
        match message.kind {
            Kind::Response => match &self.probe {
                Some(probe) if probe.payload == message.payload => {
                    self.verdict = Some(Verdict::Alive {
                        rtt: now.saturating_duration_since(probe.asked),
                    });
                    self.probe = None;
                    Ok(Heard::Peer)
                }
                _ => Err((Counter::DroppedHeartbeatUnasked, Heard::Peer)),
            },
            Kind::Request => {
                let fits = message.payload.len() + OVERHEAD <= limit;
                if !fits || !self.may_answer(now) {
                    return Err((Counter::DroppedHeartbeatExcess, Heard::Peer));
                }
                message::write(Kind::Response, message.payload)
                    .map(Heard::Request)
                    .map_err(|_| (Counter::DroppedHeartbeatExcess, Heard::Peer))
            }
        }
    }

    fn may_answer(&mut self, now: Instant) -> bool {
        let (began, given) = match self.answers {
            Some((began, given))
                if now.saturating_duration_since(began) < Duration::from_secs(1) =>
            {
                (began, given)
            }
            _ => (now, 0),
        };
        self.answers = Some((began, given + 1));
        given < ANSWERS_PER_SECOND
    }
}
