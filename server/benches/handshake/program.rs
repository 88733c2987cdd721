//! The two programs under measurement, as processes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dtls_certs::{PkiFiles, Profile};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

/// A running `dtls-server`; killed when dropped.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts the server on a free port of the loopback.
    pub(crate) fn start(
        programs: &Path,
        pki: &PkiFiles,
        most: u32,
        transport: &str,
    ) -> Result<Self, Failure> {
        let mut process = Command::new(programs.join("dtls-server"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--format",
                "json",
                "--idle-timeout",
                "none",
            ])
            .args(["--max-connections", &most.to_string()])
            // The clients of a benchmark may just be killed.
            .args(["--transport", transport, "--drain-timeout", "0s"])
            .arg("--cert")
            .arg(pki.chain(Profile::SERVER))
            .arg("--key")
            .arg(pki.key(Profile::SERVER))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = process.stderr.take().ok_or("no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let address = loop {
            let line = lines.next().ok_or("dtls-server ended at once")??;
            if let Some((_, rest)) = line.split_once("listening on ") {
                let text = rest.split([' ', ',']).next().unwrap_or(rest);
                break text.parse()?;
            }
        };
        // Keeps the pipe from filling up.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn pid(&self) -> Result<Pid, Failure> {
        Ok(Pid::from_raw(i32::try_from(self.process.id())?))
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let clock = ClockId::pid_cpu_clock_id(self.pid()?)?;
        Ok(clock_gettime(clock)?.into())
    }

    /// A number of `/proc/PID/status`, such as `VmRSS` in KiB.
    pub(crate) fn status(&self, field: &str) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        Ok(number
            .ok_or_else(|| format!("no {field} in /proc/PID/status"))?
            .parse()?)
    }

    /// Ends the server in order and returns its counters.
    pub(crate) fn stop(mut self) -> Result<Value, Failure> {
        kill(self.pid()?, Signal::SIGTERM)?;
        let mut text = String::new();
        let stdout = self.process.stdout.take().ok_or("no standard output")?;
        BufReader::new(stdout).read_to_string(&mut text)?;
        self.process.wait()?;
        let report: Value = serde_json::from_str(&text)?;
        Ok(report["counters"].clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already reaped after `stop`; otherwise the benchmark failed and nobody waits for it.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.process.kill().unwrap_or_default();
            self.process.wait().map(drop).unwrap_or_default();
        }
    }
}

/// What `dtls-client load` counted.
pub(crate) struct Outcome {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) retransmissions: u64,
}

/// `dtls-client`, run to its end.
pub(crate) struct Client;

impl Client {
    /// Handshakes and nothing else.
    pub(crate) fn load(
        programs: &Path,
        pki: &PkiFiles,
        server: SocketAddr,
        connections: u32,
        concurrency: u32,
        resume: bool,
    ) -> Result<Outcome, Failure> {
        let mut command = Self::command(programs, pki, server, connections, concurrency);
        command.args(["--messages", "0"]);
        if resume {
            command.arg("--resume");
        }
        let output = command.stderr(Stdio::inherit()).output()?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let number = |pointer: &str| {
            let value = report.pointer(pointer).and_then(Value::as_u64);
            value.ok_or_else(|| format!("dtls-client reports no {pointer}"))
        };
        Ok(Outcome {
            completed: number("/handshakes")?,
            failed: number("/failed")?,
            retransmissions: number("/retransmissions")?,
        })
    }

    /// The command line that all uses share.
    pub(crate) fn command(
        programs: &Path,
        pki: &PkiFiles,
        server: SocketAddr,
        connections: u32,
        concurrency: u32,
    ) -> Command {
        let mut command = Command::new(programs.join("dtls-client"));
        command
            .args([
                "load",
                &server.to_string(),
                "--server-name",
                "localhost",
                "--format",
                "json",
            ])
            .args(["--connections", &connections.to_string()])
            .args(["--concurrency", &concurrency.to_string()])
            .arg("--ca")
            .arg(pki.ca())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}
