//! The load generator's arithmetic against a network with known delays, losses, stalls and capacity.
//!
//! A lower bound is exact: nothing is faster than the network. Upper bounds leave room for a machine
//! that is busy with other tests.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::load::{assert_numbers, doubts, latency, load};
use common::network::{Fate, Network};
use common::{Server, now};
use dtls::Counter;

const MS: Duration = Duration::from_millis(1);

/// At least `exact`, but for the histogram's error of a thousandth, and at most `more` above.
#[track_caller]
fn assert_between(measured: f64, exact: f64, more: f64) {
    assert!(
        (exact * 0.999..exact + more).contains(&measured),
        "{measured} is not between {exact} and {}",
        exact + more
    );
}

#[test]
fn each_phase_takes_the_round_trips_that_the_protocol_gives_it() {
    let server = Server::echo();
    // A round trip is 400 ms: what the machine is busy with otherwise takes less.
    let network = Network::start(server.address, |_| Fate::After(200 * MS));
    let args = ["--rate", "10", "--connections", "20", "--messages", "3"];
    let timer = ["--retransmit-initial", "10s", "--timeout", "10s"];
    let (report, code) = load(network.address, &[&args[..], &timer[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    for (phase, exact) in [
        ("cookie", 400.0),
        ("full_handshake", 1200.0),
        ("first_byte", 1600.0),
        ("message", 400.0),
    ] {
        assert_between(latency(&report, phase, "p50"), exact, 400.0);
        assert!(
            latency(&report, phase, "max") >= exact,
            "{phase}: {report:#}"
        );
    }
    assert_numbers(
        &report,
        &[("retransmissions", 0), ("lost", 0), ("cookies", 20)],
    );
    // Abbreviated, without a flight of certificates: two round trips.
    let args = [
        "--concurrency",
        "1",
        "--connections",
        "4",
        "--mode",
        "resume",
    ];
    let (report, code) = load(network.address, &args);
    assert_eq!(code, Some(0), "{report:#}");
    assert_numbers(&report, &[("handshakes", 4), ("resumed", 3)]);
    assert_between(latency(&report, "resumed_handshake", "p50"), 800.0, 400.0);
    drop(network);
}

#[test]
fn an_open_loop_does_not_wait_for_a_server_that_stalls_and_measures_the_stall_in_full() {
    const STALL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(2500));
    let server = Server::echo();
    let hellos: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let seen = Arc::clone(&hellos);
    let network = Network::start(server.address, move |place| {
        if place.to_server && place.nth == 0 {
            seen.lock().unwrap().push(place.at);
        }
        if place.at >= STALL.0 && place.at < STALL.1 {
            Fate::At(STALL.1)
        } else {
            Fate::After(Duration::ZERO)
        }
    });
    let args = ["--rate", "20", "--duration", "5s", "--mode", "handshake"];
    // Nobody is to ask twice while waiting.
    let timer = ["--retransmit-initial", "10s"];
    let (report, code) = load(network.address, &[&args[..], &timer[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    assert_numbers(
        &report,
        &[("begun", 100), ("completed", 100), ("retransmissions", 0)],
    );
    // 2 s at 20 a second: 40 hellos came while nothing was answered.
    let hellos = hellos.lock().unwrap();
    let during = hellos
        .iter()
        .filter(|&&at| at >= STALL.0 && at < STALL.1)
        .count();
    assert!((34..=42).contains(&during), "{during} of {}", hellos.len());
    // Those met a stall of 2 s down to 0: half of them, a fifth of all, waited a second or more,
    // a tenth of all 1.5 s.
    assert!(
        latency(&report, "full_handshake", "p50") < 1000.0,
        "{report:#}"
    );
    assert_between(latency(&report, "full_handshake", "p90"), 1400.0, 700.0);
    assert_between(latency(&report, "full_handshake", "max"), 1900.0, 1000.0);
    assert!(latency(&report, "start_delay", "p90") < 500.0, "{report:#}");
}

#[test]
fn a_closed_loop_waits_and_so_hardly_sees_the_same_stall() {
    let server = Server::echo();
    let network = Network::start(server.address, |place| {
        if place.at >= 500 * MS && place.at < 1500 * MS {
            Fate::At(1500 * MS)
        } else {
            Fate::After(MS)
        }
    });
    let args = [
        "--concurrency",
        "2",
        "--duration",
        "2500ms",
        "--mode",
        "handshake",
    ];
    let timer = ["--retransmit-initial", "10s"];
    let (report, code) = load(network.address, &[&args[..], &timer[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    let completed = report["completed"].as_u64().unwrap();
    assert!(completed > 25, "{report:#}");
    assert_between(latency(&report, "full_handshake", "max"), 700.0, 1500.0);
    assert!(
        latency(&report, "full_handshake", "p90") < 600.0,
        "{report:#}"
    );
}

#[test]
fn every_hello_lost_is_one_flight_sent_again_and_its_timer_is_in_the_latency() {
    let server = Server::echo();
    let network = Network::start(server.address, |place| {
        // The first hello of every second client.
        if place.to_server && place.nth == 0 && place.client % 2 == 0 {
            Fate::Drop
        } else {
            Fate::After(Duration::ZERO)
        }
    });
    let args = ["--rate", "20", "--connections", "40", "--mode", "handshake"];
    let timer = ["--retransmit-initial", "1500ms"];
    let (report, code) = load(network.address, &[&args[..], &timer[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    assert_numbers(&report, &[("completed", 40), ("retransmissions", 20)]);
    assert!(latency(&report, "cookie", "p50") < 1000.0, "{report:#}");
    assert_between(latency(&report, "cookie", "p90"), 1500.0, 1000.0);
    // Datagrams per handshake: three out, and one more for those.
    let wire = &report["wire"]["full"];
    assert_eq!(
        (&wire["handshakes"], &wire["datagrams_sent"]),
        (&40.into(), &140.into())
    );
}

#[test]
fn messages_lost_on_the_way_are_counted_exactly_while_paced_ones_keep_going_out() {
    let server = Server::echo();
    let network = Network::start(server.address, |place| {
        // A handshake takes three datagrams each way: of the answers after it, every fourth is lost.
        if !place.to_server && place.nth >= 3 && (place.nth - 3) % 4 == 0 {
            Fate::Drop
        } else {
            Fate::After(10 * MS)
        }
    });
    let args = ["--rate", "50", "--connections", "5", "--messages", "20"];
    let paced = ["--message-rate", "20", "--timeout", "3s"];
    let began = now();
    let (report, code) = load(network.address, &[&args[..], &paced[..]].concat());
    assert_eq!(code, Some(1), "{report:#}");
    assert_numbers(
        &report,
        &[("sent", 100), ("lost", 25), ("received", 75), ("late", 0)],
    );
    assert_between(latency(&report, "message", "p50"), 20.0, 400.0);
    // 20 messages, 50 ms apart: five losses of 3 s each did not hold the others up.
    assert!(began.elapsed() < Duration::from_secs(12));
}

#[test]
fn a_rate_is_kept_and_the_counts_equal_the_servers() {
    let server = Server::echo();
    let args = [
        "--rate",
        "100",
        "--duration",
        "1s",
        "--messages",
        "2",
        "--arrivals",
        "poisson",
    ];
    let (report, code) = load(server.address, &args);
    assert_eq!(code, Some(0), "{report:#}");
    let begun = report["begun"].as_u64().unwrap();
    // Five standard deviations of a Poisson distribution.
    assert!((50..=150).contains(&begun), "{begun}");
    let in_windows: u64 = report["windows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|window| window["begun"].as_u64().unwrap())
        .sum();
    assert_eq!(in_windows, begun);
    let stats = server.finish();
    assert_numbers(
        &report,
        &[
            ("handshakes", stats.get(Counter::HandshakesCompleted)),
            ("cookies", stats.get(Counter::HelloVerifyRequests)),
            ("completed", stats.get(Counter::ClosedByPeer)),
            ("received", 2 * begun),
        ],
    );
    assert!(doubts(&report, "shared_machine"));
    assert!(!doubts(&report, "no_room"));
}

#[test]
fn the_knee_is_the_last_step_below_the_servers_capacity() {
    let server = Server::echo();
    // A server with one place for hellos, each of which takes 10 ms: 100 a second.
    let mut free = Duration::ZERO;
    let network = Network::start(server.address, move |place| {
        if place.to_server && place.nth == 0 {
            free = free.max(place.at) + 10 * MS;
            Fate::At(free)
        } else {
            Fate::After(Duration::ZERO)
        }
    });
    let args = [
        "--rate",
        "20,40,200/2s",
        "--mode",
        "handshake",
        "--p99",
        "1s",
    ];
    // Nobody is to ask twice while waiting.
    let timer = ["--retransmit-initial", "10s"];
    let (report, code) = load(network.address, &[&args[..], &timer[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    let knee = &report["knee"];
    assert_eq!(knee["rate"].as_f64(), Some(40.0), "{report:#}");
    assert_eq!(knee["limit"]["rate"].as_f64(), Some(200.0));
    // 400 come in two seconds and 200 go: the last waits for two more.
    assert_between(knee["limit"]["p99_ms"].as_f64().unwrap(), 1900.0, 6000.0);
    assert_eq!(report["windows"].as_array().unwrap().len(), 3);
}

#[test]
fn a_rate_that_the_server_keeps_up_with_has_no_limit_and_a_constant_one_no_knee() {
    let server = Server::echo();
    let args = ["--rate", "10..30/1s", "--mode", "handshake", "--p99", "5s"];
    let (report, _) = load(server.address, &args);
    assert_eq!(report["knee"]["limit"], serde_json::Value::Null);
    assert_numbers(&report, &[("begun", 20)]);
    let (report, _) = load(server.address, &["--connections", "3"]);
    assert_eq!(report["knee"], serde_json::Value::Null);
}

#[test]
fn a_step_that_the_run_did_not_finish_is_no_knee() {
    let server = Server::echo();
    // Ten in the first second, ten of twenty in the second.
    let args = ["--rate", "10,20,40/1s", "--connections", "20"];
    let more = ["--mode", "handshake", "--p99", "5s"];
    let (report, code) = load(server.address, &[&args[..], &more[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    assert_numbers(&report, &[("begun", 20), ("completed", 20)]);
    let knee = &report["knee"];
    assert_eq!(knee["rate"].as_f64(), Some(10.0), "{knee}");
    assert_eq!(
        (&knee["limit"], &knee["cut_short"]),
        (&serde_json::Value::Null, &true.into())
    );
    let cut: Vec<bool> = report["windows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|window| window["cut_short"].as_bool().unwrap())
        .collect();
    assert_eq!(cut, [false, true, true]);
}
