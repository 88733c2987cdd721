//! One deadline out of several timers: OpenSSL's retransmission timer, the handshake deadline, the
//! grace after a plaintext alert, the idle timeout.
//!
//! The socket's receive timeout is only ever a means to wait for this deadline; it decides nothing.
//! Pure: `now` is an argument. Runs on the thread that owns the connection.

use std::time::{Duration, Instant};

/// The timers of one connection.
#[derive(Debug)]
pub(crate) struct Timers {
    retransmit: Option<Instant>,
    handshake: Option<Instant>,
    grace: Option<Instant>,
    idle: Option<Duration>,
    last_heard: Instant,
}

/// Which timer has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// When OpenSSL wants to send its flight again.
    Retransmission,
    /// When the handshake has taken longer than allowed.
    Handshake,
    /// When a plaintext alert was followed by silence.
    AlertGrace,
    /// When an established peer has said nothing for too long.
    Idle,
}

impl Timers {
    /// Starts the handshake timeout.
    pub(crate) fn start(now: Instant, handshake_timeout: Duration) -> Self {
        Self {
            retransmit: None,
            handshake: Some(now + handshake_timeout),
            grace: None,
            idle: None,
            last_heard: now,
        }
    }

    /// Takes over the handshake deadline of the handshake that this one takes the place of.
    pub(crate) fn inherit(&mut self, other: &Self) {
        self.handshake = other.handshake;
    }

    /// Notes OpenSSL's own timer, as it stands at `now`.
    pub(crate) fn retransmit_in(&mut self, now: Instant, left: Option<Duration>) {
        self.retransmit = left.map(|left| now + left);
    }

    /// A plaintext alert arrived: go on for a while, unless the peer goes on too.
    pub(crate) fn start_grace(&mut self, now: Instant, grace: Duration) {
        self.grace.get_or_insert(now + grace);
    }

    /// The peer went on after its alleged alert.
    pub(crate) fn cancel_grace(&mut self) {
        self.grace = None;
    }

    /// The handshake is complete: its timers stop, the idle timeout starts.
    pub(crate) fn established(&mut self, now: Instant) {
        self.retransmit = None;
        self.handshake = None;
        self.grace = None;
        self.last_heard = now;
    }

    /// Sets or clears the idle timeout.
    pub(crate) fn set_idle(&mut self, idle: Option<Duration>) {
        self.idle = idle;
    }

    /// An authenticated datagram arrived.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// When the last authenticated datagram arrived.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// When something other than the idle timeout has to be done, if ever.
    pub(crate) fn deadline_but_idle(&self) -> Option<Instant> {
        self.all()
            .filter(|(_, due)| *due != Due::Idle)
            .map(|(when, _)| when)
            .min()
    }

    /// When something has to be done, if ever.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.all().map(|(when, _)| when).min()
    }

    /// The timer that has expired, the most final first.
    pub(crate) fn due(&self, now: Instant) -> Option<Due> {
        self.all()
            .filter(|(when, _)| *when <= now)
            .map(|(_, due)| due)
            .next()
    }

    fn all(&self) -> impl Iterator<Item = (Instant, Due)> {
        let established = self.handshake.is_none();
        let idle = self
            .idle
            .filter(|_| established)
            .and_then(|idle| self.last_heard.checked_add(idle));
        [
            (self.handshake, Due::Handshake),
            (self.grace, Due::AlertGrace),
            (idle, Due::Idle),
            (self.retransmit, Due::Retransmission),
        ]
        .into_iter()
        .filter_map(|(when, due)| Some((when?, due)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only be had from the clock"
    )]
    fn start() -> (Instant, Timers) {
        let now = Instant::now();
        (now, Timers::start(now, 30 * SECOND))
    }

    #[test]
    fn the_nearest_timer_is_the_deadline_and_the_most_final_one_is_due() {
        let (now, mut timers) = start();
        timers.retransmit_in(now, Some(SECOND));
        assert_eq!(timers.deadline(), Some(now + SECOND));
        assert_eq!(timers.due(now), None);
        assert_eq!(timers.due(now + SECOND), Some(Due::Retransmission));
        assert_eq!(timers.due(now + 30 * SECOND), Some(Due::Handshake));
    }

    #[test]
    fn an_alert_shortens_the_handshake_unless_the_peer_goes_on() {
        let (now, mut timers) = start();
        timers.start_grace(now, 4 * SECOND);
        timers.start_grace(now + SECOND, 4 * SECOND);
        assert_eq!(
            timers.deadline(),
            Some(now + 4 * SECOND),
            "a second alert buys no time"
        );
        assert_eq!(timers.due(now + 4 * SECOND), Some(Due::AlertGrace));
        timers.cancel_grace();
        assert_eq!(timers.deadline(), Some(now + 30 * SECOND));
    }

    #[test]
    fn the_idle_timeout_counts_from_the_last_authenticated_datagram() {
        let (now, mut timers) = start();
        timers.set_idle(Some(5 * SECOND));
        assert_eq!(
            timers.deadline(),
            Some(now + 30 * SECOND),
            "not during the handshake"
        );
        timers.established(now + SECOND);
        timers.heard(now + 3 * SECOND);
        assert_eq!(timers.deadline(), Some(now + 8 * SECOND));
        assert_eq!(timers.due(now + 8 * SECOND), Some(Due::Idle));
    }
}
