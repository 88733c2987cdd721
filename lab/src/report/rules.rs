//! The rules and the known bugs, the scenarios that show each, and what runs said of them. Main thread.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::{Deserialize, Serialize};

use crate::rules::{BUGS, Bug, RULES, Rule};
use crate::scenario::{Catalogue, Scenario};

/// What a report says of each scenario: how many of its runs came to what.
#[derive(Debug, Default)]
pub struct Verdicts(BTreeMap<String, Tally>);

/// How many runs came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// As it should be.
    pub pass: usize,
    /// Other implementations, as foretold.
    pub known_failures: usize,
    /// Anything else.
    pub other: usize,
}

/// What is read of a report.
#[derive(Deserialize)]
struct Saved {
    runs: Vec<SavedRun>,
}

#[derive(Deserialize)]
struct SavedRun {
    scenario: String,
    backend: String,
    status: String,
}

impl Verdicts {
    /// Adds the verdicts in the JSON that a run leaves, those of these backends.
    ///
    /// # Errors
    ///
    /// Text that is no report.
    pub fn add(&mut self, text: &str, of: impl Fn(&str) -> bool) -> Result<(), serde_json::Error> {
        let saved: Saved = serde_json::from_str(text)?;
        for run in saved.runs.iter().filter(|run| of(&run.backend)) {
            let tally = self.0.entry(run.scenario.clone()).or_default();
            match run.status.as_str() {
                "pass" => tally.pass += 1,
                "known_failure" => tally.known_failures += 1,
                // Not a word about any end.
                "skipped" | "unsupported" | "required_but_skipped" => {}
                _ => tally.other += 1,
            }
        }
        Ok(())
    }

    /// The runs of these scenarios.
    fn of(&self, wanted: impl Fn(&str) -> bool) -> Tally {
        let tallies = self.0.iter().filter(|(name, _)| wanted(name));
        tallies.fold(Tally::default(), |sum, (_, tally)| Tally {
            pass: sum.pass + tally.pass,
            known_failures: sum.known_failures + tally.known_failures,
            other: sum.other + tally.other,
        })
    }
}

/// A rule, who shows it, and with what result.
#[derive(Debug, Serialize)]
pub struct RuleRow {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// The scenarios that show it; every scenario, where every run is held to it.
    pub scenarios: Vec<String>,
    /// Their runs.
    pub runs: Tally,
    /// The whole in a word.
    pub status: &'static str,
}

/// A bug, who would find it, and with what result.
#[derive(Debug, Serialize)]
pub struct BugRow {
    /// The bug.
    #[serde(flatten)]
    pub bug: Bug,
    /// The scenarios that would find it.
    pub scenarios: Vec<String>,
    /// Their runs.
    pub runs: Tally,
    /// The whole in a word.
    pub status: &'static str,
}

/// All rules.
pub fn rule_rows(catalogue: &Catalogue, verdicts: &Verdicts) -> Vec<RuleRow> {
    RULES
        .iter()
        .map(|rule| {
            let scenarios = named(catalogue, |scenario| scenario.shows.contains(&rule.id));
            let runs = verdicts.of(|name| rule.every_run || scenarios.iter().any(|it| it == name));
            let shown = rule.every_run || !scenarios.is_empty();
            RuleRow {
                rule: *rule,
                status: status(rule.absent, shown, runs),
                scenarios,
                runs,
            }
        })
        .collect()
}

/// All bugs.
pub fn bug_rows(catalogue: &Catalogue, verdicts: &Verdicts) -> Vec<BugRow> {
    BUGS.iter()
        .map(|bug| {
            let scenarios = named(catalogue, |scenario| scenario.finds.contains(&bug.id));
            let runs = verdicts.of(|name| scenarios.iter().any(|it| it == name));
            BugRow {
                bug: *bug,
                status: status(bug.absent, !scenarios.is_empty(), runs),
                scenarios,
                runs,
            }
        })
        .collect()
}

fn named(catalogue: &Catalogue, wanted: impl Fn(&Scenario) -> bool) -> Vec<String> {
    let chosen = catalogue.iter().filter(|scenario| wanted(scenario));
    chosen.map(|scenario| scenario.name.clone()).collect()
}

fn status(absent: Option<&str>, shown: bool, runs: Tally) -> &'static str {
    if absent.is_some() {
        "not in DTLS 1.2"
    } else if !shown {
        "no scenario"
    } else if runs.other > 0 {
        "FAIL"
    } else if runs.pass > 0 {
        "pass"
    } else {
        "not run"
    }
}

/// Writes the rules for people; colours are for `out` to keep or to strip.
///
/// # Errors
///
/// What the output says.
pub fn write_rules(out: &mut impl Write, rows: &[RuleRow]) -> io::Result<()> {
    for row in rows {
        let rule = row.rule;
        let mut shown: Vec<&str> = row.scenarios.iter().map(String::as_str).collect();
        if rule.every_run {
            shown.insert(0, "every run");
        }
        write_row(
            out,
            &Line {
                id: &rule.id,
                status: row.status,
                what: rule.demands,
                source: rule.reference,
                absent: rule.absent,
                shown: &shown,
                runs: row.runs,
            },
        )?;
    }
    Ok(())
}

/// Writes the bugs for people; colours are for `out` to keep or to strip.
///
/// # Errors
///
/// What the output says.
pub fn write_bugs(out: &mut impl Write, rows: &[BugRow]) -> io::Result<()> {
    for row in rows {
        let shown: Vec<&str> = row.scenarios.iter().map(String::as_str).collect();
        write_row(
            out,
            &Line {
                id: &row.bug.id,
                status: row.status,
                what: row.bug.what,
                source: row.bug.seen_in,
                absent: row.bug.absent,
                shown: &shown,
                runs: row.runs,
            },
        )?;
    }
    Ok(())
}

struct Line<'a> {
    id: &'a dyn std::fmt::Display,
    status: &'a str,
    what: &'a str,
    source: &'a str,
    absent: Option<&'a str>,
    shown: &'a [&'a str],
    runs: Tally,
}

fn write_row(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    let bold = Style::new().bold();
    let colour = match (line.status, line.absent) {
        ("pass", _) => Some(AnsiColor::Green.into()),
        ("FAIL", _) => Some(AnsiColor::Red.into()),
        (_, Some(_)) => None,
        _ => Some(AnsiColor::Yellow.into()),
    };
    let style = Style::new().fg_color(colour);
    let Line {
        id,
        status,
        what,
        source,
        shown,
        runs,
        ..
    } = line;
    writeln!(
        out,
        "{bold}{id}{bold:#}  {style}{status}{style:#}  {what} ({source})"
    )?;
    if let Some(why) = line.absent {
        writeln!(out, "    {why}")?;
    }
    if !shown.is_empty() {
        writeln!(
            out,
            "    {}: {} pass, {} known failures of other implementations, {} other",
            shown.join(", "),
            runs.pass,
            runs.known_failures,
            runs.other
        )?;
    }
    Ok(())
}
