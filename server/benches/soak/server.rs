//! The servers under test, a process each: started, looked at through their status pages, given new
//! certificates, ended. There is one, unless a process may not have as many descriptors as the
//! connections need; then there are as few as can share them, with the same certificate and the same
//! keys of cookies and tickets. Main thread.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
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

/// More are not tried.
const MOST_SERVERS: u32 = 8;

/// The running servers.
pub(crate) struct Servers {
    servers: Vec<Server>,
    pki: TestPki,
    folder: PathBuf,
}

/// A running `dtls-server`; killed when dropped.
struct Server {
    process: Child,
    address: SocketAddr,
    pages: SocketAddr,
    log: PathBuf,
    report: PathBuf,
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

impl Servers {
    /// Starts them in front of `backend`, with certificates of their own in `folder`.
    pub(crate) fn start(
        options: &Options,
        backend: SocketAddr,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let pki = TestPki::new()?;
        fs::write(folder.join("ca.pem"), pki.ca_pem())?;
        let secret = format!("1:{:016x}{:048x}\n", options.seed, 1);
        let shared_keys = folder.join("shared-keys");
        // One that is there keeps its mode.
        fs::remove_file(&shared_keys).unwrap_or_default();
        write_private(&shared_keys, &secret)?;
        renew(&pki, folder)?;
        let least = options.servers.unwrap_or(1);
        let most = options.servers.unwrap_or(MOST_SERVERS);
        let mut refused = None;
        for number in least..=most {
            let start = |index| Server::start(options, number, index, backend, folder);
            match (0..number).map(start).collect::<Result<_, _>>() {
                Ok(servers) => {
                    return Ok(Self {
                        servers,
                        pki,
                        folder: folder.to_owned(),
                    });
                }
                // The first one's reason: it knows what this host lacks for all connections at once.
                Err(unfit @ Failure::Unfit(_)) => refused = refused.or(Some(unfit)),
                Err(other) => return Err(other),
            }
        }
        Err(refused.unwrap_or_else(|| Failure::Usage("--servers: at least one".to_owned())))
    }

    /// Where each listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// Their status pages.
    pub(crate) fn status(&mut self) -> Result<Vec<Status>, Failure> {
        self.servers.iter_mut().map(Server::status).collect()
    }

    /// Gives them a new certificate, and a SIGHUP.
    pub(crate) fn reload(&self) -> Result<(), Failure> {
        renew(&self.pki, &self.folder)?;
        let mut servers = self.servers.iter();
        servers.try_for_each(|server| signal(&server.process, Signal::SIGHUP))
    }

    /// Ends them, and gives what each has counted.
    pub(crate) fn stop(self) -> Result<Vec<Value>, Failure> {
        self.servers.into_iter().map(Server::stop).collect()
    }
}

impl Server {
    /// Starts one of `number`.
    fn start(
        options: &Options,
        number: u32,
        index: u32,
        backend: SocketAddr,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let log = folder.join(format!("server-{index}.log"));
        let report = folder.join(format!("server-{index}.json"));
        // Chance does not share out evenly.
        let uneven = if number == 1 {
            0
        } else {
            options.connections / number / 10
        };
        let most = options.connections.div_ceil(number) + uneven + room(options);
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
            .arg("--shared-keys")
            .arg(folder.join("shared-keys"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&report)?)
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            process,
            address: unknown,
            pages: unknown,
            log,
            report,
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
    fn status(&mut self) -> Result<Status, Failure> {
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

    /// Ends it, and gives what it counted.
    fn stop(mut self) -> Result<Value, Failure> {
        signal(&self.process, Signal::SIGTERM)?;
        let status = wait_for_end(&mut self.process, "dtls-server", Duration::from_secs(60))?;
        if !status.success() {
            return Err(self.ended(status));
        }
        let text = fs::read_to_string(&self.report)?;
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
        write_private(&beside, &text)?;
        fs::rename(beside, folder.join(name))?;
    }
    Ok(())
}

/// Writes a file that nobody else can read: the server would warn of it.
fn write_private(file: &Path, text: &str) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    Ok(options.open(file)?.write_all(text.as_bytes())?)
}
