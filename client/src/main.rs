//! `dtls-client`: a DTLS client for people (`connect`) and a load generator (`load`).
//!
//! ```text
//! cli, target ─► setup ─┬► connect ─► dial ─► talk ─► output                main thread
//!                       └► load ─► plan ─► worker ─► attempt ─► report      a thread per worker
//! ```
//!
//! The main thread parses, prepares, prints and decides on the exit code.
#![forbid(unsafe_code)]

mod cli;
mod target;
mod setup;
mod clock;
mod advice;
mod interrupt;
mod connect;
mod load;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match Cli::from_command_line() {
        Ok(Cli {
            command: Command::Connect(arguments),
        }) => connect::run(&arguments),
        Ok(Cli {
            command: Command::Load(arguments),
        }) => load::run(&arguments),
        Err(exit) => exit,
    }
}
