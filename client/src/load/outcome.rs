//! What became of a connection: how far it came and why it ended. Plain values.

use dtls::{ConnectError, HandshakeError};
use serde::Serialize;

use crate::advice::advice;

/// How far a connection had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// No socket.
    Socket,
    /// Between the first hello and the last Finished.
    Handshake,
    /// Sending its messages.
    Exchange,
    /// Kept open after its messages.
    Hold,
}

impl Stage {
    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Handshake => "handshake",
            Self::Exchange => "exchange",
            Self::Hold => "hold",
        }
    }
}

/// Why a connection failed, in words that are the same for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) error: String,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In order, with everything done; messages may have been lost.
    Completed,
    /// Otherwise.
    Failed(Failure),
    /// Stopped by a signal.
    Interrupted,
}

impl Outcome {
    /// Of a connection that did not come about; see [`advice`] for the flags.
    pub(crate) fn of(error: &ConnectError, silent: bool, unreachable: bool) -> Self {
        let (stage, words) = match error {
            ConnectError::Handshake(HandshakeError::Stopped) => return Self::Interrupted,
            ConnectError::Socket { source, .. } => (Stage::Socket, source.to_string()),
            // Its own words count retransmissions, which differ by chance.
            ConnectError::Handshake(HandshakeError::TimedOut { after, state, .. }) => (
                Stage::Handshake,
                format!("no answer within {after:?} in state \"{state}\""),
            ),
            other => {
                let words = other.to_string();
                let words = words.trim_start_matches("complete the handshake: ");
                (Stage::Handshake, words.to_owned())
            }
        };
        Self::Failed(Failure {
            stage,
            error: words + advice(error, silent, unreachable),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timeouts_are_one_reason_however_often_flights_were_repeated() {
        let outcome = |retransmissions| {
            let error = ConnectError::Handshake(HandshakeError::TimedOut {
                after: Duration::from_secs(2),
                state: "hello",
                retransmissions,
                hint: "",
            });
            Outcome::of(&error, true, false)
        };
        assert_eq!(outcome(1), outcome(2));
        assert_ne!(outcome(1), Outcome::Completed);
    }
}
