//! `dtls-client load`: many connections to an echoing server, closed loop: a thread makes its next
//! connection when the one before has ended.
//!
//! ```text
//! plan ─► worker ─► attempt ─► exchange ─► tally ─► report
//!         a thread each, C of them         shared   main thread
//! ```
//!
//! The main thread starts the workers, draws the progress bar, and reports.

mod plan;
mod worker;
mod attempt;
mod exchange;
mod message;
mod outcome;
mod histogram;
mod tally;
mod limits;
mod report;

use std::io;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{ENVIRONMENT, FAILED, Format, LoadArgs, USAGE};
use crate::clock::now;
use crate::interrupt::{Interrupt, InterruptError};
use crate::setup::{self, SetupError};
use crate::target::ResolveError;

use limits::LimitError;
pub(crate) use message::MIN_SIZE;
use plan::Plan;
use report::Report;
use worker::{Run, Worker};

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    #[error(
        "cannot start thread {number} of {wanted}: {source}; lower --concurrency or raise the limit \
         on threads (ulimit -u)"
    )]
    Thread {
        number: u32,
        wanted: u32,
        source: io::Error,
    },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl LoadError {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Setup(_) => USAGE,
            _ => ENVIRONMENT,
        }
    }
}

/// Runs it to its end.
pub(crate) fn run(args: &LoadArgs) -> ExitCode {
    match load(args).and_then(|report| {
        match args.format {
            Format::Text => report::text::print(&report)?,
            Format::Json => report::json::print(&report)?,
        }
        Ok(report)
    }) {
        Ok(report) if report.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("dtls-client: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Makes the connections and counts.
fn load(args: &LoadArgs) -> Result<Report, LoadError> {
    let plan = Plan::new(args);
    let config = setup::client_config(&args.server, false)?;
    let addresses = args.target.resolve()?;
    limits::allow_descriptors(plan.workers())?;
    let interrupt = Interrupt::install(plan.workers() as usize)?;
    let name = setup::server_name(&args.server, &args.target);
    let run = Run::new(plan, config, name, addresses[0], &interrupt);

    let started = now();
    let bar = progress_bar(plan.connections);
    thread::scope(|scope| {
        let (sender, ended) = crossbeam_channel::bounded::<()>(0);
        for slot in 0..plan.workers() {
            let (run, sender) = (&run, sender.clone());
            let spawned = thread::Builder::new()
                .name(format!("load-{slot}"))
                .stack_size(STACK)
                .spawn_scoped(scope, move || {
                    Worker::new(run, slot).work();
                    drop(sender);
                });
            if let Err(source) = spawned {
                interrupt.interrupt();
                return Err(LoadError::Thread {
                    number: slot + 1,
                    wanted: plan.workers(),
                    source,
                });
            }
        }
        drop(sender);
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(REDRAW) {
            show(&bar, &run);
        }
        Ok(())
    })?;
    let took = started.elapsed();
    bar.finish_and_clear();
    let stopped = run.stopped();
    let target = args.target.to_string();
    Ok(Report::new(
        target,
        addresses[0],
        &plan,
        &run.into_tally(),
        took,
        stopped,
    ))
}

/// Of a worker. OpenSSL's handshake takes some tens of KiB; unused pages cost nothing.
const STACK: usize = 256 << 10;

/// How often the progress bar moves.
const REDRAW: Duration = Duration::from_millis(100);

/// On standard error; invisible where that is no terminal.
fn progress_bar(connections: u32) -> ProgressBar {
    let bar = ProgressBar::new(connections.into());
    let template = "{elapsed_precise} {wide_bar} {pos}/{len} connections{msg}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.set_style(style),
        Err(error) => log::debug!("progress bar: {error}"),
    }
    bar
}

fn show(bar: &ProgressBar, run: &Run<'_>) {
    let [started, ended, failed] =
        [&run.started, &run.ended, &run.failed].map(|count| count.load(Ordering::Relaxed));
    let mut message = format!(", {} open", started.saturating_sub(ended));
    if failed > 0 {
        message.push_str(&format!(", {failed} failed"));
    }
    bar.set_position(ended.into());
    bar.set_message(message);
}
