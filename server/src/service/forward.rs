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
mod buffers;
mod frames;
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

use buffers::Buffers;
use proxy::{Header, ROOM};

pub(crate) use backend::{Backend, Backends, ConnectError};
pub(crate) use frames::SyslogFrames;
pub(crate) use ports::{range as port_range, usage as port_usage};
pub(crate) use proxy::ProxyProtocol;

/// The longest data of one record (RFC 5246 §6.2.1).
const LONGEST: usize = 1 << 14;

/// Datagrams passed on in one direction before the other gets its turn.
const ROUND: usize = 32;

/// Whose datagrams keep a connection from being idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IdleCounts {
    /// Those of the client and of the backend
    #[default]
    Both,
    /// Only those of the client: for one-way protocols, and backends that never stop sending
    ToServer,
}

/// The service, shared by all connections of a listener.
#[derive(Debug)]
pub(crate) struct Forward {
    backends: Backends,
    proxy: ProxyProtocol,
    frames: SyslogFrames,
    idle: IdleCounts,
    stats: Arc<Stats>,
    buffers: Buffers,
}

impl Forward {
    /// Forwards to `backends`.
    pub(crate) fn new(
        backends: Backends,
        proxy: ProxyProtocol,
        frames: SyslogFrames,
        idle: IdleCounts,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            backends,
            proxy,
            frames,
            idle,
            stats,
            // One byte more than fits, so that what is too long can be told.
            buffers: Buffers::new(ROOM + LONGEST + 1),
        }
    }

    /// Where the datagrams go.
    pub(crate) fn backends(&self) -> &Backends {
        &self.backends
    }

    /// Passes datagrams on until the client's connection ends.
    ///
    /// # Errors
    /// The connection ended out of order, or there is no socket towards the backend to be had.
    pub(super) fn serve(&self, stream: &mut DtlsStream) -> Result<Ending, ServiceError> {
        static COMPLAINT: Complaint = Complaint::new();
        let backend = self.backends.of(stream);
        let connected = backend.connect(&self.stats).inspect_err(|error| {
            self.stats.count(match error {
                ConnectError::PortsExhausted { .. } => Counter::BackendPortsExhausted,
                _ => Counter::BackendConnectsFailed,
            });
            COMPLAINT.make(error);
        })?;
        let header = Header::new(self.proxy, stream.peer_addr(), stream.local_addr());
        Relay {
            stats: &self.stats,
            frames: self.frames,
            idle: self.idle,
            socket: &connected.socket,
            buffers: &self.buffers,
            header,
        }
        .run(stream)
    }
}

/// One connection's two directions.
struct Relay<'a> {
    stats: &'a Stats,
    frames: SyslogFrames,
    idle: IdleCounts,
    socket: &'a UdpSocket,
    header: Header,
    buffers: &'a Buffers,
}

impl Relay<'_> {
    fn run(mut self, stream: &mut DtlsStream) -> Result<Ending, ServiceError> {
        stream.set_recv_timeout(Some(Duration::ZERO));
        let mut answers = true;
        loop {
            let mut lent = self.buffers.lend();
            let buffer = &mut lent.bytes[..];
            self.header.write(buffer);
            let more = match self.hear_client(stream, buffer)? {
                Turn::Over(ending) => return Ok(ending),
                Turn::Quiet => false,
                Turn::More => true,
            };
            if answers {
                self.hear_backend(stream, buffer)?;
            }
            drop(lent);
            // What the stream holds already does not make its descriptor readable.
            answers = more
                || stream
                    .wait_beside(self.socket.as_fd())
                    .map_err(ServiceError::Wait)?;
        }
    }

    /// Passes on what the client has sent.
    fn hear_client(
        &mut self,
        stream: &mut DtlsStream,
        buffer: &mut [u8],
    ) -> Result<Turn, ServiceError> {
        for _ in 0..ROUND {
            match stream.recv(&mut buffer[ROOM..])? {
                Recv::Data(length) => self.hand_on(buffer, length),
                Recv::TimedOut => return Ok(Turn::Quiet),
                Recv::Closed => return Ok(Turn::Over(Ending::ClosedByPeer)),
                Recv::Reconnected => return Ok(Turn::Over(Ending::Reconnected)),
                Recv::Idle => return Ok(Turn::Over(Ending::Idle)),
                Recv::Stopped => return Ok(Turn::Over(Ending::Stopped)),
            }
        }
        Ok(Turn::More)
    }

    /// Hands on a record of the client: one datagram, or one for each message of a record of frames.
    fn hand_on(&mut self, buffer: &mut [u8], length: usize) {
        let record = ROOM..ROOM + length;
        if self.frames == SyslogFrames::Keep || !frames::are_all(&buffer[record.clone()]) {
            return self.send_to_backend(&buffer[..record.end]);
        }
        let mut rest = record;
        while let Some(message) = frames::first(&buffer[rest.clone()]) {
            let (start, end) = (rest.start + message.start, rest.start + message.end);
            // To where a header may stand before it; what lay there has been sent.
            buffer.copy_within(start..end, ROOM);
            self.send_to_backend(&buffer[..ROOM + message.len()]);
            rest.start = end;
        }
    }

    /// Sends the datagram in the buffer to the backend, with a header where one is due, or loses it.
    fn send_to_backend(&mut self, buffer: &[u8]) {
        // A pending ICMP error takes the place of the first attempt: the kernel reports it and
        // does not send.
        for _ in 0..2 {
            let start = self.header.start(&buffer[ROOM..]);
            match self.socket.send(&buffer[start..]) {
                Ok(_) => {
                    self.stats.count(Counter::DatagramsToBackend);
                    self.stats.add(Counter::BytesToBackend, buffer.len() - ROOM);
                    if start < ROOM {
                        self.stats.count(Counter::ProxyHeaders);
                        self.stats.add(Counter::ProxyHeaderBytes, ROOM - start);
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
    fn hear_backend(
        &mut self,
        stream: &mut DtlsStream,
        buffer: &mut [u8],
    ) -> Result<(), ServiceError> {
        for _ in 0..ROUND {
            let length = match self.socket.recv(&mut buffer[ROOM..]) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if dtls::is_icmp(&error) => {
                    self.note(&error);
                    continue;
                }
                Err(error) => return Err(ServiceError::Backend(error)),
            };
            self.send_to_client(stream, &buffer[ROOM..ROOM + length])?;
        }
        Ok(())
    }

    /// Sends a datagram to the client, or loses it.
    fn send_to_client(
        &mut self,
        stream: &mut DtlsStream,
        datagram: &[u8],
    ) -> Result<(), ServiceError> {
        if datagram.is_empty() {
            self.stats.count(Counter::DroppedBackendEmpty);
            return Ok(());
        }
        match stream.send(datagram) {
            Ok(()) => {
                self.stats.count(Counter::DatagramsFromBackend);
                self.stats.add(Counter::BytesFromBackend, datagram.len());
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
