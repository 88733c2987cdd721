//! Each check of a verdict says no to the observation made for it, and yes to a good one.

use super::*;
use crate::observe::{Event, EventKind, Handshake};
use crate::packet::Direction;
use crate::scenario::Bound;
use crate::wire::Origin;

fn scenario(rest: &str) -> Scenario {
    let text = format!(
        r#"
name = "tried"
claim = "Made up."
control = "clean"
[[play]]
server = "ours"
client = "ours"
{rest}
"#
    );
    Scenario::parse("tried.toml", &text).expect("the text is a good scenario")
}

/// A good run: one handshake of 3 ms, data both ways.
fn good() -> Observation {
    let mut handshake = Handshake::default();
    handshake.started = Some(Duration::from_millis(10));
    handshake.completed = Some(Duration::from_millis(13));
    handshake.data = [1, 1];
    let mut trace = Trace::default();
    trace.handshakes.push(handshake);
    trace.relay_ended = Some(Ok(()));
    Observation {
        trace,
        exchange: Some(Exchange {
            to_server: true,
            to_client: true,
            ..Exchange::default()
        }),
        ..Observation::default()
    }
}

fn judged(rest: &str, seen: &Observation) -> Verdict {
    let scenario = scenario(rest);
    judge(&scenario, &scenario.plays[0], seen)
}

/// Asserts that the run fails, and for this reason.
fn fails(rest: &str, seen: &Observation, reason: &str) {
    match judged(rest, seen) {
        Verdict::Fail(why) => assert!(why.contains(reason), "{why}"),
        other => panic!("expected a failure because of `{reason}`, not {other:?}"),
    }
}

const TIMEOUT: &str = "[expect]\noutcome = \"handshake-timeout\"";

#[test]
fn good_run_passes() {
    assert_eq!(judged("", &good()), Verdict::Pass);
}

#[test]
fn data_that_comes_out_twice_fails() {
    let mut seen = good();
    seen.exchange.as_mut().expect("there").repeated = Some("lab-1-000.".to_owned());
    fails("", &seen, "came out twice");
}

#[test]
fn data_in_one_direction_only_fails() {
    let mut seen = good();
    seen.exchange.as_mut().expect("there").to_client = false;
    fails("", &seen, "no data to the client");
}

#[test]
fn server_that_will_not_end_fails() {
    let mut seen = good();
    seen.server.killed = true;
    fails("", &seen, "still ran");
}

#[test]
fn counter_out_of_bounds_or_missing_fails() {
    let rest = "[expect]\nserver = { strays = \">=1\" }";
    let mut seen = good();
    fails(rest, &seen, "printed no counters");
    seen.counters = Some(BTreeMap::new());
    fails(rest, &seen, "no counter `strays`");
    seen.counters = Some(BTreeMap::from([("strays".to_owned(), 0)]));
    fails(rest, &seen, "strays is 0, expected >=1");
    seen.counters = Some(BTreeMap::from([("strays".to_owned(), 1)]));
    assert_eq!(judged(rest, &seen), Verdict::Pass);
}

#[test]
fn thread_left_behind_fails() {
    let mut scenario = scenario("");
    scenario.expect.threads_left = Some(Bound {
        comparison: crate::scenario::Comparison::Equal,
        limit: 0,
    });
    let mut seen = good();
    seen.threads_left = Some(1);
    let verdict = judge(&scenario, &scenario.plays[0], &seen);
    assert!(
        verdict.why().contains("1 worker threads left"),
        "{verdict:?}"
    );
}

#[test]
fn many_clients_must_all_complete_and_count_their_answers() {
    let rest = "";
    let mut scenario = scenario(rest);
    scenario.clients = 2;
    let mut seen = good();
    let verdict = judge(&scenario, &scenario.plays[0], &seen);
    assert!(verdict.why().contains("1 of 2 handshakes"), "{verdict:?}");

    seen.trace.handshakes.push(seen.trace.handshakes[0].clone());
    let verdict = judge(&scenario, &scenario.plays[0], &seen);
    assert!(verdict.why().contains("counted nothing"), "{verdict:?}");
}

#[test]
fn client_without_a_deadline_fails_where_it_must_give_up() {
    let mut seen = good();
    seen.trace.handshakes[0].completed = None;
    fails(TIMEOUT, &seen, "no deadline");
    seen.client.by_itself = Some(Duration::from_secs(3));
    fails(TIMEOUT, &seen, "without a word");
    seen.client.last_words = Some("handshake timed out".to_owned());
    assert_eq!(judged(TIMEOUT, &seen), Verdict::Pass);
    seen.server.by_itself = Some(Duration::from_secs(3));
    fails(TIMEOUT, &seen, "the server ended by itself");
}

#[test]
fn client_that_never_speaks_is_no_timeout() {
    let mut seen = good();
    seen.trace.handshakes.clear();
    fails(TIMEOUT, &seen, "never sent a hello");
}

#[test]
fn frame_that_the_lab_lost_breaks_the_run() {
    let mut seen = good();
    seen.trace
        .lost_by_lab(Duration::ZERO, Direction::ToClient, &Origin::Untouched);
    assert!(matches!(judged("", &seen), Verdict::Broken(_)));
}

#[test]
fn relay_that_stopped_breaks_the_run() {
    let mut seen = good();
    seen.trace.relay_ended = Some(Err("no buffer".to_owned()));
    assert!(matches!(judged("", &seen), Verdict::Broken(_)));
}

#[test]
fn reason_names_the_forgery_that_was_answered() {
    let mut seen = good();
    seen.exchange = Some(Exchange::default());
    let forged = |at, what: &str| Event {
        at: Duration::from_millis(at),
        kind: EventKind::Forged {
            flow: 0,
            direction: Direction::ToServer,
            inject: 0,
            what: what.to_owned(),
            length: 36,
        },
    };
    seen.trace.events = vec![forged(20, "icmp harmless"), forged(40, "icmp deadly")];
    let decision = crate::wire::Decision {
        flow: 0,
        direction: Direction::ToClient,
        ordinal: 9,
        rebound: 0,
        place: None,
        what: "encrypted alert".to_owned(),
        length: 85,
        fate: crate::wire::Fate::Delivered,
        cause: crate::wire::Cause::None,
    };
    seen.trace.events.push(Event {
        at: Duration::from_millis(41),
        kind: EventKind::Offered(decision),
    });
    fails(
        "",
        &seen,
        "server sent an encrypted alert 1.0 ms after the forged icmp deadly",
    );
}

#[test]
fn fragments_heartbeats_and_lengths_out_of_bounds_fail() {
    let mut seen = good();
    seen.trace.fragments = 2;
    fails(
        "[expect]\nfragments = 0",
        &seen,
        "2 IP fragments sent, expected ==0",
    );
    seen.trace.heartbeats = [0, 3];
    let heartbeats = "[expect]\nheartbeats = { to_server = \">=1\" }";
    fails(heartbeats, &seen, "0 heartbeats to the server");
    seen.trace.longest = [1300, 600];
    let longest = "[expect]\nlongest_after = { to_server = \">=1300\", to_client = \">=1300\" }";
    fails(
        longest,
        &seen,
        "600 bytes in the longest packet to the client",
    );
    seen.trace.longest = [1300, 1300];
    assert_eq!(judged(longest, &seen), Verdict::Pass);
}

#[test]
fn server_that_grows_too_much_or_was_gone_fails() {
    let rest = "[expect]\nserver_growth = \"<=512\"";
    let mut seen = good();
    fails(rest, &seen, "gone before its memory could be read");
    seen.server_memory = Some([10_000, 10_513]);
    fails(rest, &seen, "grew by 513 KiB from 10000");
    seen.server_memory = Some([10_000, 10_512]);
    assert_eq!(judged(rest, &seen), Verdict::Pass);
}

#[test]
fn dead_client_must_be_noticed_after_its_death() {
    let rest = "[expect]\noutcome = \"client-gone\"";
    let mut seen = good();
    fails(rest, &seen, "the client was not killed");
    seen.client_killed = Some(Duration::from_secs(5));
    fails(rest, &seen, "never closed");
    seen.trace.closed = [None, Some(Duration::from_secs(4))];
    fails(rest, &seen, "before the client died");
    seen.trace.closed = [None, Some(Duration::from_secs(6))];
    assert_eq!(judged(rest, &seen), Verdict::Pass);
}

/// A datagram that an end has sent, and what the wire decided.
fn offered(direction: Direction, rebound: usize, cause: crate::wire::Cause) -> Event {
    Event {
        at: Duration::from_millis(20),
        kind: EventKind::Offered(crate::wire::Decision {
            flow: 0,
            direction,
            ordinal: 9,
            rebound,
            place: None,
            what: "application data".to_owned(),
            length: 85,
            fate: crate::wire::Fate::Delivered,
            cause,
        }),
    }
}

#[test]
fn connection_that_follows_its_client_fails_and_so_does_one_that_never_ends() {
    let rest =
        "[[rebind]]\nwhen = \"established\"\nwhat = \"port\"\n[expect]\noutcome = \"cut-off\"";
    let mut seen = good();
    fails(rest, &seen, "the server never closed");
    seen.trace.closed = [None, Some(Duration::from_secs(4))];
    let verdict = judged(rest, &seen);
    assert!(
        verdict.why().contains("the client's last place"),
        "{verdict:?}"
    );
    let moved = offered(Direction::ToServer, 1, crate::wire::Cause::None);
    seen.trace.events.push(moved);
    assert_eq!(judged(rest, &seen), Verdict::Pass);
    seen.trace.sent_to_new_place = 2;
    fails(rest, &seen, "followed the client to its new place: 2");
}

#[test]
fn blackhole_that_swallows_nothing_breaks_the_run() {
    let rest = "[[blackhole]]\nwhen = \"established\"\nlasts = \"1s\"";
    let mut seen = good();
    let verdict = judged(rest, &seen);
    assert!(matches!(verdict, Verdict::Broken(_)), "{verdict:?}");
    assert!(
        verdict.why().contains("blackhole 1 never met"),
        "{verdict:?}"
    );
    let cause = crate::wire::Cause::Blackhole(0);
    seen.trace
        .events
        .push(offered(Direction::ToServer, 0, cause));
    assert_eq!(judged(rest, &seen), Verdict::Pass);
}

#[test]
fn several_counters_are_added_up() {
    let rest = "[expect]\nserver = { \"read+dropped_*\" = 7 }";
    let mut seen = good();
    let counters = [("read", 1), ("dropped_a", 2), ("dropped_b", 4), ("else", 9)];
    seen.counters = Some(counters.map(|(name, n)| (name.to_owned(), n)).into());
    assert_eq!(judged(rest, &seen), Verdict::Pass);
    fails(
        &rest.replace("read", "unread"),
        &seen,
        "no counter `unread+",
    );
}
