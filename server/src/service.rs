//! What the server does with the clients' datagrams: passes them on to a plain UDP service, or plays
//! one of the classic small services of the Internet. Worker thread.
//!
//! Path: stream → service → stream.

mod echo;
mod discard;
mod chargen;
mod forward;

use std::fmt;
use std::io;
use std::sync::Arc;

use clap::ValueEnum;
use dtls::{DtlsStream, Recv, RecvError, SendError};
use serde::{Deserialize, Serialize};

use forward::ConnectError;
pub(crate) use forward::{
    Backend, Backends, Forward, IdleCounts, ProxyProtocol, SyslogFrames, port_range, port_usage,
};

/// The services, as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ServiceName {
    /// Send every datagram back (RFC 862)
    Echo,
    /// Read and forget (RFC 863)
    Discard,
    /// Answer every datagram with up to 512 characters (RFC 864)
    Chargen,
    /// Pass every datagram on to a plain UDP service, see --backend, and its answers back
    Forward,
}

impl ServiceName {
    /// What each connection takes of the system beside its own socket.
    pub(crate) fn needs(self) -> Needs {
        match self {
            Self::Echo | Self::Discard | Self::Chargen => Needs {
                descriptors: 0,
                local_ports: false,
            },
            Self::Forward => Needs {
                descriptors: 1,
                local_ports: true,
            },
        }
    }
}

/// A service, ready for connections.
#[derive(Debug, Clone)]
pub(crate) enum Service {
    /// RFC 862.
    Echo,
    /// RFC 863.
    Discard,
    /// RFC 864.
    Chargen,
    /// A plain UDP service behind this server.
    Forward(Arc<Forward>),
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo => f.write_str("echo"),
            Self::Discard => f.write_str("discard"),
            Self::Chargen => f.write_str("chargen"),
            Self::Forward(forward) => write!(f, "forward to {}", forward.backends()),
        }
    }
}

impl Service {
    /// Serves an established connection to its end; closing it is the caller's.
    ///
    /// # Errors
    /// The connection ended out of order.
    pub(crate) fn serve(&self, stream: &mut DtlsStream) -> Result<Ending, ServiceError> {
        match self {
            Self::Echo => echo::serve(stream),
            Self::Discard => discard::serve(stream),
            Self::Chargen => chargen::serve(stream),
            Self::Forward(forward) => forward.serve(stream),
        }
    }
}

/// What a service takes of the system for each connection, beside the connection's own socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Descriptors.
    pub(crate) descriptors: u64,
    /// Whether a local port out of the host's range.
    pub(crate) local_ports: bool,
}

/// How a connection ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client sent a close_notify.
    ClosedByPeer,
    /// The client has started over from the same address and port.
    Reconnected,
    /// The client was silent for the idle timeout.
    Idle,
    /// The server shuts down.
    Stopped,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClosedByPeer => "closed by the client",
            Self::Reconnected => "over, the client starts anew",
            Self::Idle => "closed after the idle timeout",
            Self::Stopped => "closed by the server's shutdown",
        })
    }
}

/// Why a connection ended out of order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// Nothing more comes in.
    #[error(transparent)]
    Recv(#[from] RecvError),
    /// Nothing more goes out.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The service cannot reach what is behind it.
    #[error("serve: {0}")]
    Connect(#[from] ConnectError),
    /// The socket towards the backend is broken.
    #[error("receive from the backend: {0}")]
    Backend(io::Error),
    /// Waiting is not possible.
    #[error("wait for datagrams: {0}")]
    Wait(io::Error),
}

/// Hands every datagram to `act` until the connection ends.
///
/// # Errors
/// Receiving failed, or `act` did.
fn for_each_datagram(
    stream: &mut DtlsStream,
    mut act: impl FnMut(&mut DtlsStream, &[u8]) -> Result<(), SendError>,
) -> Result<Ending, ServiceError> {
    // As much as one datagram of ours carries. What a client packed into a larger one arrives as
    // several pieces, so whatever comes in can also go out.
    let mut buffer = vec![0; stream.max_payload()];
    loop {
        match stream.recv(&mut buffer)? {
            Recv::Data(length) => match act(stream, &buffer[..length]) {
                Ok(()) => {}
                // The limit has shrunk since: as with UDP, what is too long is lost.
                Err(error @ SendError::TooLong { .. }) => {
                    log::debug!("{}: failed to {error}", stream.peer_addr());
                }
                Err(error) => return Err(error.into()),
            },
            Recv::Closed => return Ok(Ending::ClosedByPeer),
            Recv::Reconnected => return Ok(Ending::Reconnected),
            Recv::Idle => return Ok(Ending::Idle),
            Recv::Stopped => return Ok(Ending::Stopped),
            // No service sets a receive timeout.
            Recv::TimedOut => {}
        }
    }
}
