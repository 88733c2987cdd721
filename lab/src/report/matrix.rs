//! The matrix: every server with every client in every scenario, as a table of letters and as data. Main thread.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{Row, Status};

/// An implementation in the matrix.
#[derive(Debug, Clone, Serialize)]
pub struct Player {
    /// Its adapter's name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// What its program says its version is.
    pub version: String,
}

/// What the runs of one server and client in one scenario came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All passed.
    Ok,
    /// All passed, as far as the handshake goes; data could not be judged.
    HandshakeOnly,
    /// All failed.
    Fail,
    /// Some passed and some failed.
    Flaky,
    /// It passed although it was known to fail.
    UnexpectedPass,
    /// The lab could not do its part.
    Broken,
    /// An end cannot play this.
    Unsupported,
    /// Not tried.
    Skipped,
}

/// One server, one client, one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The scenario.
    pub scenario: String,
    /// The server.
    pub server: String,
    /// The client.
    pub client: String,
    /// What it came to.
    pub state: State,
    /// How many runs passed.
    pub passed: usize,
    /// Of how many.
    pub of: usize,
    /// Whether it makes the matrix fail.
    pub unexpected: bool,
    /// The runs.
    pub runs: Vec<Row>,
}

impl Cell {
    /// What these runs of one server and client in one scenario come to.
    #[must_use]
    pub fn of(runs: Vec<Row>) -> Option<Self> {
        let first = runs.first()?;
        let has = |status| runs.iter().any(|run| run.status == status);
        let passed = runs.iter().filter(|run| run.status == Status::Pass).count();
        let failed = has(Status::Fail) || has(Status::KnownFailure);
        let state = if has(Status::Broken) {
            State::Broken
        } else if has(Status::UnexpectedPass) {
            State::UnexpectedPass
        } else if failed && passed > 0 {
            State::Flaky
        } else if failed {
            State::Fail
        } else if has(Status::Unsupported) {
            State::Unsupported
        } else if passed == 0 {
            State::Skipped
        } else if runs.iter().any(|run| run.handshake_only) {
            State::HandshakeOnly
        } else {
            State::Ok
        };
        Some(Self {
            scenario: first.scenario.clone(),
            server: first.server.clone(),
            client: first.client.clone(),
            state,
            passed,
            of: runs.len(),
            unexpected: runs.iter().any(|run| run.status.is_unexpected()),
            runs,
        })
    }

    /// What says best why it is no plain pass.
    fn why(&self) -> &str {
        let worst = self
            .runs
            .iter()
            .find(|run| run.status.is_unexpected())
            .or_else(|| self.runs.iter().find(|run| run.status != Status::Pass));
        worst.map_or("", |run| {
            run.known
                .as_deref()
                .filter(|_| run.status == Status::KnownFailure)
                .unwrap_or(&run.why)
        })
    }
}

/// Everything that is told at the end.
#[derive(Debug, Serialize)]
pub struct Matrix {
    /// The seed, in hexadecimal as `--seed` takes it.
    pub seed: String,
    /// How the wire was made.
    pub backend: &'static str,
    /// The scenarios, in the order of their letters.
    pub scenarios: Vec<String>,
    /// The servers, in order of the rows.
    pub servers: Vec<Player>,
    /// The clients, in order of the columns.
    pub clients: Vec<Player>,
    /// All cells.
    pub cells: Vec<Cell>,
    /// How many cells there are of each state.
    pub states: BTreeMap<State, usize>,
    /// How many make the exit status 1.
    pub unexpected: usize,
    /// Wall time.
    pub seconds: f64,
}

impl Matrix {
    /// Counts what there is.
    #[must_use]
    pub fn counted(mut self) -> Self {
        for cell in &self.cells {
            *self.states.entry(cell.state).or_default() += 1;
        }
        self.unexpected = self.cells.iter().filter(|cell| cell.unexpected).count();
        self
    }

    fn cell(&self, scenario: &str, server: &str, client: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            cell.scenario == scenario && cell.server == server && cell.client == client
        })
    }
}

/// Writes the matrix for people; colours are for `out` to keep or to strip. `folder` is that of the evidence, as
/// the reader is to be told it.
///
/// # Errors
///
/// What the output says.
pub fn write_matrix(out: &mut impl Write, matrix: &Matrix, folder: &Path) -> io::Result<()> {
    for (number, scenarios) in (1..).zip(matrix.scenarios.chunks(LETTERS.len())) {
        write_block(out, matrix, number, scenarios)?;
    }
    writeln!(
        out,
        "\nA ok   a the handshake is, data could not be judged   x fails, as known   X FAILS   ~ flaky, as \
         known   ! FLAKY\n+ passes, though known to fail   # the lab failed   - unsupported   . skipped\n"
    )?;
    write_players(out, matrix)?;
    write_groups(out, matrix)?;
    for cell in matrix.cells.iter().filter(|cell| cell.unexpected) {
        write_unexpected(out, cell, folder)?;
    }
    let expected = |wanted: &[State]| {
        let cells = matrix.cells.iter().filter(|cell| !cell.unexpected);
        cells.filter(|cell| wanted.contains(&cell.state)).count()
    };
    writeln!(
        out,
        "\n{} cells: {} ok, {} ok as far as the handshake goes, {} known failures, {} unexpected, \
         {} unsupported, {} skipped in {:.0} s",
        matrix.cells.len(),
        expected(&[State::Ok]),
        expected(&[State::HandshakeOnly]),
        expected(&[State::Fail, State::Flaky]),
        matrix.unexpected,
        expected(&[State::Unsupported]),
        expected(&[State::Skipped]),
        matrix.seconds
    )
}

/// The letters of scenarios. X and the small ones mean something else. Where there are more scenarios, those of
/// the second block are A2, B2…
pub(super) const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWYZ";

/// The letter of a scenario, with the number of its block.
pub(super) fn letter(index: usize) -> String {
    let (block, place) = (index / LETTERS.len(), index % LETTERS.len());
    let letter = &LETTERS[place..=place];
    match block {
        0 => letter.to_owned(),
        more => format!("{letter}{}", more + 1),
    }
}

/// The table of as many scenarios as there are letters, and what these mean.
fn write_block(
    out: &mut impl Write,
    matrix: &Matrix,
    number: usize,
    scenarios: &[String],
) -> io::Result<()> {
    let bold = Style::new().bold();
    let names = matrix.servers.iter().map(|it| it.name.chars().count());
    let first = names
        .max()
        .unwrap_or_default()
        .max("server \\ client".len());
    let width = matrix
        .clients
        .iter()
        .map(|it| it.name.chars().count())
        .chain([scenarios.len()])
        .max()
        .unwrap_or_default();
    write!(out, "\n{bold}{:first$}", "server \\ client")?;
    for client in &matrix.clients {
        write!(out, "  {:width$}", client.name)?;
    }
    writeln!(out, "{bold:#}")?;
    for server in &matrix.servers {
        write!(out, "{:first$}", server.name)?;
        for client in &matrix.clients {
            write!(out, "  ")?;
            for (scenario, letter) in scenarios.iter().zip(LETTERS.chars()) {
                let cell = matrix.cell(scenario, &server.name, &client.name);
                let (code, style) = cell.map_or((' ', Style::new()), |cell| code(cell, letter));
                write!(out, "{style}{code}{style:#}")?;
            }
            write!(out, "{:1$}", "", width - scenarios.len())?;
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    let width = scenarios.iter().map(String::len).max().unwrap_or_default();
    for (scenario, letter) in scenarios.iter().zip((number - 1) * LETTERS.len()..) {
        let mut counts: BTreeMap<State, usize> = BTreeMap::new();
        for cell in matrix.cells.iter().filter(|it| it.scenario == *scenario) {
            *counts.entry(cell.state).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(state, count)| format!("{count} {}", word(*state)))
            .collect();
        let letter = self::letter(letter);
        writeln!(out, "{letter:<2} {scenario:width$}  {}", counts.join(", "))?;
    }
    Ok(())
}

fn code(cell: &Cell, letter: char) -> (char, Style) {
    let coloured = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    let trouble = if cell.unexpected {
        coloured(AnsiColor::Red).bold()
    } else {
        coloured(AnsiColor::Yellow)
    };
    match cell.state {
        State::Ok => (letter, coloured(AnsiColor::Green)),
        State::HandshakeOnly => (letter.to_ascii_lowercase(), coloured(AnsiColor::Green)),
        State::Fail if cell.unexpected => ('X', trouble),
        State::Fail => ('x', trouble),
        State::Flaky if cell.unexpected => ('!', trouble),
        State::Flaky => ('~', trouble),
        State::UnexpectedPass => ('+', trouble),
        State::Broken => ('#', trouble),
        State::Unsupported => ('-', Style::new().dimmed()),
        State::Skipped => ('.', Style::new().dimmed()),
    }
}

/// Who played, and in which version.
fn write_players(out: &mut impl Write, matrix: &Matrix) -> io::Result<()> {
    let players: BTreeMap<&str, &Player> = matrix
        .servers
        .iter()
        .chain(&matrix.clients)
        .map(|player| (player.name.as_str(), player))
        .collect();
    let width = players.keys().map(|name| name.len()).max();
    let width = width.unwrap_or_default();
    for (name, player) in players {
        writeln!(out, "{name:width$}  {} ({})", player.about, player.version)?;
    }
    Ok(())
}

const fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::HandshakeOnly => "handshake only",
        State::Fail => "fail",
        State::Flaky => "flaky",
        State::UnexpectedPass => "unexpected pass",
        State::Broken => "broken",
        State::Unsupported => "unsupported",
        State::Skipped => "skipped",
    }
}

/// What is no surprise, put together by reason.
fn write_groups(out: &mut impl Write, matrix: &Matrix) -> io::Result<()> {
    for (states, heading) in [
        (&[State::Fail, State::Flaky][..], "known failures"),
        (&[State::Unsupported], "unsupported"),
        (&[State::Skipped], "skipped"),
    ] {
        let mut groups: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
        for cell in matrix.cells.iter() {
            if !cell.unexpected && states.contains(&cell.state) {
                groups.entry(cell.why()).or_default().push(cell);
            }
        }
        if groups.is_empty() {
            continue;
        }
        writeln!(out, "\n{heading}:")?;
        for (why, cells) in groups {
            let all = |of: fn(&Cell) -> &str| {
                let names: BTreeSet<&str> = cells.iter().map(|cell| of(cell)).collect();
                names.into_iter().collect::<Vec<_>>().join(" ")
            };
            writeln!(out, "  {why}")?;
            writeln!(
                out,
                "    {} cells: server {} / client {} in {}",
                cells.len(),
                all(|cell| &cell.server),
                all(|cell| &cell.client),
                all(|cell| &cell.scenario)
            )?;
            if let Some(run) = cells.iter().find_map(|cell| {
                cell.runs
                    .iter()
                    .find(|run| run.status == Status::KnownFailure)
            }) {
                writeln!(out, "    seen: {}", run.why)?;
                writeln!(out, "    replay: {}", run.replay)?;
            }
        }
    }
    Ok(())
}

fn write_unexpected(out: &mut impl Write, cell: &Cell, folder: &Path) -> io::Result<()> {
    let what = match cell.state {
        State::Flaky => format!("FLAKY {} of {} pass", cell.passed, cell.of),
        State::UnexpectedPass => "PASS (unexpected)".to_owned(),
        State::Broken => "BROKEN".to_owned(),
        State::Skipped => "SKIPPED (required)".to_owned(),
        _ => "FAIL".to_owned(),
    };
    writeln!(
        out,
        "\n{what}: {} {} / {}",
        cell.scenario, cell.server, cell.client
    )?;
    writeln!(out, "  why       {}", cell.why())?;
    if let Some(run) = cell.runs.iter().find(|run| run.status.is_unexpected()) {
        if let Some(evidence) = &run.evidence {
            writeln!(out, "  evidence  {}", folder.join(evidence).display())?;
        }
        writeln!(out, "  replay    {}", run.replay)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    fn cell(statuses: &[Status]) -> Cell {
        let run = |status: &Status| Row {
            server: "gnutls".to_owned(),
            client: "ours".to_owned(),
            ..row(*status)
        };
        Cell::of(statuses.iter().map(run).collect()).expect("there are runs")
    }

    #[test]
    fn cell_is_flaky_when_some_runs_fail_and_red_unless_that_was_known() {
        for (statuses, state, unexpected) in [
            (&[Status::Pass, Status::Pass][..], State::Ok, false),
            (&[Status::Pass, Status::Fail], State::Flaky, true),
            (&[Status::Pass, Status::KnownFailure], State::Flaky, false),
            (&[Status::KnownFailure; 2], State::Fail, false),
            (&[Status::Fail; 2], State::Fail, true),
            (
                &[Status::KnownFailure, Status::UnexpectedPass],
                State::UnexpectedPass,
                true,
            ),
            (&[Status::Pass, Status::Broken], State::Broken, true),
            (&[Status::Unsupported], State::Unsupported, false),
            (&[Status::Skipped], State::Skipped, false),
            (&[Status::RequiredButSkipped], State::Skipped, true),
        ] {
            let cell = cell(statuses);
            assert_eq!(
                (cell.state, cell.unexpected),
                (state, unexpected),
                "{statuses:?}"
            );
        }
    }

    fn player(name: &str) -> Player {
        Player {
            name: name.to_owned(),
            about: "a program".to_owned(),
            version: "1.0".to_owned(),
        }
    }

    fn matrix(scenarios: Vec<String>, cells: Vec<Cell>) -> Matrix {
        let matrix = Matrix {
            seed: "7c1e".to_owned(),
            backend: "wire",
            scenarios,
            servers: vec![player("gnutls")],
            clients: vec![player("ours")],
            cells,
            states: BTreeMap::new(),
            unexpected: 0,
            seconds: 1.0,
        };
        matrix.counted()
    }

    fn table(matrix: &Matrix) -> String {
        let mut text = anstream::StripStream::new(Vec::new());
        write_matrix(&mut text, matrix, Path::new("lab")).expect("memory takes everything");
        String::from_utf8(text.into_inner()).expect("the table is text")
    }

    #[test]
    fn scenarios_beyond_the_alphabet_have_a_block_and_letters_of_their_own() {
        let names: Vec<String> = (1..=27)
            .map(|number| format!("scenario-{number}"))
            .collect();
        let cells = names.iter().map(|name| Cell {
            scenario: name.clone(),
            ..cell(&[Status::Pass])
        });
        let text = table(&matrix(names.clone(), cells.collect()));
        assert!(
            text.contains(&format!("\ngnutls           {LETTERS}\n")),
            "{text}"
        );
        assert!(text.contains("\ngnutls           AB  \n"), "{text}");
        assert!(text.contains("\nZ  scenario-25  1 ok"), "{text}");
        assert!(text.contains("\nA2 scenario-26  1 ok"), "{text}");
        assert!(text.contains("\nB2 scenario-27  1 ok"), "{text}");
    }

    #[test]
    fn last_line_counts_each_cell_once() {
        let of = |status| {
            let mut cell = cell(&[status]);
            cell.scenario = format!("{status:?}");
            cell
        };
        let cells: Vec<Cell> = super::super::tests::ALL.map(of).to_vec();
        let names = cells.iter().map(|cell| cell.scenario.clone()).collect();
        let text = table(&matrix(names, cells));
        let expected = "8 cells: 1 ok, 0 ok as far as the handshake goes, 1 known failures, 4 unexpected, \
                        1 unsupported, 1 skipped in 1 s";
        assert_eq!(text.lines().last(), Some(expected));
    }

    #[test]
    fn table_has_a_letter_for_each_scenario_and_names_what_failed_with_its_replay() {
        let cells = vec![cell(&[Status::Pass, Status::Fail])];
        let text = table(&matrix(vec!["clean".to_owned()], cells));
        assert!(text.contains("\ngnutls           !"), "{text}");
        assert!(text.contains("A  clean  1 flaky"), "{text}");
        assert!(
            text.contains("FLAKY 1 of 2 pass: clean gnutls / ours"),
            "{text}"
        );
        assert!(text.contains("replay    dtls-lab run clean"), "{text}");
        assert!(text.contains("1 cells: 0 ok"), "{text}");
    }
}
