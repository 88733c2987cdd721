//! What became of a connection: how far it came and why it ended. Plain values.

use std::io;

use dtls::{ConnectError, HandshakeCost, HandshakeError};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::advice::advice;

const EADDRINUSE: i32 = Errno::EADDRINUSE as i32;
const EADDRNOTAVAIL: i32 = Errno::EADDRNOTAVAIL as i32;
const EMFILE: i32 = Errno::EMFILE as i32;

/// How far a connection had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// No socket.
    Socket,
    /// Between the first hello and the last Finished.
    Handshake,
    /// Between the first hello and the last Finished of a client that starts over.
    Reconnect,
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
            Self::Reconnect => "reconnect",
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
    /// Of a handshake that did not come to its end; see [`advice`] for the flags.
    pub(crate) fn of(
        error: &ConnectError,
        stage: Stage,
        cost: &HandshakeCost,
        silent: bool,
        unreachable: bool,
    ) -> Self {
        let words = match error {
            ConnectError::Handshake(HandshakeError::Stopped) => return Self::Interrupted,
            // Its own words count retransmissions, which differ by chance.
            ConnectError::Handshake(HandshakeError::TimedOut {
                after, state, hint, ..
            }) => {
                let flight = flight(cost, state, silent);
                format!("flight {flight} was not answered within {after:?}{hint}")
            }
            other => {
                let words = other.to_string();
                words
                    .trim_start_matches("complete the handshake: ")
                    .to_owned()
            }
        };
        Self::Failed(Failure {
            stage,
            error: words + advice(error, silent, unreachable),
        })
    }

    /// Of a connection without a socket.
    pub(crate) fn no_socket(error: &io::Error) -> Self {
        let advice = match error.raw_os_error() {
            // Of a socket that leaves the port to the system.
            Some(EADDRINUSE) => {
                "; no port is left: send from more addresses with --source, or widen \
                 net.ipv4.ip_local_port_range"
            }
            Some(EADDRNOTAVAIL) => "; --source must name addresses of this host",
            Some(EMFILE) => "; raise the limit on descriptors (ulimit -n)",
            _ => "",
        };
        Self::Failed(Failure {
            stage: Stage::Socket,
            error: format!("{error}{advice}"),
        })
    }

    /// Whether it failed before its first hello.
    pub(crate) fn is_before_handshake(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.stage == Stage::Socket)
    }
}

/// The client's flight that the server left unanswered (RFC 6347 §4.2.4): the hello, the hello with
/// the cookie, or the one that ends in Finished.
fn flight(cost: &HandshakeCost, state: &str, silent: bool) -> u32 {
    let finished = ["finished", "change cipher spec", "session ticket"];
    if silent || cost.cookie_round_trip.is_none() && cost.datagrams_received == 0 {
        1
    } else if finished.iter().any(|part| state.contains(part)) {
        5
    } else {
        3
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
            Outcome::of(
                &error,
                Stage::Handshake,
                &HandshakeCost::default(),
                true,
                false,
            )
        };
        assert_eq!(outcome(1), outcome(2));
        assert_ne!(outcome(1), Outcome::Completed);
    }

    #[test]
    fn the_flight_that_got_no_answer_is_told_by_what_came_before() {
        let mut cost = HandshakeCost::default();
        assert_eq!(flight(&cost, "SSLv3/TLS write client hello", true), 1);
        cost.cookie_round_trip = Some(Duration::ZERO);
        assert_eq!(flight(&cost, "SSLv3/TLS write client hello", false), 3);
        assert_eq!(flight(&cost, "SSLv3/TLS read server certificate", false), 3);
        assert_eq!(flight(&cost, "SSLv3/TLS write finished", false), 5);
    }
}
