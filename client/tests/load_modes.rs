//! What each mode of `dtls-client load` does to a server, by the server's own counters; and what bad
//! targets come to.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::load::{assert_numbers, assert_valid, load};
use common::network::{Fate, Network};
use common::{Process, Server, assert_refused, ca, now, run, server_config, stderr};
use dtls::{Counter, Recv};
use dtls_certs::Profile;
use serde_json::Value;

#[test]
fn half_open_leaves_the_server_waiting_and_a_flood_leaves_it_nothing() {
    let server = Server::echo();
    let half_open = [
        "--mode",
        "half-open",
        "--connections",
        "15",
        "--rate",
        "200",
    ];
    let (report, code) = load(server.address, &half_open);
    assert_eq!(code, Some(0), "{report:#}");
    let numbers = [("completed", 15), ("cookies", 15), ("handshakes", 0)];
    assert_numbers(&report, &numbers);
    assert_eq!(report["latency"]["cookie"]["count"], 15);
    assert_eq!(server.stats.get(Counter::HelloVerifyRequests), 15);
    // The second hello may still be on its way through the listener.
    common::wait_until(|| server.stats.get(Counter::ConnectionsAccepted) >= 15);

    let server = Server::echo();
    let flood = [
        "--mode",
        "hello-flood",
        "--connections",
        "100",
        "--rate",
        "1000",
    ];
    let sources = ["--source", "127.3.0.0/28,127.0.0.1"];
    let (report, code) = load(server.address, &[&flood[..], &sources[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    assert_numbers(&report, &[("completed", 100), ("cookies", 100)]);
    assert_eq!(report["plan"]["sources"], 15);
    let stats = server.finish();
    assert_eq!(stats.get(Counter::HelloVerifyRequests), 100);
    assert_eq!(stats.get(Counter::ConnectionsAccepted), 0);
}

#[test]
fn reconnect_starts_over_from_the_same_port_without_a_word() {
    let config = server_config(Profile::SERVER).build().unwrap();
    let server = Server::start(config, |mut stream| {
        let mut buffer = [0; 200];
        stream.set_recv_timeout(Some(common::PATIENCE));
        loop {
            match stream.recv(&mut buffer) {
                Ok(Recv::Data(length)) => stream.send(&buffer[..length]).unwrap(),
                Ok(Recv::Reconnected) => assert!(stream.accept_reconnect()),
                _ => return,
            }
        }
    });
    let args = [
        "--mode",
        "reconnect",
        "--connections",
        "12",
        "--concurrency",
        "4",
    ];
    let (report, code) = load(server.address, &args);
    assert_eq!(code, Some(0), "{report:#}");
    assert_numbers(
        &report,
        &[("completed", 12), ("handshakes", 24), ("received", 12)],
    );
    assert_eq!(report["latency"]["reconnect"]["count"], 12);
    assert_eq!(report["latency"]["full_handshake"]["count"], 12);
    let stats = server.finish();
    assert_eq!(stats.get(Counter::Reconnects), 12);
    assert_eq!(stats.get(Counter::ConnectionsAccepted), 12);
    assert_eq!(stats.get(Counter::ClosedByPeer), 12);
}

#[test]
fn hold_has_all_connections_open_at_once_and_probes_each_once() {
    let (open, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (now_open, highest) = (Arc::clone(&open), Arc::clone(&most));
    let config = server_config(Profile::SERVER).build().unwrap();
    let server = Server::start(config, move |stream| {
        let count = now_open.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(count, Ordering::SeqCst);
        common::echo(stream);
        now_open.fetch_sub(1, Ordering::SeqCst);
    });
    let args = ["--mode", "hold", "--connections", "60", "--hold", "300ms"];
    let own = std::process::id().to_string();
    let slow = ["--concurrency", "5", "--server-pid", &own];
    let (report, code) = load(server.address, &[&args[..], &slow[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    assert_numbers(
        &report,
        &[("completed", 60), ("sent", 60), ("received", 60)],
    );
    drop(server.finish());
    assert_eq!(most.load(Ordering::SeqCst), 60);
    for process in ["client", "server"] {
        let each = report[process]["memory_per_connection"].as_f64().unwrap();
        assert!((1.0..10_000_000.0).contains(&each), "{process}: {each}");
    }
}

#[test]
fn a_mix_makes_each_kind_of_connection() {
    let server = Server::echo();
    let mix = ["--mode", "mix", "--mix", "handshake=2,echo=2,hello-flood=1"];
    let args = [
        "--connections",
        "60",
        "--rate",
        "200",
        "--messages",
        "2",
        "--seed",
        "3",
    ];
    let (report, code) = load(server.address, &[&mix[..], &args[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    assert_numbers(
        &report,
        &[("completed", 60), ("cookies", 60), ("failed", 0)],
    );
    let handshakes = report["handshakes"].as_u64().unwrap();
    let sent = report["sent"].as_u64().unwrap();
    assert!(
        (30..60).contains(&handshakes) && (10..2 * handshakes).contains(&sent),
        "{report:#}"
    );
    // The same seed makes the same choice.
    let (again, _) = load(server.address, &[&mix[..], &args[..]].concat());
    assert_eq!(
        (&again["handshakes"], &again["sent"]),
        (&report["handshakes"], &report["sent"])
    );
}

#[test]
fn several_servers_are_loaded_in_turn() {
    let (one, two) = (Server::echo(), Server::echo());
    let args = [&two.target(), "--connections", "20", "--messages", "0"];
    let (report, code) = load(one.address, &args);
    assert_eq!(code, Some(0), "{report:#}");
    for server in [one, two] {
        assert_eq!(server.finish().get(Counter::HandshakesCompleted), 10);
    }
}

#[test]
fn where_nothing_listens_the_run_ends_soon_with_one_line_and_an_address() {
    let target = format!("127.0.0.1:{}", common::free_port());
    let began = now();
    let output = run(&[
        "load",
        &target,
        "--insecure",
        "--format",
        "json",
        "--rate",
        "20",
    ]);
    assert_refused(&output, 1, &["gave up", "nothing listens there (ICMP)"]);
    assert!(began.elapsed() < Duration::from_secs(20));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_valid(&report);
    assert_eq!(report["stopped"], "gave_up");
    assert!(report["failed"].as_u64() > Some(0) && report["icmp_errors"].as_u64() > Some(0));
}

#[test]
fn another_protocol_on_the_port_is_a_handshake_without_an_answer() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = other.local_addr().unwrap().to_string();
    other
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let answering = thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((_, peer)) = other.recv_from(&mut buffer) {
            other.send_to(b"220 ready\r\n", peer).unwrap();
        }
    });
    let args = [
        "--connections",
        "20",
        "--handshake-timeout",
        "300ms",
        "--rate",
        "200",
    ];
    let output = run(&[
        &["load", &target, "--insecure", "--mode", "handshake"],
        &args[..],
    ]
    .concat());
    assert_refused(&output, 1, &["flight", "was not answered within 300ms"]);
    answering.join().unwrap();
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_partial_results() {
    let server = Server::echo();
    let network = Network::start(server.address, |place| {
        if place.at < Duration::from_millis(500) {
            Fate::After(Duration::ZERO)
        } else {
            Fate::Drop
        }
    });
    let args = ["--rate", "50", "--duration", "1s", "--mode", "handshake"];
    let timeout = ["--handshake-timeout", "600ms"];
    let (report, code) = load(network.address, &[&args[..], &timeout[..]].concat());
    assert_eq!(code, Some(1));
    let [completed, failed] = ["completed", "failed"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(completed + failed, 50);
    assert!((15..=26).contains(&completed), "{report:#}");
    let why = report["failures"][0]["error"].as_str().unwrap();
    assert!(
        why.starts_with("flight 1 was not answered within 600ms"),
        "{why}"
    );
}

#[test]
fn a_server_that_is_gone_in_the_middle_costs_only_what_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("run.html").display().to_string();
    let server = Server::echo();
    let network = Network::start(server.address, |_| Fate::After(Duration::ZERO));
    let (target, ca) = (network.address.to_string(), ca());
    let args = ["--rate", "50", "--duration", "2s", "--mode", "handshake"];
    let more = ["--handshake-timeout", "700ms", "--html", &page];
    let base = ["load", &target, "--ca", &ca, "--format", "json"];
    let client = Process::client(&[&base[..], &args[..], &more[..]].concat());
    common::wait_until(|| server.stats.get(Counter::HandshakesCompleted) >= 20);
    // The port is closed from now on.
    drop(network);
    let output = client.finish();
    let said = stderr(&output);
    let last = said.lines().last().unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        last.contains("of 100 connections failed") && last.contains("(ICMP)"),
        "{said}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_valid(&report);
    let [completed, failed] = ["completed", "failed"].map(|name| report[name].as_u64().unwrap());
    assert!(
        completed >= 15 && failed > 0 && completed + failed == 100,
        "{report:#}"
    );
    assert!(
        std::fs::read_to_string(&page)
            .unwrap()
            .contains("nothing listens there")
    );
}

#[test]
fn contradictions_and_impossible_plans_are_refused_by_name() {
    let host = "127.0.0.1:9";
    for (args, words) in [
        (&["--rate", "0"][..], &["--rate", "more than 0"][..]),
        (
            &["--rate", "5", "--concurrency", "5"],
            &["--rate", "--concurrency"],
        ),
        (
            &["--rate", "1..5/1s", "--duration", "2s"],
            &["--duration", "1..5/1s"],
        ),
        (&["--mode", "mix"], &["--mix"]),
        (&["--mix", "echo=1"], &["--mix", "--mode mix"]),
        (&["--mode", "mix", "--mix", "hold=1"], &["`hold`", "mixed"]),
        (&["--mode", "flood"], &["--mode", "hello-flood"]),
        (
            &["--server-pid", "999999999"],
            &["--server-pid", "999999999"],
        ),
        (&["--start-at", "yesterday"], &["--start-at", "2026-"]),
        (
            &["--start-at", "2020-01-01T00:00:00Z"],
            &["--start-at", "has passed"],
        ),
        (
            &["--html", "/no/such/folder/x"],
            &["--html", "/no/such/folder/x"],
        ),
        (&["--source", "127.0.0.0/8"], &["--source", "65536"]),
        (
            &["--server-metrics", "localhost:9464"],
            &["--server-metrics", "http://127.0.0.1:9464/metrics"],
        ),
        (&["--message-rate", "0"], &["--message-rate", "more than 0"]),
        (&["--message-rate", "1e-30"], &["--message-rate", "0.001"]),
        (
            &["--mode", "hold", "--duration", "1s", "--concurrency", "3"],
            &["--mode hold", "--connections"],
        ),
    ] {
        let output = run(&[&["load", host, "--insecure"], args].concat());
        assert_refused(&output, 2, words);
    }
}

#[test]
fn a_source_that_is_not_ours_fails_with_the_systems_reason() {
    let server = Server::echo();
    let target = server.target();
    let args = ["--source", "192.0.2.1", "--connections", "3"];
    let output = run(&[&["load", &target, "--ca", &ca()], &args[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("at the stage socket")
            && stderr(&output).contains("--source must name"),
        "{}",
        stderr(&output)
    );
}

/// Answers requests with a page of metrics on which `counters` stand. Ends with the test.
fn metrics_page(counters: impl Fn() -> [u64; 3] + Send + 'static) -> String {
    metrics_page_for(usize::MAX, counters)
}

/// The same for so many requests only: then nobody listens.
fn metrics_page_for(requests: usize, counters: impl Fn() -> [u64; 3] + Send + 'static) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().take(requests) {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let [handshakes, resumed, cookies] = counters();
            let page = format!(
                "# TYPE s_handshakes_completed counter\ns_handshakes_completed_total{{a=\"b\"}} \
                 {handshakes}\ns_handshakes_resumed_total {resumed}\n\
                 s_hello_verify_requests_total {cookies}\n# EOF\n"
            );
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
            stream.write_all((head + &page).as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

#[test]
fn the_servers_counters_stand_beside_ours_and_a_disagreement_is_a_doubt() {
    let server = Server::echo();
    let stats = Arc::clone(&server.stats);
    let url = metrics_page(move || {
        [
            Counter::HandshakesCompleted,
            Counter::HandshakesResumed,
            Counter::HelloVerifyRequests,
        ]
        .map(|counter| stats.get(counter))
    });
    let args = ["--connections", "20", "--server-metrics", &url];
    let (report, code) = load(server.address, &args);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(
        report["server_counters"]["s_handshakes_completed_total"],
        20
    );
    assert!(
        !common::load::doubts(&report, "server_disagrees"),
        "{report:#}"
    );

    let url = metrics_page(|| [1, 0, 0]);
    let args = ["--connections", "3", "--server-metrics", &url];
    let (report, code) = load(server.address, &args);
    assert_eq!(code, Some(0), "a doubt is no failure");
    assert!(
        common::load::doubts(&report, "server_disagrees"),
        "{report:#}"
    );

    // The server dies during the run: what was measured stands.
    let url = metrics_page_for(1, || [0; 3]);
    let args = ["--connections", "3", "--server-metrics", &url];
    let (report, code) = load(server.address, &args);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["server_counters"], Value::Null);
    assert!(
        common::load::doubts(&report, "server_unobserved"),
        "{report:#}"
    );

    let target = server.target();
    let args = ["--server-metrics", "http://127.0.0.1:9/metrics"];
    let output = run(&[&["load", &target, "--ca", &ca()], &args[..]].concat());
    assert_refused(
        &output,
        3,
        &["--server-metrics", "http://127.0.0.1:9/metrics"],
    );
}
