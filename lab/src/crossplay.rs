//! The commands about all implementations at once: `matrix` and `adapters`. Main thread.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dtls_certs::PkiFiles;
use dtls_lab::adapter::{Adapter, Adapters};
use dtls_lab::cli::{AdaptersArgs, FamilyArg, Format, MatrixArgs};
use dtls_lab::clock::Clock;
use dtls_lab::endpoint::process::Process;
use dtls_lab::endpoint::{self, Programs};
use dtls_lab::expectations::Expectations;
use dtls_lab::netns;
use dtls_lab::report::{
    Cell, Matrix, Player, Report, Required, Row, Summary, save_page, write_json, write_matrix,
};
use dtls_lab::role::Role;
use dtls_lab::run::{Asked, Backend, Choice, Job, Lab};
use dtls_lab::scenario::{Catalogue, Family};
use dtls_lab::schedule::{Grid, Progress, matches, plan_matrix, run_all};

use super::scenarios::{dilation, hurry, tell_the_rest};
use super::{
    INTERRUPTED, LabError, adapters, catalogue, exit, prepare, programs, progress_bar, require_ours,
};

/// `dtls-lab matrix`.
pub(crate) fn matrix(arguments: &MatrixArgs, started: Instant) -> Result<ExitCode, LabError> {
    let started_at = SystemTime::now();
    let adapters = adapters(arguments.play.adapters.as_deref())?;
    let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
    let required = Required::parse(&required, &adapters).map_err(LabError::Requirement)?;
    let catalogue = catalogue(arguments.play.scenarios.as_deref(), &adapters)?;
    let expectations = match &arguments.expectations {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|source| LabError::NoExpectations {
                    path: path.clone(),
                    source,
                })?;
            Expectations::parse(path, &text, &catalogue, &adapters)?
        }
        // They speak of the scenarios that the lab brings along.
        None if arguments.play.scenarios.is_some() => Expectations::default(),
        None => built_in(&catalogue, &adapters)?,
    };
    let usual: Vec<String> = USUAL.iter().map(|name| (*name).to_owned()).collect();
    let names = if arguments.names.is_empty() {
        &usual
    } else {
        &arguments.names
    };
    let (servers, clients) = (
        players(&adapters, Role::Server, &arguments.server)?,
        players(&adapters, Role::Client, &arguments.client)?,
    );
    let grid = Grid {
        names,
        family: match arguments.family {
            FamilyArg::Ipv4 => Family::Ipv4,
            FamilyArg::Ipv6 => Family::Ipv6,
        },
        servers: &servers,
        clients: &clients,
        repeat: arguments.repeat.into(),
    };
    let (mut plan, scenarios) = plan_matrix(&catalogue, &grid)?;
    expectations.apply(&mut plan);
    let dilation = dilation(&arguments.play)?;
    let programs = programs(&arguments.play.programs);
    require_ours(&programs, &plan)?;
    netns::claim_privileges()?;
    ctrlc::set_handler(|| {
        endpoint::kill_all();
        std::process::exit(INTERRUPTED);
    })?;
    let seed = arguments.play.seed.unwrap_or_else(rand::random);
    let (evidence, pki) = prepare(&arguments.play.out, seed)?;
    let described = |all: &[Arc<Adapter>], role| -> Vec<Player> {
        let player = |it: &Arc<Adapter>| Player {
            name: it.name.clone(),
            about: it.about.clone(),
            version: version(&programs, it, role, &evidence),
        };
        all.iter().map(player).collect()
    };
    let (serving, connecting) = (
        described(&servers, Role::Server),
        described(&clients, Role::Client),
    );
    let lab = Lab {
        programs: programs.clone(),
        seed,
        evidence: evidence.clone(),
        pki: PkiFiles::in_dir(&pki),
        asked: Asked::default(),
        dilation: dilation.clone(),
        choice: Choice::Only(Backend::Wire),
        besides: arguments.play.besides(true),
    };
    if arguments.play.format == Format::Text {
        writeln!(
            io::stdout(),
            "dtls-lab: {} servers, {} clients, {} scenarios: {} runs, backend {}{}, seed {seed:x}",
            servers.len(),
            clients.len(),
            scenarios.len(),
            plan.len(),
            Backend::Wire.describe(),
            hurry(arguments.play.dilate)
        )?;
    }
    let bar = progress_bar(plan.len());
    let run = |job: &Job<'_>| lab.run(job);
    let jobs = arguments.jobs.into();
    let finished = run_all(&run, &plan, jobs, &|progress| match progress {
        Progress::Started(job) => bar.set_message(job.slug()),
        Progress::Ended(..) => bar.inc(1),
    });
    bar.finish_and_clear();

    let mut cells: BTreeMap<[String; 3], Vec<Row>> = BTreeMap::new();
    for (planned, finished) in plan.iter().zip(&finished) {
        let mut row = Row::new(&planned.job, finished, &required, seed, Backend::Wire);
        row.replay.push_str(&lab.besides);
        let place = [row.scenario.clone(), row.server.clone(), row.client.clone()];
        cells.entry(place).or_default().push(row);
    }
    let matrix = Matrix {
        seed: format!("{seed:x}"),
        backend: Backend::Wire.describe(),
        scenarios: scenarios.iter().map(|it| it.name.clone()).collect(),
        servers: serving,
        clients: connecting,
        cells: cells.into_values().filter_map(Cell::of).collect(),
        states: BTreeMap::new(),
        unexpected: 0,
        seconds: (started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    }
    .counted();
    save(&evidence, &matrix).map_err(|source| LabError::Evidence {
        path: evidence.clone(),
        source,
    })?;
    let mut runs: Vec<Row> = matrix.cells.iter().flat_map(|it| it.runs.clone()).collect();
    // The page gives them the letters that the table has.
    runs.sort_by_key(|run| matrix.scenarios.iter().position(|it| *it == run.scenario));
    let report = Report {
        folder: evidence.display().to_string(),
        started_at: humantime::format_rfc3339_seconds(started_at).to_string(),
        version: env!("CARGO_PKG_VERSION"),
        seed: matrix.seed.clone(),
        defect: None,
        backend: matrix.backend.to_owned(),
        summary: Summary::of(&runs, started.elapsed()),
        runs,
        replay: format!("dtls-lab matrix{} --seed {seed:x}", arguments.asked()),
    };
    save_page(&evidence, &report)?;
    match arguments.play.format {
        Format::Text => {
            write_matrix(&mut anstream::stdout().lock(), &matrix, &evidence)?;
            tell_the_rest(
                &mut io::stdout(),
                &arguments.play,
                dilation.as_deref(),
                &report.replay,
            )?;
        }
        Format::Json => write_json(&mut io::stdout().lock(), &matrix)?,
    }
    Ok(exit(matrix.unexpected == 0))
}

/// The scenarios of a matrix where none is named: those that ask nothing of the ends but a handshake and data.
const USUAL: [&str; 20] = [
    "clean",
    "clean-long-chain",
    "handshake-drop-client-hello",
    "handshake-drop-hello-verify",
    "handshake-drop-flight4",
    "handshake-drop-flight5",
    "handshake-drop-flight6",
    "loss-10",
    "handshake-drop-flight6-twice",
    "duplicate-everything",
    "replay-everything",
    "empty-datagram",
    "spoof-plaintext-alert",
    "icmp-port-unreachable-handshake-client",
    "icmp-port-unreachable-handshake-server",
    "icmp-port-unreachable-established-client",
    "icmp-port-unreachable-established-server",
    "mtu-576-told",
    "resumed",
    "reconnect-same-port",
];

/// The file of the lab's own expectations.
pub(crate) fn built_in(
    catalogue: &Catalogue,
    adapters: &Adapters,
) -> Result<Expectations, LabError> {
    let text = include_str!("../expectations.toml");
    let file = Path::new("lab/expectations.toml");
    Ok(Expectations::parse(file, text, catalogue, adapters)?)
}

/// The implementations that have this side, all or those that are named.
fn players(
    adapters: &Adapters,
    role: Role,
    names: &[String],
) -> Result<Vec<Arc<Adapter>>, LabError> {
    let able: Vec<&Arc<Adapter>> = adapters
        .iter()
        .filter(|it| it.side(role).is_some())
        .collect();
    for name in names {
        if !able.iter().any(|it| matches(name, &it.name)) {
            let valid: Vec<&str> = able.iter().map(|it| it.name.as_str()).collect();
            return Err(LabError::UnknownPlayer {
                role: role.name(),
                name: name.clone(),
                valid: valid.join(", "),
            });
        }
    }
    let wanted =
        |it: &&Arc<Adapter>| names.is_empty() || names.iter().any(|name| matches(name, &it.name));
    let mut players: Vec<_> = able.into_iter().filter(wanted).cloned().collect();
    // Ours first, then by name.
    players.sort_by_key(|it| (!it.required, it.name.clone()));
    Ok(players)
}

/// The first line that the program says its version in, or why there is none.
fn version(programs: &Programs, adapter: &Adapter, role: Role, evidence: &Path) -> String {
    let command = match programs.version_command(adapter, role) {
        Ok(Some(command)) => command,
        Ok(None) => return "version unknown".to_owned(),
        Err(missing) => return missing.to_string(),
    };
    first_line(command, evidence).unwrap_or_else(|| "says no version".to_owned())
}

/// The first line with a digit that a program prints within some seconds.
fn first_line(mut command: Command, evidence: &Path) -> Option<String> {
    command.stdin(Stdio::null());
    let log = evidence.join("version.log");
    let mut process = Process::spawn(command, &log, Clock::start(1)).ok()?;
    process.close_stdin();
    process.wait_until(super::now() + PATIENCE);
    process.kill();
    process.first_line(|line| line.contains(|c: char| c.is_ascii_digit()))
}

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

fn save(evidence: &Path, matrix: &Matrix) -> io::Result<()> {
    let mut json = io::BufWriter::new(std::fs::File::create(evidence.join("matrix.json"))?);
    write_json(&mut json, matrix)?;
    json.flush()?;
    let text = std::fs::File::create(evidence.join("matrix.txt"))?;
    write_matrix(&mut anstream::StripStream::new(text), matrix, Path::new(""))
}

/// `dtls-lab adapters`.
pub(crate) fn list_adapters(arguments: &AdaptersArgs) -> Result<(), LabError> {
    let adapters = adapters(arguments.adapters.as_deref())?;
    let programs = programs(&arguments.programs);
    let mut out = io::stdout().lock();
    for adapter in adapters.iter() {
        writeln!(out, "{}\n    {}", adapter.name, adapter.about)?;
        for role in [Role::Server, Role::Client] {
            if adapter.side(role).is_none() {
                continue;
            }
            match programs.require(adapter, role) {
                Ok(program) => writeln!(out, "    {}: {}", role.name(), program.display())?,
                Err(missing) => writeln!(out, "    {}: {missing}", role.name())?,
            }
        }
    }
    Ok(())
}
