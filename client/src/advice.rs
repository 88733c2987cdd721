//! What a person can do about a connection that did not come about. Any thread.

use dtls::{ConnectError, HandshakeError};

/// The remedy, to follow the error's text. `silent`: not one datagram came back; `unreachable`: ICMP
/// said that nothing listens there, or that there is no way.
pub(crate) fn advice(error: &ConnectError, silent: bool, unreachable: bool) -> &'static str {
    match error {
        ConnectError::Handshake(HandshakeError::Verification { reason }) => {
            if reason.to_lowercase().contains("mismatch") {
                "; if this is the right server, give the name its certificate carries with \
                 --server-name NAME, or accept any certificate with --insecure"
            } else {
                "; trust its authority with --ca FILE, or accept any certificate with --insecure"
            }
        }
        ConnectError::Handshake(HandshakeError::TimedOut { .. }) if unreachable => {
            "; the network says that nothing listens there (ICMP): check host, port and server"
        }
        ConnectError::Handshake(HandshakeError::TimedOut { .. }) if silent => {
            "; not one datagram came back: check host, port and firewall"
        }
        ConnectError::Handshake(HandshakeError::TimedOut { .. }) => {
            "; allow more time with --handshake-timeout"
        }
        ConnectError::Handshake(HandshakeError::Alert { .. }) => {
            "; if the server wants a certificate from its clients, give one with --cert and --key"
        }
        _ => "",
    }
}
