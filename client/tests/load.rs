//! `dtls-client load` against servers that count, drop, repeat, delay and spoil on purpose.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::load::assert_numbers;
use common::{
    Process, Server, assert_refused, ca, each, echo, pki, run, server_config, stderr, stdout,
};
use dtls::{ClientAuth, Counter, Trust, TrustAnchors};
use dtls_certs::Profile;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

/// Runs `load` with JSON and gives the report and the exit code.
#[track_caller]
fn load(server: &Server, args: &[&str]) -> (Value, Option<i32>) {
    common::load::load(server.address, args)
}

/// A server that answers the `n`th message of each connection, from 0, as `answer` says.
fn scripted(answer: impl Fn(&mut dtls::DtlsStream, &[u8], u64) + Send + Sync + 'static) -> Server {
    let config = server_config(Profile::SERVER).build().unwrap();
    Server::start(config, move |mut stream| {
        let mut n = 0;
        each(&mut stream, |stream, data| {
            answer(stream, data, n);
            n += 1;
        });
    })
}

#[test]
fn counts_equal_the_servers_counters_exactly() {
    let messages = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&messages);
    let server = scripted(move |stream, data, _| {
        seen.fetch_add(1, Ordering::Relaxed);
        assert_eq!(data.len(), 333);
        stream.send(data).unwrap();
    });
    let args = [
        "--connections",
        "60",
        "--concurrency",
        "8",
        "--messages",
        "25",
        "--size",
        "333",
    ];
    let (report, code) = load(&server, &args);
    assert_eq!(code, Some(0), "{report:#}");
    let stats = server.finish();
    assert_numbers(
        &report,
        &[
            ("completed", 60),
            ("handshakes", stats.get(Counter::HandshakesCompleted)),
            ("handshakes", 60),
            ("resumed", stats.get(Counter::HandshakesResumed)),
            ("resumed", 0),
            ("completed", stats.get(Counter::ClosedByPeer)),
            ("sent", messages.load(Ordering::Relaxed)),
            ("sent", 60 * 25),
            ("received", 60 * 25),
            ("failed", 0),
            ("lost", 0),
            ("late", 0),
            ("duplicated", 0),
            ("corrupted", 0),
            ("interrupted", 0),
        ],
    );
    assert_eq!(report["stopped"], Value::Null);
    assert_eq!(report["failures"], serde_json::json!([]));
    let latency = &report["latency"];
    assert_eq!(latency["full_handshake"]["count"], 60);
    assert_eq!(latency["resumed_handshake"], Value::Null);
    assert_eq!(latency["message"]["count"], 60 * 25);
    let order = ["p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms"];
    let values = order.map(|name| latency["message"][name].as_f64().unwrap());
    assert!(values[0] > 0.0 && values.is_sorted(), "{latency:#}");
}

#[test]
fn every_answer_the_server_drops_is_one_message_lost() {
    // 10 connections of 20 messages, each 7th (6, 13) unanswered.
    let server = scripted(|stream, data, n| {
        if n % 7 != 6 {
            stream.send(data).unwrap();
        }
    });
    let args = [
        "--connections",
        "10",
        "--messages",
        "20",
        "--timeout",
        "300ms",
    ];
    let (report, code) = load(&server, &args);
    assert_eq!(code, Some(1));
    let numbers = [
        ("sent", 200),
        ("lost", 20),
        ("received", 180),
        ("late", 0),
        ("failed", 0),
    ];
    assert_numbers(&report, &numbers);
    assert_numbers(
        &report,
        &[("completed", 10), ("corrupted", 0), ("duplicated", 0)],
    );
    assert_eq!(report["latency"]["message"]["count"], 180);
}

#[test]
fn repeated_spoilt_and_shortened_answers_are_told_apart() {
    let server = scripted(|stream, data, n| match n {
        0 => {
            stream.send(data).unwrap();
            stream.send(data).unwrap();
        }
        1 => {
            let mut spoilt = data.to_vec();
            spoilt[50] ^= 1;
            stream.send(&spoilt).unwrap();
            stream.send(data).unwrap();
        }
        2 => {
            stream.send(&data[..data.len() - 1]).unwrap();
            stream.send(b"what?").unwrap();
            stream.send(data).unwrap();
        }
        _ => stream.send(data).unwrap(),
    });
    let (report, code) = load(&server, &["--connections", "6", "--messages", "5"]);
    assert_eq!(code, Some(1));
    let numbers = [("sent", 30), ("received", 30), ("lost", 0), ("late", 0)];
    assert_numbers(&report, &numbers);
    assert_numbers(
        &report,
        &[("duplicated", 6), ("corrupted", 18), ("failed", 0)],
    );
}

#[test]
fn an_answer_after_the_timeout_is_late_and_its_message_stays_lost() {
    // The answer to message 1 comes just before that to message 2.
    let held: Mutex<Vec<u8>> = Mutex::default();
    let server = scripted(move |stream, data, n| match n {
        1 => *held.lock().unwrap() = data.to_vec(),
        2 => {
            stream.send(&held.lock().unwrap()).unwrap();
            stream.send(data).unwrap();
        }
        _ => stream.send(data).unwrap(),
    });
    let args = [
        "--connections",
        "1",
        "--messages",
        "4",
        "--timeout",
        "500ms",
    ];
    let (report, code) = load(&server, &args);
    assert_eq!(code, Some(1));
    assert_numbers(&report, &[("sent", 4), ("received", 3), ("lost", 1)]);
    assert_numbers(&report, &[("late", 1), ("duplicated", 0), ("corrupted", 0)]);
}

#[test]
fn latency_is_the_servers_delay_and_throughput_follows_from_it() {
    // A timer in the server, not a sleep: it waits for a datagram that does not come.
    let server = scripted(|stream, data, _| {
        stream.set_recv_timeout(Some(Duration::from_millis(40)));
        let mut none = [0; 1];
        assert_eq!(stream.recv(&mut none).unwrap(), dtls::Recv::TimedOut);
        stream.set_recv_timeout(None);
        stream.send(data).unwrap();
    });
    let args = [
        "--connections",
        "4",
        "--concurrency",
        "4",
        "--messages",
        "10",
    ];
    let (report, code) = load(&server, &args);
    assert_eq!(code, Some(0), "{report:#}");
    let p50 = report["latency"]["message"]["p50_ms"].as_f64().unwrap();
    assert!((39.9..80.0).contains(&p50), "{p50}");
    let rate = report["messages_per_second"].as_f64().unwrap();
    assert!(rate <= 100.1, "4 at once, 25 a second each: {rate}");
}

#[test]
fn resume_makes_one_full_handshake_for_each_worker() {
    let server = Server::echo();
    let args = [
        "--connections",
        "20",
        "--concurrency",
        "4",
        "--messages",
        "1",
        "--resume",
    ];
    let (report, code) = load(&server, &args);
    assert_eq!(code, Some(0), "{report:#}");
    let stats = server.finish();
    let resumed = stats.get(Counter::HandshakesResumed);
    // A worker that started late may have found nothing left to do.
    assert!((16..20).contains(&resumed), "{resumed}");
    assert_numbers(
        &report,
        &[("handshakes", 20), ("resumed", resumed), ("received", 20)],
    );
    assert_eq!(report["latency"]["resumed_handshake"]["count"], resumed);
    assert_eq!(report["latency"]["full_handshake"]["count"], 20 - resumed);
}

#[test]
fn held_connections_are_all_open_at_once_and_echo_once_a_second() {
    let (open, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (now_open, highest) = (Arc::clone(&open), Arc::clone(&most));
    let config = server_config(Profile::SERVER).build().unwrap();
    let server = Server::start(config, move |stream| {
        let count = now_open.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(count, Ordering::SeqCst);
        echo(stream);
        now_open.fetch_sub(1, Ordering::SeqCst);
    });
    let args = [
        "--connections",
        "40",
        "--concurrency",
        "40",
        "--messages",
        "0",
        "--hold",
        "2500ms",
    ];
    let (report, code) = load(&server, &args);
    assert_eq!(code, Some(0), "{report:#}");
    drop(server.finish());
    assert_eq!(most.load(Ordering::SeqCst), 40);
    assert_numbers(
        &report,
        &[("completed", 40), ("sent", 80), ("received", 80)],
    );
}

#[test]
fn connections_the_server_closes_are_failures_with_stage_and_reason() {
    let server = scripted(|stream, data, n| match n {
        0 | 1 => stream.send(data).unwrap(),
        _ => stream.close(),
    });
    let args = ["--connections", "5", "--messages", "9"];
    let (report, code) = load(&server, &args);
    assert_eq!(code, Some(1));
    assert_numbers(
        &report,
        &[("handshakes", 5), ("completed", 0), ("failed", 5)],
    );
    assert_numbers(&report, &[("sent", 15), ("received", 10), ("lost", 5)]);
    let expected = serde_json::json!([{
        "stage": "exchange",
        "error": "the server closed the connection (close_notify)",
        "count": 5,
    }]);
    assert_eq!(report["failures"], expected);
}

#[test]
fn a_refused_certificate_ends_the_run_after_one_round_and_names_the_remedy() {
    let config = server_config(Profile::SERVER_OTHER_CA).build().unwrap();
    let server = Server::start(config, echo);
    let (report, code) = load(&server, &["--connections", "1000", "--concurrency", "4"]);
    assert_eq!(code, Some(1));
    assert_eq!(report["stopped"], "gave_up");
    let failed = report["failed"].as_u64().unwrap();
    assert!((4..=7).contains(&failed), "{report:#}");
    assert_numbers(&report, &[("completed", 0), ("handshakes", 0), ("sent", 0)]);
    let failure = &report["failures"][0];
    assert_eq!(
        (&failure["stage"], &failure["count"]),
        (&"handshake".into(), &failed.into())
    );
    let error = failure["error"].as_str().unwrap();
    assert!(
        error.contains("refused") && error.contains("--ca FILE"),
        "{error}"
    );
}

#[test]
fn a_message_that_fits_no_datagram_fails_with_the_limit() {
    let server = Server::echo();
    let (report, code) = load(&server, &["--connections", "2", "--size", "9000"]);
    assert_eq!(code, Some(1));
    let error = report["failures"][0]["error"].as_str().unwrap();
    assert!(
        error.contains("9000 bytes") && error.contains("--link-mtu"),
        "{error}"
    );
}

#[test]
fn the_groups_and_suites_that_are_offered_are_those_that_are_agreed_on() {
    let server = Server::echo();
    let handshakes = |more: &[&str]| {
        load(
            &server,
            &[&["--mode", "handshake", "--connections", "3"], more].concat(),
        )
    };
    let suites = ["--suites", "ECDHE-ECDSA-CHACHA20-POLY1305"];
    let (report, code) = handshakes(&[&["--groups", "P-256"][..], &suites[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    let agreed = &report["agreed"][0];
    assert_eq!(agreed["group"], "prime256v1", "{report:#}");
    assert_eq!(agreed["cipher"], "ECDHE-ECDSA-CHACHA20-POLY1305");
    assert_eq!(report["plan"]["groups"], serde_json::json!(["P-256"]));
    // Its certificate is on P-256: it has nothing to show, and says so.
    let (report, code) = handshakes(&["--groups", "X25519", "--handshake-timeout", "20s"]);
    assert_eq!(code, Some(1));
    let error = report["failures"][0]["error"].as_str().unwrap();
    assert!(error.contains("handshake failure"), "{report:#}");
}

#[test]
fn certificate_name_protocol_and_mtu_reach_the_server() {
    let clients = Trust::Anchors(TrustAnchors::from_file(pki().ca()).unwrap());
    let config = server_config(Profile::SERVER)
        .client_auth(ClientAuth::Required(clients))
        .alpn(["coap"]);
    let seen: Arc<Mutex<Vec<dtls::HandshakeInfo>>> = Arc::default();
    let infos = Arc::clone(&seen);
    let server = Server::start(config.build().unwrap(), move |stream| {
        infos.lock().unwrap().push(stream.info());
        echo(stream);
    });
    let [cert, key] = [pki().chain(Profile::CLIENT), pki().key(Profile::CLIENT)]
        .map(|path| path.display().to_string());
    let args = [
        "--mode",
        "handshake",
        "--connections",
        "4",
        "--link-mtu",
        "600",
    ];
    let proof = ["--cert", &cert, "--key", &key];
    let offer = ["--server-name", "localhost", "--alpn", "http/1.1,coap"];
    let (report, code) = load(&server, &[&args[..], &proof[..], &offer[..]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["agreed"][0]["alpn"], "coap");
    assert_eq!(report["plan"]["link_mtu"], 600);
    // The chain of a client takes more than one datagram of that size.
    let sent = report["wire"]["full"]["datagrams_sent"].as_u64().unwrap();
    assert!(sent >= 4 * 4, "{report:#}");
    drop(server.finish());
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    for info in seen.iter() {
        assert!(info.verified && !info.peer_chain.is_empty());
        assert_eq!(info.server_name.as_deref(), Some("localhost"));
        assert_eq!(info.alpn.as_deref(), Some(&b"coap"[..]));
    }
}

#[test]
fn sigint_ends_a_run_early_with_partial_results() {
    let first = Arc::new((Mutex::new(0), std::sync::Condvar::new()));
    let seen = Arc::clone(&first);
    let server = scripted(move |stream, data, _| {
        stream.send(data).unwrap();
        *seen.0.lock().unwrap() += 1;
        seen.1.notify_all();
    });
    let (target, ca) = (server.target(), ca());
    let mut args = vec![
        "load", &target, "--ca", &ca, "--format", "json", "--hold", "1h",
    ];
    args.extend([
        "--connections",
        "50",
        "--concurrency",
        "5",
        "--messages",
        "3",
    ]);
    let client = Process::client(&args);
    let (count, changed) = &*first;
    let (count, waited) = changed
        .wait_timeout_while(count.lock().unwrap(), common::PATIENCE, |count| *count < 15)
        .unwrap();
    assert!(!waited.timed_out());
    drop(count);
    kill(client.pid(), Signal::SIGINT).unwrap();
    let output = client.finish();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["stopped"], "interrupted");
    assert_numbers(
        &report,
        &[("handshakes", 5), ("interrupted", 5), ("completed", 0)],
    );
    assert_numbers(&report, &[("sent", 15), ("lost", 0)]);
    // Each was closed in order.
    assert_eq!(server.finish().get(Counter::ClosedByPeer), 5);
}

#[test]
fn answers_for_which_our_own_socket_had_no_room_are_a_doubt_with_their_number() {
    const BURST: usize = 3000;
    let (tell, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let (tell, wait) = (Mutex::new(tell), Mutex::new(wait));
    let server = scripted(move |stream, data, _| {
        // The client is stopped meanwhile: nobody takes these, and its buffer holds a part of them.
        tell.lock().unwrap().send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
        for _ in 0..BURST {
            stream.send(&[0; 1000]).unwrap();
        }
        tell.lock().unwrap().send(()).unwrap();
        // It has taken what there is: the kernel tells with the next datagram.
        wait.lock().unwrap().recv().unwrap();
        stream.send(data).unwrap();
    });
    let (target, ca) = (server.target(), ca());
    let args = ["--connections", "1", "--messages", "1", "--timeout", "60s"];
    let base = ["load", &target, "--ca", &ca, "--format", "json"];
    let client = Process::client(&[&base[..], &args[..]].concat());
    told.recv_timeout(common::PATIENCE).unwrap();
    kill(client.pid(), Signal::SIGSTOP).unwrap();
    go_on.send(()).unwrap();
    told.recv_timeout(common::PATIENCE).unwrap();
    kill(client.pid(), Signal::SIGCONT).unwrap();
    common::wait_until(|| queued(server.address) == 0);
    go_on.send(()).unwrap();
    let output = client.finish();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    common::load::assert_valid(&report);
    assert_numbers(&report, &[("received", 1), ("lost", 0)]);
    let taken = report["corrupted"].as_u64().unwrap();
    let dropped = u64::try_from(BURST).unwrap() - taken;
    let doubt = format!("{dropped} answers came and were dropped");
    let doubts = report["doubts"].to_string();
    assert!(
        dropped > 0 && doubts.contains(&doubt),
        "{dropped}: {doubts}"
    );
}

/// Bytes in the buffers of the sockets that are connected to this address of the loopback.
fn queued(server: SocketAddr) -> u64 {
    let sockets = procfs::net::udp().unwrap().into_iter();
    sockets
        .filter(|socket| socket.remote_address == server)
        .map(|socket| u64::from(socket.rx_queue))
        .sum()
}

#[test]
fn the_text_report_is_plain_where_it_is_no_terminal_and_has_every_count() {
    let server = Server::echo();
    let output = run(&[
        "load",
        &server.target(),
        "--ca",
        &ca(),
        "--connections",
        "7",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "no progress bar");
    let text = stdout(&output);
    assert!(!text.contains('\u{1b}'), "{text}");
    for part in [
        "7 connections to 127.0.0.1:",
        "open loop, 100/s, 10 messages of 100 bytes each",
        "doubt        full handshake: 7 measured, too few",
        "7 completed, 0 failed",
        "70 sent, 70 received, 0 lost",
        "latency",
        "full handshake            7 ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn more_connections_than_descriptors_are_refused_with_both_numbers() {
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_dtls-client");
    let script = "ulimit -n 64; exec \"$0\" \"$@\"";
    let args = ["load", "127.0.0.1:9", "--insecure", "--concurrency", "50"];
    command.args(["-c", script, program]).args(args);
    let output = Process::spawn(command).finish();
    let words = ["--concurrency 50", "limit is 64", "ulimit -Hn", "at most"];
    assert_refused(&output, 3, &words);
}
