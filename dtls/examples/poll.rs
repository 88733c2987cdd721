//! The non-blocking use: one thread, one socket, any number of clients, waiting in poll(2).
//! `cargo run -p dtls --example poll -- server.pem server.key 127.0.0.1:4433`.
//!
//! The core has no socket and no clock: datagrams and the time go in, datagrams and a deadline come
//! out. `deadline` is what `DTLSv1_get_timeout` is for, `handle_timeout` is `DTLSv1_handle_timeout`.

use std::collections::HashMap;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use dtls::core::{Connection, HelloOutcome, HelloVerifier, Progress, Read};
use dtls::{Identity, ServerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, address] = &args[..] else {
        return Err("give a certificate chain, its key, and an address to listen on".into());
    };
    let config = ServerConfig::builder(Identity::from_files(certificate, key)?).build()?;
    let mut verifier = HelloVerifier::new(Arc::new(config), Arc::default())?;
    let socket = UdpSocket::bind(address)?;
    let local = socket.local_addr()?;
    let mut clients: HashMap<SocketAddr, Box<Connection>> = HashMap::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        wait(
            &socket,
            clients
                .values()
                .filter_map(|client| client.deadline())
                .min(),
        )?;
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let (datagram, now) = (&buffer[..length], now());
            if let Some(client) = clients.get_mut(&peer) {
                client.receive(datagram, now);
                continue;
            }
            let unix = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)?
                .as_secs();
            match verifier.receive(datagram, peer, local, unix, now)? {
                HelloOutcome::Answer(answer) => drop(socket.send_to(&answer, peer)),
                HelloOutcome::Verified(hello) => drop(clients.insert(peer, hello.accept()?)),
                HelloOutcome::Noise => {}
            }
        }
        clients.retain(|peer, client| {
            let lives = serve(client).unwrap_or(false);
            while let Some(datagram) = client.transmit() {
                drop(socket.send_to(&datagram, peer));
            }
            lives
        });
    }
}

/// Goes on with one connection; `false` ends it.
fn serve(client: &mut Connection) -> Result<bool, Box<dyn Error>> {
    client.handle_timeout(now())?;
    if client.handshake(now())? == Progress::Waiting {
        return Ok(true);
    }
    let mut buffer = [0; 16 * 1024];
    loop {
        match client.read(&mut buffer)? {
            Read::Data(length) => client.write(&buffer[..length])?,
            Read::Empty => return Ok(true),
            Read::Closed | Read::Reconnected => {
                client.close();
                return Ok(false);
            }
        }
    }
}

/// Waits until the socket is readable or the deadline has come.
fn wait(socket: &UdpSocket, deadline: Option<Instant>) -> Result<(), Box<dyn Error>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    socket.set_nonblocking(true)?;
    let timeout = match deadline {
        Some(deadline) => PollTimeout::try_from(deadline.saturating_duration_since(now()))?,
        None => PollTimeout::NONE,
    };
    poll(
        &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
        timeout,
    )?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this loop is where the program reads its clock"
)]
fn now() -> Instant {
    Instant::now()
}
