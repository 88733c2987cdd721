//! `dtls-client`: a DTLS client for people (`connect`), a load generator (`load`), and what makes
//! more of its reports (`compare`, `merge`).
//!
//! ```text
//! cli, target ─► setup ─┬► connect ─► dial ─► talk ─► output                main thread
//!                       └► load ─► plan ─► pacer ─► worker ─► … ─► report   a few threads
//! ```
//!
//! The main thread parses, prepares, prints and decides on the exit code.
#![forbid(unsafe_code)]

mod cli;
mod target;
mod setup;
mod clock;
mod advice;
mod exit;
mod interrupt;
mod connect;
mod load;
mod compare;
mod merge;

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
        Ok(Cli {
            command: Command::Compare(arguments),
        }) => compare::run(&arguments),
        Ok(Cli {
            command: Command::Merge(arguments),
        }) => merge::run(&arguments),
        Err(exit) => exit,
    }
}
