//! `make soak`: a server, or as few as the limit on descriptors allows, kept busy through a lossy network for as long as one likes, and what must hold
//! at the end.
//!
//! ```text
//!  dtls-client load, those that stay     ─┐
//!  dtls-client load, come and go         ─┴─► relay, loses 1 % ─┬─► dtls-server forward ─► echo
//!  dtls-client load, hellos of strangers ───────────────────────┘      ▲ new certificates
//! ```
//!
//! The main thread starts everything, looks at the servers once a second, and judges; relay and echo
//! have a thread each, servers and clients are processes. What they wrote stays in `target/soak`.
#![forbid(unsafe_code)]

mod backend;
mod clients;
mod options;
mod relay;
mod server;
mod verdict;

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use backend::Backend;
use clients::Clients;
use options::{Format, Options};
use relay::Relay;
use server::{Servers, Status};
use verdict::{Evidence, Lost, Sample, Verdict};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Of the flags.
    #[error("{0}")]
    Usage(String),
    /// Of the machine.
    #[error("{0}")]
    Unfit(String),
    /// Of the run.
    #[error("{0}")]
    Run(String),
    /// Of the system.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// Of a system call.
    #[error(transparent)]
    Call(#[from] nix::Error),
    /// A program printed something else than it should.
    #[error("a program's report: {0}")]
    Report(#[from] serde_json::Error),
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] dtls_certs::IssueError),
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] std::net::AddrParseError),
}

/// How long clients may take to end after they were told to, or after their time: a handshake that
/// began last may take as long as it is given.
const CLIENTS_END: Duration = Duration::from_secs(60);

/// What the server gives a handshake by default.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(verdict) => {
            match options.format {
                Format::Text => print!("{verdict}"),
                Format::Json => println!("{}", verdict.json()),
            }
            match verdict.reason() {
                None => ExitCode::SUCCESS,
                Some(reason) => {
                    eprintln!("soak: {reason}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(failure) => {
            eprintln!("soak: {failure}");
            ExitCode::from(match failure {
                Failure::Usage(_) => 2,
                Failure::Unfit(_) => 3,
                _ => 1,
            })
        }
    }
}

fn run(options: &Options) -> Result<Verdict, Failure> {
    options.check()?;
    make_room(options)?;
    let folder = folder()?;
    let dropped_before = dropped_by_kernel()?;
    let backend = Backend::start()?;
    let mut servers = Servers::start(options, backend.address, &folder)?;
    let quiet = servers.status()?;
    let addresses = servers.addresses();
    let relay = Relay::start(addresses.clone(), options.loss, options.seed)?;

    let began = now();
    let end = began + options.time;
    let mut stay = Clients::stay(options, relay.address, &folder)?;
    let mut come_and_go = Clients::come_and_go(options, relay.address, &folder, options.time)?;
    let mut floods = Clients::flood(options, &addresses, &folder, options.time)?;
    let mut samples = Vec::new();
    let (mut reloads, mut reload_at) = (0, began + options.reload_every);
    let mut next = began;
    loop {
        next += Duration::from_secs(1);
        if next >= end {
            break;
        }
        pause(next.saturating_duration_since(now()));
        // One that ended early would leave nothing to be checked.
        stay.check()?;
        if next + Duration::from_secs(2) < end {
            come_and_go.check()?;
            floods.iter_mut().try_for_each(Clients::check)?;
        }
        let sample = Sample::of(&servers.status()?, began);
        progress(options, &sample);
        samples.push(sample);
        if next >= reload_at {
            servers.reload()?;
            reloads += 1;
            reload_at += options.reload_every;
        }
    }
    let held = connections(&servers.status()?);

    // Those that come and go first: what they lost may not look like somebody else's.
    let finish = |clients: Clients| clients.finish(CLIENTS_END);
    let floods = floods.into_iter().map(finish).collect::<Result<_, _>>()?;
    let come_and_go = come_and_go.finish(CLIENTS_END)?;
    stay.interrupt()?;
    let stay = stay.finish(CLIENTS_END)?;
    let left = wait_until_gone(&mut servers, options, &quiet)?;
    let counters = servers.stop()?;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Verdict::of(&Evidence {
        options,
        samples,
        held,
        reloads,
        stay,
        come_and_go,
        floods,
        quiet_descriptors: descriptors(&quiet),
        left_connections: connections(&left),
        left_descriptors: descriptors(&left),
        counters,
        backend_received: backend.received(),
        backend_sent: backend.sent(),
        lost: Lost {
            to_server: read(&relay.counts.to_server),
            to_server_lost: read(&relay.counts.to_server_lost),
            to_client: read(&relay.counts.to_client),
            to_client_lost: read(&relay.counts.to_client_lost),
            unsent: read(&relay.counts.unsent),
            by_kernel: dropped_by_kernel()? - dropped_before,
        },
    }))
}

/// Waits until the servers have noticed that all clients are gone, as long as that may take: a close
/// may have been lost, a handshake never completed.
fn wait_until_gone(
    servers: &mut Servers,
    options: &Options,
    quiet: &[Status],
) -> Result<Vec<Status>, Failure> {
    let slack = Duration::from_secs(10);
    let give_up = now() + options.idle_timeout().max(HANDSHAKE_TIMEOUT) + slack;
    loop {
        let status = servers.status()?;
        let gone = connections(&status) == 0 && descriptors(&status) <= descriptors(quiet);
        if gone || now() > give_up {
            return Ok(status);
        }
        pause(Duration::from_millis(500));
    }
}

/// The connections of all servers.
pub(crate) fn connections(status: &[Status]) -> u64 {
    status.iter().map(Status::connections).sum()
}

/// The open descriptors of all servers.
fn descriptors(status: &[Status]) -> u64 {
    let each = status.iter().map(|status| status.process.open_descriptors);
    each.sum()
}

/// A line that is written over, for whoever watches.
fn progress(options: &Options, sample: &Sample) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let (now, all) = (sample.seconds, options.time.as_secs());
        let mib = sample.resident_bytes.iter().sum::<u64>() >> 20;
        let connections = sample.connections;
        // Nobody is there to read it: no harm done.
        drop(write!(
            out,
            "\r{now:.0} of {all} s, {connections} connections, {mib} MiB "
        ));
        drop(out.flush());
    }
}

/// The relay has a descriptor for each client.
fn make_room(options: &Options) -> Result<(), Failure> {
    let recent = u64::from(options.comings) * relay::FORGOTTEN.as_secs();
    let needed = u64::from(options.connections) + recent * 12 / 10 + 100;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if most < needed {
        return Err(Failure::Unfit(format!(
            "the relay needs {needed} descriptors, the limit is {most}: raise it (ulimit -Hn {needed}), \
             or lower --connections or --comings"
        )));
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Where everything is kept: `target/soak`, from the place of this program in `target/…/deps`.
fn folder() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).unwrap_or(Path::new("."));
    let folder = target.join("soak");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Datagrams that this host has dropped for want of room in a queue, see `proc_pid_net(5)`. All
/// programs' are counted: an upper bound of ours.
fn dropped_by_kernel() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Udp: "));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let fields = names.split(' ').zip(values.split(' '));
    let dropped = fields.filter(|(name, _)| matches!(*name, "RcvbufErrors" | "SndbufErrors"));
    Ok(dropped
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum())
}

/// Gives a socket as long a queue as the system allows.
pub(crate) fn roomy(socket: UdpSocket) -> Result<UdpSocket, Failure> {
    setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
    Ok(socket)
}

pub(crate) fn signal(process: &Child, signal: Signal) -> Result<(), Failure> {
    let pid = i32::try_from(process.id()).map_err(|_| Failure::Run("no such pid".to_owned()))?;
    Ok(kill(Pid::from_raw(pid), signal)?)
}

/// Waits for a process; it is killed if it takes too long.
pub(crate) fn wait_for_end(
    process: &mut Child,
    name: &str,
    patience: Duration,
) -> Result<ExitStatus, Failure> {
    let give_up = now() + patience;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        if now() > give_up {
            process.kill()?;
            return Err(Failure::Run(format!(
                "{name} did not end within {patience:?}"
            )));
        }
        pause(Duration::from_millis(50));
    }
}

/// Lets time pass, until the next look.
pub(crate) fn pause(time: Duration) {
    let end = now() + time;
    while let Some(left) = end
        .checked_duration_since(now())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the main loop's clock, and the relay's"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
