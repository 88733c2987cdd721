//! The matrix of verdicts. Few pairs of server and client are columns, a scenario to a row; of many, servers
//! are rows and clients columns, and scenarios are letters. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{duration, implementation};
use crate::packet::Family;
use crate::report::matrix::letter;
use crate::report::{Row, Status};

/// What the page shows.
#[derive(Debug)]
pub(super) struct Matrix {
    /// What the rows are.
    pub(super) corner: &'static str,
    /// Headings over several columns each, and over how many; none in the second form.
    pub(super) groups: Vec<(String, usize)>,
    pub(super) columns: Vec<Column>,
    pub(super) lines: Vec<Line>,
    /// Letter, scenario and claim, where letters stand for scenarios.
    pub(super) letters: Vec<(String, String, String)>,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// Whether a group begins here.
    pub(super) first: bool,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) cells: Vec<Cell>,
}

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) first: bool,
    pub(super) badges: Vec<Badge>,
}

/// The runs of the same, and where the worst of them is told.
#[derive(Debug)]
pub(super) struct Badge {
    pub(super) id: String,
    pub(super) class: &'static str,
    pub(super) sign: &'static str,
    pub(super) words: String,
    pub(super) title: String,
}

/// More pairs are not put side by side.
const MOST_PAIRS: usize = 9;

impl Matrix {
    pub(super) fn of(rows: &[Row]) -> Self {
        let pairs: BTreeSet<(&str, &str)> = rows.iter().map(pair).collect();
        if pairs.len() > MOST_PAIRS {
            Self::of_many(rows)
        } else {
            Self::of_few(rows, &pairs)
        }
    }

    fn of_few(rows: &[Row], pairs: &BTreeSet<(&str, &str)>) -> Self {
        let mut groups: Vec<(String, usize)> = Vec::new();
        let mut columns = Vec::new();
        for (server, client) in pairs {
            let first = groups.last().is_none_or(|(name, _)| name != server);
            if first {
                groups.push(((*server).to_owned(), 0));
            }
            if let Some((_, width)) = groups.last_mut() {
                *width += 1;
            }
            columns.push(Column {
                name: (*client).to_owned(),
                first,
            });
        }
        let mut scenarios: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in rows {
            scenarios.entry(&row.scenario).or_default().push(row);
        }
        let line = |(scenario, rows): (&str, Vec<&Row>)| {
            let cell = |(wanted, column): (&(&str, &str), &Column)| {
                let those = rows.iter().copied().filter(|row| pair(row) == *wanted);
                Cell {
                    first: column.first,
                    badges: badges(those, ip),
                }
            };
            Line {
                name: scenario.to_owned(),
                title: claim(rows.first().copied()),
                cells: pairs.iter().zip(&columns).map(cell).collect(),
            }
        };
        let lines = scenarios.into_iter().map(line).collect();
        Self {
            corner: "scenario",
            groups,
            columns,
            lines,
            letters: Vec::new(),
        }
    }

    fn of_many(rows: &[Row]) -> Self {
        let mut letters: Vec<(String, &Row)> = Vec::new();
        for row in rows {
            if letters.iter().all(|(_, it)| it.scenario != row.scenario) {
                letters.push((letter(letters.len()), row));
            }
        }
        let clients: BTreeSet<&str> = rows.iter().map(|row| pair(row).1).collect();
        let servers: BTreeSet<&str> = rows.iter().map(|row| pair(row).0).collect();
        let place = |row: &Row| {
            letters
                .iter()
                .position(|(_, it)| it.scenario == row.scenario)
        };
        let letter = |row: &Row| place(row).map_or_else(String::new, |at| letters[at].0.clone());
        let line = |server: &str| Line {
            name: server.to_owned(),
            title: String::new(),
            cells: clients
                .iter()
                .map(|client| Cell {
                    first: true,
                    badges: badges(
                        rows.iter().filter(|row| pair(row) == (server, *client)),
                        letter,
                    ),
                })
                .collect(),
        };
        Self {
            corner: "server \\ client",
            groups: Vec::new(),
            columns: clients
                .iter()
                .map(|client| Column {
                    name: (*client).to_owned(),
                    first: true,
                })
                .collect(),
            lines: servers.into_iter().map(line).collect(),
            letters: letters
                .iter()
                .map(|(letter, row)| (letter.clone(), row.scenario.clone(), row.claim.clone()))
                .collect(),
        }
    }
}

fn pair(row: &Row) -> (&str, &str) {
    (implementation(&row.server), implementation(&row.client))
}

fn claim(row: Option<&Row>) -> String {
    row.map_or_else(String::new, |row| row.claim.clone())
}

/// The IP version, and whether it was simulated.
fn ip(row: &Row) -> String {
    let version = match row.family {
        Family::Ipv4 => "4",
        Family::Ipv6 => "6",
    };
    match row.backend {
        "sim" => format!("{version}s"),
        _ => version.to_owned(),
    }
}

/// One badge for all runs of the same.
fn badges<'a>(rows: impl Iterator<Item = &'a Row>, words: impl Fn(&Row) -> String) -> Vec<Badge> {
    let game = |row: &Row| {
        let ends = [row.scenario.clone(), row.server.clone(), row.client.clone()];
        (ends, row.family, row.backend)
    };
    // In order of the rows.
    let mut games: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        match games.iter_mut().find(|of| game(of[0]) == game(row)) {
            Some(of) => of.push(row),
            None => games.push(vec![row]),
        }
    }
    let badges = games.iter();
    badges.filter_map(|runs| badge(runs, &words)).collect()
}

fn badge(runs: &[&Row], words: impl Fn(&Row) -> String) -> Option<Badge> {
    let row = runs.iter().min_by_key(|row| severity(row.status))?;
    let passed = runs.iter().filter(|row| row.status == Status::Pass);
    let passed = passed.count();
    let mut title = format!(
        "{} {} on {}, {} / {}: {}",
        row.scenario,
        row.family,
        row.backend,
        row.server,
        row.client,
        row.status.word()
    );
    if runs.len() > 1 {
        title = format!("{title}, {passed} of {} runs pass", runs.len());
    }
    for more in [row.handshake_ms.map(duration), Some(row.why.clone())] {
        if let Some(more) = more.filter(|more| !more.is_empty()) {
            title = format!("{title}, {more}");
        }
    }
    let flaky = 0 < passed && passed < runs.len();
    Some(Badge {
        id: row.id.clone(),
        class: class(row.status),
        sign: sign(row.status),
        words: if flaky {
            format!("{} {passed}/{}", words(row), runs.len())
        } else {
            words(row)
        },
        title,
    })
}

/// The worst first.
pub(super) const fn severity(status: Status) -> u8 {
    match status {
        Status::Broken => 0,
        Status::Fail => 1,
        Status::UnexpectedPass => 2,
        Status::RequiredButSkipped => 3,
        Status::KnownFailure => 4,
        Status::Unsupported => 5,
        Status::Skipped => 6,
        Status::Pass => 7,
    }
}

/// What the legend explains.
pub(super) const LEGEND: [Status; 6] = [
    Status::Pass,
    Status::KnownFailure,
    Status::Fail,
    Status::Broken,
    Status::Unsupported,
    Status::Skipped,
];

pub(super) const fn class(status: Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::KnownFailure => "known",
        Status::Unsupported | Status::Skipped => "skip",
        Status::Fail | Status::UnexpectedPass | Status::Broken | Status::RequiredButSkipped => {
            "fail"
        }
    }
}

/// What tells the verdicts apart without colours.
pub(super) const fn sign(status: Status) -> &'static str {
    match status {
        Status::Pass => "✓",
        Status::KnownFailure => "!",
        Status::Fail | Status::UnexpectedPass => "✗",
        Status::Broken => "⚡",
        Status::Unsupported => "?",
        Status::Skipped | Status::RequiredButSkipped => "–",
    }
}
