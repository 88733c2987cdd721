//! One run: a network, a relay, two endpoints, their talk, and what was seen of it.
//!
//! A run keeps one of the lab's threads to itself. The thread moves between the namespaces that the
//! run made and starts each endpoint in the one where it belongs. It waits for conditions with
//! deadlines, never for a time to pass, and whatever happens it ends a few seconds after the
//! scenario's deadline, which counts from when the server listens.

mod backend;
mod counted;
mod dilation;
mod evidence;
mod made_up;
mod per_key;
mod proc;
mod stage;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dtls_certs::PkiFiles;

use crate::clock::Clock;
use crate::endpoint::{self, MissingProgram, Programs, Setting};
use crate::netem;
use crate::netns::{NamespaceError, Network, server_addr};
use crate::observe::sketch::Sketch;
use crate::relay::{Links, Relay};
use crate::report::replay;
use crate::role::Role;
use crate::rules::RuleId;
use crate::scenario::Shape;
use crate::scenario::{Family, Play, Scenario};
use crate::verdict::{Need, Observation, Skip, Verdict, judge};
use crate::wire::Engine;
use stage::Stage;

pub use backend::{Backend, Choice};
pub use dilation::Dilation;
pub(crate) use evidence::write_evidence;
pub use evidence::{Newest, evidence_folder, newest_reports};
pub use made_up::Asked;

/// What all runs share.
#[derive(Debug)]
pub struct Lab {
    /// Where the endpoints are.
    pub programs: Programs,
    /// The seed a person gave or was told.
    pub seed: u64,
    /// Folder of the evidence of all runs.
    pub evidence: PathBuf,
    /// Folder of the test PKI.
    pub pki: PkiFiles,
    /// Which programs keep their promise to say what they cannot play.
    pub asked: Asked,
    /// How much faster than ours the programs' clocks are to run, where that works; only on the wire.
    pub dilation: Option<Arc<Dilation>>,
    /// Who makes the links; where it is the simulator, that plays instead.
    pub choice: Choice,
    /// What a replay needs besides its run, each word with a space before it.
    pub besides: String,
}

/// One scenario over one family with one pair of endpoints.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// What is claimed.
    pub scenario: &'a Scenario,
    /// Over what.
    pub family: Family,
    /// Between whom.
    pub play: Play,
    /// How often it is played besides; each has chances of its own.
    pub repetition: u32,
}

/// What became of a run.
#[derive(Debug)]
pub struct Finished {
    /// What it came to.
    pub verdict: Verdict,
    /// Time from the first hello to the end of the last flight; the slowest of several clients.
    pub handshake: Option<Duration>,
    /// Transmissions of flights beyond the first, all clients together.
    pub resent: Option<u32>,
    /// Whether the handshake was all that could be judged.
    pub handshake_only: bool,
    /// How many times as fast as ours the programs' clocks ran, where that was so.
    pub dilated: Option<u32>,
    /// A control that did not pass, but did when it was tried again.
    pub passed_again: bool,
    /// What else a person should know.
    pub remarks: Vec<String>,
    /// Rules that an end has broken.
    pub broken: BTreeSet<RuleId>,
    /// Where the evidence lies, if it came to any.
    pub evidence: Option<PathBuf>,
    /// What there is to draw, if it was played.
    pub sketch: Option<Arc<Sketch>>,
    /// Real time that the run took.
    pub took: Duration,
}

impl Finished {
    /// A run that was seen and judged.
    pub(crate) fn of(seen: &Observation, verdict: Verdict, evidence: PathBuf) -> Self {
        let handshakes = &seen.trace.handshakes;
        Self {
            verdict,
            handshake: handshakes.iter().filter_map(|one| one.duration()).max(),
            resent: (!handshakes.is_empty())
                .then(|| handshakes.iter().map(|one| one.resent()).sum()),
            handshake_only: seen.not_tried().is_some(),
            dilated: seen.dilated,
            passed_again: false,
            remarks: remarks(seen),
            broken: seen.trace.rules.broken().keys().copied().collect(),
            evidence: Some(evidence),
            sketch: Some(Arc::new(Sketch::of(&seen.trace))),
            took: Duration::ZERO,
        }
    }

    /// A run that was not tried.
    pub fn untried(verdict: Verdict) -> Self {
        Self {
            verdict,
            handshake: None,
            resent: None,
            handshake_only: false,
            dilated: None,
            passed_again: false,
            remarks: Vec::new(),
            broken: BTreeSet::new(),
            evidence: None,
            sketch: None,
            took: Duration::ZERO,
        }
    }
}

impl Job<'_> {
    /// Name of the run's folder: a report may hold the same simulated and real.
    pub fn folder(&self, backend: Backend) -> String {
        let slug = match backend {
            Backend::Sim => format!("{}.sim", self.slug()),
            Backend::Wire | Backend::Netem => self.slug(),
        };
        match self.repetition {
            0 => slug,
            more => format!("{slug}.{}", more + 1),
        }
    }

    /// The seed of this run where all have this one.
    pub fn seed(&self, seed: u64) -> u64 {
        seed.wrapping_add(self.repetition.into())
    }

    /// What the run is, for its folder; also what its chances depend on besides the seed.
    pub fn slug(&self) -> String {
        let side =
            |role| label(&self.play, role).replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        format!(
            "{}.{}.{}.{}",
            self.scenario.name,
            self.family,
            side(Role::Server),
            side(Role::Client)
        )
    }
}

/// What a verdict does not say.
fn remarks(seen: &Observation) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(why) = seen.not_tried() {
        remarks.push(format!("the handshake only: {why}"));
    }
    remarks.extend(seen.not_dilated.clone());
    for (ending, who) in [(&seen.server, "server"), (&seen.client, "client")] {
        if ending.flooded {
            remarks.push(format!(
                "the {who} printed without end; what it said after the first {} MiB was thrown away",
                endpoint::process::MAX_OUTPUT >> 20
            ));
        }
    }
    match seen.left_behind {
        0 => {}
        1 => remarks.push("one process was left behind and killed".to_owned()),
        many => remarks.push(format!("{many} processes were left behind and killed")),
    }
    remarks
}

/// An endpoint as tables and `--server` and `--client` name it: the implementation and its arguments.
pub fn label(play: &Play, role: Role) -> String {
    let arguments = match role {
        Role::Server => &play.server_args,
        Role::Client => &play.client_args,
    };
    let mut words = vec![play.end(role).to_string()];
    words.extend(arguments.iter().cloned());
    words.join(" ")
}

/// The seed of one run: its own, so that runs are independent, and the same whichever other runs
/// are asked for, so that one can be replayed alone. FNV-1a, fixed for ever by its two constants.
pub(crate) fn seed_of(seed: u64, slug: &str) -> u64 {
    slug.bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

impl Lab {
    /// Plays `job` and judges it.
    pub fn run(&self, job: &Job<'_>) -> Finished {
        let most_times = self.dilation.as_ref().map_or(1, |it| it.faketime.times);
        if let Some(why) = needs_the_simulator(job.scenario, most_times) {
            let need = Need::Sim;
            return Finished::untried(Verdict::Skipped(Skip { need, why }));
        }
        if let Some(why) = &job.play.impossible {
            return Finished::untried(Verdict::Unsupported(why.clone()));
        }
        for role in [Role::Server, Role::Client] {
            let end = job.play.end(role);
            if let Err(missing) = self.programs.require(end, role) {
                let why = missing.to_string();
                let verdict = match missing {
                    MissingProgram::NoSuchSide { .. } => Verdict::Unsupported(why),
                    _ => Verdict::Skipped(Skip {
                        need: Need::Adapter(end.name.clone()),
                        why,
                    }),
                };
                return Finished::untried(verdict);
            }
        }
        let backend = self.choice.of(job.scenario);
        if backend == Backend::Netem
            && let Err(skip) = self.netem_plays(job.scenario)
        {
            return Finished::untried(Verdict::Skipped(skip));
        }
        let evidence = self.evidence.join(job.folder(backend));
        let finished = self.attempt(job, backend, &evidence, self.dilation.as_deref());
        let expected = is_expected(job, &finished.verdict);
        let Some(times) = finished.dilated.filter(|_| !expected) else {
            return finished;
        };
        // A fast clock makes all computing slow: what it turned red may be that alone.
        let why = match &finished.verdict {
            Verdict::Pass => "it passed",
            verdict => verdict.why(),
        };
        let why = format!("with x{times} it was not as expected: {why}");
        if let Some(too_long) = needs_the_simulator(job.scenario, 1) {
            let need = Need::Sim;
            let why = format!("{why}; at its own pace {too_long}");
            return Finished {
                verdict: Verdict::Skipped(Skip { need, why }),
                ..finished
            };
        }
        let kept = format!("{}.x{times}", job.folder(backend));
        let kept = match std::fs::rename(&evidence, self.evidence.join(&kept)) {
            Ok(()) => format!("see {kept}"),
            Err(error) => format!("its evidence is lost: {error}"),
        };
        let mut again = self.attempt(job, backend, &evidence, None);
        again
            .remarks
            .push(format!("not dilated, for {why} ({kept})"));
        again
    }

    /// Plays `job` with this dilation, and judges it.
    fn attempt(
        &self,
        job: &Job<'_>,
        backend: Backend,
        evidence: &Path,
        dilation: Option<&Dilation>,
    ) -> Finished {
        match self.observe(job, backend, evidence, dilation) {
            Ok(seen) => {
                let verdict = judge(job.scenario, &job.play, &seen);
                Finished::of(&seen, verdict, evidence.to_owned())
            }
            Err(RunError::Namespace(NamespaceError::NoIpv6)) => {
                let why = NamespaceError::NoIpv6.to_string();
                Finished::untried(Verdict::Skipped(Skip {
                    need: Need::Ipv6,
                    why,
                }))
            }
            Err(RunError::TooLong(why)) => {
                let need = Need::Sim;
                Finished::untried(Verdict::Skipped(Skip { need, why }))
            }
            Err(RunError::Unsupported(why)) => Finished::untried(Verdict::Unsupported(why)),
            Err(error) => Finished {
                evidence: Some(evidence.to_owned()),
                ..Finished::untried(Verdict::Broken(error.to_string()))
            },
        }
    }

    /// Whether netem can play this scenario, here.
    fn netem_plays(&self, scenario: &Scenario) -> Result<(), Skip> {
        netem::suffices_for(scenario).map_err(|why| Skip {
            need: Need::Wire,
            why,
        })?;
        match &self.choice {
            Choice::NoNetem(why) => Err(Skip {
                need: Need::Netem,
                why: why.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn observe(
        &self,
        job: &Job<'_>,
        backend: Backend,
        evidence: &Path,
        dilation: Option<&Dilation>,
    ) -> Result<Observation, RunError> {
        let trouble = |source| RunError::Evidence {
            path: evidence.to_owned(),
            source,
        };
        std::fs::create_dir_all(evidence).map_err(trouble)?;
        let command = replay(job, job.seed(self.seed), backend);
        let command = format!("{command}{}\n", self.besides);
        std::fs::write(evidence.join("replay"), command).map_err(trouble)?;
        write_authorities(job.scenario, &self.pki, evidence).map_err(trouble)?;
        let network = Network::build(job.family)?;
        if job.scenario.same_port {
            network.single_client_port()?;
        }
        let mut setting = Setting {
            server: SocketAddr::new(server_addr(job.family), SERVER_PORT),
            pki: &self.pki,
            evidence,
            scenario: job.scenario,
            made_up: None,
            faketime: None,
        };
        // Before the run's time begins: who has to ask must have no less of it than the others.
        self.asked.ask(job, &setting, &self.programs, &network)?;
        let mut not_dilated = None;
        if let Some(dilation) = dilation {
            match dilation.works_for(job, &setting, &self.programs)? {
                Ok(()) => setting.faketime = Some(&dilation.faketime),
                Err(why) => not_dilated = Some(why),
            }
        }
        let dilated = setting.faketime.map(|faketime| faketime.times);
        let pace = dilated.unwrap_or(1);
        if let Some(why) = needs_the_simulator(job.scenario, pace) {
            let why = not_dilated.map_or(why.clone(), |not| format!("{why}; {not}"));
            return Err(RunError::TooLong(why));
        }
        let (clock, started) = (Clock::start(pace), SystemTime::now());
        let (engine, links) = if backend == Backend::Netem {
            network.wire.enter()?;
            let links = [&job.scenario.to_server, &job.scenario.to_client];
            netem::set_up(links, !job.scenario.rules.is_empty())?;
            (Engine::beside_kernel(job.scenario), Links::Kernel)
        } else {
            let seed = seed_of(job.seed(self.seed), &job.slug());
            (Engine::new(job.scenario, seed), Links::Engine)
        };
        let relay = Relay::start(&network, engine, links, clock)?;
        let mut stage = Stage {
            job,
            deadline: clock.after(job.scenario.deadline),
            setting,
            clock,
            relay,
        };
        let seen = stage.play(&self.programs, &network);
        let left_behind = network.kill_inhabitants();
        stage.relay.stop();
        let mut seen = seen?;
        seen.left_behind = left_behind;
        seen.dilated = dilated;
        seen.not_dilated = not_dilated;
        seen.trace = std::mem::take(&mut *stage.relay.watch().lock());
        write_evidence(evidence, started, &seen).map_err(trouble)?;
        Ok(seen)
    }
}

/// Whether this verdict is the one that is known of the play.
fn is_expected(job: &Job<'_>, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Pass => job.play.fails_because.is_none() || job.play.may_pass,
        Verdict::Fail(_) => job.play.fails_because.is_some(),
        Verdict::Broken(_) => false,
        Verdict::Unsupported(_) | Verdict::Skipped(_) => true,
    }
}

/// Why no real programs play this scenario, if so.
fn needs_the_simulator(scenario: &Scenario, pace: u32) -> Option<String> {
    if scenario.handshake != Shape::Full {
        let shape = scenario.handshake;
        return Some(format!(
            "the {shape} handshake is played by --backend sim only"
        ));
    }
    (scenario.deadline > MOST_REAL_TIME * pace).then(|| {
        let deadline = humantime::format_duration(scenario.deadline);
        format!("it takes up to {deadline}, which --backend sim spends in no time")
    })
}

/// What takes longer is left to the virtual clock: all of the lab's runs must take two minutes.
const MOST_REAL_TIME: Duration = Duration::from_secs(100);

/// Writes what comes after the server's own certificate in its chain to a file of its own, for
/// programs that want the two apart.
fn write_authorities(scenario: &Scenario, pki: &PkiFiles, evidence: &Path) -> std::io::Result<()> {
    let chain = std::fs::read_to_string(pki.chain(scenario.certificate))?;
    let authorities = chain
        .split_once(END_OF_CERTIFICATE)
        .map_or("", |(_own, rest)| rest.trim_start());
    std::fs::write(evidence.join(endpoint::AUTHORITIES), authorities)
}

/// The last line of a certificate (RFC 7468 §5).
const END_OF_CERTIFICATE: &str = "-----END CERTIFICATE-----";

/// Why nothing can be said about the endpoints.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Netem(#[from] netem::Missing),
    #[error(transparent)]
    Relay(#[from] crate::relay::StartError),
    #[error(transparent)]
    Spawn(#[from] endpoint::process::SpawnError),
    #[error("cannot write evidence to {} ({source}): choose another folder with --out", path.display())]
    Evidence {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the server did not start to listen: {0}")]
    NotListening(String),
    #[error("{0}")]
    TooLong(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Dishonest(String),
}

/// UDP port of every server under test; each has an address of its own.
const SERVER_PORT: u16 = 5684;
