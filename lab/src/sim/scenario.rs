//! Scenario files on the simulator: the same rules, links and attackers, judged by the same verdicts.
//! What needs real programs, sockets or threads is skipped and says so. One of the lab's threads.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dtls_certs::Profile;

use super::SimulationError;
use super::end::{End, State};
use super::shape::{Cast, Shape, Tuning};
use super::world::World;
use crate::observe::Trace;
use crate::report::replay;
use crate::run::{Backend, Finished, Job, seed_of, write_evidence};
use crate::scenario::{Outcome, SHORT_LINE};
use crate::verdict::{Ending, Need, Observation, Skip, Verdict, judge};
use crate::wire::Engine;

/// What all simulated runs share.
#[derive(Debug)]
pub struct Simulator {
    /// The seed a person gave or was told.
    pub seed: u64,
    /// Folder of the evidence of all runs.
    pub evidence: PathBuf,
}

impl Simulator {
    /// A lab whose evidence goes to this folder.
    ///
    /// # Errors
    ///
    /// [`SimulationError::Clock`] where OpenSSL does not see the virtual clock.
    pub fn new(seed: u64, evidence: PathBuf) -> Result<Self, SimulationError> {
        super::check_clock()?;
        Ok(Self { seed, evidence })
    }

    /// Plays `job` and judges it.
    pub fn run(&self, job: &Job<'_>) -> Finished {
        let tuned = match tuning(job) {
            Ok(tuned) => tuned,
            Err(why) => {
                let need = Need::Wire;
                return Finished::untried(Verdict::Skipped(Skip { need, why }));
            }
        };
        let started = SystemTime::now();
        let seen = match self.observe(job, tuned) {
            Ok(seen) => seen,
            Err(error) => return Finished::untried(Verdict::Broken(error.to_string())),
        };
        let evidence = self.evidence.join(job.slug());
        let command = format!("{}\n", replay(job, self.seed, Backend::Sim));
        let kept = std::fs::create_dir_all(&evidence)
            .and_then(|()| std::fs::write(evidence.join("replay"), command))
            .and_then(|()| write_evidence(&evidence, started, &seen));
        if let Err(error) = kept {
            let why = format!("cannot write evidence to {} ({error})", evidence.display());
            return Finished::untried(Verdict::Broken(why));
        }
        let verdict = judge(job.scenario, &job.play, &seen);
        Finished::of(&seen, verdict, evidence)
    }

    fn observe(
        &self,
        job: &Job<'_>,
        [client, server]: [Tuning; 2],
    ) -> Result<Observation, SimulationError> {
        let cast = Cast::new(Shape::Full, None, client, server)?;
        let engine = Engine::new(job.scenario, seed_of(self.seed, &job.slug()));
        let mut world = World::new(&cast, engine, &[], job.family, Some(Trace::default()))?;
        let deadline = job.scenario.deadline;
        let mut seen = Observation::default();
        match job.scenario.expect.outcome {
            Outcome::Echo => {
                if world.shake_hands(deadline) {
                    let mut exchange = None;
                    if job.scenario.awaits_data() {
                        let before = world.exchange(0, deadline);
                        if before.is_complete() {
                            world.established(deadline);
                        } else {
                            exchange = Some(before);
                        }
                    }
                    world.await_forgeries(deadline);
                    seen.exchange = Some(match exchange {
                        Some(before) => before,
                        None => {
                            let patience = EXCHANGE + job.scenario.longest_outage();
                            world.exchange(1, world.elapsed() + patience)
                        }
                    });
                }
            }
            // Only the first is played here; see `tuning`.
            Outcome::HandshakeTimeout | Outcome::ClientGone | Outcome::CutOff => {
                world.run_out(deadline);
            }
        }
        seen.client = ending(&world.client);
        seen.server = ending(&world.server);
        // A server outlives its connections.
        seen.server.by_itself = None;
        seen.counters = Some(
            world
                .server
                .stats
                .iter()
                .map(|(counter, value)| (counter.name().to_owned(), value))
                .collect(),
        );
        seen.trace = world.trace.take().unwrap_or_default();
        Ok(seen)
    }
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
    if scenario.in_turn.is_some() || scenario.expect.outcome == Outcome::ClientGone {
        return Err("only a program can be killed and started anew".to_owned());
    }
    if !scenario.rebinds.is_empty() {
        return Err("the simulated server knows one address, its client's".to_owned());
    }
    if scenario.expect.server_growth.is_some() {
        return Err("memory is measured in a real server".to_owned());
    }
    if scenario.line > SHORT_LINE {
        return Err("the simulated ends say short lines only".to_owned());
    }
    if scenario.certificate != Profile::SERVER {
        return Err(format!(
            "the simulated server has no {} certificate",
            scenario.certificate.name
        ));
    }
    if !scenario.quiet.is_zero() {
        return Err("the simulated ends have no idle timeout".to_owned());
    }
    if scenario.ends_know_mtu {
        return Err("only a program can be told the link's MTU".to_owned());
    }
    if scenario.clients > 1 {
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
