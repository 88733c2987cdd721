//! The handshake of a connection: begins it, counts what it took, says what follows. Runs on the
//! worker's thread.

use std::time::{Duration, Instant};

use dtls::core::Connection;
use dtls::{ConnectError, HandshakeCost, HandshakeError};

use super::{Attempt, State};
use crate::clock;
use crate::load::measure::{Agreed, Phase};
use crate::load::outcome::{Failure, Outcome, Stage};
use crate::load::plan::Mode;
use crate::load::worker::Hands;

impl Attempt {
    /// Begins a handshake.
    pub(super) fn shake(&mut self, now: Instant, hands: &mut Hands<'_>) -> Result<(), Outcome> {
        let target = &hands.run.targets[self.target];
        let resumes = hands.run.plan.resume || self.mode == Mode::Resume;
        let session = hands.sessions[self.target]
            .as_ref()
            .filter(|_| resumes && !self.again);
        let connection = Connection::connect(
            &target.config,
            target.name,
            target.peer,
            session,
            &hands.stats,
            now,
        );
        self.connection = Some(Box::new(connection.map_err(|error| {
            Outcome::Failed(Failure {
                stage: Stage::Socket,
                error: format!("OpenSSL: {error}"),
            })
        })?));
        self.begun = now;
        self.state = State::Shaking;
        match self.advance(now, hands) {
            Some(outcome) => Err(outcome),
            None => Ok(()),
        }
    }

    /// The handshake is complete: counts it and says what comes next.
    pub(super) fn established(&mut self, now: Instant, hands: &mut Hands<'_>) -> Option<Outcome> {
        let cost = self.count_cost(hands);
        // With what the last flight took to check.
        let now = clock::now().max(now);
        let plan = &hands.run.plan;
        let connection = self.connection.as_ref()?;
        let resumed = connection.is_resumed();
        {
            let mut tally = hands.tally();
            if tally.handshakes == 0 {
                // All connections make the same offer: one of each worker shows what comes of it.
                tally.agreed.insert(Agreed::of(&connection.info()));
            }
            tally.handshakes += 1;
            tally.resumed += u64::from(resumed);
            let (wire, phase) = if resumed {
                (&mut tally.abbreviated, Phase::ResumedHandshake)
            } else {
                (&mut tally.full, Phase::FullHandshake)
            };
            wire.count(&cost);
            if self.again {
                tally[Phase::Reconnect].record(now.saturating_duration_since(self.begun));
            } else {
                tally[phase].record(now.saturating_duration_since(self.intended));
            }
        }
        self.settle(now, hands);
        // Only then is it worth the memory.
        if plan.resume || plan.mix.has(Mode::Resume) {
            let session = self.connection.as_ref()?.session();
            let place = &mut hands.sessions[self.target];
            *place = session.or(place.take());
        }
        let messages = match self.mode {
            Mode::Echo => plan.messages,
            Mode::Reconnect if self.again => 1,
            Mode::Reconnect => {
                // As after a restart: the old keys are gone, the port is the same.
                self.again = true;
                return self.shake(now, hands).err();
            }
            Mode::Hold => {
                self.state = State::Parked;
                return None;
            }
            _ => 0,
        };
        let interval = plan
            .message_rate
            .map(|rate| Duration::from_secs_f64(1.0 / rate));
        self.exchange.want(messages, now, interval);
        self.state = State::Talking;
        None
    }

    /// Ends a handshake that has no hope: nothing listens at the other end.
    pub(crate) fn abandon(&mut self, now: Instant, hands: &mut Hands<'_>) -> Outcome {
        let waited = now.saturating_duration_since(self.begun);
        let error = HandshakeError::TimedOut {
            after: Duration::from_secs(waited.as_secs()),
            state: "given up",
            retransmissions: 0,
            hint: "",
        };
        self.shaking_failed(error, now, hands)
    }

    /// It came to a bad end.
    pub(super) fn shaking_failed(
        &mut self,
        error: HandshakeError,
        now: Instant,
        hands: &mut Hands<'_>,
    ) -> Outcome {
        let cost = self.count_cost(hands);
        // Whatever was wrong, the next one shall not depend on the old session.
        hands.sessions[self.target] = None;
        // What is left to say is an alert.
        self.transmit(hands);
        self.settle(now, hands);
        let stage = if self.again {
            Stage::Reconnect
        } else {
            Stage::Handshake
        };
        let error = ConnectError::Handshake(error);
        Outcome::of(&error, stage, &cost, !self.heard, self.icmp_errors > 0)
    }

    /// What the handshake took so far, counted.
    pub(super) fn count_cost(&self, hands: &Hands<'_>) -> HandshakeCost {
        let cost = self
            .connection
            .as_ref()
            .map(|connection| connection.handshake_cost());
        let cost = cost.unwrap_or_default();
        let mut tally = hands.tally();
        tally.retransmissions += u64::from(cost.retransmissions);
        if let Some(cookie) = cost.cookie_round_trip {
            tally[Phase::Cookie].record(cookie);
        }
        cost
    }

    /// The handshake, or what stands in its place, has come to an end.
    pub(super) fn settle(&mut self, now: Instant, hands: &Hands<'_>) {
        if self.settled {
            return;
        }
        self.settled = true;
        let connected = self.mode == Mode::HelloFlood
            || self.connection.as_ref().is_some_and(|connection| {
                connection.handshake_time().is_some()
                    || self.mode == Mode::HalfOpen
                        && connection.handshake_cost().cookie_round_trip.is_some()
            });
        if connected {
            let mut tally = hands.tally();
            if let Some(window) = tally.windows.get_mut(self.window) {
                window
                    .latency
                    .record(now.saturating_duration_since(self.intended));
            }
        }
        hands.run.settled(connected, now);
    }
}
