//! Whether a program that claims to say what it cannot play does so: it is asked for a scenario that nobody
//! can know, as the QUIC interop runner asks its endpoints. Run's thread.

use std::process::Command;
use std::time::Duration;

use super::per_key::PerKey;
use super::{Job, RunError};
use crate::clock::{Clock, now};
use crate::endpoint::process::Process;
use crate::endpoint::{EXIT_UNSUPPORTED, Programs, Setting};
use crate::netns::Network;
use crate::role::Role;

/// What the programs that were asked have answered, by adapter and role.
#[derive(Debug, Default)]
pub struct Asked(PerKey<(String, &'static str), Answer>);

/// What is wrong with an answer, if anything.
type Answer = Result<(), String>;

impl Asked {
    /// Asks the programs of this job that claim to say so, unless they were asked before.
    pub(super) fn ask(
        &self,
        job: &Job<'_>,
        setting: &Setting<'_>,
        programs: &Programs,
        network: &Network,
    ) -> Result<(), RunError> {
        for role in [Role::Server, Role::Client] {
            let end = job.play.end(role);
            if end.side(role).is_some_and(|side| side.says_unsupported) {
                let key = (end.name.clone(), role.name());
                self.0
                    .get(key, || try_out(job, setting, programs, network, role))?
                    .map_err(RunError::Dishonest)?;
            }
        }
        Ok(())
    }
}

/// Starts one end for a made-up scenario; what is wrong with its answer.
fn try_out(
    job: &Job<'_>,
    setting: &Setting<'_>,
    programs: &Programs,
    network: &Network,
    role: Role,
) -> Result<Answer, RunError> {
    let play = &job.play;
    let setting = Setting {
        made_up: Some(MADE_UP),
        ..*setting
    };
    let command: Command = match role {
        Role::Server => programs.server_command(play, &setting),
        Role::Client => programs.client_command(play, &setting, 0),
    }
    .map_err(RunError::Unsupported)?;
    match role {
        Role::Server => network.server.enter()?,
        Role::Client => network.client.enter()?,
    }
    let log = setting
        .evidence
        .join(format!("{}-{MADE_UP}.log", role.name()));
    let mut process = Process::spawn(command, &log, Clock::start(1))?;
    process.close_stdin();
    let status = process.wait_until(now() + PATIENCE);
    process.kill();
    let end = play.end(role);
    let ended = match status {
        Some(status) if status.code() == Some(EXIT_UNSUPPORTED) => return Ok(Ok(())),
        Some(status) => format!("ended with {status}"),
        None => format!("still ran after {} s", PATIENCE.as_secs()),
    };
    Ok(Err(format!(
        "the adapter `{end}` promises by says_unsupported that its {} exits with {EXIT_UNSUPPORTED} for what it \
         cannot play; asked for the scenario `{MADE_UP}`, which nobody can, it {ended}",
        role.name()
    )))
}

/// The scenario, and the task, that no program knows.
const MADE_UP: &str = "made-up-by-the-lab";
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(10);
