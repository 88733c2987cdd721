//! Forward: every datagram goes to a plain UDP service and every answer comes back, boundaries
//! kept. Worker thread.
//!
//! ```text
//!  client ═ DTLS ═ stream ─── to_server ──► connected UDP socket ── backend
//!                         ◄── to_client ───
//! ```
//!
//! Each connection has a UDP socket of its own, connected to the backend, so that the backend tells
//! clients apart by their address and port, and answers find their way without a table. The
//! connection's one thread waits for both sockets.
//!
//! UDP promises nothing, and neither does this: what one side would not take is counted and lost.
//! Nothing that the backend or its host does ends a client's connection.

mod backend;
mod ports;
mod proxy;

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use dtls::{DtlsStream, Recv, SendError};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::{Ending, ServiceError};
use crate::complaint::Complaint;
use crate::stats::{Counter, Stats};

use proxy::Header;

pub(crate) use backend::{Backend, ConnectError};
pub(crate) use ports::{range as port_range, usage as port_usage};
pub(crate) use proxy::ProxyProtocol;

/// The longest data of one record (RFC 5246 §6.2.1).
const LONGEST: usize = 1 << 14;

/// Datagrams passed on in one direction before the other gets its turn.
const ROUND: usize = 32;

/// Whose datagrams keep a connection from being idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IdleCounts {
    /// Those of the client and of the backend
    Both,
    /// Only those of the client: for one-way protocols, and backends that never stop sending
    ToServer,
}

/// The service, shared by all connections of a listener.
#[derive(Debug)]
pub(crate) struct Forward {
    backend: Arc<Backend>,
    proxy: ProxyProtocol,
    idle: IdleCounts,
    stats: Arc<Stats>,
}

impl Forward {
    /// Forwards to `backend`.
    pub(crate) fn new(
        backend: Backend,
        proxy: ProxyProtocol,
        idle: IdleCounts,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            backend: Arc::new(backend),
            proxy,
            idle,
            stats,
        }
    }

    /// Where the datagrams go, as it was typed.
    pub(crate) fn backend(&self) -> &str {
        self.backend.name()
    }

    /// Passes datagrams on until the client's connection ends.
    ///
    /// # Errors
    /// The connection ended out of order, or there is no socket towards the backend to be had.
    pub(super) fn serve(&self, stream: &mut DtlsStream) -> Result<Ending, ServiceError> {
        static COMPLAINT: Complaint = Complaint::new();
        let connected = self.backend.connect(&self.stats).inspect_err(|error| {
            self.stats.count(match error {
                ConnectError::PortsExhausted { .. } => Counter::BackendPortsExhausted,
                _ => Counter::BackendConnectsFailed,
            });
            COMPLAINT.make(error);
        })?;
        let header = Header::new(self.proxy, stream.peer_addr(), stream.local_addr());
        Relay {
            stats: &self.stats,
            idle: self.idle,
            socket: &connected.socket,
            buffer: header.buffer(LONGEST),
            header,
        }
        .run(stream)
    }
}

/// One connection's two directions.
struct Relay<'a> {
    stats: &'a Stats,
    idle: IdleCounts,
    socket: &'a UdpSocket,
    header: Header,
    /// One datagram of either direction, after room for the header, which is filled in already.
    buffer: Vec<u8>,
}

impl Relay<'_> {
    fn run(mut self, stream: &mut DtlsStream) -> Result<Ending, ServiceError> {
        stream.set_recv_timeout(Some(Duration::ZERO));
        let mut answers = true;
        loop {
            let more = match self.hear_client(stream)? {
                Turn::Over(ending) => return Ok(ending),
                Turn::Quiet => false,
                Turn::More => true,
            };
            if answers {
                self.hear_backend(stream)?;
            }
            // What the stream holds already does not make its descriptor readable.
            answers = more
                || stream
                    .wait_beside(self.socket.as_fd())
                    .map_err(ServiceError::Wait)?;
        }
    }

    /// Passes on what the client has sent.
    fn hear_client(&mut self, stream: &mut DtlsStream) -> Result<Turn, ServiceError> {
        let room = self.header.room();
        for _ in 0..ROUND {
            match stream.recv(&mut self.buffer[room..])? {
                Recv::Data(length) => self.send_to_backend(length),
                Recv::TimedOut => return Ok(Turn::Quiet),
                Recv::Closed => return Ok(Turn::Over(Ending::ClosedByPeer)),
                Recv::Reconnected => return Ok(Turn::Over(Ending::Reconnected)),
                Recv::Idle => return Ok(Turn::Over(Ending::Idle)),
                Recv::Stopped => return Ok(Turn::Over(Ending::Stopped)),
            }
        }
        Ok(Turn::More)
    }

    /// Sends the datagram in the buffer to the backend, or loses it.
    fn send_to_backend(&mut self, length: usize) {
        // A pending ICMP error takes the place of the first attempt: the kernel reports it and
        // does not send.
        for _ in 0..2 {
            let (start, end) = (self.header.start(), self.header.room() + length);
            match self.socket.send(&self.buffer[start..end]) {
                Ok(_) => {
                    self.stats.count(Counter::DatagramsToBackend);
                    self.stats.add(Counter::BytesToBackend, length);
                    if start < self.header.room() {
                        self.stats.count(Counter::ProxyHeaders);
                        let header = self.header.room() - start;
                        self.stats.add(Counter::ProxyHeaderBytes, header);
                        self.header.sent();
                    }
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if dtls::is_icmp(&error) => self.note(&error),
                Err(_) => break,
            }
        }
        self.stats.count(Counter::DroppedBackendUnsent);
    }

    /// Passes on what the backend has sent.
    fn hear_backend(&mut self, stream: &mut DtlsStream) -> Result<(), ServiceError> {
        let room = self.header.room();
        for _ in 0..ROUND {
            let length = match self.socket.recv(&mut self.buffer[room..]) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if dtls::is_icmp(&error) => {
                    self.note(&error);
                    continue;
                }
                Err(error) => return Err(ServiceError::Backend(error)),
            };
            self.send_to_client(stream, length)?;
        }
        Ok(())
    }

    /// Sends the datagram in the buffer to the client, or loses it.
    fn send_to_client(
        &mut self,
        stream: &mut DtlsStream,
        length: usize,
    ) -> Result<(), ServiceError> {
        if length == 0 {
            self.stats.count(Counter::DroppedBackendEmpty);
            return Ok(());
        }
        let room = self.header.room();
        match stream.send(&self.buffer[room..room + length]) {
            Ok(()) => {
                self.stats.count(Counter::DatagramsFromBackend);
                self.stats.add(Counter::BytesFromBackend, length);
                if self.idle == IdleCounts::Both {
                    stream.restart_idle();
                }
                Ok(())
            }
            Err(SendError::TooLong { .. }) => {
                self.stats.count(Counter::DroppedBackendTooLong);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts an ICMP error about the backend.
    fn note(&mut self, error: &io::Error) {
        if error.raw_os_error() == Some(libc::ECONNREFUSED) {
            // Whoever listens there next has not seen this connection's header.
            self.header.forgotten();
            self.stats.count(Counter::BackendRefused);
        } else {
            self.stats.count(Counter::BackendUnreachable);
        }
    }
}

/// What came of one direction's turn.
enum Turn {
    /// Nothing is left.
    Quiet,
    /// Something may be left.
    More,
    /// The connection is.
    Over(Ending),
}
