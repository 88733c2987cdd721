//! One error type per operation.
//!
//! An error from a [`DtlsStream`](crate::DtlsStream) ends that connection and nothing else, except
//! [`SendError::TooLong`], which ends nothing; an error from a [`DtlsListener`](crate::DtlsListener) ends the listener. What a stranger sends is
//! neither: it is counted in [`Stats`](crate::Stats). Messages are fragments fit to follow
//! "failed to …".

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use openssl::error::ErrorStack;

/// Why a configuration was refused. Caused by the caller's files or values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Read {
        /// What the file should hold.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file or text does not hold what it should.
    #[error("{from} holds no {what} in PEM form{}", detail(source))]
    NotPem {
        /// What was expected.
        what: &'static str,
        /// The file, or "the given text".
        from: String,
        /// OpenSSL's reason; empty when nothing was found at all.
        source: ErrorStack,
    },
    /// The private key belongs to another certificate.
    #[error("the private key in {key} does not belong to the certificate in {certificate}")]
    KeyMismatch {
        /// Where the certificate came from.
        certificate: String,
        /// Where the key came from.
        key: String,
    },
    /// The private key is protected by a pass phrase.
    #[error("the private key in {key} is encrypted; decrypt it with `openssl pkey -in {key}`")]
    EncryptedKey {
        /// Where the key came from.
        key: String,
    },
    /// The certificate is not valid now.
    #[error("the certificate in {certificate} {problem}; every client would refuse it")]
    NotValidNow {
        /// Where the certificate came from.
        certificate: String,
        /// "expired on …" or "is not valid before …".
        problem: String,
    },
    /// The certificate's key is of a kind that no handshake could use.
    #[error(
        "the certificate in {certificate} has a key that OpenSSL cannot use in a DTLS 1.2 server \
         ({kind}); every handshake would fail: use ECDSA P-256, ECDSA P-384 or RSA"
    )]
    UnusableKey {
        /// Where the certificate came from.
        certificate: String,
        /// The kind, in OpenSSL's words.
        kind: &'static str,
    },
    /// A value lies outside its range.
    #[error("{name} is {value}, must be {must}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        must: &'static str,
    },
    /// OpenSSL refused a setting or has no memory.
    #[error("OpenSSL refused {what}: {source}")]
    OpenSsl {
        /// The setting.
        what: &'static str,
        /// OpenSSL's reason.
        source: ErrorStack,
    },
}

fn detail(stack: &ErrorStack) -> String {
    if stack.errors().is_empty() {
        String::new()
    } else {
        format!(" ({stack})")
    }
}

/// Why a listener could not be set up. Caused by the local system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the port.
    #[error("listen on {0}: the port is in use; stop the other program or choose another port")]
    InUse(SocketAddr),
    /// The port needs a privilege.
    #[error("listen on {0}: not permitted; ports below 1024 need CAP_NET_BIND_SERVICE")]
    NotPermitted(SocketAddr),
    /// The address belongs to no interface of this host.
    #[error("listen on {0}: the address belongs to no interface of this host")]
    NoSuchAddress(SocketAddr),
    /// Any other failure.
    #[error("listen on {address}: {step}: {source}")]
    Io {
        /// The address asked for.
        address: SocketAddr,
        /// The system call or option.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// OpenSSL has no memory.
    #[error("listen: {0}")]
    OpenSsl(#[from] ErrorStack),
}

/// Why no further connection is accepted. Ends the listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The listener was closed by [`ListenerHandle::close`](crate::ListenerHandle::close).
    #[error("accept: the listener is closed")]
    Closed,
    /// The listening socket is broken.
    #[error("accept: {0}")]
    Io(#[from] io::Error),
}

/// Why a handshake did not complete. Ends the connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The handshake timeout passed. Caused by the network or a silent peer.
    #[error(
        "complete the handshake: no answer within {after:?} while in state \"{state}\" \
         ({retransmissions} retransmissions){hint}"
    )]
    TimedOut {
        /// The handshake timeout.
        after: Duration,
        /// OpenSSL's name of the state.
        state: &'static str,
        /// Flights sent again.
        retransmissions: u32,
        /// What else it may be, if anything comes to mind; starts with "; ".
        hint: &'static str,
    },
    /// The peer sent an alert in the clear and then fell silent. Caused by the peer, as far as an
    /// unprotected datagram can be believed.
    #[error("complete the handshake: the peer sent the alert \"{name}\" and fell silent")]
    Alert {
        /// RFC 5246 §7.2, in OpenSSL's words.
        name: &'static str,
    },
    /// The peer's certificate was refused. Caused by the peer, or by the trust configured here.
    #[error("complete the handshake: the peer's certificate was refused: {reason}")]
    Verification {
        /// OpenSSL's verdict, or that of the configured [`Trust`](crate::Trust).
        reason: String,
    },
    /// OpenSSL ended the handshake. Caused by the peer.
    #[error("complete the handshake: {0}")]
    Tls(ErrorStack),
    /// The connection was stopped from another thread.
    #[error("complete the handshake: stopped")]
    Stopped,
    /// The socket is broken. Caused by the local system.
    #[error("complete the handshake: {0}")]
    Io(#[from] io::Error),
}

/// Why nothing more can be received. Ends the connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// OpenSSL ended the connection. Caused by the peer.
    #[error("receive: {0}")]
    Tls(ErrorStack),
    /// The socket is broken. Caused by the local system.
    #[error("receive: {0}")]
    Io(#[from] io::Error),
}

/// Why data was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// More than fits into one datagram. Caused by the caller; the connection goes on.
    #[error("send: {length} bytes do not fit into one datagram, the limit is {limit}")]
    TooLong {
        /// What was given.
        length: usize,
        /// [`DtlsStream::max_payload`](crate::DtlsStream::max_payload) at that moment.
        limit: usize,
    },
    /// OpenSSL ended the connection.
    #[error("send: {0}")]
    Tls(ErrorStack),
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This host has no port left to send from. Caused by the local system.
    #[error(
        "connect to {peer}: no local port is free ({source}); close other connections, or widen \
         net.ipv4.ip_local_port_range"
    )]
    NoFreePort {
        /// The address asked for.
        peer: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The socket could not be made or connected. Caused by the local system.
    #[error("connect to {peer}: {source}")]
    Socket {
        /// The address asked for.
        peer: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The name or a setting was refused.
    #[error("connect: {0}")]
    Config(#[from] ConfigError),
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}
