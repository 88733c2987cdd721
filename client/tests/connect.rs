//! `dtls-client connect` against a server on a thread of the test, as a person and as a program
//! would use it.

mod common;

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use common::{
    Process, Server, assert_refused, ca, client, each, echo, pki, run, server_config, stderr,
    stdout,
};
use dtls::{Counter, Identity, Recv, TrustAnchors};
use dtls_certs::Profile;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

/// Sends `lines` once connected, and waits for as many answers.
fn exchange(client: &mut Process, lines: &[&str]) -> Vec<String> {
    for line in lines {
        client.write_line(line);
    }
    lines.iter().map(|_| client.wait_out(|_| true)).collect()
}

#[test]
fn the_handshake_is_shown_on_stderr_and_lines_are_echoed_on_stdout() {
    let server = Server::echo();
    let mut client = Process::connect(&server.target(), &[]);
    assert_eq!(
        exchange(&mut client, &["one", "zwei ü", " three "]),
        ["one", "zwei ü", " three "]
    );
    let output = client.finish();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "one\nzwei ü\n three \n");
    let identity = Identity::from_files(pki().chain(Profile::SERVER), pki().key(Profile::SERVER));
    let facts = stderr(&output);
    for fact in [
        &format!("connected to {} in ", server.address),
        " ms, 0 retransmissions\n",
        "  version       DTLSv1.2\n",
        "  cipher        ECDHE-ECDSA-AES",
        "  group         X25519\n",
        "  verification  ok, the certificate is 127.0.0.1's\n",
        "certificate 0 O=DTLS test PKI",
        "CN=DTLS test server\n",
        "certificate 1 O=DTLS test PKI",
        "    issuer      O=DTLS test PKI",
        "    not after   ",
        &identity.unwrap().fingerprint().unwrap(),
    ] {
        assert!(facts.contains(fact), "{fact:?} is missing in:\n{facts}");
    }
    assert_eq!(server.finish().get(Counter::ClosedByPeer), 1);
}

#[test]
fn as_json_every_line_is_an_event_and_stderr_is_silent() {
    let config = server_config(Profile::SERVER).build().unwrap();
    let server = Server::start(config, |mut stream| {
        each(&mut stream, |stream, data| {
            stream.send(data).unwrap();
            stream.send(b"two\nlines").unwrap();
            stream.send(b"\xff\x00z").unwrap();
        });
    });
    let mut client = Process::connect(&server.target(), &["--format", "json"]);
    client.write_line("hello");
    client.wait_out(|line| line.contains("hex"));
    let output = client.finish();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
    let events: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let connected = &events[0];
    assert_eq!(connected["event"], "connected");
    assert_eq!(connected["peer"], server.target());
    assert_eq!(connected["version"], "DTLSv1.2");
    assert_eq!(connected["group"], "X25519");
    assert_eq!(
        (&connected["verified"], &connected["verification"]),
        (&json!(true), &json!("ok"))
    );
    assert_eq!(
        (&connected["resumed"], &connected["retransmissions"]),
        (&json!(false), &json!(0))
    );
    assert!(connected["handshake_ms"].as_f64().unwrap() > 0.0);
    let chain = connected["chain"].as_array().unwrap();
    assert_eq!(chain.len(), 2, "leaf and intermediate");
    for certificate in chain {
        for field in ["subject", "issuer", "not_after", "fingerprint"] {
            assert!(!certificate[field].as_str().unwrap().is_empty(), "{field}");
        }
    }
    assert_eq!(
        events[1..],
        [
            json!({"event": "datagram", "text": "hello"}),
            json!({"event": "datagram", "text": "two\nlines"}),
            json!({"event": "datagram", "text": "\u{fffd}\0z", "hex": "ff007a"}),
            json!({"event": "closed", "by": "us"}),
        ]
    );
}

#[test]
fn a_close_notify_ends_it_well_though_the_input_stays_open() {
    let config = server_config(Profile::SERVER).build().unwrap();
    let server = Server::start(config, |mut stream| {
        stream.recv(&mut [0; 100]).unwrap();
        stream.send(b"bye").unwrap();
        stream.close();
    });
    let mut client = Process::connect(&server.target(), &["--format", "json"]);
    client.write_line("hello");
    client.wait_out(|line| line == r#"{"event":"datagram","text":"bye"}"#);
    client.wait_out(|line| line == r#"{"event":"closed","by":"peer"}"#);
    assert_eq!(client.finish().status.code(), Some(0));
}

#[test]
fn sigint_closes_the_connection_in_order() {
    let server = Server::echo();
    let mut client = Process::connect(&server.target(), &["--format", "json"]);
    client.wait_out(|line| line.contains("connected"));
    kill(client.pid(), Signal::SIGINT).unwrap();
    client.wait_out(|line| line == r#"{"event":"closed","by":"us"}"#);
    assert_eq!(client.finish().status.code(), Some(0));
    assert_eq!(server.finish().get(Counter::ClosedByPeer), 1);
}

#[test]
fn sigint_during_the_handshake_ends_it_at_once_as_a_failure() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = silent.local_addr().unwrap().to_string();
    let client = Process::connect(&target, &["--handshake-timeout", "1h"]);
    silent.set_read_timeout(Some(common::PATIENCE)).unwrap();
    silent.recv(&mut [0; 2000]).unwrap();
    kill(client.pid(), Signal::SIGINT).unwrap();
    let output = client.finish();
    assert_refused(&output, 1, &["the handshake: stopped"]);
}

#[test]
fn an_answer_that_comes_after_the_end_of_the_input_is_still_printed() {
    let config = server_config(Profile::SERVER).build().unwrap();
    let server = Server::start(config, |mut stream| {
        each(&mut stream, |stream, data| {
            let data = data.to_vec();
            stream.set_recv_timeout(Some(Duration::from_millis(300)));
            assert_eq!(stream.recv(&mut [0; 1]).unwrap(), Recv::TimedOut);
            stream.set_recv_timeout(Some(common::PATIENCE));
            stream.send(&data).unwrap();
        });
    });
    let mut client = Process::connect(&server.target(), &["--linger", "30s"]);
    client.write(b"no line end");
    client.close_stdin();
    client.wait_out(|line| line == "no line end");
    kill(client.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(client.finish().status.code(), Some(0));
}

#[test]
fn a_line_beyond_the_limit_is_refused_by_number_and_the_connection_goes_on() {
    let server = Server::echo();
    let mut client = Process::connect(&server.target(), &[]);
    // IPv4 and AES-GCM over a link of 1400 bytes.
    let limit = 1400 - 28 - 13 - 24;
    let fits = "x".repeat(limit);
    client.write_line(&"y".repeat(limit + 1));
    client.write_line("");
    client.write_line(&fits);
    assert_eq!(client.wait_out(|_| true), fits);
    let said = client.wait_err(|line| line.contains("line 1"));
    let reason = format!("{} bytes, one datagram takes at most {limit}", limit + 1);
    assert!(said.contains(&reason), "{said}");
    client.wait_err(|line| line.contains("line 2") && line.contains("empty"));
    assert_eq!(client.finish().status.code(), Some(0));
}

#[test]
fn a_certificate_of_another_authority_is_refused_with_reason_and_remedy() {
    let config = server_config(Profile::SERVER_OTHER_CA).build().unwrap();
    let server = Server::start(config, echo);
    let output = run(&["connect", &server.target(), "--ca", &ca()]);
    let words = [
        "refused: unable to get local issuer certificate",
        "--ca FILE",
        "--insecure",
    ];
    assert_refused(&output, 1, &words);
    // The same without --ca: the system's CAs do not vouch for a test PKI either.
    let server = Server::echo();
    assert_refused(&run(&["connect", &server.target()]), 1, &words);
}

#[test]
fn a_certificate_for_another_name_is_refused_with_reason_and_remedy() {
    let server = Server::echo();
    let target = server.target();
    let name = ["--server-name", "elsewhere.example"];
    let output = Process::connect(&target, &name).finish();
    let words = ["hostname mismatch", "--server-name NAME", "--insecure"];
    assert_refused(&output, 1, &words);
    let good = Process::connect(&target, &["--server-name", "localhost"]).finish();
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
}

#[test]
fn an_expired_certificate_is_refused_for_that() {
    // Our own listener would not start with it.
    let (_server, target) = common::peers::s_server(|command| {
        command
            .arg("-cert")
            .arg(pki().chain(Profile::SERVER_EXPIRED));
        command
            .arg("-cert_chain")
            .arg(pki().path(dtls_certs::File::Intermediate));
        command.arg("-key").arg(pki().key(Profile::SERVER_EXPIRED));
    });
    let output = Process::connect(&target, &[]).finish();
    assert_refused(
        &output,
        1,
        &["refused: certificate has expired", "--insecure"],
    );
}

#[test]
fn insecure_accepts_any_certificate_and_says_so() {
    let config = server_config(Profile::SERVER_OTHER_CA).build().unwrap();
    let server = Server::start(config, echo);
    let output = run(&["connect", &server.target(), "--insecure"]);
    assert_eq!(output.status.code(), Some(0));
    let facts = stderr(&output);
    assert!(
        facts.contains("verification  none (--insecure); it would say: unable to"),
        "{facts}"
    );
    let output = run(&[
        "connect",
        &server.target(),
        "--insecure",
        "--format",
        "json",
    ]);
    let first = stdout(&output).lines().next().map(str::to_owned).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&first).unwrap()["verified"],
        false
    );
}

#[test]
fn a_server_that_asks_for_a_client_certificate_gets_it_or_a_hint_is_given() {
    let anchors = TrustAnchors::from_file(pki().ca()).unwrap();
    let config = server_config(Profile::SERVER)
        .client_ca(anchors)
        .build()
        .unwrap();
    let server = Server::start(config, echo);
    let target = server.target();
    let [cert, key] = [pki().chain(Profile::CLIENT), pki().key(Profile::CLIENT)]
        .map(|path| path.display().to_string());
    let mut with = Process::connect(&target, &["--cert", &cert, "--key", &key]);
    assert_eq!(exchange(&mut with, &["hello"]), ["hello"]);
    assert_eq!(with.finish().status.code(), Some(0));
    let without = Process::connect(&target, &["--handshake-timeout", "5s"]).finish();
    assert_refused(&without, 1, &["alert", "--cert and --key"]);
}

#[test]
fn a_port_where_nothing_listens_is_reported_after_the_handshake_timeout() {
    let target = format!("127.0.0.1:{}", common::free_port());
    let args = ["--handshake-timeout", "1200ms", "--format", "json"];
    let output = Process::connect(&target, &args).finish();
    assert_refused(
        &output,
        1,
        &[&target, "no answer within 1.2s", "nothing listens there"],
    );
    let event: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(event["event"], "failed");
    assert!(stderr(&output).contains(event["error"].as_str().unwrap()));
}

#[test]
fn a_name_with_addresses_where_nothing_answers_reaches_the_one_that_does() {
    // Wherever localhost is both, ::1 comes first, and nobody answers there.
    let server = Server::echo();
    let target = format!("localhost:{}", server.address.port());
    let mut client = Process::connect(&target, &[]);
    assert_eq!(exchange(&mut client, &["found"]), ["found"]);
    let output = client.finish();
    assert_eq!(output.status.code(), Some(0));
    let facts = stderr(&output);
    assert!(facts.contains("the certificate is localhost's"), "{facts}");
}

#[test]
fn the_key_log_is_appended_to_and_for_the_owner_only() {
    let server = Server::echo();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let args = ["--keylog", path.to_str().unwrap()];
    for _ in 0..2 {
        let output = Process::connect(&server.target(), &args).finish();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let log = std::fs::read_to_string(&path).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(
        log.lines().all(|line| line.starts_with("CLIENT_RANDOM ")),
        "{log}"
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_host_without_a_free_port_is_named_with_the_remedy() {
    // In a namespace with one port to give away, which a socket of the shell's has.
    let script = "ip link set lo up && \
                  echo 40001 40001 >/proc/sys/net/ipv4/ip_local_port_range && \
                  exec 3<>/dev/udp/127.0.0.1/9 && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "bash", "-c", script])
        .arg(client().get_program())
        .args(["connect", "127.0.0.1:5684", "--insecure"])
        .output()
        .expect("this test needs unshare(1), ip(8) and bash(1): make deps");
    assert_refused(
        &output,
        3,
        &[
            "127.0.0.1:5684",
            "no local port is free",
            "net.ipv4.ip_local_port_range",
        ],
    );
}
