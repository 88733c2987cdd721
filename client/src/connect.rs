//! `dtls-client connect`: one connection, a person at one end of it. Main thread, which dials,
//! tells what the handshake agreed on, and then moves lines and datagrams.

mod dial;
mod output;
mod lines;
mod talk;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use crate::cli::ConnectArgs;
use crate::exit::{ENVIRONMENT, FAILED, USAGE};
use crate::interrupt::{Interrupt, InterruptError};
use crate::setup::{self, SetupError};
use crate::target::{ResolveError, Target};

use dial::DialError;
use output::{Connected, Event, Output};
use talk::{Ended, TalkError};

/// Why `connect` did not end well.
#[derive(Debug, thiserror::Error)]
enum ConnectFailure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Talk(#[from] TalkError),
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
}

impl ConnectFailure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Setup(_) => USAGE,
            Self::Dial(error) => error.exit_code(),
            Self::Talk(TalkError::Recv(_) | TalkError::Send(_)) => FAILED,
            Self::Resolve(_) | Self::Interrupt(_) | Self::Input(_) | Self::Talk(_) => ENVIRONMENT,
        }
    }
}

/// Runs it to its end.
pub(crate) fn run(args: &ConnectArgs) -> ExitCode {
    let mut output = Output::new(args.format);
    match connect(args, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("dtls-client: {failure}");
            let error = failure.to_string();
            if let Err(error) = output.event(&Event::Failed { error }) {
                log::debug!("cannot report the failure: {error}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn connect(args: &ConnectArgs, output: &mut Output) -> Result<(), ConnectFailure> {
    let config = setup::client_config(&args.server, args.probe_every.is_some())?;
    let addresses = args.target.resolve()?;
    let interrupt = Interrupt::install(addresses.len())?;
    let name = setup::server_name(&args.server, &args.target);
    let waiting = |unreachable| output.waiting(&addresses, unreachable, &args.server);
    let mut stream = dial::dial(&config, name, &addresses, &interrupt, waiting)?;
    // By the name that was asked for, which is what stands in the known-peers file.
    let server = Target {
        host: name.to_owned(),
        port: args.target.port,
    };
    let connected = Connected::new(&stream, &args.server, &server);
    output.connected(&connected).map_err(TalkError::Output)?;

    // Not through std's buffer, which would hide from poll(2) what it has read already.
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let mut input = File::from(stdin.map_err(ConnectFailure::Input)?);
    let ended = talk::talk(
        &mut stream,
        &mut input,
        output,
        args.linger,
        args.probe_every,
    );
    stream.close();
    let by = match ended? {
        Ended::ByPeer => "peer",
        Ended::ByUs => "us",
    };
    output.closed(by).map_err(TalkError::Output)?;
    Ok(())
}
