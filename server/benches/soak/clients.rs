//! The clients: `dtls-client load` processes, and what they report. Main thread.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::{Failure, now, signal, wait_for_end};

/// What a message may take before it counts as lost.
const TIMEOUT: &str = "2s";

/// A running `dtls-client load`; killed when dropped.
pub(crate) struct Clients {
    process: Child,
    name: String,
    report: PathBuf,
    log: PathBuf,
}

/// What we need of its report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) begun: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) interrupted: u64,
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    pub(crate) cookies: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) duplicated: u64,
    pub(crate) corrupted: u64,
    pub(crate) failures: Vec<Failures>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failures {
    pub(crate) stage: String,
    pub(crate) error: String,
    pub(crate) count: u64,
}

impl Report {
    /// Connections that never came to the end of their handshake.
    pub(crate) fn unmade(&self) -> u64 {
        self.failed - self.dropped()
    }

    /// Connections that ended out of order after their handshake.
    pub(crate) fn dropped(&self) -> u64 {
        let after = self.failures.iter();
        after
            .filter(|failures| failures.is_after_handshake())
            .map(|failures| failures.count)
            .sum()
    }
}

impl Failures {
    pub(crate) fn is_after_handshake(&self) -> bool {
        matches!(&self.stage[..], "exchange" | "hold")
    }
}

impl Clients {
    /// Those that stay, until they are ended: each sends a message now and then.
    pub(crate) fn stay(
        options: &Options,
        relay: SocketAddr,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let per_second = 1.0 / options.every.as_secs_f64();
        Self::start("stay", options, relay, folder, |command| {
            command
                .args(["--mode", "echo", "--source", "127.4.0.0/24"])
                .args(["--connections", &options.connections.to_string()])
                .args(["--rate", &options.rate.to_string()])
                // More than there is time for.
                .args(["--messages", "1000000000"])
                .args(["--message-rate", &per_second.to_string()]);
        })
    }

    /// Those that come and go, for so long.
    pub(crate) fn come_and_go(
        options: &Options,
        relay: SocketAddr,
        folder: &Path,
        time: Duration,
    ) -> Result<Self, Failure> {
        Self::start("come-and-go", options, relay, folder, |command| {
            command
                .args([
                    "--mode",
                    "mix",
                    "--mix",
                    "echo=4,resume=3,handshake=2,reconnect=1",
                ])
                .args(["--arrivals", "poisson", "--source", "127.3.0.0/24"])
                .args(["--rate", &options.comings.to_string()])
                .args(["--duration", &format!("{}s", time.as_secs())])
                .args(["--messages", "3"]);
        })
    }

    /// Hellos without end from strangers, straight to each server.
    pub(crate) fn flood(
        options: &Options,
        servers: &[SocketAddr],
        folder: &Path,
        time: Duration,
    ) -> Result<Vec<Self>, Failure> {
        let each = f64::from(options.flood) / servers.len() as f64;
        let floods = servers.iter().enumerate();
        floods
            .map(|(n, &server)| {
                Self::one_flood(options, &format!("flood-{n}"), each, server, folder, time)
            })
            .collect()
    }

    fn one_flood(
        options: &Options,
        name: &str,
        rate: f64,
        server: SocketAddr,
        folder: &Path,
        time: Duration,
    ) -> Result<Self, Failure> {
        Self::start(name, options, server, folder, |command| {
            command
                .args(["--mode", "hello-flood", "--source", "127.1.0.0/24"])
                .args(["--rate", &rate.to_string()])
                .args(["--duration", &format!("{}s", time.as_secs())]);
        })
    }

    fn start(
        name: &str,
        options: &Options,
        to: SocketAddr,
        folder: &Path,
        arguments: impl FnOnce(&mut Command),
    ) -> Result<Self, Failure> {
        let report = folder.join(format!("{name}.json"));
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(program()?);
        command
            .args([
                "load",
                &to.to_string(),
                "--server-name",
                "localhost",
                "--ca",
            ])
            .arg(folder.join("ca.pem"))
            .args(["--timeout", TIMEOUT, "--format", "json"])
            .args(["--seed", &options.seed.to_string()])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&report)?)
            .stderr(fs::File::create(&log)?);
        arguments(&mut command);
        Ok(Self {
            process: command.spawn()?,
            name: name.to_owned(),
            report,
            log,
        })
    }

    /// Fails if it has ended already.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(&status.to_string())),
        }
    }

    /// Ends it early, each connection in order.
    pub(crate) fn interrupt(&self) -> Result<(), Failure> {
        signal(&self.process, Signal::SIGINT)
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self, patience: Duration) -> Result<Report, Failure> {
        let begun = now();
        let status = wait_for_end(&mut self.process, &self.name, patience)?;
        // 1: messages were lost, as they should be.
        if !matches!(status.code(), Some(0 | 1)) {
            return Err(self.ended(&status.to_string()));
        }
        let text = fs::read_to_string(&self.report)?;
        let report = serde_json::from_str(&text);
        report.map_err(|error| {
            let took = now() - begun;
            Failure::Run(format!("clients `{}`, {took:?}: {error}", self.name))
        })
    }

    fn ended(&self, status: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let text = format!(
            "clients `{}` ended with {status}: {}",
            self.name,
            log.trim()
        );
        Failure::Run(text)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.process.kill().unwrap_or_default();
            self.process.wait().map(drop).unwrap_or_default();
        }
    }
}

/// `dtls-client`, which `make soak` builds beside the server.
fn program() -> Result<PathBuf, Failure> {
    let program = Path::new(env!("CARGO_BIN_EXE_dtls-server")).with_file_name("dtls-client");
    if program.exists() {
        Ok(program)
    } else {
        let shown = program.display();
        Err(Failure::Unfit(format!(
            "{shown} is missing: run `make soak`"
        )))
    }
}
