//! A DTLS server: the path from a verified peer to a service.
//!
//! ```text
//!  crate dtls                              this crate
//!  socket ─► listener ─► cookie ─► handoff ─► accept ─► pool ─► worker ─► stream ─► service
//!  └────────────── listener thread ──────────────────┘        └──── worker threads ────────┘
//!
//!  main thread:   cli ─► config ─► listener, then wait ─► shutdown ─► report
//!  reload thread: config ─► listener, whenever files change
//! ```
//!
//! The listener thread answers hellos and hands verified peers to the pool; a worker thread owns
//! one connection from its handshake to its end, then takes the next. There are never more
//! connections than workers may exist: while all of them are busy, hellos go unanswered.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod limits;
mod throwaway;
mod keylog;
mod listener;
mod accept;
mod pool;
mod worker;
mod service;
mod reload;
mod shutdown;
mod report;
mod stats;
mod complaint;
mod ops;
mod privilege;
mod supervisor;
mod logging;
mod error;

use std::io;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use dtls::DtlsListener;
use log::Level;

pub use cli::Args;
use cli::Command;
pub use config::Adjust;

use config::{ClientAuth, Config, ListenerConfig};
use error::{Failure, StartError};
use listener::{Bound, Running};
use logging::say;
use ops::Ops;
use shutdown::Cause;
use worker::Context;

/// Runs the server until a signal ends it. `adjust` has the last word on the library's settings.
pub fn run(args: Args, adjust: &Adjust) -> ExitCode {
    logging::start(args.verbose, args.log_format);
    let outcome = match &args.command {
        Some(Command::Status(top)) => top.run().map_err(Failure::Status),
        None => Config::check(&args, adjust, None).and_then(|config| {
            if args.check {
                config::print(&mut io::stdout().lock(), &config).map_err(Failure::Report)
            } else {
                serve(config, args, adjust)
            }
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(Level::Error, &format!("dtls-server: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Starts every thread, waits for the end and reports.
///
/// # Errors
/// The system refuses a port or a thread, a listener breaks, or connections outlive the drain.
fn serve(config: Config, args: Args, adjust: &Adjust) -> Result<(), Failure> {
    // Before any thread, so that none of them is interrupted.
    let hangups = reload::on_hangups().map_err(StartError::Hangups)?;
    let (sockets, pages) = bind(&config)?;
    let mut bound = Vec::new();
    for (socket, listener) in sockets.into_iter().zip(&config.listeners) {
        let context = Context {
            listener: socket.local_addr(),
            service: listener.service.clone(),
            stats: Arc::clone(&listener.stats),
        };
        bound.push((
            Bound::new(socket, context, listener.max_connections),
            listener,
        ));
    }
    let (causes, cause) = crossbeam_channel::bounded(1);
    // Before the line that says the server is ready: from then on a signal must end it in order.
    shutdown::on_signals(causes.clone()).map_err(StartError::Signals)?;
    let (mut running, mut ready) = (Vec::new(), Vec::new());
    for (bound, listener) in bound {
        let one = bound.start(causes.clone()).map_err(StartError::Thread)?;
        ready.extend(announcement(&one, listener));
        running.push(one);
    }
    drop(causes);
    let (drain_timeout, format) = (config.drain_timeout, config.format);
    let handles = running.iter().map(Running::handle).collect();
    reload::start(hangups, args, Arc::clone(adjust), config, handles)
        .map_err(StartError::Thread)?;
    let ops = Ops::new(running.iter().map(Running::watched).collect());
    if let Some(pages) = pages {
        let address = pages.local_addr().map_err(StartError::Thread)?;
        ops.serve(pages).map_err(StartError::Thread)?;
        ready.push(format!(
            "operations pages at http://{address}/metrics, /health, /ready, /status"
        ));
    }
    // Only now: whoever waits for these lines finds every thread at work.
    ready.iter().for_each(|line| say(Level::Info, line));
    supervisor::ready(&format!("{} listeners", running.len()));
    // The listener threads and the signal handler hold the other ends; the former outlive this.
    let cause = cause.recv().unwrap_or(Cause::Signal);
    ops.drain();
    running.iter_mut().for_each(Running::refuse);
    let open: usize = running.iter().map(|one| one.pool().connections()).sum();
    let plan = format!(
        "waiting up to {} for {open} connections to end",
        humantime::format_duration(drain_timeout)
    );
    supervisor::stopping(&plan);
    log::info!("{cause}; {plan}");
    let left = shutdown::drain(&running, drain_timeout);
    let counted: Vec<_> = running.iter().map(Running::counters).collect();
    report::write(&mut io::stdout().lock(), &counted, format).map_err(Failure::Report)?;
    match cause {
        Cause::ListenerFailed(source) => Err(Failure::Listener(source)),
        Cause::Signal if left > 0 => Err(Failure::Undrained { left }),
        Cause::Signal => Ok(()),
    }
}

/// Binds all ports before any client is answered, and gives privileges up as soon as they are of no
/// further use.
///
/// # Errors
/// The system refuses a port, or there is no giving up.
fn bind(config: &Config) -> Result<(Vec<DtlsListener>, Option<TcpListener>), StartError> {
    let mut sockets: Vec<Option<DtlsListener>> = Vec::new();
    for listener in &config.listeners {
        let now = config.user.is_some() && privilege::needs_root(listener.listen);
        sockets.push(now.then(|| listener.bind()).transpose()?);
    }
    let pages = config
        .metrics
        .map(|address| ops::bind(address).map_err(|source| StartError::Metrics { address, source }))
        .transpose()?;
    if let Some(user) = &config.user {
        user.assume()?;
    }
    let sockets = sockets
        .into_iter()
        .zip(&config.listeners)
        .map(|(socket, listener)| socket.map_or_else(|| listener.bind(), Ok));
    Ok((sockets.collect::<Result<_, _>>()?, pages))
}

/// Says that a listener is ready.
fn announcement(running: &Running, config: &ListenerConfig) -> Vec<String> {
    let throwaway = config.ready.throwaway.as_ref().map(|throwaway| {
        format!(
            "no certificate given: using a throw-away certificate, SHA-256 fingerprint {}",
            throwaway.fingerprint
        )
    });
    let listening = format!(
        "listening on {} (service {}, at most {} connections, {})",
        running.address(),
        config.service,
        config.max_connections,
        clients(config.ready.client_auth, config.ready.psk),
    );
    throwaway.into_iter().chain([listening]).collect()
}

/// What clients have to prove, in a few words.
fn clients(auth: ClientAuth, psk: Option<usize>) -> String {
    let certificate = match auth {
        ClientAuth::Off => "not asked for",
        ClientAuth::Optional => "optional",
        ClientAuth::Required => "required",
    };
    match psk {
        Some(keys) => format!("client certificate {certificate}, {keys} pre-shared keys"),
        None => format!("client certificate {certificate}"),
    }
}
