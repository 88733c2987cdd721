//! The single checks of a verdict, each with the sentence that says what was missing.

use std::time::Duration;

use crate::observe::{EventKind, Handshake};
use crate::packet::Direction;
use crate::scenario::{Action, Implementation, Outcome, Play, Scenario};

use super::Observation;

/// Whether the relay carried everything the scenario did not take away.
pub(super) fn lab_did_its_part(seen: &Observation) -> Result<(), String> {
    if let Some(Err(why)) = &seen.trace.relay_ended {
        return Err(format!("the relay stopped: {why}"));
    }
    let lost = seen
        .trace
        .events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::LostByLab { .. }))
        .count();
    if lost > 0 {
        return Err(format!(
            "the lab itself lost {lost} frames: the machine is too busy"
        ));
    }
    Ok(())
}

/// Whether every certain fault happened at all; one that did not proves nothing.
pub(super) fn faults_happened(scenario: &Scenario, seen: &Observation) -> Result<(), String> {
    for (index, rule) in scenario.rules.iter().enumerate() {
        // A rule that lets datagrams pass is no fault, and chance may never have come true.
        let certain = rule.select.chance.is_none() && rule.action != Action::Pass;
        if certain && !seen.trace.rule_was_used(index) {
            return Err(format!(
                "rule {} never met a datagram, so nothing was tested",
                index + 1
            ));
        }
    }
    for (index, _inject) in scenario.injects.iter().enumerate() {
        if !seen.trace.inject_was_used(index) {
            return Err(format!(
                "inject {} never happened, so nothing was tested",
                index + 1
            ));
        }
    }
    Ok(())
}

/// Whether the endpoints did what the scenario expects.
pub(super) fn endpoints(
    scenario: &Scenario,
    play: &Play,
    seen: &Observation,
) -> Result<(), String> {
    match scenario.expect.outcome {
        Outcome::Echo => {
            echo(scenario, seen)?;
            handshake_time(scenario, seen)?;
            longest(scenario, seen)?;
            resent(scenario, seen)?;
        }
        Outcome::HandshakeTimeout => handshake_timeout(seen)?,
    }
    if play.server == Implementation::Ours {
        amplification(seen)?;
    }
    counters(scenario, play, seen)?;
    threads_left(scenario, play, seen)?;
    if play.server == Implementation::Ours && seen.server.killed {
        return Err("the server still ran 5 s after it was asked to end".to_owned());
    }
    Ok(())
}

/// Every client completes, and data flows both ways after the faults.
fn echo(scenario: &Scenario, seen: &Observation) -> Result<(), String> {
    let trace = &seen.trace;
    if !trace.completed(scenario.clients) {
        let done = trace
            .handshakes
            .iter()
            .filter(|one| one.completed.is_some())
            .count();
        if scenario.clients > 1 {
            return Err(format!(
                "{done} of {} handshakes completed",
                scenario.clients
            ));
        }
        return Err(format!("no handshake: {}", where_it_stopped(seen)));
    }
    if scenario.clients > 1 {
        return load(scenario, seen);
    }
    let Some(exchange) = &seen.exchange else {
        return Err(format!(
            "no data after the handshake: {}",
            where_it_stopped(seen)
        ));
    };
    let lost = match (exchange.to_server, exchange.to_client) {
        (true, true) => {
            return match &exchange.repeated {
                None => Ok(()),
                Some(line) => Err(format!("application data came out twice: `{line}`")),
            };
        }
        (false, false) => "no data either way",
        (true, false) => "no data to the client",
        (false, true) => "no data to the server",
    };
    Err(format!("{lost}: {}", where_it_stopped(seen)))
}

/// Every message of every client came back, by the client's count and on the wire.
fn load(scenario: &Scenario, seen: &Observation) -> Result<(), String> {
    let Some(counted) = &seen.load else {
        return Err(format!(
            "the client counted nothing: {}",
            where_it_stopped(seen)
        ));
    };
    let wanted = u64::from(scenario.clients);
    for name in ["completed", "received"] {
        match counted.get(name) {
            Some(&number) if number == wanted => {}
            Some(number) => return Err(format!("the client counts {name} {number} of {wanted}")),
            None => return Err(format!("the client does not count `{name}`")),
        }
    }
    let silent = seen
        .trace
        .handshakes
        .iter()
        .filter(|one| one.completed.is_some() && one.data.contains(&0));
    match silent.count() {
        0 => Ok(()),
        count => Err(format!("{count} clients had no data on the wire")),
    }
}

fn handshake_time(scenario: &Scenario, seen: &Observation) -> Result<(), String> {
    let expect = &scenario.expect;
    for took in seen.trace.handshakes.iter().filter_map(Handshake::duration) {
        if took < expect.handshake_min {
            let (took, min) = (milliseconds(took), milliseconds(expect.handshake_min));
            return Err(format!(
                "the handshake took {took} ms, below {min}: was the fault there?"
            ));
        }
        if let Some(max) = expect.handshake_max
            && took > max
        {
            let (took, max) = (milliseconds(took), milliseconds(max));
            return Err(format!("the handshake took {took} ms, above {max}"));
        }
    }
    Ok(())
}

/// The longest packet of each handshake lies within the bounds.
fn longest(scenario: &Scenario, seen: &Observation) -> Result<(), String> {
    let expect = &scenario.expect;
    for handshake in &seen.trace.handshakes {
        let longest = handshake.longest.into_iter().max().unwrap_or_default();
        if let Some(min) = expect.longest_min
            && longest < min
        {
            return Err(format!(
                "the longest packet has {longest} bytes, expected at least {min}"
            ));
        }
        if let Some(max) = expect.longest_max
            && longest > max
        {
            return Err(format!(
                "the longest packet has {longest} bytes, expected at most {max}"
            ));
        }
    }
    Ok(())
}

/// To an address that has not shown a cookie, the server sends no more than came from there.
fn amplification(seen: &Observation) -> Result<(), String> {
    match seen.trace.amplified() {
        Some([received, sent]) => Err(format!(
            "to an address not yet verified the server sent {sent} bytes for {received}"
        )),
        None => Ok(()),
    }
}

fn resent(scenario: &Scenario, seen: &Observation) -> Result<(), String> {
    let expect = &scenario.expect;
    for handshake in &seen.trace.handshakes {
        let resent = handshake.resent();
        if resent < expect.resent_min {
            return Err(format!(
                "{resent} flights resent, expected at least {}",
                expect.resent_min
            ));
        }
        if let Some(max) = expect.resent_max
            && resent > max
        {
            return Err(format!("{resent} flights resent, expected at most {max}"));
        }
    }
    Ok(())
}

/// Nobody completes, and the client says so by itself. The server says it through its counters.
fn handshake_timeout(seen: &Observation) -> Result<(), String> {
    if seen
        .trace
        .handshakes
        .iter()
        .any(|handshake| handshake.completed.is_some())
    {
        return Err("a handshake completed".to_owned());
    }
    if seen.trace.handshakes.is_empty() {
        return Err("the client never sent a hello".to_owned());
    }
    if seen.client.by_itself.is_none() {
        return Err("the client has no deadline: it still tried when the run ended".to_owned());
    }
    if seen.client.last_words.is_none() {
        return Err("the client gave up without a word".to_owned());
    }
    if let Some(at) = seen.server.by_itself {
        return Err(format!(
            "the server ended by itself after {} ms",
            milliseconds(at)
        ));
    }
    Ok(())
}

fn counters(scenario: &Scenario, play: &Play, seen: &Observation) -> Result<(), String> {
    if play.server != Implementation::Ours || scenario.expect.server_counters.is_empty() {
        return Ok(());
    }
    let Some(counters) = &seen.counters else {
        return Err("the server printed no counters".to_owned());
    };
    for (name, bound) in &scenario.expect.server_counters {
        let Some(&number) = counters.get(name) else {
            return Err(format!("the server has no counter `{name}`"));
        };
        if !bound.holds(number) {
            return Err(format!(
                "server counter {name} is {number}, expected {bound}"
            ));
        }
    }
    Ok(())
}

fn threads_left(scenario: &Scenario, play: &Play, seen: &Observation) -> Result<(), String> {
    let Some(bound) = scenario.expect.threads_left else {
        return Ok(());
    };
    if play.server != Implementation::Ours {
        return Ok(());
    }
    match seen.threads_left {
        Some(number) if bound.holds(number) => Ok(()),
        Some(number) => Err(format!("{number} worker threads left, expected {bound}")),
        None => Err("the server was gone before its threads could be counted".to_owned()),
    }
}

/// The most telling of: an alert after a forgery, an endpoint's death, the last flight seen.
fn where_it_stopped(seen: &Observation) -> String {
    if let Some(sentence) = answer_to_forgery(seen) {
        return sentence;
    }
    for (ending, who) in [(&seen.client, "client"), (&seen.server, "server")] {
        if ending.by_itself.is_some() {
            return match &ending.last_words {
                Some(words) => format!("the {who} ended: {words}"),
                None => format!("the {who} ended without a word"),
            };
        }
    }
    match seen.trace.handshakes.first() {
        None => "nothing was ever sent".to_owned(),
        Some(handshake) if handshake.completed.is_some() => {
            format!(
                "handshake complete, data records seen {}/{}",
                handshake.data[0], handshake.data[1]
            )
        }
        Some(handshake) => match handshake.newest_flight() {
            Some((flight, 1)) => format!("flight {flight} was not answered"),
            Some((flight, times)) => format!("flight {flight} was sent {times} times for nothing"),
            None => "no flight was sent".to_owned(),
        },
    }
}

/// Who answered a forgery with an alert, how soon, and to which of several.
fn answer_to_forgery(seen: &Observation) -> Option<String> {
    let mut newest = None;
    for event in &seen.trace.events {
        match (&event.kind, newest) {
            (EventKind::Forged { what, .. }, _) => newest = Some((event.at, what)),
            (EventKind::Offered(decision), Some((forged_at, what)))
                if decision.what.contains("alert") =>
            {
                let who = match decision.direction {
                    Direction::ToServer => "client",
                    Direction::ToClient => "server",
                };
                let after = event.at.saturating_sub(forged_at).as_secs_f64() * 1000.0;
                let alert = &decision.what;
                return Some(format!(
                    "{who} sent an {alert} {after:.1} ms after the forged {what}"
                ));
            }
            _ => {}
        }
    }
    None
}

fn milliseconds(duration: Duration) -> u128 {
    duration.as_millis()
}
