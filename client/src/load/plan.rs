//! What a run is to do, after the flags. Plain values.

use std::time::Duration;

use serde::Serialize;

use crate::cli::LoadArgs;

/// A closed loop: a fixed number of connections at once until all are made.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Plan {
    /// In all.
    pub(crate) connections: u32,
    /// At once.
    pub(crate) concurrency: u32,
    /// On each connection.
    pub(crate) messages: u32,
    /// Of a message, in bytes.
    pub(crate) size: u16,
    /// When a message counts as lost.
    #[serde(rename = "timeout_ms", serialize_with = "milliseconds")]
    pub(crate) timeout: Duration,
    /// When a handshake is given up.
    #[serde(rename = "handshake_timeout_ms", serialize_with = "milliseconds")]
    pub(crate) handshake_timeout: Duration,
    /// Whether all but a worker's first connection resume its session.
    pub(crate) resume: bool,
    /// How long a connection stays open after its messages.
    #[serde(rename = "hold_ms", serialize_with = "milliseconds")]
    pub(crate) hold: Duration,
}

impl Plan {
    /// As the flags say.
    pub(crate) fn new(args: &LoadArgs) -> Self {
        Self {
            connections: args.connections,
            concurrency: args.concurrency,
            messages: args.messages,
            size: args.size,
            timeout: args.timeout,
            handshake_timeout: args.server.handshake_timeout,
            resume: args.resume,
            hold: args.hold,
        }
    }

    /// Threads that make connections; more than connections would have nothing to do.
    pub(crate) fn workers(&self) -> u32 {
        self.concurrency.min(self.connections)
    }
}

fn milliseconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64() * 1e3)
}
