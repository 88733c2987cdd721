//! The runs: counts, the matrix of verdicts, and each run with its ladder and its files. Main thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::ladder::Ladder;
use super::logs::Log;
use super::matrix::{LEGEND, Matrix, class, severity, sign};
use super::{duration, implementation};
use crate::report::table::shortened;
use crate::report::{Report, Row, Status};

/// Everything about runs.
#[derive(Debug)]
pub(super) struct Runs {
    pub(super) tiles: Vec<Tile>,
    pub(super) replay: String,
    /// Id, name and reason.
    pub(super) unexpected: Vec<(String, String, String)>,
    /// Class, sign and words.
    pub(super) legend: Vec<(&'static str, &'static str, &'static str)>,
    pub(super) matrix: Matrix,
    /// Further files of the report, in the page's folder.
    pub(super) files: Vec<&'static str>,
    pub(super) choices: Vec<Choice>,
    pub(super) runs: Vec<Run>,
}

#[derive(Debug)]
pub(super) struct Tile {
    pub(super) number: String,
    pub(super) words: &'static str,
    pub(super) class: &'static str,
}

/// One of the lists that filter the runs.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) name: &'static str,
    pub(super) values: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) verdict: &'static str,
    pub(super) class: &'static str,
    pub(super) open: bool,
    pub(super) scenario: String,
    pub(super) claim: String,
    pub(super) family: String,
    pub(super) on: String,
    pub(super) server: String,
    pub(super) server_name: String,
    pub(super) client: String,
    pub(super) client_name: String,
    pub(super) handshake: String,
    pub(super) resent: String,
    pub(super) why: String,
    pub(super) known: String,
    pub(super) replay: String,
    /// Name and relative address of each file.
    pub(super) links: Vec<(String, String)>,
    pub(super) note: String,
    pub(super) ladder: Option<Ladder>,
    pub(super) logs: Vec<Log>,
}

impl Runs {
    pub(super) fn of(folder: &Path, report: &Report) -> Self {
        let rows = &report.runs;
        let values = |of: fn(&Row) -> String| rows.iter().map(of).collect();
        Self {
            tiles: tiles(report),
            replay: report.replay.clone(),
            unexpected: rows
                .iter()
                .filter(|row| row.status.is_unexpected())
                .map(|row| (row.id.clone(), name(row), row.why.clone()))
                .collect(),
            legend: LEGEND
                .map(|status| (class(status), sign(status), status.word()))
                .to_vec(),
            matrix: Matrix::of(rows),
            files: BESIDE
                .into_iter()
                .filter(|name| folder.join(name).is_file())
                .collect(),
            choices: vec![
                Choice {
                    name: "verdict",
                    values: values(|row| row.status.word().to_owned()),
                },
                Choice {
                    name: "server",
                    values: values(|row| implementation(&row.server).to_owned()),
                },
                Choice {
                    name: "client",
                    values: values(|row| implementation(&row.client).to_owned()),
                },
                Choice {
                    name: "ip",
                    values: values(|row| row.family.to_string()),
                },
                Choice {
                    name: "on",
                    values: values(played_on),
                },
            ],
            runs: runs(folder, rows),
        }
    }
}

/// What a report may have beside its page.
const BESIDE: [&str; 5] = [
    "report.json",
    "matrix.json",
    "junit.xml",
    "report.txt",
    "matrix.txt",
];

fn name(row: &Row) -> String {
    format!(
        "{} {} on {} {} / {}",
        row.scenario, row.family, row.backend, row.server, row.client
    )
}

fn tiles(report: &Report) -> Vec<Tile> {
    let sum = &report.summary;
    let count = |number: usize, words, class| Tile {
        number: number.to_string(),
        words,
        class: if number > 0 { class } else { "" },
    };
    vec![
        count(sum.pass, "pass", "good"),
        count(sum.unexpected, "unexpected", "bad"),
        count(sum.known_failures, "known failures of others", ""),
        count(sum.unsupported, "unsupported", ""),
        count(sum.skipped, "skipped", ""),
        Tile {
            number: format!("{:.0} s", sum.seconds),
            words: "in all",
            class: "",
        },
    ]
}

/// The backend, and how many times as fast the programs' clocks were.
fn played_on(row: &Row) -> String {
    row.dilated.map_or_else(
        || row.backend.to_owned(),
        |times| format!("{} x{times}", row.backend),
    )
}

fn runs(folder: &Path, rows: &[Row]) -> Vec<Run> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    // What is red must have its ladder and its logs; the others as long as there is room.
    order.sort_by_key(|&index| severity(rows[index].status));
    let mut budget = MOST_LADDERS.saturating_sub(rows.len() * A_RUN);
    let mut ladders: BTreeMap<usize, Ladder> = BTreeMap::new();
    let mut logs: BTreeMap<usize, Vec<Log>> = BTreeMap::new();
    for index in order {
        let row = &rows[index];
        if telling(row.status) && logs.len() < MOST_LOGS {
            let evidence = folder.join(&row.id);
            let tails = ["server.log", "client.log"];
            let tails = tails.iter().filter_map(|name| Log::tail(&evidence, name));
            logs.insert(index, tails.collect());
        }
        if let Some(sketch) = &row.sketch {
            let ladder = Ladder::of(sketch);
            if ladder.rows.len() <= budget {
                budget -= ladder.rows.len();
                ladders.insert(index, ladder);
            }
        }
    }
    let run = |(index, row)| {
        let logs = logs.remove(&index).unwrap_or_default();
        run(folder, row, ladders.remove(&index), logs)
    };
    rows.iter().enumerate().map(run).collect()
}

/// Rows of all ladders of a page together: 450 bytes each, so some 4 MB.
const MOST_LADDERS: usize = 9000;
/// What a run without its ladder takes, in such rows.
const A_RUN: usize = 4;
/// Runs whose logs are shown.
const MOST_LOGS: usize = 150;

/// Whether the programs' last words may explain it.
const fn telling(status: Status) -> bool {
    status.is_unexpected() || matches!(status, Status::KnownFailure)
}

fn run(folder: &Path, row: &Row, ladder: Option<Ladder>, logs: Vec<Log>) -> Run {
    let evidence = row.evidence.as_ref().map(|_| folder.join(&row.id));
    let links = evidence.as_deref().map(files).unwrap_or_default();
    let links = links
        .into_iter()
        .map(|name| (format!("{}/{name}", row.id), name))
        .map(|(address, name)| (name, address));
    let note = match (&row.sketch, &ladder) {
        (Some(_), None) => "The ladder is left out to keep this page small; events.jsonl has it all, and the page of its replay will have it.".to_owned(),
        (Some(sketch), Some(_)) => match sketch.only {
            Some(only) => format!(
                "{} clients; the ladder is that of number {}, which needed most.",
                sketch.clients,
                only + 1
            ),
            None => String::new(),
        },
        (None, _) => String::new(),
    };
    Run {
        id: row.id.clone(),
        verdict: row.status.word(),
        class: class(row.status),
        open: row.status.is_unexpected(),
        scenario: row.scenario.clone(),
        claim: row.claim.clone(),
        family: row.family.to_string(),
        on: played_on(row),
        server: shortened(&row.server),
        server_name: implementation(&row.server).to_owned(),
        client: shortened(&row.client),
        client_name: implementation(&row.client).to_owned(),
        handshake: row.handshake_ms.map_or_else(|| "-".to_owned(), duration),
        resent: row
            .resent
            .map_or_else(|| "-".to_owned(), |resent| resent.to_string()),
        why: row.why.clone(),
        known: row.known.clone().unwrap_or_default(),
        replay: row.replay.clone(),
        links: links.collect(),
        note,
        ladder,
        logs,
    }
}

/// The files of a run that a reader may want, the capture first.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let extension = Path::new(name).extension();
            name == "replay"
                || extension.is_some_and(|it| it == "pcapng" || it == "jsonl" || it == "log")
        })
        .collect();
    names.sort_by_key(|name| (!name.ends_with(".pcapng"), name.clone()));
    names.truncate(MOST_FILES);
    names
}

/// Clients that take turns leave a log each.
const MOST_FILES: usize = 12;
