//! `dtls-lab run`: scenarios played and judged, on one backend or on all that can. Main thread; the runs
//! are played by as many threads as `--jobs` says.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use dtls_certs::PkiFiles;
use dtls_lab::adapter::{Adapter, Adapters};
use dtls_lab::cli::{BackendArg, FamilyArg, Format, PlayArgs, RunArgs};
use dtls_lab::endpoint;
use dtls_lab::netem;
use dtls_lab::netns;
use dtls_lab::report::{
    Report, Required, Row, Summary, backend_flag, save, write_json, write_table,
};
use dtls_lab::run::{Asked, Backend, Choice, Dilation, Finished, Job, Lab};
use dtls_lab::scenario::Family;
use dtls_lab::schedule::{Filter, Planned, Progress, plan, run_all};
use dtls_lab::sim::Simulator;
use dtls_lab::verdict::{Need, Verdict};
use indicatif::ProgressBar;

use super::simulated::CommandError;
use super::{
    INTERRUPTED, LabError, adapters, catalogue, crossplay, exit, now, prepare, programs,
    progress_bar, require_ours,
};

/// `dtls-lab run`.
pub(crate) fn run(arguments: &RunArgs) -> Result<ExitCode, LabError> {
    let (started, started_at) = (now(), SystemTime::now());
    let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
    let adapters = adapters(arguments.play.adapters.as_deref())?;
    let required = Required::parse(&required, &adapters).map_err(LabError::Requirement)?;
    let catalogue = catalogue(arguments.play.scenarios.as_deref(), &adapters)?;
    let filter = Filter {
        names: arguments.names.clone(),
        family: arguments.family.map(|family| match family {
            FamilyArg::Ipv4 => Family::Ipv4,
            FamilyArg::Ipv6 => Family::Ipv6,
        }),
        server: arguments.server.clone(),
        client: arguments.client.clone(),
        pair: pair(&adapters, arguments),
        netem: arguments.backend == BackendArg::Netem,
    };
    let mut plan = plan(&catalogue, &filter)?;
    if arguments.play.scenarios.is_none() {
        crossplay::built_in(&catalogue, &adapters)?.apply(&mut plan);
    }
    check_combinations(arguments)?;
    let dilation = dilation(&arguments.play)?;
    let programs = programs(&arguments.play.programs);
    let mut note = None;
    let mut choices = Vec::new();
    if matches!(arguments.backend, BackendArg::Sim | BackendArg::All) {
        choices.push(Choice::Only(Backend::Sim));
    }
    if arguments.backend != BackendArg::Sim {
        require_ours(&programs, &plan)?;
        // Before any thread exists: the kernel lets only a process with one thread change its user namespace.
        netns::claim_privileges()?;
        // The namespaces end with their processes, and those must not outlive us.
        ctrlc::set_handler(|| {
            endpoint::kill_all();
            std::process::exit(INTERRUPTED);
        })?;
        let (choice, why) = who_makes_links(arguments, &required)?;
        choices.push(choice);
        note = why;
    }
    let backend = choices.iter().map(Choice::describe);
    let backend = backend.collect::<Vec<_>>().join(", then ");

    let seed = arguments.play.seed.unwrap_or_else(rand::random);
    let (evidence, pki) = prepare(&arguments.play.out, seed)?;
    if arguments.play.format == Format::Text {
        writeln!(
            io::stdout(),
            "dtls-lab: {} runs{}, backend {backend}{}, seed {seed:x}",
            plan.len(),
            if choices.len() > 1 {
                ", each wherever it can be played"
            } else {
                ""
            },
            hurry(arguments.play.dilate)
        )?;
        if let Some(note) = note {
            writeln!(io::stdout(), "{note}")?;
        }
    }
    let bar = progress_bar(plan.len() * choices.len());
    let mut rows = Vec::new();
    for choice in choices {
        let lab = Lab {
            programs: programs.clone(),
            seed,
            evidence: evidence.clone(),
            pki: PkiFiles::in_dir(&pki),
            asked: Asked::default(),
            dilation: dilation.clone(),
            besides: arguments.besides(!matches!(choice, Choice::Only(Backend::Sim))),
            choice,
        };
        rows.extend(play(arguments, &lab, &plan, &required, &bar)?);
    }
    bar.finish_and_clear();
    let mut rows = told_once(rows);
    // Controls were planned before what needs them; people look for a scenario by its name.
    rows.sort_by_cached_key(|row| (game(row), row.backend));
    let summary = Summary::of(&rows, started.elapsed());
    let report = Report {
        started_at: humantime::format_rfc3339_seconds(started_at).to_string(),
        version: env!("CARGO_PKG_VERSION"),
        replay: format!(
            "dtls-lab run{}{} --seed {seed:x}{}",
            filter.arguments(),
            again(arguments.backend),
            arguments.besides(true)
        ),
        seed: format!("{seed:x}"),
        defect: arguments.defect.map(|defect| defect.to_string()),
        folder: evidence.display().to_string(),
        backend,
        runs: rows,
        summary,
    };
    save(&evidence, &report)?;
    match arguments.play.format {
        Format::Text => {
            let mut out = anstream::stdout().lock();
            write_table(&mut out, &report, &evidence)?;
            tell_the_rest(
                &mut out,
                &arguments.play,
                dilation.as_deref(),
                &report.replay,
            )?;
        }
        Format::Json => write_json(&mut io::stdout().lock(), &report)?,
    }
    Ok(exit(summary.unexpected == 0))
}

/// Refuses options that contradict each other.
fn check_combinations(arguments: &RunArgs) -> Result<(), LabError> {
    let contradiction = if arguments.defect.is_some() && arguments.backend != BackendArg::Sim {
        "--defect is planted in simulated ends: add --backend sim"
    } else if arguments.play.dilate.is_some()
        && matches!(arguments.backend, BackendArg::Sim | BackendArg::Netem)
    {
        "--dilate hurries real programs, and the kernel's netem cannot be hurried with them: leave --backend out"
    } else {
        return Ok(());
    };
    Err(CommandError::Usage(contradiction.to_owned()).into())
}

/// The option with which the same backends play again; with a seed, what is made of links is the wire's.
const fn again(backend: BackendArg) -> &'static str {
    match backend {
        BackendArg::Auto | BackendArg::Wire => "",
        BackendArg::Netem => backend_flag(Backend::Netem),
        BackendArg::Sim => backend_flag(Backend::Sim),
        BackendArg::All => " --backend all",
    }
}

/// What one backend made of a run, and whether it left the run to another.
struct Told {
    row: Row,
    left: bool,
}

/// Plays the whole plan on the backends of `lab`, or on the simulator.
fn play(
    arguments: &RunArgs,
    lab: &Lab,
    plan: &[Planned<'_>],
    required: &Required,
    bar: &ProgressBar,
) -> Result<Vec<Told>, LabError> {
    let simulator = match lab.choice {
        Choice::Only(Backend::Sim) => Some(Simulator::new(
            lab.seed,
            lab.evidence.clone(),
            arguments.defect,
            lab.besides.clone(),
        )?),
        _ => None,
    };
    let run = |job: &Job<'_>| match &simulator {
        Some(simulator) => simulator.run(job),
        None => lab.run(job),
    };
    let told = |job: &Job<'_>, finished: &Finished| {
        let backend = lab.choice.of(job.scenario);
        let mut row = Row::new(job, finished, required, lab.seed, backend);
        row.replay.push_str(&lab.besides);
        let left = arguments.backend == BackendArg::All
            && matches!(&finished.verdict, Verdict::Skipped(skip) if matches!(skip.need, Need::Wire | Need::Sim));
        Told { row, left }
    };
    let jobs = arguments.jobs.into();
    let finished = run_all(&run, plan, jobs, &|progress| match progress {
        Progress::Started(job) => bar.set_message(job.slug()),
        Progress::Ended(job, finished) => {
            let Told { row, left } = told(job, finished);
            if row.status.is_unexpected() && !left {
                // At once: who watches may want to look before the rest has ended.
                bar.println(format!("{}  {}: {}", row.status.word(), row.id, row.why));
            }
            bar.inc(1);
        }
    });
    let runs = plan.iter().zip(&finished);
    Ok(runs
        .map(|(planned, finished)| told(&planned.job, finished))
        .collect())
}

/// Without what one backend left to another that took it.
fn told_once(all: Vec<Told>) -> Vec<Row> {
    let taken: BTreeSet<_> = all
        .iter()
        .filter(|told| !told.left)
        .map(|told| game(&told.row))
        .collect();
    all.into_iter()
        .filter(|told| !told.left || !taken.contains(&game(&told.row)))
        .map(|told| told.row)
        .collect()
}

/// What is the same on each backend.
fn game(row: &Row) -> (String, Family, String, String) {
    (
        row.scenario.clone(),
        row.family,
        row.server.clone(),
        row.client.clone(),
    )
}

/// The hurry that `--dilate` asks for.
pub(crate) fn dilation(play: &PlayArgs) -> Result<Option<Arc<Dilation>>, LabError> {
    Ok(play.dilate.map(Dilation::new).transpose()?.map(Arc::new))
}

/// The last lines: whose clocks were hurried, where the page is, how all of it is played again.
pub(crate) fn tell_the_rest(
    out: &mut impl Write,
    play: &PlayArgs,
    dilation: Option<&Dilation>,
    replay: &str,
) -> io::Result<()> {
    for line in dilation.map(Dilation::found).unwrap_or_default() {
        writeln!(out, "{line}")?;
    }
    let page = play.out.join("latest").join("index.html");
    writeln!(out, "report {}   replay all: {replay}", page.display())
}

/// What a person is told of `--dilate` before anything was probed.
pub(crate) fn hurry(dilate: Option<u32>) -> String {
    dilate.map_or_else(String::new, |times| {
        format!(", clocks x{times} where a probe shows that it works")
    })
}

/// The implementations that `--server` and `--client` name, if both do.
fn pair(adapters: &Adapters, arguments: &RunArgs) -> Option<(Arc<Adapter>, Arc<Adapter>)> {
    let named = |name: &Option<String>| adapters.get(name.as_deref()?).cloned();
    Some((named(&arguments.server)?, named(&arguments.client)?))
}

/// Whether netem plays, and what a person should know about that. Needs the right to make namespaces.
fn who_makes_links(
    arguments: &RunArgs,
    required: &Required,
) -> Result<(Choice, Option<String>), LabError> {
    let wire = Choice::Only(Backend::Wire);
    match arguments.backend {
        BackendArg::Netem => Ok((
            match netem::available() {
                Ok(()) => Choice::Only(Backend::Netem),
                Err(why) => Choice::NoNetem(why),
            },
            None,
        )),
        BackendArg::Auto | BackendArg::All
            if arguments.play.seed.is_some() || arguments.play.dilate.is_some() =>
        {
            if required.names(&Need::Netem) {
                return Err(LabError::Requirement(
                    "LAB_REQUIRE=netem: with --seed or --dilate the wire plays: leave these out, or take netem out of LAB_REQUIRE".to_owned(),
                ));
            }
            Ok((wire, None))
        }
        BackendArg::Auto | BackendArg::All => match netem::available() {
            Ok(()) => Ok((Choice::NetemWhereItSuffices, None)),
            Err(why) if required.names(&Need::Netem) => Err(LabError::Netem(why)),
            Err(why) => Ok((wire, Some(format!("no kernel netem: {why}")))),
        },
        BackendArg::Wire | BackendArg::Sim => Ok((wire, None)),
    }
}
