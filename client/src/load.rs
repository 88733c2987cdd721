//! `dtls-client load`: the load generator. The path of a run is the list of files:
//!
//! ```text
//! plan ─► pacer ─► worker ─► attempt ─► exchange ─► measure ─► doubts ─► report
//!                  a thread each, an event loop over its connections    main thread
//! ```
//!
//! The main thread starts the workers, shows how far the run is, observes the processes, and reports.

pub(crate) mod plan;
mod limits;
mod system;
pub(crate) mod metrics;
mod pacer;
mod run;
mod worker;
mod socket;
mod attempt;
mod exchange;
pub(crate) mod message;
mod outcome;
mod measure;
mod live;
mod doubts;
pub(crate) mod report;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use nix::errno::Errno;

use crate::cli::{Format, LoadArgs};
use crate::clock::now;
use crate::exit::{ENVIRONMENT, FAILED, USAGE};
use crate::interrupt::{Interrupt, InterruptError};
use crate::setup::{self, SetupError};
use crate::target::ResolveError;

use doubts::Circumstances;
use limits::LimitError;
use live::Live;
use metrics::{Counters, MetricsError, MetricsUrl};
use plan::{Mode, Plan, PlanError};
use report::{Consumption, Facts, Report};
use run::{Destination, Run};
use system::{ProcessError, Usage};
use worker::Worker;

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("--start-at: {} has passed", humantime::format_rfc3339_seconds(*.0))]
    Past(SystemTime),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("{flag}: cannot write {}: {source}", path.display())]
    File {
        flag: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    #[error(
        "cannot start thread {number} of {wanted}: {source}; lower --threads or raise the limit on \
         threads (ulimit -u)"
    )]
    Thread {
        number: u16,
        wanted: u16,
        source: io::Error,
    },
    #[error("cannot wait for connections: {0}")]
    Wait(#[from] Errno),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl LoadError {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Setup(_)
            | Self::Plan(_)
            | Self::Past(_)
            | Self::Process(ProcessError::None { .. })
            | Self::File { .. } => USAGE,
            _ => ENVIRONMENT,
        }
    }
}

/// Runs it to its end.
pub(crate) fn run(args: &LoadArgs) -> ExitCode {
    match load(args).and_then(|report| {
        deliver(&report, args)?;
        Ok(report)
    }) {
        Ok(report) if report.is_good() => ExitCode::SUCCESS,
        Ok(report) => {
            eprintln!("dtls-client: {}", report.what_went_wrong());
            ExitCode::from(FAILED)
        }
        Err(error) => {
            eprintln!("dtls-client: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Writes the files that were asked for and prints the report: last, for whoever reads it may have
/// had enough.
fn deliver(report: &Report, args: &LoadArgs) -> Result<(), LoadError> {
    if let Some(path) = &args.hdr {
        let failed = failed_file("--hdr", path);
        let mut file = BufWriter::new(File::create(path).map_err(&failed)?);
        report::hdr::write(report, &mut file).map_err(&failed)?;
        file.flush().map_err(&failed)?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, report::html::page(report)).map_err(failed_file("--html", path))?;
    }
    match args.format {
        Format::Text => report::text::print(report)?,
        Format::Json => report::json::print(report)?,
    }
    Ok(())
}

fn failed_file(flag: &'static str, path: &std::path::Path) -> impl Fn(io::Error) -> LoadError {
    move |source| LoadError::File {
        flag,
        path: path.to_owned(),
        source,
    }
}

/// Makes the connections and counts.
fn load(args: &LoadArgs) -> Result<Report, LoadError> {
    let plan = Plan::new(args)?;
    // What would be found out after the run is found out before it.
    for (flag, path) in [("--hdr", &args.hdr), ("--html", &args.html)] {
        if let Some(path) = path {
            // What stands in it stays until there is something better.
            let mut open = OpenOptions::new();
            let opened = open.append(true).create(true).open(path);
            opened.map_err(failed_file(flag, path))?;
        }
    }
    let config = setup::client_config(&args.server, false)?;
    let mut targets = Vec::new();
    for target in &args.targets {
        let addresses = target.resolve()?;
        targets.push(Destination {
            config: config.clone(),
            name: setup::server_name(&args.server, target),
            peer: addresses[0],
        });
    }
    let room = limits::make_room(&plan, targets.len())?;
    let server_before = args.server_pid.map(system::usage_of).transpose()?;
    let metrics = args.server_metrics.as_ref();
    let counters_before = metrics.map(MetricsUrl::read).transpose()?;
    let interrupt = Interrupt::install(0)?;
    wait_for_start(args.start_at, &interrupt)?;

    let sources = args
        .source
        .iter()
        .flat_map(|sources| sources.0.iter().copied())
        .collect();
    let shared = targets.iter().any(|target| target.peer.ip().is_loopback());
    let peers: Vec<String> = targets
        .iter()
        .map(|target| target.peer.to_string())
        .collect();
    let shares = targets.len();
    let dropped_before = system::dropped_datagrams();
    let own_before = system::own_usage();
    let (started_at, began) = (SystemTime::now(), now());
    let run = Run::new(plan, targets, sources, &interrupt, room, began);
    let mut watch = Watch {
        pid: args.server_pid,
        server: Observed::new(server_before),
        client: Observed::new(own_before),
        live: Live::new(),
    };
    work(&run, &mut watch)?;
    let took = now().saturating_duration_since(began);
    watch.live.finish();
    watch.observe();

    let tally = run.sum();
    let by_the_clock = started_at.elapsed().unwrap_or_default();
    let dropped = system::dropped_datagrams().zip(dropped_before);
    let seen = Circumstances {
        dropped: dropped.map(|(after, before)| after.saturating_sub(before)),
        // A clock that is being corrected runs up to a thousandth faster or slower.
        clock_skew: by_the_clock.abs_diff(took).saturating_sub(took / 1000),
        was_full: run.progress.was_full.load(Ordering::Relaxed),
        room,
        shared,
        server_gone: watch.server.gone,
    };
    let mut doubts = doubts::find(&run.plan, &tally, &seen);
    let server_counters = match metrics.zip(counters_before) {
        Some((url, before)) => {
            match compare_counters(url, &before, &tally) {
                Ok((grown, disagreements)) => {
                    doubts.splice(..0, disagreements);
                    Some(grown)
                }
                // The server may be gone by now; what was measured until then stands.
                Err(error) => {
                    let (kind, text) = (doubts::Kind::ServerUnobserved, error.to_string());
                    doubts.insert(0, doubts::Doubt { kind, text });
                    None
                }
            }
        }
        None => None,
    };
    let open = (run.plan.mode == Mode::Hold).then_some(tally.handshakes);
    let facts = Facts {
        target: join(args.targets.iter().map(ToString::to_string)),
        peer: join(peers.into_iter()),
        started_at: humantime::format_rfc3339_millis(started_at).to_string(),
        doubts,
        server_counters,
        stopped: run.stopped(),
        begun: run.progress.begun.load(Ordering::Relaxed).into(),
        took,
        client: watch.client.consumption(&tally, open),
        server: args.server_pid.map(|_| {
            let used = watch.server.consumption(&tally, open);
            // Of several servers one is observed: how much of the work was its own is not known.
            if shares > 1 { used.in_all() } else { used }
        }),
        plan: run.plan.clone(),
    };
    Ok(Report::new(facts, &tally))
}

/// Reads the server's counters after the run, until they agree with ours: the last connections may
/// still be ending there.
fn compare_counters(
    url: &MetricsUrl,
    before: &Counters,
    tally: &measure::Tally,
) -> Result<(Counters, Vec<doubts::Doubt>), LoadError> {
    let give_up = now() + SETTLE;
    loop {
        let after = url.read()?;
        let grown = metrics::growth(before, &after);
        let doubts = metrics::disagreements(tally, &after, &grown);
        if doubts.is_empty() || now() >= give_up {
            return Ok((grown, doubts));
        }
        thread::park_timeout(REDRAW);
    }
}

/// For a server to count what has ended here.
const SETTLE: Duration = Duration::from_secs(2);

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" ")
}

/// Waits for the time to begin, or a signal.
fn wait_for_start(start: Option<SystemTime>, interrupt: &Interrupt) -> Result<(), LoadError> {
    let Some(start) = start else {
        return Ok(());
    };
    start
        .elapsed()
        .map_or(Ok(()), |_| Err(LoadError::Past(start)))?;
    while let Ok(left) = start.duration_since(SystemTime::now()) {
        if interrupt.happened() {
            break;
        }
        thread::park_timeout(left.min(REDRAW));
    }
    Ok(())
}

/// Runs the workers to their end, watching them.
fn work(run: &Run<'_>, watch: &mut Watch) -> Result<(), LoadError> {
    thread::scope(|scope| {
        let (sender, ended) = crossbeam_channel::unbounded();
        for slot in 0..run.plan.threads {
            let sender = sender.clone();
            let spawned = thread::Builder::new()
                .name(format!("load-{slot}"))
                .spawn_scoped(scope, move || {
                    let worked = Worker::new(run, slot).and_then(Worker::work);
                    // The receiver outlives all workers.
                    let _sent: bool = sender.send(worked).is_ok();
                });
            if let Err(source) = spawned {
                run.interrupt.interrupt();
                return Err(LoadError::Thread {
                    number: slot + 1,
                    wanted: run.plan.threads,
                    source,
                });
            }
        }
        drop(sender);
        watch_until_end(run, watch, &ended)
    })
}

fn watch_until_end(
    run: &Run<'_>,
    watch: &mut Watch,
    ended: &Receiver<Result<(), Errno>>,
) -> Result<(), LoadError> {
    loop {
        match ended.recv_timeout(REDRAW) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                run.interrupt.interrupt();
                return Err(error.into());
            }
            Err(RecvTimeoutError::Timeout) => watch.look(run),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// How often the main thread looks.
const REDRAW: Duration = Duration::from_millis(100);

/// What the main thread keeps an eye on.
#[derive(Debug)]
struct Watch {
    pid: Option<i32>,
    server: Observed,
    client: Observed,
    live: Live,
}

impl Watch {
    fn look(&mut self, run: &Run<'_>) {
        self.observe();
        self.live.show(run);
    }

    fn observe(&mut self) {
        self.client.see(system::own_usage());
        if let Some(pid) = self.pid {
            self.server.see(system::usage_of(pid).ok());
        }
    }
}

/// A process during the run.
#[derive(Debug)]
struct Observed {
    before: Option<Usage>,
    last: Option<Usage>,
    memory_most: u64,
    /// It was there, and is not any more.
    gone: bool,
}

impl Observed {
    fn new(before: Option<Usage>) -> Self {
        Self {
            before,
            last: before,
            memory_most: before.map_or(0, |usage| usage.memory),
            gone: false,
        }
    }

    fn see(&mut self, usage: Option<Usage>) {
        self.gone = usage.is_none();
        if let Some(usage) = usage {
            self.last = Some(usage);
            self.memory_most = self.memory_most.max(usage.memory);
        }
    }

    /// `open`: connections that were open at once.
    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
    fn consumption(&self, tally: &measure::Tally, open: Option<u64>) -> Consumption {
        let processor =
            |usage: Option<Usage>| usage.map_or(Duration::ZERO, |usage| usage.processor);
        let processor = processor(self.last).saturating_sub(processor(self.before));
        let per = |count: u64| (count > 0).then(|| processor.as_secs_f64() * 1e6 / count as f64);
        let before = self.before.map_or(0, |usage| usage.memory);
        let grown = self.memory_most.saturating_sub(before);
        Consumption {
            processor_seconds: processor.as_secs_f64(),
            per_handshake_us: per(tally.handshakes),
            per_message_us: per(tally.messages.received),
            memory_before: before,
            memory_most: self.memory_most,
            memory_per_connection: open
                .filter(|&open| open > 0)
                .map(|open| grown as f64 / open as f64),
        }
    }
}
