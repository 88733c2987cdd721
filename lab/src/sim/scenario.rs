//! Scenario files on the simulator: the same rules, links and attackers, judged by the same verdicts.
//! What needs real programs, sockets or threads is skipped and says so. One of the lab's threads.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::end::{End, State};
use super::shape::{Cast, Secrets, Setup, Tuning};
use super::world::World;
use super::{Defect, SimulationError};
use crate::observe::Trace;
use crate::report::replay;
use crate::role::Role;
use crate::run::{Backend, Finished, Job, seed_of, write_evidence};
use crate::scenario::Outcome;
use crate::verdict::{Ending, Exchange, Need, Observation, Skip, Verdict, judge};
use crate::wire::Engine;

/// What all simulated runs share.
#[derive(Debug)]
pub struct Simulator {
    /// The seed a person gave or was told.
    pub seed: u64,
    /// Folder of the evidence of all runs.
    pub evidence: PathBuf,
    /// Planted in the ends.
    pub defect: Option<Defect>,
    /// What a replay needs besides its run.
    pub besides: String,
}

impl Simulator {
    /// A lab whose evidence goes to this folder.
    ///
    /// # Errors
    ///
    /// [`SimulationError::Clock`] where OpenSSL does not see the virtual clock.
    pub fn new(
        seed: u64,
        evidence: PathBuf,
        defect: Option<Defect>,
        besides: String,
    ) -> Result<Self, SimulationError> {
        super::check_clock()?;
        Ok(Self {
            seed,
            evidence,
            defect,
            besides,
        })
    }

    /// Plays `job` and judges it.
    pub fn run(&self, job: &Job<'_>) -> Finished {
        let started = SystemTime::now();
        let (seen, secrets) = match self.play(job) {
            Ok(played) => played,
            Err(verdict) => return Finished::untried(verdict),
        };
        let evidence = self.evidence.join(job.folder(Backend::Sim));
        let replay = replay(job, job.seed(self.seed), Backend::Sim);
        let command = format!("{replay}{}\n", self.besides);
        let kept = std::fs::create_dir_all(&evidence)
            .and_then(|()| std::fs::write(evidence.join("replay"), command))
            .and_then(|()| write_secrets(&evidence, &secrets))
            .and_then(|()| write_evidence(&evidence, started, &seen));
        if let Err(error) = kept {
            let why = format!("cannot write evidence to {} ({error})", evidence.display());
            return Finished::untried(Verdict::Broken(why));
        }
        let verdict = judge(job.scenario, &job.play, &seen);
        Finished::of(&seen, verdict, evidence)
    }

    /// Plays `job` without a trace on the disk.
    ///
    /// # Errors
    ///
    /// The verdict on what could not be played.
    #[cfg(test)]
    pub(super) fn try_out(&self, job: &Job<'_>) -> Result<Observation, Verdict> {
        self.play(job).map(|(seen, _)| seen)
    }

    fn play(&self, job: &Job<'_>) -> Result<(Observation, [Secrets; 2]), Verdict> {
        let tuned = tuning(job).map_err(|why| {
            let need = Need::Wire;
            Verdict::Skipped(Skip { need, why })
        })?;
        self.observe(job, tuned)
            .map_err(|error| Verdict::Broken(error.to_string()))
    }

    fn observe(
        &self,
        job: &Job<'_>,
        [client, server]: [Tuning; 2],
    ) -> Result<(Observation, [Secrets; 2]), SimulationError> {
        let scenario = job.scenario;
        let cast = Cast::new(&Setup {
            client,
            server,
            certificate: scenario.certificate,
            wrong_key: scenario.wrong_key,
            log_secrets: true,
            ..Setup::of(scenario.handshake, self.defect)
        })?;
        let engine = Engine::new(scenario, seed_of(job.seed(self.seed), &job.slug()));
        let mut world = World::new(&cast, engine, &[], job.family, Some(Trace::default()))?;
        let deadline = scenario.deadline;
        let mut seen = Observation::default();
        match scenario.expect.outcome {
            Outcome::Echo => seen.exchange = talk(job, &cast, &mut world)?,
            // Only the first is played here; see `tuning`.
            Outcome::HandshakeTimeout | Outcome::ClientGone | Outcome::CutOff => {
                world.run_out(deadline);
            }
        }
        seen.client = ending(&world.client);
        seen.server = ending(&world.server);
        // A server outlives its connections.
        seen.server.by_itself = None;
        if seen.exchange.as_ref().is_some_and(Exchange::is_complete) {
            world.close();
        }
        seen.counters = Some(
            world
                .server
                .stats
                .iter()
                .map(|(counter, value)| (counter.name().to_owned(), value))
                .collect(),
        );
        seen.trace = world.trace.take().unwrap_or_default();
        Ok((seen, cast.secrets))
    }
}

/// Writes the key logs of client and server, as the real programs do.
fn write_secrets(evidence: &Path, secrets: &[Secrets; 2]) -> std::io::Result<()> {
    for (role, lines) in [Role::Client, Role::Server].iter().zip(secrets) {
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let file = evidence.join(format!("{}.keylog", role.name()));
        std::fs::write(file, lines.as_bytes())?;
    }
    Ok(())
}

/// The handshake of each client in turn, data where an attacker waits for it, and data that must come
/// through. `None` when a handshake never came to its end.
fn talk(
    job: &Job<'_>,
    cast: &Cast,
    world: &mut World,
) -> Result<Option<Exchange>, SimulationError> {
    let scenario = job.scenario;
    let (deadline, line) = (scenario.deadline, scenario.line);
    let last = scenario.clients - 1;
    if let Some(leave) = scenario.in_turn {
        for turn in 0..last {
            if !world.shake_hands(deadline)
                || !world.exchange(2 * turn, line, deadline).is_complete()
            {
                break;
            }
            world.next_client(cast, leave, scenario.same_port, scenario.resume)?;
        }
    }
    if !world.shake_hands(deadline) {
        return Ok(None);
    }
    let attacked = scenario.awaits_data();
    if attacked || !scenario.quiet.is_zero() {
        let before = world.exchange(2 * last, line, deadline);
        if !before.is_complete() {
            return Ok(Some(before));
        }
    }
    if attacked {
        world.established(deadline);
    }
    world.wait(scenario.quiet);
    world.await_forgeries(deadline);
    let until = world.elapsed() + EXCHANGE + scenario.longest_outage();
    Ok(Some(world.exchange(2 * last + 1, line, until)))
}

/// Virtual time in which data must come through after the last fault.
const EXCHANGE: Duration = Duration::from_secs(20);

fn ending(end: &End) -> Ending {
    match &end.state {
        State::Failed(at, why) => Ending {
            by_itself: Some(*at),
            last_words: Some(why.clone()),
            ..Ending::default()
        },
        State::Shaking | State::Established(_) => Ending::default(),
    }
}

/// The settings that a job asks of client and server, or why it needs the wire.
fn tuning(job: &Job<'_>) -> Result<[Tuning; 2], String> {
    for end in [&job.play.server, &job.play.client] {
        if !end.is_ours() {
            return Err(format!("{end} is a program: it plays on the wire"));
        }
    }
    let scenario = job.scenario;
    if scenario.expect.outcome == Outcome::ClientGone {
        return Err("the simulated ends have no idle timeout".to_owned());
    }
    if !scenario.rebinds.is_empty() {
        return Err("the simulated server knows one address, its client's".to_owned());
    }
    if scenario.expect.server_growth.is_some() {
        return Err("memory is measured in a real server".to_owned());
    }
    if scenario.ends_know_mtu {
        return Err("only a program can be told the link's MTU".to_owned());
    }
    if scenario.clients > 1 && scenario.in_turn.is_none() {
        return Err("many clients at once are a matter of sockets".to_owned());
    }
    if scenario.expect.threads_left.is_some() {
        return Err("threads are counted in a real server".to_owned());
    }
    let [mut client, mut server] = [Tuning::default(); 2];
    for (arguments, tuning) in [
        (&job.play.client_args, &mut client),
        (&job.play.server_args, &mut server),
    ] {
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().map_or("", String::as_str);
            let understood = match name.as_str() {
                "--link-mtu" => value.parse().ok().map(|mtu| tuning.link_mtu = Some(mtu)),
                "--handshake-timeout" => humantime::parse_duration(value)
                    .ok()
                    .map(|timeout| tuning.handshake_timeout = Some(timeout)),
                _ => None,
            };
            if understood.is_none() {
                return Err(format!("{name} {value} is a matter of the real program"));
            }
        }
    }
    Ok([client, server])
}
