//! The client's side: a connected socket and a handshake. Runs on the calling thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::ClientConfig;
use crate::core::Connection;
use crate::error::{ConfigError, ConnectError};
use crate::session::Session;
use crate::stats::Stats;

use super::socket;
use super::stream::DtlsStream;
use super::transport::{StreamHandle, Transport, clock};

/// Makes connections with one configuration and counts for all of them.
#[derive(Debug, Clone)]
pub struct DtlsConnector {
    config: Arc<ClientConfig>,
    stats: Arc<Stats>,
}

impl DtlsConnector {
    /// A connector with all counters at zero.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config: Arc::new(config),
            stats: Arc::default(),
        }
    }

    /// The counters of all connections made.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Connects to `server`, whose certificate must carry `name` (a host name or an IP address).
    ///
    /// # Errors
    /// No socket, a name OpenSSL refuses, or a failed handshake.
    pub fn connect(&self, name: &str, server: SocketAddr) -> Result<DtlsStream, ConnectError> {
        self.prepare(name, server, None)?.connect()
    }

    /// Connects and offers a session of an earlier connection to the same server; if the server
    /// does not know it any more, the handshake is a full one.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn resume(
        &self,
        name: &str,
        server: SocketAddr,
        session: &Session,
    ) -> Result<DtlsStream, ConnectError> {
        self.prepare(name, server, Some(session))?.connect()
    }

    /// Makes the socket, so that [`Outgoing::handle`] can stop the handshake.
    ///
    /// # Errors
    /// No socket, or a name OpenSSL refuses.
    pub fn prepare(
        &self,
        name: &str,
        server: SocketAddr,
        session: Option<&Session>,
    ) -> Result<Outgoing, ConnectError> {
        if name.is_empty() || name.contains('\0') {
            return Err(ConnectError::Config(ConfigError::OutOfRange {
                name: "the server's name",
                value: format!("{name:?}"),
                must: "a host name or an IP address",
            }));
        }
        let peer = server;
        // connect(2): EAGAIN, from a UDP socket that is not bound, is for want of a port.
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::WouldBlock => ConnectError::NoFreePort { peer, source },
            _ => ConnectError::Socket { peer, source },
        };
        let (socket, peer) = socket::client(server).map_err(failed)?;
        let transport = Transport::client(socket, peer).map_err(failed)?;
        let connection =
            Connection::connect(&self.config, name, peer, session, &self.stats, clock()).map_err(
                |source| ConfigError::OpenSsl {
                    what: "the server name",
                    source,
                },
            )?;
        Ok(Outgoing {
            connection: Box::new(connection),
            transport,
        })
    }
}

/// A client's connection before its handshake.
#[derive(Debug)]
pub struct Outgoing {
    connection: Box<Connection>,
    transport: Transport,
}

impl Outgoing {
    /// A handle that stops the handshake from another thread.
    #[must_use]
    pub fn handle(&self) -> StreamHandle {
        self.transport.handle()
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// It failed, timed out or was stopped.
    pub fn connect(self) -> Result<DtlsStream, ConnectError> {
        Ok(DtlsStream::establish(self.connection, self.transport)?)
    }
}
