//! TOML to [`Scenario`].
//!
//! The file's own shape stands in `raw`, which refuses unknown keys and impossible single
//! values; here is what only several values together can get wrong.

mod change;
mod inject;
mod link;
mod selector;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dtls_certs::{Profile, Role};
use strum::VariantNames;
use toml::Spanned;

use self::change::{blackhole, rebind};
use self::inject::inject;
use self::link::links;
use self::selector::selector;
use super::Shape;
use super::raw::{Raw, RawExpect, RawPlay, RawRepeats, RawRule};
use super::{
    Action, Expect, Family, Forgery, Link, Outcome, Play, Repeats, Rule, SHORT_LINE, Scenario,
};
use crate::adapter::{Adapter, Adapters, OURS};
use crate::refusal::{Problem, Refusal, did_you_mean, explain, locate, problem};
use crate::rules::{BUGS, RULES};

/// The scenario in one file.
///
/// # Errors
///
/// The first mistake in it.
pub(super) fn scenario(file: &Path, text: &str, adapters: &Adapters) -> Result<Scenario, Refusal> {
    raw(file, text)
        .and_then(|raw| check(file, raw, adapters).map_err(|problem| locate(file, text, &problem)))
}

/// The scenarios of all files, by name.
///
/// # Errors
///
/// The first mistake in any of them, or between them.
pub(super) fn catalogue<T: AsRef<str>>(
    files: &[(PathBuf, T)],
    adapters: &Adapters,
) -> Result<BTreeMap<String, Scenario>, Refusal> {
    let mut scenarios = BTreeMap::new();
    for (file, text) in files {
        let parsed = scenario(file, text.as_ref(), adapters)?;
        if let Some(twin) = scenarios.insert(parsed.name.clone(), parsed) {
            let text = format!("a second scenario is named `{}`; rename one", twin.name);
            return Err(locate(file, "", &Problem { span: 0..0, text }));
        }
    }
    for (file, text) in files {
        let raw = raw(file, text.as_ref())?;
        if let Some(control) = raw.control {
            check_control(&scenarios, raw.name.get_ref(), &control)
                .map_err(|problem| locate(file, text.as_ref(), &problem))?;
        }
    }
    Ok(scenarios)
}

/// A control exists, and the chain of controls ends.
///
/// # Errors
///
/// A control that no file holds, or a circle.
fn check_control(
    scenarios: &BTreeMap<String, Scenario>,
    name: &str,
    control: &Spanned<String>,
) -> Result<(), Problem> {
    let mut next = control.get_ref();
    for _ in 0..=scenarios.len() {
        let Some(scenario) = scenarios.get(next) else {
            return problem(
                control.span(),
                format!(
                    "control `{next}` is not the name of a scenario{}",
                    did_you_mean(next, scenarios.keys().map(String::as_str))
                ),
            );
        };
        match &scenario.control {
            Some(control) => next = control,
            None => return Ok(()),
        }
    }
    problem(
        control.span(),
        format!("the controls of `{name}` form a circle; one of them must do without a fault"),
    )
}

/// The file's own shape.
///
/// # Errors
///
/// What TOML or `raw` does not allow.
fn raw(file: &Path, text: &str) -> Result<Raw, Refusal> {
    toml::from_str(text).map_err(|error| {
        let problem = Problem {
            span: error.span().unwrap_or(0..0),
            text: explain(error.message()),
        };
        locate(file, text, &problem)
    })
}

/// The file's shape made a scenario.
///
/// # Errors
///
/// The first thing its values together get wrong.
fn check(file: &Path, raw: Raw, adapters: &Adapters) -> Result<Scenario, Problem> {
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if raw.name.get_ref() != stem {
        return problem(
            raw.name.span(),
            format!("a scenario is named as its file: write name = \"{stem}\" or rename the file"),
        );
    }
    if raw.claim.get_ref().trim().is_empty() {
        return problem(
            raw.claim.span(),
            "the claim is empty; say in one sentence what must hold",
        );
    }
    let families = families(raw.families)?;
    let clients = raw.clients.get();
    if let Some(in_turn) = &raw.in_turn
        && clients == 1
    {
        return problem(
            in_turn.span(),
            "one client alone has nobody to come after it; write clients = 2",
        );
    }
    if raw.in_turn.is_none() && (raw.same_port || raw.resume) {
        return problem(
            raw.name.span(),
            "`same_port` and `resume` are about clients that come after one another; write \
             in_turn = \"closed\" or \"killed\"",
        );
    }
    let plays = plays(raw.play, clients, raw.in_turn.is_some(), adapters)?;
    let certificate = certificate(raw.certificate)?;
    let shows = of_dtls_1_2(raw.rules, |id| {
        RULES.iter().find(|rule| rule.id == *id)?.absent
    })?;
    let finds = of_dtls_1_2(raw.bugs, |id| BUGS.iter().find(|bug| bug.id == *id)?.absent)?;
    let handshake = handshake(raw.handshake)?;
    let wrong_key = raw.wrong_key.as_ref().filter(|it| *it.get_ref());
    if let Some(wrong_key) = wrong_key
        && !matches!(handshake, Shape::Psk | Shape::PskSplit)
    {
        return problem(
            wrong_key.span(),
            "`wrong_key` is about a pre-shared key; write handshake = \"psk\"",
        );
    }
    let (to_server, to_client) = links(raw.link)?;
    let rules = raw
        .rule
        .into_iter()
        .map(rule)
        .collect::<Result<Vec<_>, _>>()?;
    if let (Some(first), None) = (raw.inject.first(), raw.attacker) {
        return problem(
            first.span(),
            "an inject is an attacker's doing: name the `attacker` at the top of the file",
        );
    }
    let injects = raw
        .inject
        .into_iter()
        .map(|one| inject(one, &families, raw.attacker))
        .collect::<Result<Vec<_>, _>>()?;
    let blackholes = raw
        .blackhole
        .into_iter()
        .map(blackhole)
        .collect::<Result<Vec<_>, _>>()?;
    let rebinds = raw
        .rebind
        .into_iter()
        .map(rebind)
        .collect::<Result<Vec<_>, _>>()?;
    let expect_place = raw.expect.span();
    let expect = expect(raw.expect)?;
    if expect.outcome == Outcome::CutOff && rebinds.is_empty() {
        return problem(
            expect_place,
            "outcome = \"cut-off\" is about a client with another place outside; write a [[rebind]]",
        );
    }
    let perfect = to_server == Link::default() && to_client == Link::default();
    let changeless = injects.is_empty() && blackholes.is_empty() && rebinds.is_empty();
    let faultless =
        perfect && rules.is_empty() && changeless && clients == 1 && wrong_key.is_none();
    if raw.control.is_none() && !faultless {
        return problem(
            raw.name.span(),
            "a scenario with a fault needs a `control`: the name of the scenario without it",
        );
    }
    Ok(Scenario {
        name: raw.name.into_inner(),
        claim: raw.claim.into_inner(),
        reference: raw.reference,
        attacker: raw.attacker,
        families,
        control: raw.control.map(Spanned::into_inner),
        clients,
        in_turn: raw.in_turn.map(Spanned::into_inner),
        same_port: raw.same_port,
        resume: raw.resume,
        certificate,
        quiet: raw.quiet.0,
        line: raw.line.map_or(SHORT_LINE, |line| line.get().into()),
        shows,
        finds,
        handshake,
        wrong_key: wrong_key.is_some(),
        ends_know_mtu: raw.ends_know_mtu,
        deadline: raw.deadline.0,
        plays,
        to_server,
        to_client,
        rules,
        injects,
        blackholes,
        rebinds,
        expect,
    })
}

/// The name of a server's certificate, the ordinary one if none is named.
///
/// # Errors
///
/// A name that the test PKI does not know, or one that no server shows.
fn certificate(raw: Option<Spanned<String>>) -> Result<Profile, Problem> {
    let Some(raw) = raw else {
        return Ok(Profile::SERVER);
    };
    let name = raw.get_ref();
    let of_servers = || Profile::ALL.iter().filter(|one| one.role == Role::Server);
    if let Some(profile) = of_servers().find(|one| one.name == name) {
        return Ok(*profile);
    }
    let valid: Vec<&str> = of_servers().map(|one| one.name).collect();
    problem(
        raw.span(),
        format!(
            "the test PKI has no server certificate `{name}`{}; valid here: {}",
            did_you_mean(name, valid.iter().copied()),
            valid.join(", ")
        ),
    )
}

/// Ids of what DTLS 1.2 has.
///
/// # Errors
///
/// One that it has not.
fn of_dtls_1_2<T: std::fmt::Display>(
    ids: Vec<Spanned<T>>,
    absent: impl Fn(&T) -> Option<&'static str>,
) -> Result<Vec<T>, Problem> {
    ids.into_iter()
        .map(|id| match absent(id.get_ref()) {
            None => Ok(id.into_inner()),
            Some(why) => problem(
                id.span(),
                format!("{} is not of DTLS 1.2: {why}", id.get_ref()),
            ),
        })
        .collect()
}

/// The kind of handshake, a full one if none is named.
///
/// # Errors
///
/// A name that none has.
fn handshake(raw: Option<Spanned<String>>) -> Result<Shape, Problem> {
    let Some(raw) = raw else {
        return Ok(Shape::Full);
    };
    let name = raw.get_ref();
    name.parse().or_else(|_| {
        problem(
            raw.span(),
            format!(
                "there is no handshake `{name}`{}; valid here: {}",
                did_you_mean(name, Shape::VARIANTS.iter().copied()),
                Shape::VARIANTS.join(", ")
            ),
        )
    })
}

/// Each family once, both if none is named.
///
/// # Errors
///
/// An empty list.
fn families(raw: Option<Spanned<Vec<Family>>>) -> Result<Vec<Family>, Problem> {
    let Some(raw) = raw else {
        return Ok(vec![Family::Ipv4, Family::Ipv6]);
    };
    let span = raw.span();
    let mut families = raw.into_inner();
    families.sort_unstable();
    families.dedup();
    if families.is_empty() {
        return problem(
            span,
            "no family: write ipv4, ipv6, or leave the key out for both",
        );
    }
    Ok(families)
}

/// The plays, the usual ones if none is named.
///
/// # Errors
///
/// An end that nobody knows, or a client that cannot start so many.
fn plays(
    raw: Vec<Spanned<RawPlay>>,
    clients: u32,
    in_turn: bool,
    adapters: &Adapters,
) -> Result<Vec<Play>, Problem> {
    let at_once = clients > 1 && !in_turn;
    let can_be_many = |client: &Adapter| client.client.as_ref().is_some_and(|it| it.many.is_some());
    if raw.is_empty() {
        let known = |name| adapters.get(name).cloned();
        let server = known(OURS);
        let clients = USUAL_CLIENTS.into_iter().filter_map(known);
        return Ok(clients
            .filter(|client| !at_once || can_be_many(client))
            .filter_map(|client| Some(Play::between(server.as_ref()?, &client)))
            .collect());
    }
    let mut plays = Vec::new();
    for play in raw {
        let span = play.span();
        let play = play.into_inner();
        let (server, client) = (end(&play.server, adapters)?, end(&play.client, adapters)?);
        if at_once && !can_be_many(&client) {
            return problem(
                span,
                format!(
                    "only our client starts {clients} at once; write client = \"ours\", \
                     in_turn = \"closed\", or leave `clients` out"
                ),
            );
        }
        plays.push(Play {
            server_args: play.server_args,
            client_args: play.client_args,
            fails_because: play.fails_because,
            ..Play::between(&server, &client)
        });
    }
    Ok(plays)
}

/// Who plays against our server where a scenario does not say it.
const USUAL_CLIENTS: [&str; 2] = [OURS, "openssl"];

/// The implementation of this name.
///
/// # Errors
///
/// A name that no adapter has.
fn end(name: &Spanned<String>, adapters: &Adapters) -> Result<Arc<Adapter>, Problem> {
    adapters.get(name.get_ref()).cloned().ok_or_else(|| {
        let wrong = name.get_ref();
        let valid: Vec<&str> = adapters.names().collect();
        Problem {
            span: name.span(),
            text: format!(
                "unknown value `{wrong}`{}; valid here: {}",
                did_you_mean(wrong, valid.iter().copied()),
                valid.join(", ")
            ),
        }
    })
}

/// One rule.
///
/// # Errors
///
/// An action without effect, or a selector that never matches.
fn rule(raw: Spanned<RawRule>) -> Result<Rule, Problem> {
    let span = raw.span();
    let raw = raw.into_inner();
    let place = raw.select.span();
    let select = selector(
        raw.select.into_inner(),
        if place.is_empty() {
            span.clone()
        } else {
            place
        },
    )?;
    let action = Action::from(raw.action);
    if let Action::Reorder(0) | Action::Duplicate(0) | Action::Corrupt(0) = action {
        return problem(
            span,
            "an action of 0 does nothing; write 1 or more, or action = \"pass\"",
        );
    }
    if action == Action::Prepend(Forgery::Empty) {
        return problem(
            span,
            "`prepend` puts one record before the datagram's own; name one, such as \"garbage\"",
        );
    }
    if let Action::Duplicate(copies) = action
        && copies > MOST_COPIES
    {
        return problem(
            span,
            format!("`duplicate` makes at most {MOST_COPIES} copies"),
        );
    }
    Ok(Rule {
        select,
        action,
        times: raw.times.map(Into::into),
    })
}

/// Enough to show any resend storm, few enough not to be one.
const MOST_COPIES: u32 = 100;

/// The expectation.
///
/// # Errors
///
/// Bounds no number keeps.
fn expect(raw: Spanned<RawExpect>) -> Result<Expect, Problem> {
    let span = raw.span();
    let raw = raw.into_inner();
    let expect = Expect {
        outcome: raw.outcome.unwrap_or(Outcome::Echo),
        handshake_min: raw.handshake_min.map_or(Duration::ZERO, |time| time.0),
        handshake_max: raw.handshake_max.map(|time| time.0),
        resent_min: raw.resent_min,
        resent_max: raw.resent_max,
        server_counters: raw.server,
        threads_left: raw.threads_left,
        fragments: raw.fragments,
        longest_min: raw.longest_min.map(usize::from),
        longest_max: raw.longest_max.map(usize::from),
        longest_after: raw.longest_after.into(),
        heartbeats: raw.heartbeats.into(),
        server_growth: raw.server_growth,
        datagrams: raw.datagrams,
        repeats: raw
            .repeats
            .into_iter()
            .map(repeats)
            .collect::<Result<_, _>>()?,
    };
    if expect
        .handshake_max
        .is_some_and(|max| max < expect.handshake_min)
    {
        return problem(
            span,
            "`handshake_min` exceeds `handshake_max`; no handshake can meet both",
        );
    }
    if expect.resent_max.is_some_and(|max| max < expect.resent_min) {
        return problem(
            span,
            "`resent_min` exceeds `resent_max`; no run can meet both",
        );
    }
    Ok(expect)
}

/// When a flight comes again.
///
/// # Errors
///
/// Times that are not in order.
fn repeats(raw: Spanned<RawRepeats>) -> Result<Repeats, Problem> {
    let span = raw.span();
    let raw = raw.into_inner();
    let after: Vec<Duration> = raw.after.into_iter().map(|time| time.0).collect();
    if after.is_empty() || after[0].is_zero() || !after.is_sorted_by(|one, next| one < next) {
        return problem(
            span,
            "`after` lists when the flight is sent again, counted from the first time and in order, \
             such as [\"1s\", \"3s\", \"7s\"]",
        );
    }
    Ok(Repeats {
        flight: raw.flight.0,
        after,
    })
}

#[cfg(test)]
mod tests;
