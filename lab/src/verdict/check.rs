//! The single checks of a verdict, each with the sentence that says what was missing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::{EventKind, Handshake};
use crate::packet::Direction;
use crate::scenario::{Action, Outcome, Play, Scenario};
use crate::wire::{Cause, Decision};

use super::{Exchange, Observation, repeats};

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
    for index in 0..scenario.blackholes.len() {
        let swallows = |decision: &Decision| decision.cause == Cause::Blackhole(index);
        if !seen.trace.decisions().any(swallows) {
            return Err(format!(
                "blackhole {} never met a datagram, so nothing was tested",
                index + 1
            ));
        }
    }
    let moved = |decision: &Decision| {
        decision.direction == Direction::ToServer && decision.rebound >= scenario.rebinds.len()
    };
    if !scenario.rebinds.is_empty() && !seen.trace.decisions().any(moved) {
        return Err("nothing came from the client's last place, so nothing was tested".to_owned());
    }
    Ok(())
}

/// Whether the endpoints did what the scenario expects.
pub(super) fn endpoints(
    scenario: &Scenario,
    play: &Play,
    seen: &Observation,
) -> Result<(), String> {
    if let Some(direction) = seen.trace.flooded {
        let who = match direction {
            Direction::ToServer => "client",
            Direction::ToClient => "server",
        };
        let count = seen
            .trace
            .decisions()
            .filter(|one| one.direction == direction);
        return Err(format!(
            "the {who} sent without end: the lab stopped looking at its datagram {}",
            count.count()
        ));
    }
    // First: a rule says more about an end than what came of breaking it.
    rules(play, seen)?;
    match scenario.expect.outcome {
        Outcome::Echo => {
            echo(scenario, seen)?;
            handshake_time(scenario, seen)?;
            longest(scenario, seen)?;
            resent(scenario, seen)?;
        }
        Outcome::ClientGone => client_gone(seen)?,
        Outcome::CutOff => cut_off(seen)?,
        Outcome::HandshakeTimeout => handshake_timeout(seen)?,
    }
    repeats::as_expected(scenario, &seen.trace)?;
    on_the_wire(scenario, seen)?;
    server_growth(scenario, seen)?;
    counters(scenario, play, seen)?;
    threads_left(scenario, play, seen)?;
    if play.server.has_counters() && seen.server.killed {
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
    if seen.load.is_some() || (scenario.clients > 1 && scenario.in_turn.is_none()) {
        return load(scenario, seen);
    }
    let Some(exchange) = &seen.exchange else {
        return Err(format!(
            "no data after the handshake: {}",
            where_it_stopped(seen)
        ));
    };
    // A handshake was all there is to see; the remark of the run says so.
    if exchange.not_tried.is_some() {
        return Ok(());
    }
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

/// Data flowed, the client died, and the server closed the connection.
fn client_gone(seen: &Observation) -> Result<(), String> {
    if !seen.exchange.as_ref().is_some_and(Exchange::is_complete) {
        return Err(format!(
            "no data before the client was to die: {}",
            where_it_stopped(seen)
        ));
    }
    match (
        seen.client_killed,
        seen.trace.closed[Direction::ToClient as usize],
    ) {
        (None, _) => Err("the client was not killed".to_owned()),
        (Some(killed), Some(closed)) if closed > killed => Ok(()),
        (Some(_), Some(_)) => {
            Err("the server closed the connection before the client died".to_owned())
        }
        (Some(_), None) => Err("the server never closed the connection".to_owned()),
    }
}

/// What the endpoints sent besides flights and data, and how long it was.
fn on_the_wire(scenario: &Scenario, seen: &Observation) -> Result<(), String> {
    let expect = &scenario.expect;
    let (trace, counted) = (&seen.trace, |number: usize| number as u64);
    let [to_server, to_client] = Direction::BOTH.map(|direction| direction as usize);
    let numbers = [
        (
            "datagrams sent",
            expect.datagrams,
            counted(trace.decisions().count()),
        ),
        ("IP fragments sent", expect.fragments, trace.fragments),
        (
            "heartbeats to the server",
            expect.heartbeats[to_server],
            trace.heartbeats[to_server],
        ),
        (
            "heartbeats to the client",
            expect.heartbeats[to_client],
            trace.heartbeats[to_client],
        ),
        (
            "bytes in the longest packet to the server",
            expect.longest_after[to_server],
            counted(trace.longest[to_server]),
        ),
        (
            "bytes in the longest packet to the client",
            expect.longest_after[to_client],
            counted(trace.longest[to_client]),
        ),
    ];
    for (what, bound, number) in numbers {
        if let Some(bound) = bound
            && !bound.holds(number)
        {
            return Err(format!("{number} {what}, expected {bound}"));
        }
    }
    Ok(())
}

/// Data flowed, the network moved the client, and the server kept to the old place until it closed.
fn cut_off(seen: &Observation) -> Result<(), String> {
    if !seen.exchange.as_ref().is_some_and(Exchange::is_complete) {
        return Err(format!(
            "no data before the client was to be cut off: {}",
            where_it_stopped(seen)
        ));
    }
    match seen.trace.sent_to_new_place {
        0 => {}
        count => {
            return Err(format!(
                "the connection followed the client to its new place: {count} datagrams sent there"
            ));
        }
    }
    match seen.trace.closed[Direction::ToClient as usize] {
        Some(_) => Ok(()),
        None => Err("the server never closed the connection".to_owned()),
    }
}

fn server_growth(scenario: &Scenario, seen: &Observation) -> Result<(), String> {
    let Some(bound) = scenario.expect.server_growth else {
        return Ok(());
    };
    let Some([before, after]) = seen.server_memory else {
        return Err("the server was gone before its memory could be read".to_owned());
    };
    let growth = after.saturating_sub(before);
    if bound.holds(growth) {
        return Ok(());
    }
    Err(format!(
        "the server grew by {growth} KiB from {before}, expected {bound}"
    ))
}

/// The rules that every run is held to.
fn rules(play: &Play, seen: &Observation) -> Result<(), String> {
    let words: Vec<String> = seen
        .trace
        .rules
        .broken()
        .iter()
        .filter(|(rule, _)| !play.waived.contains_key(*rule))
        .map(|(rule, what)| format!("{rule}: {what}"))
        .collect();
    if words.is_empty() {
        return Ok(());
    }
    Err(words.join("; "))
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
    if !play.server.has_counters() || scenario.expect.server_counters.is_empty() {
        return Ok(());
    }
    let Some(counters) = &seen.counters else {
        return Err("the server printed no counters".to_owned());
    };
    for (name, bound) in &scenario.expect.server_counters {
        let Some(number) = sum_of(counters, name) else {
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

/// The sum of the counters that `names` means: several joined by `+`, each perhaps with a `*` at its
/// end; `None` when one of them means nothing.
fn sum_of(counters: &BTreeMap<String, u64>, names: &str) -> Option<u64> {
    names
        .split('+')
        .map(|name| match name.trim().strip_suffix('*') {
            None => counters.get(name.trim()).copied(),
            Some(start) => counters
                .iter()
                .filter(|(name, _)| name.starts_with(start))
                .map(|(_, number)| *number)
                .reduce(|sum, number| sum + number),
        })
        .sum()
}

fn threads_left(scenario: &Scenario, play: &Play, seen: &Observation) -> Result<(), String> {
    let Some(bound) = scenario.expect.threads_left else {
        return Ok(());
    };
    if !play.server.has_counters() {
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
            // Later ones are the farewells of programs that the lab asks to end.
            (EventKind::Offered(decision), Some((forged_at, what)))
                if decision.what.contains("alert")
                    && seen.over.is_none_or(|over| event.at < over) =>
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
