//! The rules, the scenarios that show each, and what the newest run said of them. Main thread.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::{Deserialize, Serialize};

use crate::rules::{RULES, Rule};
use crate::scenario::Catalogue;

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
    status: String,
}

impl Verdicts {
    /// The verdicts in the JSON that a run leaves.
    ///
    /// # Errors
    ///
    /// Text that is no report.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let saved: Saved = serde_json::from_str(text)?;
        let mut verdicts = Self::default();
        for run in saved.runs {
            let tally = verdicts.0.entry(run.scenario).or_default();
            match run.status.as_str() {
                "pass" => tally.pass += 1,
                "known_failure" => tally.known_failures += 1,
                _ => tally.other += 1,
            }
        }
        Ok(verdicts)
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

/// All rules.
pub fn rule_rows(catalogue: &Catalogue, verdicts: &Verdicts) -> Vec<RuleRow> {
    RULES
        .iter()
        .map(|rule| {
            let shows = catalogue
                .iter()
                .filter(|scenario| scenario.shows.contains(&rule.id));
            let scenarios: Vec<String> = shows.map(|scenario| scenario.name.clone()).collect();
            let counts = |name: &String| rule.every_run || scenarios.contains(name);
            let tallies = verdicts.0.iter().filter(|(name, _)| counts(name));
            let runs = tallies.fold(Tally::default(), |sum, (_, tally)| Tally {
                pass: sum.pass + tally.pass,
                known_failures: sum.known_failures + tally.known_failures,
                other: sum.other + tally.other,
            });
            RuleRow {
                rule: *rule,
                status: status(rule, &scenarios, runs),
                scenarios,
                runs,
            }
        })
        .collect()
}

fn status(rule: &Rule, scenarios: &[String], runs: Tally) -> &'static str {
    if scenarios.is_empty() && !rule.every_run {
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
    let bold = Style::new().bold();
    for row in rows {
        let colour = match row.status {
            "pass" => AnsiColor::Green,
            "FAIL" => AnsiColor::Red,
            _ => AnsiColor::Yellow,
        };
        let style = Style::new().fg_color(Some(colour.into()));
        let (rule, runs) = (row.rule, row.runs);
        writeln!(
            out,
            "{bold}{}{bold:#}  {style}{}{style:#}  {} ({})",
            rule.id, row.status, rule.demands, rule.reference
        )?;
        let mut shown: Vec<&str> = row.scenarios.iter().map(String::as_str).collect();
        if rule.every_run {
            shown.insert(0, "every run");
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
    }
    Ok(())
}
