//! Connections that are only held.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use dtls_certs::PkiFiles;

use crate::program::{Client, Server};

type Failure = Box<dyn std::error::Error>;

/// A server and a client that holds connections to it; the client is killed when this is dropped.
pub(crate) struct Held {
    pub(crate) server: Server,
    /// The server's resident memory per connection in KiB.
    pub(crate) kib: f64,
    client: Child,
}

impl Held {
    /// Waits until all connections are established and their memory is what is kept.
    pub(crate) fn new(
        programs: &Path,
        pki: &PkiFiles,
        transport: &str,
        connections: u32,
    ) -> Result<Self, Failure> {
        let server = Server::start(programs, pki, connections + 64, transport)?;
        let (rss, threads) = (server.status("VmRSS")?, server.status("Threads")?);
        // With a message each, the connections have done some work.
        let client = Client::command(programs, pki, server.address(), connections, connections)
            .args(["--messages", "1", "--hold", "120s"])
            .args(["--handshake-timeout", "60s"])
            .stdout(Stdio::null())
            .spawn()?;
        let mut held = Self {
            server,
            kib: 0.0,
            client,
        };
        let give_up = now() + Duration::from_secs(150);
        let wanted = threads + u64::from(connections);
        loop {
            let threads = held.server.status("Threads")?;
            if threads >= wanted {
                break;
            }
            let ended = held.client.try_wait()?;
            if now() > give_up || ended.is_some() {
                return Err(format!(
                    "{threads} of {wanted} threads came up; the client: {ended:?}"
                )
                .into());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        // Handshakes of the last ones end within this time.
        let settled = now() + Duration::from_secs(5);
        while now() < settled {
            std::thread::park_timeout(settled - now());
        }
        held.kib = (held.server.status("VmRSS")? - rss) as f64 / f64::from(connections);
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.client.kill().unwrap_or_default();
        self.client.wait().map(drop).unwrap_or_default();
    }
}

#[expect(clippy::disallowed_methods, reason = "bounds a loop of the benchmark")]
fn now() -> Instant {
    Instant::now()
}
