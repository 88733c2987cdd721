//! The server under test, as a process: started, looked at through its status page, given new
//! certificates, ended. Main thread.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use dtls_certs::{Profile, TestPki};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;

use crate::options::Options;
use crate::{Failure, now, pause, signal, wait_for_end};

const START: Duration = Duration::from_secs(20);
const PAGE: Duration = Duration::from_secs(10);

/// Connections beside those that stay: clients that come and go, and those whose close was lost.
pub(crate) fn room(options: &Options) -> u32 {
    let lingering = 0.05 * options.idle_timeout().as_secs_f64() + 10.0;
    let coming = (f64::from(options.comings) * lingering).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    let coming = coming as u32;
    coming + 50
}

/// A running `dtls-server`; killed when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    pages: SocketAddr,
    pki: TestPki,
    folder: PathBuf,
    log: PathBuf,
}

/// What the status page says.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) process: Process,
    pub(crate) listeners: Vec<Listener>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    pub(crate) open_descriptors: u64,
    pub(crate) cpu_seconds: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Listener {
    pub(crate) connections: u64,
}

impl Status {
    pub(crate) fn connections(&self) -> u64 {
        self.listeners
            .iter()
            .map(|listener| listener.connections)
            .sum()
    }
}

impl Server {
    /// Starts it in front of `backend`, with certificates of its own in `folder`.
    pub(crate) fn start(
        options: &Options,
        backend: SocketAddr,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let pki = TestPki::new()?;
        fs::write(folder.join("ca.pem"), pki.ca_pem())?;
        let log = folder.join("server.log");
        let most = options.connections + room(options);
        renew(&pki, folder)?;
        let process = Command::new(env!("CARGO_BIN_EXE_dtls-server"))
            .args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(["--service", "forward", "--backend", &backend.to_string()])
            .args(["--transport", &options.transport])
            .args(["--max-connections", &most.to_string()])
            .args([
                "--idle-timeout",
                &format!("{}s", options.idle_timeout().as_secs()),
            ])
            .args(["--drain-timeout", "5s", "--format", "json"])
            .arg("--cert")
            .arg(folder.join("server.pem"))
            .arg("--key")
            .arg(folder.join("server.key"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.join("server.json"))?)
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            process,
            address: unknown,
            pages: unknown,
            pki,
            folder: folder.to_owned(),
            log,
        };
        server.address = server.announced("listening on ")?.parse()?;
        server.pages = server.announced("operations pages at http://")?.parse()?;
        Ok(server)
    }

    /// The address that it logs after these words.
    fn announced(&mut self, words: &str) -> Result<String, Failure> {
        let give_up = now() + START;
        loop {
            let log = fs::read_to_string(&self.log)?;
            let rest = log.split_once(words).map(|(_, rest)| rest);
            if let Some((address, _)) = rest.and_then(|rest| rest.split_once([' ', '/', ','])) {
                return Ok(address.to_owned());
            }
            if let Some(status) = self.process.try_wait()? {
                let refused = status.code().filter(|&code| code == 2 || code == 3);
                let text = format!("dtls-server does not start: {}", log.trim());
                return Err(refused.map_or(Failure::Run(text.clone()), |_| Failure::Unfit(text)));
            }
            if now() > give_up {
                return Err(Failure::Run(format!(
                    "dtls-server says nothing about {words}"
                )));
            }
            pause(Duration::from_millis(20));
        }
    }

    /// Its status page.
    pub(crate) fn status(&mut self) -> Result<Status, Failure> {
        if let Some(status) = self.process.try_wait()? {
            return Err(self.ended(status));
        }
        self.page()
            .map_err(|error| Failure::Run(format!("dtls-server's status page: {error}")))
    }

    fn page(&self) -> Result<Status, Failure> {
        let mut page = TcpStream::connect_timeout(&self.pages, PAGE)?;
        page.set_read_timeout(Some(PAGE))?;
        page.write_all(b"GET /status HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        page.read_to_string(&mut text)?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(serde_json::from_str(body)?)
    }

    /// Gives it a new certificate, and a SIGHUP.
    pub(crate) fn reload(&self) -> Result<(), Failure> {
        renew(&self.pki, &self.folder)?;
        signal(&self.process, Signal::SIGHUP)
    }

    /// Ends it, and gives what it counted.
    pub(crate) fn stop(mut self) -> Result<Value, Failure> {
        signal(&self.process, Signal::SIGTERM)?;
        let status = wait_for_end(&mut self.process, "dtls-server", Duration::from_secs(60))?;
        if !status.success() {
            return Err(self.ended(status));
        }
        let text = fs::read_to_string(self.folder.join("server.json"))?;
        let report: Value = serde_json::from_str(&text)?;
        Ok(report["counters"].clone())
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        Failure::Run(format!(
            "dtls-server ended with {status}; its last words: {last}"
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already reaped after `stop`.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.process.kill().unwrap_or_default();
            self.process.wait().map(drop).unwrap_or_default();
        }
    }
}

/// Puts a new certificate and its key in place, each in one step.
fn renew(pki: &TestPki, folder: &Path) -> Result<(), Failure> {
    let fresh = pki.issue(Profile::SERVER)?;
    for (name, text) in [
        ("server.pem", fresh.chain_pem),
        ("server.key", fresh.key_pem),
    ] {
        let beside = folder.join("fresh");
        fs::write(&beside, text)?;
        fs::rename(beside, folder.join(name))?;
    }
    Ok(())
}
