//! What is known to go wrong between implementations of others, each with its reason, so that a matrix can be
//! without surprises. One that is out of date is a surprise.
//!
//! Pure: whoever reads the file hands its text over. Main thread.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::adapter::Adapters;
use crate::refusal::{Problem, Refusal, did_you_mean, explain, locate, problem};
use crate::role::Role;
use crate::rules::RuleId;
use crate::scenario::{Catalogue, Waiver};
use crate::schedule::{Planned, matches};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    expect: Vec<Spanned<RawOne>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOne {
    #[serde(default = "everyone")]
    scenarios: Vec<Spanned<String>>,
    #[serde(default = "everyone")]
    servers: Vec<Spanned<String>>,
    #[serde(default = "everyone")]
    clients: Vec<Spanned<String>>,
    reason: Spanned<String>,
    rule: Option<RuleId>,
    #[serde(default)]
    sometimes: bool,
    #[serde(default)]
    impossible: bool,
}

fn everyone() -> Vec<Spanned<String>> {
    vec![Spanned::new(0..0, "*".to_owned())]
}

/// One thing that is known to go wrong.
#[derive(Debug, Clone)]
struct Expectation {
    scenarios: Vec<String>,
    servers: Vec<String>,
    clients: Vec<String>,
    reason: String,
    /// The rule that is broken, whatever else is seen.
    rule: Option<RuleId>,
    /// It does not always go wrong.
    sometimes: bool,
    /// It cannot be played, because what is to go wrong cannot happen to these ends.
    impossible: bool,
}

/// Everything that is known to go wrong.
#[derive(Debug, Clone, Default)]
pub struct Expectations(Vec<Expectation>);

impl Expectations {
    /// What a file says, whose scenarios and implementations must exist.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with line and column.
    pub fn parse(
        file: &Path,
        text: &str,
        catalogue: &Catalogue,
        adapters: &Adapters,
    ) -> Result<Self, Refusal> {
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let problem = Problem {
                span: error.span().unwrap_or(0..0),
                text: explain(error.message()),
            };
            locate(file, text, &problem)
        })?;
        let names: Vec<&str> = catalogue.iter().map(|it| it.name.as_str()).collect();
        let ends: Vec<&str> = adapters.names().collect();
        raw.expect
            .into_iter()
            .map(|one| check(one, &names, &ends))
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|problem| locate(file, text, &problem))
    }

    /// Notes in each planned run what is known about it.
    pub fn apply(&self, plan: &mut [Planned<'_>]) {
        for Planned { job, .. } in plan {
            // Further arguments are a scenario's own; it says itself what it knows of them.
            if !job.play.server_args.is_empty() || !job.play.client_args.is_empty() {
                continue;
            }
            let end = |role| job.play.end(role).name.as_str();
            let fits = |one: &&Expectation| {
                let any = |patterns: &[String], name: &str| {
                    patterns.iter().any(|pattern| matches(pattern, name))
                };
                any(&one.scenarios, &job.scenario.name)
                    && any(&one.servers, end(Role::Server))
                    && any(&one.clients, end(Role::Client))
            };
            let known: Vec<&Expectation> = self.0.iter().filter(fits).collect();
            for one in known {
                match &one.rule {
                    Some(rule) => {
                        job.play.waived.entry(*rule).or_insert_with(|| Waiver {
                            reason: one.reason.clone(),
                            sometimes: one.sometimes,
                        });
                    }
                    None if one.impossible => {
                        job.play
                            .impossible
                            .get_or_insert_with(|| one.reason.clone());
                    }
                    None if job.play.fails_because.is_none() => {
                        job.play.fails_because = Some(one.reason.clone());
                        job.play.may_pass = one.sometimes;
                    }
                    None => {}
                }
            }
        }
    }
}

fn check(raw: Spanned<RawOne>, names: &[&str], ends: &[&str]) -> Result<Expectation, Problem> {
    let raw = raw.into_inner();
    if raw.reason.get_ref().trim().is_empty() {
        return problem(
            raw.reason.span(),
            "the reason is empty; say what goes wrong and whose doing it is",
        );
    }
    Ok(Expectation {
        scenarios: patterns(raw.scenarios, names, "scenario")?,
        servers: patterns(raw.servers, ends, "adapter")?,
        clients: patterns(raw.clients, ends, "adapter")?,
        reason: raw.reason.into_inner(),
        rule: raw.rule,
        sometimes: raw.sometimes,
        impossible: raw.impossible,
    })
}

/// Names or patterns, each of which means something.
///
/// # Errors
///
/// One that means nothing.
fn patterns(raw: Vec<Spanned<String>>, valid: &[&str], what: &str) -> Result<Vec<String>, Problem> {
    raw.into_iter()
        .map(|pattern| {
            let text = pattern.get_ref();
            if valid.iter().any(|name| matches(text, name)) {
                return Ok(pattern.into_inner());
            }
            problem(
                pattern.span(),
                format!(
                    "no {what} is named `{text}`{}",
                    did_you_mean(text, valid.iter().copied())
                ),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let clean = [("clean.toml", "name = \"clean\"\nclaim = \"It works.\"\n")];
        let catalogue = Catalogue::parse(clean).expect("it is good");
        Expectations::parse("x.toml".as_ref(), text, &catalogue, &Adapters::built_in())
            .expect_err("it is wrong")
            .to_string()
    }

    #[test]
    fn expectation_of_nobody_and_without_a_reason_is_refused_with_its_place() {
        for (text, wanted) in [
            (
                "[[expect]]\nscenarios = [\"cleen\"]\nreason = \"so\"\n",
                "x.toml:2:14: no scenario is named `cleen`, did you mean `clean`?",
            ),
            (
                "[[expect]]\nservers = [\"gnutsl\"]\nreason = \"so\"\n",
                "x.toml:2:12: no adapter is named `gnutsl`, did you mean `gnutls`?",
            ),
            (
                "[[expect]]\nreason = \" \"\n",
                "x.toml:2:10: the reason is empty",
            ),
            (
                "[[expect]]\nresaon = \"so\"\n",
                "x.toml:2:1: unknown key `resaon`, did you mean `reason`?",
            ),
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with(wanted), "{refusal}");
        }
    }
}
