//! DTLS without I/O: datagrams and time are arguments, datagrams and deadlines are results.
//!
//! ```text
//! datagram ─► HelloVerifier (DTLSv1_listen, cookie) ─► Connection
//! datagram ─► RecordFilter ─► slot ─► OpenSSL ─► slot ─► Renumber ─► datagram
//!                      │               │
//!                  Heartbeat        Timers ─► deadline
//! ```
//!
//! Nothing here opens a socket or reads a clock, so the same code runs behind a blocking socket and
//! in a simulator with a virtual clock. Runs on the thread that owns the [`Connection`].

pub(crate) mod record;
pub(crate) mod slot;
pub(crate) mod filter;
pub(crate) mod renumber;
pub(crate) mod cookie;
pub(crate) mod hello;
pub(crate) mod ended;
pub(crate) mod limits;
pub(crate) mod timers;
pub(crate) mod heartbeat;
pub(crate) mod connection;
pub(crate) mod reconnect;

pub use connection::{Connection, Progress, Read};
pub use cookie::CookieJar;
pub use heartbeat::Liveness;
pub use hello::{HelloOutcome, HelloVerifier, VerifiedHello};
