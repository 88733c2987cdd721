//! Blocking DTLS 1.2 on OpenSSL: a listener, a stream, a connector, as plain as `std::net`.
//!
//! ```text
//! datagram ─► DtlsListener ──────────────► Incoming ─────────► DtlsStream
//!             HelloVerifyRequest, cookie   connected socket    recv, send, close
//!             (one thread)                 (one thread per connection)
//! ```
//!
//! The listener's thread answers first hellos without keeping state, and hands each verified peer
//! off to a socket of its own, bound to the same port and connected to the peer. From there on the
//! connection's thread blocks on that socket. [`core`] is the same without sockets and clocks.
//!
//! # What an error means
//!
//! An error from a [`DtlsStream`] ends that connection and nothing else (but for
//! [`SendError::TooLong`], which ends nothing). An error from a
//! [`DtlsListener`] ends the listener. What strangers send, and what ICMP says, is neither: it is
//! counted in [`Stats`] and the timers decide.
//!
//! # Example
//!
//! ```no_run
//! use dtls::{DtlsListener, Identity, Recv, ServerConfig};
//!
//! let identity = Identity::from_files("server.pem", "server.key")?;
//! let config = ServerConfig::builder(identity).build()?;
//! let mut listener = DtlsListener::bind("[::1]:4433".parse()?, config)?;
//! loop {
//!     let incoming = listener.accept()?;
//!     std::thread::spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!         let mut stream = incoming.accept()?;
//!         let mut buffer = [0; 16 * 1024];
//!         loop {
//!             match stream.recv(&mut buffer)? {
//!                 Recv::Data(length) => stream.send(&buffer[..length])?,
//!                 // The client has lost its keys and starts over.
//!                 Recv::Reconnected if stream.accept_reconnect() => {}
//!                 _ => return Ok(()),
//!             }
//!         }
//!     });
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

pub mod core;
mod shell;
mod sys;
mod config;
mod verify;
mod psk;
mod tickets;
mod shared;
mod session;
mod error;
mod stats;
#[cfg(feature = "testing")]
pub mod fuzzing;

#[cfg(feature = "testing")]
pub use config::Safeguard;
pub use config::{
    ByName, ClientAuth, ClientConfig, ClientConfigBuilder, ClientEnd, ConfigBuilder, Identity,
    KeyLog, PortSharing, ServerConfig, ServerConfigBuilder, ServerEnd, ServerTrust, Suites,
    Transport, TrustAnchors,
};
pub use core::Liveness;
pub use error::{
    AcceptError, BindError, ConfigError, ConnectError, HandshakeError, RecvError, SendError,
};
pub use psk::PskKey;
pub use session::{CertificateInfo, ExportError, HandshakeCost, HandshakeInfo, Session};
pub use shared::SharedSecret;
#[cfg(feature = "testing")]
pub use shell::bad_calls::{Call, calls_made, fail_call};
pub use shell::connector::{DtlsConnector, Outgoing};
pub use shell::icmp::{Sending, SocketError, is_icmp, send_or_lose};
pub use shell::listener::{DtlsListener, ListenerHandle};
pub use shell::stream::{DtlsStream, Incoming, Recv};
pub use shell::transport::StreamHandle;
pub use stats::{Counter, Stats};
pub use tickets::{TicketKey, TicketKeys};
pub use verify::{
    Check, Fingerprint, FingerprintError, KnownPeer, KnownPeers, KnownPeersLineError, Presented,
    Trust,
};
