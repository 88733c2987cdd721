//! A connection's handshake: steps, timeouts, the MTU of flights, and how it ends. Runs on the thread
//! that owns the connection.

use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::ErrorCode;

use super::{Connection, Dial, HEADERS_V4, HEADERS_V6, Progress, stack_of};
use crate::core::filter::Phase;
use crate::core::heartbeat::Heartbeat;
use crate::core::timers::Due;
use crate::error::HandshakeError;
use crate::stats::Counter;
use crate::{sys, verify};

/// OpenSSL may return "want read" with records of the same datagram still unread (it does so after
/// an early ChangeCipherSpec). More than a flight has would only be spinning.
const MAX_STEPS: u32 = 16;

impl Connection {
    /// Goes on with the handshake as far as the datagrams received allow.
    ///
    /// # Errors
    /// The handshake failed; transmit once more, there may be an alert for the peer.
    pub fn handshake(&mut self, now: Instant) -> Result<Progress, HandshakeError> {
        let waiting = self.stream.get_ref().waiting().count();
        // OpenSSL looks at its timer before it reads, and would do this unseen: the other end's own
        // repetition often comes in the same instant, and sometimes the answer does.
        let again = if sys::ssl::get_timeout(self.stream.ssl()) == Some(Duration::ZERO)
            && self.write_again()?
        {
            Some(self.stream.get_mut().withdraw_after(waiting))
        } else {
            None
        };
        for _ in 0..MAX_STEPS {
            sys::ssl::clear_errors();
            let step = self.stream.do_handshake();
            self.follow_phase();
            match step {
                Ok(()) => {
                    if let Err(reason) = verify::conclude(self.stream.ssl()) {
                        self.stats.count(Counter::HandshakesFailed);
                        return Err(HandshakeError::Verification { reason });
                    }
                    self.establish(now)?;
                    return Ok(Progress::Established);
                }
                Err(error) if error.code() == ErrorCode::WANT_READ => {
                    let more =
                        self.stream.get_mut().is_full() || sys::ssl::has_pending(self.stream.ssl());
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    self.stats.count(Counter::HandshakesFailed);
                    return Err(self.handshake_error(&error));
                }
            }
        }
        if let Some(again) = again
            && self.stream.get_ref().waiting().count() == waiting
        {
            // An expiry seen here is none for `handle_timeout` any more, so it counts here. The new
            // handshake has no timer yet: it does not come here again.
            if self.begin_anew(now)? {
                return Ok(Progress::Waiting);
            }
            self.stream.get_mut().put_back(again);
            self.count_retransmission();
        }
        self.unread = false;
        self.timers
            .retransmit_in(now, sys::ssl::get_timeout(self.stream.ssl()));
        Ok(Progress::Waiting)
    }

    /// Sends the last flight or the heartbeat request again if that is due.
    ///
    /// # Errors
    /// The handshake has taken too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), HandshakeError> {
        if let Some(reconnect) = &mut self.reconnect {
            reconnect.handle_timeout(now);
        }
        self.beat(now);
        match (self.timers.due(now), self.alert) {
            (Some(Due::Handshake | Due::AlertGrace), Some(alert)) => {
                self.stats.count(Counter::HandshakesFailed);
                return Err(HandshakeError::Alert {
                    name: sys::ssl::alert_name(alert.description),
                });
            }
            (Some(Due::Handshake | Due::AlertGrace), None) => return Err(self.timed_out()),
            (Some(Due::Retransmission), _) => {}
            (Some(Due::Idle) | None, _) => return Ok(()),
        }
        if sys::ssl::get_timeout(self.stream.ssl()) == Some(Duration::ZERO) {
            if self.begin_anew(now)? {
                return Ok(());
            }
            if self.write_again()? {
                self.count_retransmission();
            }
        }
        self.timers
            .retransmit_in(now, sys::ssl::get_timeout(self.stream.ssl()));
        Ok(())
    }

    /// Writes the last flight again, in shorter datagrams if it was lost before; OpenSSL's timer has
    /// expired. Says whether there is one.
    fn write_again(&mut self) -> Result<bool, HandshakeError> {
        self.lower_mtu_after_expiry();
        match sys::ssl::handle_timeout(sys::ssl::ssl_mut(&mut self.stream)) {
            sys::ssl::Expired::Resent => Ok(true),
            sys::ssl::Expired::NotYet => Ok(false),
            sys::ssl::Expired::GaveUp => Err(self.timed_out()),
        }
    }

    fn count_retransmission(&mut self) {
        self.cost.retransmissions += 1;
        self.stats.count(Counter::Retransmissions);
    }

    /// A client that OpenSSL has answering a forged `HelloVerifyRequest` would repeat a hello that
    /// its server keeps refusing, and ignore the server's own question. When another cookie was
    /// seen and no answer came for two expiries, nor for as long as the questions took, so that a slow
    /// but honest server is waited for, it begins anew. `true`: it did.
    fn begin_anew(&mut self, now: Instant) -> Result<bool, HandshakeError> {
        let answered = sys::ssl::pending_cipher(self.stream.ssl()).is_some();
        let Some(contended) = self.contended.as_mut().filter(|_| !answered) else {
            return Ok(false);
        };
        contended.expiries += 1;
        // Both questions were there by then, and so no round trip takes longer: where the path is slow, each
        // repeated hello draws a question of its own, and its cookie may be another one.
        let waits = |dial: &mut Box<Dial>| {
            let round_trip = contended.at.saturating_duration_since(dial.began);
            let waited = now.saturating_duration_since(contended.at);
            contended.expiries >= 2 && waited >= round_trip
        };
        let Some(dial) = self.dial.take_if(waits) else {
            return Ok(false);
        };
        let (config, session) = (&dial.config, dial.session.as_ref());
        let mut anew = Self::connect(config, &dial.name, self.peer, session, &self.stats, now)
            .map_err(HandshakeError::Tls)?;
        anew.timers.inherit(&self.timers);
        anew.started = self.started;
        anew.cost = self.cost;
        anew.cost.retransmissions += 1;
        anew.limit_link_mtu(self.link_mtu);
        *self = anew;
        self.stats.count(Counter::HandshakesBegunAnew);
        self.handshake(now)?;
        Ok(true)
    }

    /// Keeps the filter's phase in step with OpenSSL's read epoch.
    fn follow_phase(&mut self) {
        if self.filter.phase() != Phase::Plaintext {
            return;
        }
        let ssl = self.stream.ssl();
        if let Some(cipher) = sys::ssl::pending_cipher(ssl) {
            self.filter.learn_cipher(cipher.name());
        }
        // "Read change cipher spec", on either side.
        if ssl.state_string() == "TRCCS" {
            self.filter.enter(Phase::Changing);
        }
    }

    fn establish(&mut self, now: Instant) -> Result<(), HandshakeError> {
        if self.took.is_some() {
            return Ok(());
        }
        let heartbeat = Heartbeat::negotiated(self.stream.ssl(), self.settings.retransmission)
            .map_err(HandshakeError::Tls)?;
        self.heartbeat = heartbeat.map(Box::new);
        self.dial = None;
        self.took = Some(now.saturating_duration_since(self.started));
        self.filter.enter(Phase::Established);
        self.timers.established(now);
        // What was lowered in case the path is narrow was lowered for flights; the kernel may
        // fragment what is left.
        let mtu = self.datagram_mtu(self.link_mtu);
        self.set_datagram_mtu(mtu).map_err(HandshakeError::Tls)?;
        self.max_payload = sys::ssl::data_mtu(self.stream.ssl());
        self.draining = true;
        // Data may lie behind Finished already.
        let slot = self.stream.get_mut();
        // The end's last flight is still here.
        slot.waiting().for_each(|length| self.cost.sent(length));
        slot.shrink();
        self.unread = true;
        self.stats.count(Counter::HandshakesCompleted);
        if self.stream.ssl().session_reused() {
            self.stats.count(Counter::HandshakesResumed);
        }
        Ok(())
    }

    fn handshake_error(&self, error: &openssl::ssl::Error) -> HandshakeError {
        match verify::refusal(self.stream.ssl()) {
            Some(reason) => HandshakeError::Verification { reason },
            None => HandshakeError::Tls(stack_of(error)),
        }
    }

    fn timed_out(&self) -> HandshakeError {
        self.stats.count(Counter::HandshakesTimedOut);
        HandshakeError::TimedOut {
            after: self.settings.handshake_timeout,
            state: self.stream.ssl().state_string_long(),
            retransmissions: self.cost.retransmissions,
            hint: if sys::ssl::pending_cipher(self.stream.ssl())
                .is_some_and(|cipher| cipher.name().contains("PSK"))
            {
                "; a wrong pre-shared key or identity looks like this: compare them at both ends"
            } else {
                ""
            },
        }
    }

    /// A flight lost twice may have been too long for the path: fall back to the links every
    /// IPv6 and IPv4 path must carry (RFC 6347 §4.1.1.1). OpenSSL does so only if it may ask the
    /// BIO, which would break flights into 256-byte pieces.
    fn lower_mtu_after_expiry(&mut self) {
        self.expiries += 1;
        let link = match self.expiries {
            2 => 1280,
            3 => 576,
            _ => return,
        };
        let lowered = self.datagram_mtu(link.min(self.link_mtu));
        // An allocation failure would show at the next write; the flight itself is unharmed.
        if self.set_datagram_mtu(lowered).is_err() {
            sys::ssl::clear_errors();
        }
    }

    /// Builds datagrams for a link of so many bytes from here on, IP header included, if that is less than
    /// before: the interface has refused a longer one. What has been written already stays as long as
    /// it is.
    ///
    /// An ICMP error is no reason to call this: anyone can forge one.
    pub fn limit_link_mtu(&mut self, link_mtu: u16) {
        if link_mtu >= self.link_mtu {
            return;
        }
        self.link_mtu = link_mtu;
        let lowered = self.datagram_mtu(link_mtu).min(self.mtu);
        if self.set_datagram_mtu(lowered).is_err() {
            // No memory; the next flight and the kernel's fragments make up for it.
            sys::ssl::clear_errors();
        }
        if self.took.is_some() {
            self.max_payload = sys::ssl::data_mtu(self.stream.ssl());
        }
        if let Some(successor) = &mut self.successor {
            successor.limit_link_mtu(link_mtu);
        }
    }

    /// UDP payload bytes on a link of `link_mtu`, on this connection's IP version.
    pub(super) fn datagram_mtu(&self, link_mtu: u16) -> u16 {
        // Every path carries so much: 576 (RFC 1122 §3.3.2), and 1280 (RFC 8200 §5) less what
        // extension headers may take.
        let (headers, carried) = if self.peer.ip().to_canonical().is_ipv4() {
            (HEADERS_V4, 548)
        } else {
            (HEADERS_V6, 1200)
        };
        let told = self.link_mtu.saturating_sub(headers);
        link_mtu.saturating_sub(headers).max(carried.min(told))
    }

    pub(super) fn set_datagram_mtu(&mut self, mtu: u16) -> Result<(), ErrorStack> {
        sys::ssl::ssl_mut(&mut self.stream).set_mtu(mtu.into())?;
        self.mtu = mtu;
        self.stream.get_mut().pack_into(mtu.into());
        Ok(())
    }
}
