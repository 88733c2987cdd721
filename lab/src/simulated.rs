//! The commands that need only the simulator. Main thread; the work is done by as many threads as
//! the machine has cores.

use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dtls_lab::cli::{ExploreArgs, Format, OracleArgs};
use dtls_lab::explore::report::{write_finding, write_json, write_table};
use dtls_lab::explore::space::Kind;
use dtls_lab::explore::{Explored, Stage};
use dtls_lab::oracle::Question;
use dtls_lab::oracle::plot::{self, NotDrawn};
use dtls_lab::oracle::report::{self, Answer};
use dtls_lab::report::{SaveError, save_oracle};
use dtls_lab::scenario::Shape;
use dtls_lab::sim::{Fault, SimulationError};
use indicatif::ProgressBar;
use strum::IntoEnumIterator;

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    #[error("{0}")]
    Usage(String),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error(transparent)]
    Plot(#[from] NotDrawn),
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error("cannot read {} ({source}): name the decisions.jsonl of a run", path.display())]
    Decisions { path: PathBuf, source: io::Error },
}

/// Plays spaces, or one case; whether nothing failed.
pub(crate) fn explore(arguments: &ExploreArgs, bar: &ProgressBar) -> Result<bool, CommandError> {
    let faults = match (&arguments.faults, &arguments.decisions) {
        (Some(list), _) => Some(parse_faults(list)?),
        (None, Some(path)) => Some(read_decisions(path)?),
        (None, None) => None,
    };
    if arguments.case.is_some() || faults.is_some() {
        return one_case(arguments, faults);
    }
    let kinds: Vec<Kind> = if arguments.space.is_empty() {
        Kind::iter().collect()
    } else {
        arguments.space.clone()
    };
    let shapes: Vec<Shape> = if arguments.handshake.is_empty() {
        Shape::iter().collect()
    } else {
        arguments.handshake.clone()
    };
    let mut stages = Vec::new();
    for shape in shapes {
        stages.push(Stage::new(shape, arguments.defect)?);
    }
    let pairs = || {
        kinds
            .iter()
            .flat_map(|kind| stages.iter().map(move |stage| (*kind, stage)))
    };
    bar.set_length(pairs().map(|(kind, stage)| stage.space(kind).len()).sum());
    let mut explored: Vec<Explored> = Vec::new();
    for (kind, stage) in pairs() {
        bar.set_message(kind.to_string());
        explored.push(stage.explore(kind, workers(arguments.jobs), &|| bar.inc(1))?);
    }
    bar.finish_and_clear();
    match arguments.format {
        Format::Text => write_table(&mut anstream::stdout().lock(), &explored)?,
        Format::Json => write_json(&mut io::stdout().lock(), &explored)?,
    }
    Ok(explored.iter().all(|space| space.failed == 0))
}

/// Compares simulation and model; whether they agree.
pub(crate) fn oracle(arguments: &OracleArgs, bar: &ProgressBar) -> Result<bool, CommandError> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let question = Question {
        shape: arguments.handshake,
        defect: arguments.defect,
        answers_duplicates: arguments.answers_duplicates,
        handshakes: arguments.handshakes,
        alpha: arguments.alpha,
        seed,
        workers: workers(arguments.jobs),
    };
    let mut answer = Answer {
        made_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        handshake: arguments.handshake.to_string(),
        defect: arguments.defect.map(|defect| defect.to_string()),
        seed: format!("{seed:x}"),
        silences: question.silences()?,
        compared: Vec::new(),
    };
    bar.set_length(arguments.loss.len() as u64);
    for loss in &arguments.loss {
        bar.set_message(format!("{loss} loss, {} handshakes", arguments.handshakes));
        answer.compared.push(question.compare(*loss)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(path) = &arguments.plot {
        let title = format!(
            "DTLS 1.2 {} handshake, {} for each loss rate: steps simulated, bands computed",
            arguments.handshake, arguments.handshakes
        );
        plot::draw(path, &title, &answer.compared)?;
    }
    save_oracle(&arguments.out, &answer)?;
    match arguments.format {
        Format::Text => {
            let mut out = anstream::stdout().lock();
            report::write_tables(&mut out, &answer)?;
            let page = arguments.out.join("oracle.html");
            writeln!(out, "report {}", page.display())?;
        }
        Format::Json => report::write_json(&mut io::stdout().lock(), &answer)?,
    }
    Ok(answer.is_good())
}

fn one_case(arguments: &ExploreArgs, faults: Option<Vec<Fault>>) -> Result<bool, CommandError> {
    let [shape] = arguments.handshake[..] else {
        return Err(CommandError::Usage(
            "one case is played in one handshake: name it, for example --handshake full".to_owned(),
        ));
    };
    let stage = Stage::new(shape, arguments.defect)?;
    let faults = match (arguments.case, faults) {
        (_, Some(faults)) => faults,
        (Some(number), None) => {
            let [kind] = arguments.space[..] else {
                return Err(CommandError::Usage(
                    "--case is a number in one space: name it, for example `explore --space drops3 --case 12`"
                        .to_owned(),
                ));
            };
            let space = stage.space(kind);
            space.case(number).ok_or_else(|| {
                CommandError::Usage(format!(
                    "--case {number}: {kind} has {} cases in the {shape} handshake, numbered from 0",
                    space.len()
                ))
            })?
        }
        (None, None) => Vec::new(),
    };
    let (finding, ladder) = stage.play_one(&faults)?;
    match arguments.format {
        Format::Text => {
            let mut out = anstream::stdout().lock();
            for line in ladder {
                writeln!(out, "{line}")?;
            }
            write_finding(&mut out, &shape.to_string(), &finding)?;
        }
        Format::Json => {
            let mut out = io::stdout().lock();
            let document = serde_json::json!({ "finding": finding, "ladder": ladder });
            serde_json::to_writer_pretty(&mut out, &document).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(!finding.failed)
}

fn parse_faults(list: &str) -> Result<Vec<Fault>, CommandError> {
    list.split(',')
        .filter(|word| !word.trim().is_empty())
        .map(|word| {
            word.parse()
                .map_err(|error| CommandError::Usage(format!("--faults: {error}")))
        })
        .collect()
}

/// What a wire decided in an earlier run: everything but plain delivery.
fn read_decisions(path: &Path) -> Result<Vec<Fault>, CommandError> {
    let trouble = |source| CommandError::Decisions {
        path: path.to_owned(),
        source,
    };
    let text = std::fs::read_to_string(path).map_err(trouble)?;
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match Fault::of_decision(line) {
            Ok(fault) => faults.extend(fault),
            Err(why) => {
                return Err(CommandError::Usage(format!(
                    "{}:{number}: {why}; is this the decisions.jsonl of a run?",
                    path.display()
                )));
            }
        }
    }
    Ok(faults)
}

fn workers(asked: Option<u8>) -> usize {
    asked.map_or_else(
        || std::thread::available_parallelism().map_or(1, NonZero::get),
        usize::from,
    )
}
