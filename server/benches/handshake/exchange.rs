//! What a datagram and its answer cost while many connections are held: CPU of the server and of a
//! client's thread together, because on the loopback the kernel sorts a datagram at its sender's
//! expense.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::core::{Connection, Progress};
use dtls::{ClientConfig, DtlsConnector, Recv, ServerTrust, Stats};
use nix::time::{ClockId, clock_gettime};

use crate::program::Server;

type Failure = Box<dyn std::error::Error>;

/// Lost datagrams that are put up with: they are on a loopback, but the machine may be busy.
const PATIENCE: u32 = 20;

/// Microseconds for a hello of an unknown source and its HelloVerifyRequest.
pub(crate) fn unknown_us(server: &Server, count: u32) -> Result<f64, Failure> {
    let config = ClientConfig::builder(ServerTrust::Anyone).build()?;
    let (stats, peer) = (Arc::<Stats>::default(), server.address());
    let mut client = Connection::connect(&config, "localhost", peer, None, &stats, now())?;
    if client.handshake(now())? != Progress::Waiting {
        return Err("a handshake without a server".into());
    }
    let hello = client.transmit().ok_or("a client without a hello")?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(peer)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut answer = [0; 1500];
    cost_us(server, count, || {
        socket.send(&hello)?;
        Ok(socket.recv(&mut answer).is_ok())
    })
}

/// Microseconds for 100 bytes and their echo on an established connection.
pub(crate) fn established_us(server: &Server, count: u32) -> Result<f64, Failure> {
    let config = ClientConfig::builder(ServerTrust::Anyone).build()?;
    let mut stream = DtlsConnector::new(config).connect("localhost", server.address())?;
    stream.set_recv_timeout(Some(Duration::from_secs(1)));
    let mut buffer = [0; 1500];
    cost_us(server, count, || {
        stream.send(&[7; 100])?;
        Ok(stream.recv(&mut buffer)? == Recv::Data(100))
    })
}

/// CPU of both ends per exchange. `exchange` says whether it was answered.
fn cost_us(
    server: &Server,
    count: u32,
    mut exchange: impl FnMut() -> Result<bool, Failure>,
) -> Result<f64, Failure> {
    let mut unanswered = 0;
    let before = server.cpu()? + thread_cpu()?;
    for _ in 0..count {
        if !exchange()? {
            unanswered += 1;
            if unanswered > PATIENCE {
                return Err(format!("{unanswered} exchanges went unanswered").into());
            }
        }
    }
    let spent = server.cpu()? + thread_cpu()? - before;
    Ok(spent.as_secs_f64() * 1e6 / f64::from(count))
}

fn thread_cpu() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
}

#[expect(clippy::disallowed_methods, reason = "a client's start")]
fn now() -> Instant {
    Instant::now()
}
