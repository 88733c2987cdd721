//! Which runs there are, and in which order a few threads take them.
//!
//! A run waits for its control: the same endpoints over the same wire without the fault. Where that
//! does not pass, the fault proves nothing and the run is not tried.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::adapter::Adapter;
use crate::clock::now;
use crate::netem;
use crate::report::quoted;
use crate::role::Role;
use crate::run::{Finished, Job, label};
use crate::scenario::{Catalogue, Family, Outcome, Play, Scenario};
use crate::verdict::{Need, Skip, Verdict};

/// Which runs a person wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Names or patterns with `*`; all when empty.
    pub names: Vec<String>,
    /// Only this family.
    pub family: Option<Family>,
    /// Only this server: an implementation, or one with its arguments.
    pub server: Option<String>,
    /// Only this client.
    pub client: Option<String>,
    /// Who plays a scenario that is named and has no play of its own between the two.
    pub pair: Option<(Arc<Adapter>, Arc<Adapter>)>,
    /// Netem plays alone: what it cannot play is skipped, and no reason to play a control.
    pub netem: bool,
}

impl Filter {
    /// The same as arguments of `dtls-lab run`, each with a space before it.
    #[must_use]
    pub fn arguments(&self) -> String {
        let mut words = self.names.clone();
        let options = [
            ("--family", self.family.map(|family| family.to_string())),
            ("--server", self.server.clone()),
            ("--client", self.client.clone()),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        }
        words
            .iter()
            .map(|word| format!(" {}", quoted(word)))
            .collect()
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| matches(name, &scenario.name))
    }

    fn wants_play(&self, play: &Play) -> bool {
        let fits = |wanted: &Option<String>, role, implementation: String| {
            wanted
                .as_ref()
                .is_none_or(|wanted| *wanted == label(play, role) || *wanted == implementation)
        };
        fits(&self.server, Role::Server, play.server.to_string())
            && fits(&self.client, Role::Client, play.client.to_string())
    }
}

/// Whether `name` is what `pattern` means; each `*` stands for any characters.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).any(|skip| name.is_char_boundary(skip) && matches(rest, &name[skip..]))
        }),
    }
}

/// A filter that selects nothing.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A name that no scenario has.
    #[error("no scenario is named `{name}`{hint}; `dtls-lab list` shows them all")]
    UnknownScenario {
        /// What was asked for.
        name: String,
        /// `, did you mean …?`, or nothing.
        hint: String,
    },
    /// Names that exist, but not with these endpoints or over this family.
    #[error(
        "no run is left: the scenarios asked for have no play with this --server, --client and --family; `dtls-lab list` shows the plays"
    )]
    NothingLeft,
}

/// A run and the one that must pass before it.
#[derive(Debug)]
pub struct Planned<'a> {
    /// The run.
    pub job: Job<'a>,
    /// Index of its control in the plan.
    pub control: Option<usize>,
}

/// All runs that `filter` asks for, with their controls, in order of scenario.
///
/// # Errors
///
/// [`PlanError`] when that is none.
pub fn plan<'a>(catalogue: &'a Catalogue, filter: &Filter) -> Result<Vec<Planned<'a>>, PlanError> {
    check_names(catalogue, &filter.names)?;
    let mut plan = Vec::new();
    let mut index = BTreeMap::new();
    for scenario in catalogue.iter().filter(|scenario| filter.wants(scenario)) {
        for &family in scenario
            .families
            .iter()
            .filter(|family| filter.family.is_none_or(|wanted| wanted == **family))
        {
            let mut plays: Vec<Play> = scenario.plays.clone();
            plays.retain(|play| filter.wants_play(play));
            if let ([], false, Some((server, client))) =
                (plays.as_slice(), filter.names.is_empty(), &filter.pair)
            {
                plays.push(Play::between(server, client));
            }
            for play in plays {
                let job = Job {
                    scenario,
                    family,
                    play,
                    repetition: 0,
                };
                if filter.netem && netem::suffices_for(scenario).is_err() {
                    plan.push(Planned { job, control: None });
                } else {
                    add(&mut plan, &mut index, catalogue, job);
                }
            }
        }
    }
    if plan.is_empty() {
        return Err(PlanError::NothingLeft);
    }
    Ok(plan)
}

/// Each name means a scenario.
fn check_names(catalogue: &Catalogue, names: &[String]) -> Result<(), PlanError> {
    for name in names {
        if !catalogue
            .iter()
            .any(|scenario| matches(name, &scenario.name))
        {
            let hint = catalogue
                .nearest(name)
                .map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
            return Err(PlanError::UnknownScenario {
                name: name.clone(),
                hint,
            });
        }
    }
    Ok(())
}

/// Which runs a matrix has.
#[derive(Debug)]
pub struct Grid<'a> {
    /// Names of scenarios or patterns with `*`.
    pub names: &'a [String],
    /// Over this family.
    pub family: Family,
    /// Who serves.
    pub servers: &'a [Arc<Adapter>],
    /// Who connects.
    pub clients: &'a [Arc<Adapter>],
    /// How often each is played, with chances of its own.
    pub repeat: u32,
}

/// All runs of a matrix with their controls, and the scenarios in order of their first name.
///
/// # Errors
///
/// A name that no scenario has, or no run at all.
pub fn plan_matrix<'a>(
    catalogue: &'a Catalogue,
    grid: &Grid<'_>,
) -> Result<(Vec<Planned<'a>>, Vec<&'a Scenario>), PlanError> {
    check_names(catalogue, grid.names)?;
    let mut scenarios: Vec<&Scenario> = Vec::new();
    for name in grid.names {
        for scenario in catalogue.iter().filter(|it| matches(name, &it.name)) {
            let known = scenarios.iter().any(|it| it.name == scenario.name);
            if !known && scenario.families.contains(&grid.family) {
                scenarios.push(scenario);
            }
        }
    }
    let (mut plan, mut index) = (Vec::new(), BTreeMap::new());
    for &scenario in &scenarios {
        for (server, client) in grid
            .servers
            .iter()
            .flat_map(|server| grid.clients.iter().map(move |client| (server, client)))
        {
            let plain = Play::between(server, client);
            let known = scenario.plays.iter().find(|known| is_same(known, &plain));
            for repetition in 0..grid.repeat {
                let job = Job {
                    scenario,
                    family: grid.family,
                    play: known.cloned().unwrap_or_else(|| plain.clone()),
                    repetition,
                };
                add(&mut plan, &mut index, catalogue, job);
            }
        }
    }
    if plan.is_empty() {
        return Err(PlanError::NothingLeft);
    }
    Ok((plan, scenarios))
}

/// Adds a run and what it depends on, unless it is there; its index.
fn add<'a>(
    plan: &mut Vec<Planned<'a>>,
    index: &mut BTreeMap<(String, u32), usize>,
    catalogue: &'a Catalogue,
    job: Job<'a>,
) -> usize {
    let key = (job.slug(), job.repetition);
    if let Some(index) = index.get(&key) {
        return *index;
    }
    let control = job
        .scenario
        .control
        .as_deref()
        .and_then(|name| catalogue.get(name));
    let control = control.map(|scenario| {
        let play = control_play(scenario, &job);
        let control = Job {
            scenario,
            family: job.family,
            play,
            repetition: 0,
        };
        add(plan, index, catalogue, control)
    });
    plan.push(Planned { job, control });
    index.insert(key, plan.len() - 1);
    plan.len() - 1
}

/// The same endpoints, as the control knows them or else as the scenario has them.
fn control_play(control: &Scenario, job: &Job<'_>) -> Play {
    let mut play = Play {
        fails_because: None,
        ..job.play.clone()
    };
    if control.clients != job.scenario.clients {
        // One client and many are different commands with different flags.
        play.client_args.clear();
    }
    let same = control.plays.iter().find(|known| is_same(known, &play));
    same.cloned().unwrap_or(play)
}

/// Whether these are the same ends with the same arguments.
fn is_same(one: &Play, other: &Play) -> bool {
    let ends = |play: &Play| [Role::Server, Role::Client].map(|role| label(play, role));
    ends(one) == ends(other)
}

/// What a watcher is told while the runs go on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// This one has begun.
    Started(&'a Job<'a>),
    /// This one has come to its end.
    Ended(&'a Job<'a>, &'a Finished),
}

/// Plays the whole plan by `run` on `workers` threads; results in the plan's order.
pub fn run_all(
    run: &(dyn Fn(&Job<'_>) -> Finished + Sync),
    plan: &[Planned<'_>],
    workers: usize,
    tell: &(dyn Fn(Progress<'_>) + Sync),
) -> Vec<Finished> {
    let mut order: Vec<usize> = (0..plan.len()).collect();
    // The longest first, so that no long one is left over at the end; controls before all.
    let controls: HashSet<usize> = plan.iter().filter_map(|planned| planned.control).collect();
    order.sort_by_key(|index| {
        (
            !controls.contains(index),
            std::cmp::Reverse(least_time(plan[*index].job.scenario)),
        )
    });
    let board = Board {
        slots: Mutex::new(plan.iter().map(|_| Slot::Waiting).collect()),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(index) = board.take(plan, &order) {
                    let job = &plan[index].job;
                    let finished = match board.control_of(plan, index) {
                        Err(verdict) => Finished::untried(verdict),
                        Ok(()) => {
                            tell(Progress::Started(job));
                            let started = now();
                            let mut finished = run(job);
                            if controls.contains(&index) {
                                try_again(run, job, &mut finished);
                            }
                            finished.took = now().saturating_duration_since(started);
                            finished
                        }
                    };
                    tell(Progress::Ended(job, &finished));
                    board.finish(index, finished);
                }
            });
        }
    });
    let slots = board
        .slots
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    slots
        .into_iter()
        .map(|slot| match slot {
            Slot::Done(finished) => finished,
            Slot::Waiting | Slot::Running => {
                Finished::untried(Verdict::Broken("the lab's thread panicked".to_owned()))
            }
        })
        .collect()
}

/// Plays a control that did not pass once more: a moment in which the machine was busy is no reason to leave out
/// all that needs it. Its own verdict stays.
fn try_again(run: &(dyn Fn(&Job<'_>) -> Finished + Sync), job: &Job<'_>, finished: &mut Finished) {
    let known = job.play.fails_because.is_some();
    if known || !matches!(finished.verdict, Verdict::Fail(_) | Verdict::Broken(_)) {
        return;
    }
    let again = Job {
        repetition: job.repetition + SECOND_TRY,
        ..job.clone()
    };
    let again = run(&again);
    finished.passed_again = again.verdict == Verdict::Pass;
    let outcome = if finished.passed_again {
        "it passed when tried again, so what it is the control of was played"
    } else {
        "it did not pass when tried again either"
    };
    let folder = again.evidence.as_deref().and_then(Path::file_name);
    let see = folder.map_or_else(String::new, |it| format!(" (see {})", it.display()));
    finished.remarks.push(format!("{outcome}{see}"));
}

/// Beyond every `--repeat`.
const SECOND_TRY: u32 = 1000;

/// The least a scenario can take; what takes longer than a second is said in its file.
fn least_time(scenario: &Scenario) -> Duration {
    match scenario.expect.outcome {
        Outcome::HandshakeTimeout => scenario.deadline,
        Outcome::ClientGone | Outcome::CutOff => scenario.quiet,
        Outcome::Echo => scenario.expect.handshake_min + scenario.quiet + scenario.longest_outage(),
    }
}

/// Where the threads see what is left to do.
struct Board {
    slots: Mutex<Vec<Slot>>,
    changed: Condvar,
}

#[derive(Debug)]
enum Slot {
    Waiting,
    Running,
    Done(Finished),
}

impl Board {
    /// The next run whose control has ended; waits for one; `None` when none is left.
    fn take(&self, plan: &[Planned<'_>], order: &[usize]) -> Option<usize> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let ready = order.iter().copied().find(|&index| {
                matches!(slots[index], Slot::Waiting)
                    && plan[index]
                        .control
                        .is_none_or(|of| matches!(slots[of], Slot::Done(_)))
            });
            if let Some(index) = ready {
                slots[index] = Slot::Running;
                return Some(index);
            }
            if !slots.iter().any(|slot| matches!(slot, Slot::Waiting)) {
                return None;
            }
            slots = self
                .changed
                .wait(slots)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, index: usize, finished: Finished) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)[index] = Slot::Done(finished);
        self.changed.notify_all();
    }

    /// Whether the control of this run passed, or what that makes of the run.
    fn control_of(&self, plan: &[Planned<'_>], index: usize) -> Result<(), Verdict> {
        let Some(control) = plan[index].control else {
            return Ok(());
        };
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Slot::Done(finished) = &slots[control] else {
            return Err(Verdict::Broken("its control was not run".to_owned()));
        };
        let name = &plan[control].job.scenario.name;
        match &finished.verdict {
            Verdict::Pass => Ok(()),
            _ if finished.passed_again => Ok(()),
            Verdict::Skipped(skip) => Err(Verdict::Skipped(skip.clone())),
            Verdict::Unsupported(why) => Err(Verdict::Unsupported(why.clone())),
            // A control that its own scenario knows to fail leaves nothing to learn here.
            Verdict::Fail(_) if plan[control].job.play.fails_because.is_some() => {
                let why = format!("its control {name} is known to fail with these endpoints");
                Err(Verdict::Skipped(Skip {
                    need: Need::Control,
                    why,
                }))
            }
            Verdict::Fail(_) | Verdict::Broken(_) => {
                Err(Verdict::Broken(format!("its control {name} did not pass")))
            }
        }
    }
}

#[cfg(test)]
mod tests;
