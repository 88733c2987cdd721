//! Memory of connections that are only held.

use std::path::Path;
use std::time::{Duration, Instant};

use dtls_certs::PkiFiles;

use crate::program::{Client, Server};

type Failure = Box<dyn std::error::Error>;

/// The server's resident memory per connection in KiB, once all of them are established.
pub(crate) fn rss_per_connection_kib(
    programs: &Path,
    pki: &PkiFiles,
    connections: u32,
) -> Result<f64, Failure> {
    let server = Server::start(programs, pki, connections)?;
    let (rss, threads) = (server.status("VmRSS")?, server.status("Threads")?);
    // With a message each, the connections have done some work; killed once measured.
    let mut client = Client::command(programs, pki, server.address(), connections, connections)
        .args([
            "--messages",
            "1",
            "--hold",
            "20s",
            "--handshake-timeout",
            "60s",
        ])
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let give_up = now() + Duration::from_secs(150);
    let wanted = threads + u64::from(connections);
    let mut most = 0.0;
    while server.status("Threads")? < wanted {
        let ended = client.try_wait()?;
        if now() > give_up || ended.is_some() {
            client.kill().unwrap_or_default();
            client.wait()?;
            let threads = server.status("Threads")?;
            return Err(
                format!("{threads} of {wanted} threads came up; the client: {ended:?}").into(),
            );
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    // Handshakes of the last ones end within this time; their memory then is what is kept.
    let settled = now() + Duration::from_secs(5);
    while now() < settled {
        std::thread::park_timeout(settled - now());
        most = (server.status("VmRSS")? - rss) as f64 / f64::from(connections);
    }
    client.kill()?;
    client.wait()?;
    server.stop()?;
    Ok(most)
}

#[expect(clippy::disallowed_methods, reason = "bounds a loop of the benchmark")]
fn now() -> Instant {
    Instant::now()
}
