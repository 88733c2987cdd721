//! Whether a program's clock can be made to run faster: it is met with silence, and its first resend on
//! the wire tells. Run's thread.
//!
//! A client's hello is never answered; a server's flight 4 never arrives, nor does anything more of the
//! client. What is due after 1 s (RFC 6347 §4.2.4.1) must then come after 1 s / N of our time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::per_key::PerKey;
use super::stage::wait_until_it_listens;
use super::{Job, RunError, label};
use crate::clock::{Clock, now};
use crate::endpoint::faketime::{Faketime, NotInstalled};
use crate::endpoint::process::Process;
use crate::endpoint::{Programs, Setting};
use crate::netns::Network;
use crate::packet::Direction;
use crate::relay::{Links, Relay};
use crate::role::Role;
use crate::scenario::{Action, Link, Rule, Selector};
use crate::verdict::transmissions;
use crate::wire::Engine;

/// What `--dilate` asks for, and of which programs it was seen to work.
#[derive(Debug)]
pub struct Dilation {
    /// How their clocks are made to run faster.
    pub faketime: Faketime,
    probed: PerKey<Probe, Answer>,
}

/// Whose clock, doing what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Probe {
    /// A client, and its task: it may be another program for each.
    Client(String, String),
    /// A server, and the client that brings it to flight 4.
    Server(String, String),
}

/// Why not, if not.
type Answer = Result<(), String>;

impl Dilation {
    /// Programs run so many times as fast, once they have been seen to.
    ///
    /// # Errors
    ///
    /// [`NotInstalled`], the environment's.
    pub fn new(times: u32) -> Result<Self, NotInstalled> {
        Ok(Self {
            faketime: Faketime::find(times)?,
            probed: PerKey::default(),
        })
    }

    /// Whether both programs of this job can be hurried, found out before the first run of each.
    pub(super) fn works_for(
        &self,
        job: &Job<'_>,
        setting: &Setting<'_>,
        programs: &Programs,
    ) -> Result<Answer, RunError> {
        let [server, client] = [Role::Server, Role::Client].map(|role| label(&job.play, role));
        let task = setting.task(&job.play).to_owned();
        for (role, probe) in [
            (Role::Client, Probe::Client(client.clone(), task)),
            (Role::Server, Probe::Server(server, client)),
        ] {
            let find = || self.find_out(job, setting, programs, role);
            if let Err(why) = self.probed.get(probe.clone(), find)? {
                return Ok(Err(format!("not dilated: {probe}: {why}")));
            }
        }
        Ok(Ok(()))
    }

    /// What was found out, for people: a line for the programs that are hurried, and one for each that is not,
    /// whatever their arguments and clients were.
    #[must_use]
    pub fn found(&self) -> Vec<String> {
        let mut hurried = BTreeSet::new();
        let mut others = BTreeMap::new();
        for (probe, answer) in self.probed.found() {
            match answer {
                Ok(()) => _ = hurried.insert(probe.program()),
                Err(why) => _ = others.entry(probe.program()).or_insert(why),
            }
        }
        let times = self.faketime.times;
        let hurried: Vec<String> = hurried.into_iter().collect();
        let hurried =
            (!hurried.is_empty()).then(|| format!("dilated x{times}: {}", hurried.join(", ")));
        let others = others
            .into_iter()
            .map(|(program, why)| format!("not dilated: {program}: {why}"));
        hurried.into_iter().chain(others).collect()
    }

    fn find_out(
        &self,
        job: &Job<'_>,
        setting: &Setting<'_>,
        programs: &Programs,
        role: Role,
    ) -> Result<Answer, RunError> {
        let flight = match role {
            Role::Client => 1,
            Role::Server => 4,
        };
        let times = self.faketime.times;
        let mut answer = Ok(());
        for _ in 0..TRIES {
            let sent_at = match self.meet_with_silence(job, setting, programs, (role, flight)) {
                Err(RunError::NotListening(last_words)) => {
                    return Ok(Err(format!(
                        "with libfaketime it does not listen: {last_words}"
                    )));
                }
                sent_at => sent_at?,
            };
            answer = judge(flight, &sent_at, times);
            // A fast clock may be late on a busy machine; ours is never this early.
            let early = |gap: Duration| gap < FIRST_RESEND * 3 / 4;
            if answer.is_ok() || !first_gap(&sent_at).is_some_and(early) {
                break;
            }
        }
        Ok(answer)
    }

    /// When the flight was sent that nobody answered.
    fn meet_with_silence(
        &self,
        job: &Job<'_>,
        setting: &Setting<'_>,
        programs: &Programs,
        (role, flight): (Role, u8),
    ) -> Result<Vec<Duration>, RunError> {
        let play = &job.play;
        let setting = Setting {
            faketime: Some(&self.faketime),
            ..*setting
        };
        let network = Network::build(job.family)?;
        let clock = Clock::start(1);
        let wire = Engine::made_of(silence(role), &Link::default(), 0);
        let relay = Relay::start(&network, wire, Links::Engine, clock)?;
        let log = |who: Role| {
            let name = format!("{}-silence-{}.log", role.name(), who.name());
            setting.evidence.join(name)
        };
        let mut server = None;
        if role == Role::Server {
            let command = programs
                .server_command(play, &setting)
                .map_err(RunError::Unsupported)?;
            network.server.enter()?;
            let mut process = Process::spawn(command, &log(Role::Server), clock)?;
            wait_until_it_listens(&mut process, &play.server, &setting)?;
            server = Some(process);
        }
        let command = programs
            .client_command(play, &setting, 0)
            .map_err(RunError::Unsupported)?;
        network.client.enter()?;
        let client = Process::spawn(command, &log(Role::Client), clock)?;
        let mut sent_at = Vec::new();
        relay.watch().wait_until(now() + PATIENCE, |trace| {
            // Of many clients the first.
            let first = transmissions(trace, flight).into_values().next();
            sent_at = first.unwrap_or_default();
            sent_at.len() > 1
        });
        drop((client, server));
        Ok(sent_at)
    }
}

impl Probe {
    /// The implementation and its role.
    fn program(&self) -> String {
        let (label, role) = match self {
            Self::Client(client, _) => (client, Role::Client),
            Self::Server(server, _) => (server, Role::Server),
        };
        let name = label.split_whitespace().next().unwrap_or_default();
        format!("{name} ({})", role.name())
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client, task) if task == "echo" => write!(f, "{client} (client)"),
            Self::Client(client, task) => write!(f, "{client} (client, {task})"),
            Self::Server(server, client) => write!(f, "{server} (server, met by {client})"),
        }
    }
}

/// Whether these transmissions of a flight are those of a clock that is so many times as fast.
fn judge(flight: u8, sent_at: &[Duration], times: u32) -> Answer {
    let wanted = FIRST_RESEND / times;
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    match first_gap(sent_at) {
        Some(gap) if gap >= wanted * 19 / 20 && gap <= wanted + LATE => Ok(()),
        Some(gap) => Err(format!(
            "first resend after {} instead of {}",
            seconds(gap),
            seconds(wanted)
        )),
        None if sent_at.is_empty() => Err(format!("its flight {flight} was never sent")),
        None => Err(format!(
            "no resend in {} instead of one after {}",
            seconds(PATIENCE),
            seconds(wanted)
        )),
    }
}

fn first_gap(sent_at: &[Duration]) -> Option<Duration> {
    match sent_at {
        [first, second, ..] => Some(*second - *first),
        _ => None,
    }
}

/// A wire on which the end in this role hears nothing any more once it waits with a timer.
fn silence(role: Role) -> Vec<Rule> {
    let drop = |select| Rule {
        select,
        action: Action::Drop,
        times: None,
    };
    let to_server = Selector {
        direction: Some(Direction::ToServer),
        ..Selector::default()
    };
    match role {
        Role::Client => vec![drop(to_server)],
        Role::Server => vec![
            drop(Selector {
                direction: Some(Direction::ToClient),
                flights: vec![4],
                ..Selector::default()
            }),
            // Nor may it be asked again: what it would then resend is no work of its timer.
            drop(Selector {
                transmissions: (2..=20).collect(),
                ..to_server
            }),
        ],
    }
}

/// The first timeout of a flight.
const FIRST_RESEND: Duration = Duration::from_secs(1);
/// How late it may come on a busy machine, and how often it may be later than that.
const LATE: Duration = Duration::from_millis(50);
const TRIES: usize = 5;
/// How long the first two transmissions are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resend_at_the_hurried_time_proves_a_fast_clock() {
        let sent_at = |ms: &[u64]| -> Vec<Duration> {
            let times = ms.iter().map(|ms| Duration::from_millis(*ms));
            times.collect()
        };
        let judged = |ms: &[u64]| judge(1, &sent_at(ms), 10);
        assert_eq!(judged(&[30, 130]), Ok(()));
        assert_eq!(judged(&[30, 175, 400]), Ok(()), "a little late");
        for (ms, why) in [
            (
                &[0, 1010][..],
                "first resend after 1.01 s instead of 0.10 s",
            ),
            (&[0, 40], "first resend after 0.04 s instead of 0.10 s"),
            (&[0], "no resend in 5.00 s instead of one after 0.10 s"),
            (&[], "its flight 1 was never sent"),
        ] {
            assert_eq!(judged(ms), Err(why.to_owned()));
        }
    }
}
