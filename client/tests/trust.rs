//! Whom `dtls-client connect` believes, what it offers, and what it says was proved: against a
//! server on a thread of the test and against other implementations' servers.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::time::Duration;

use common::{
    Process, Server, assert_refused, ca, echo, pki, run, secret, server_config, stderr, stdout,
};
use dtls::{Identity, PskKey, Recv, ServerConfig, Suites};
use dtls_certs::{File, Profile};
use serde_json::Value;

const KEY: &str = "6f1ed002ab5595859014ebf0951522d96f1ed002ab5595859014ebf0951522d9";

fn psk_server() -> Server {
    let lookup =
        |identity: &[u8]| (identity == b"sensor-17").then(|| PskKey::from_hex(KEY).unwrap());
    let config = ServerConfig::psk_builder(lookup).build().unwrap();
    Server::start(config, echo)
}

/// The first event of a connection that goes well.
#[track_caller]
fn connected(args: &[&str]) -> Value {
    let output = run(&[&["connect"], args, &["--format", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line = stdout(&output).lines().next().unwrap().to_owned();
    serde_json::from_str(&line).unwrap()
}

/// What stands on standard error after a connection that goes well.
#[track_caller]
fn facts(args: &[&str]) -> String {
    let output = run(&[&["connect"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stderr(&output)
}

fn fingerprint() -> String {
    let identity = Identity::from_files(pki().chain(Profile::SERVER), pki().key(Profile::SERVER));
    identity.unwrap().fingerprint().unwrap()
}

#[test]
fn a_pre_shared_key_is_what_was_proved_and_no_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (server, key) = (psk_server(), secret(dir.path(), &format!("{KEY}\n")));
    let target = server.target();
    let args = ["--psk-identity", "sensor-17", "--psk-key-file", &key];
    let args = [&[target.as_str()], &args[..]].concat();
    let facts = facts(&args);
    assert!(
        facts.contains("  verification  ok, both have the pre-shared key \"sensor-17\"\n"),
        "{facts}"
    );
    assert!(!facts.contains("certificate"), "{facts}");
    let event = connected(&args);
    assert_eq!(
        (&event["proof"], &event["verified"]),
        (&"psk".into(), &true.into())
    );
    assert_eq!(event["psk_identity"], "sensor-17");
    assert_eq!(event["chain"], serde_json::json!([]));
}

#[test]
fn a_wrong_pre_shared_key_fails_with_a_hint_and_no_certificate_will_do_instead() {
    let dir = tempfile::tempdir().unwrap();
    let key = secret(dir.path(), &KEY.replace('6', "7"));
    let psk = ["--psk-identity", "sensor-17", "--psk-key-file", &key];
    let server = psk_server();
    let target = server.target();
    let timeout = ["--handshake-timeout", "1s"];
    let output = run(&[&["connect", &target], &psk[..], &timeout[..]].concat());
    assert_refused(&output, 1, &["pre-shared key or identity", "compare"]);

    let server = Server::echo();
    let target = server.target();
    let output = run(&[&["connect", &target], &psk[..], &timeout[..]].concat());
    assert_refused(&output, 1, &["handshake"]);
    // Where the flags say whom else to trust, the server may choose.
    let ca = ca();
    let both = [&[target.as_str()], &psk[..], &["--ca", &ca]].concat();
    assert_eq!(connected(&both)["proof"], "certificate");
}

#[test]
fn a_key_file_that_others_can_read_is_remarked_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, KEY).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (server, path) = (psk_server(), path.display().to_string());
    let target = server.target();
    let said = facts(&[
        &target,
        "--psk-identity",
        "sensor-17",
        "--psk-key-file",
        &path,
    ]);
    assert!(said.contains("--psk-key-file: others can read"), "{said}");
}

#[test]
fn a_pinned_certificate_is_taken_whatever_its_authority_and_another_is_not() {
    let server = Server::echo();
    let (target, pin) = (server.target(), fingerprint());
    let event = connected(&[&target, "--pin", &pin]);
    assert_eq!(
        (&event["proof"], &event["verified"]),
        (&"pin".into(), &true.into())
    );
    let said = facts(&[&target, "--pin", &"00".repeat(32), "--pin", &pin]);
    assert!(
        said.contains("ok, the certificate is the pinned one"),
        "{said}"
    );
    let output = run(&["connect", &target, "--pin", &"00".repeat(32)]);
    assert_refused(&output, 1, &[&pin, "not among the pinned ones"]);
    // A pin or the authority: one is enough.
    let event = connected(&[&target, "--pin", &"00".repeat(32), "--ca", &ca()]);
    assert_eq!(event["proof"], "certificate");
}

#[test]
fn a_known_peer_is_noted_at_first_recognised_then_and_refused_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_peers").display().to_string();
    let server = Server::echo();
    let target = server.target();
    let said = facts(&[&target, "--known-peers", &file]);
    assert!(
        said.contains(&format!("first use: noted in {file}; compare")),
        "{said}"
    );
    let said = facts(&[&target, "--known-peers", &file]);
    assert!(
        said.contains(&format!("ok, the certificate is the one noted in {file}")),
        "{said}"
    );
    assert_eq!(
        connected(&[&target, "--known-peers", &file])["proof"],
        "known_peer"
    );

    let text = std::fs::read_to_string(&file).unwrap();
    let good = fingerprint();
    let digit = if good.starts_with('0') { '1' } else { '0' };
    let changed = text.replace(&good, &format!("{digit}{}", &good[1..]));
    assert_ne!(changed, text);
    std::fs::write(&file, changed).unwrap();
    let output = run(&["connect", &target, "--known-peers", &file]);
    assert_refused(
        &output,
        1,
        &["has changed", "line 1", &file, "delete that line"],
    );
}

#[test]
fn a_revoked_certificate_is_refused_and_a_good_one_beside_it_is_not() {
    let crl = pki().path(File::Crl).display().to_string();
    let ca = ca();
    for (profile, good) in [(Profile::SERVER, true), (Profile::SERVER_REVOKED, false)] {
        let server = Server::start(server_config(profile).build().unwrap(), echo);
        let target = server.target();
        let output = run(&["connect", &target, "--ca", &ca, "--crl", &crl]);
        if good {
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        } else {
            assert_refused(&output, 1, &["revoked"]);
        }
    }
}

#[test]
fn the_protocol_that_the_server_chose_is_shown_and_so_is_none() {
    let config = server_config(Profile::SERVER).alpn(["coap"]);
    let server = Server::start(config.build().unwrap(), echo);
    let (target, ca) = (server.target(), ca());
    let event = connected(&[&target, "--ca", &ca, "--alpn", "other,coap"]);
    assert_eq!(event["alpn"], "coap");
    let silent = Server::echo();
    let said = facts(&[&silent.target(), "--ca", &ca, "--alpn", "coap"]);
    assert!(
        said.contains("protocol      none: the server ignored the offer"),
        "{said}"
    );
    let output = run(&["connect", &target, "--ca", &ca, "--alpn", "other"]);
    assert_refused(&output, 1, &["no application protocol"]);
}

#[test]
fn the_iot_suites_reach_a_server_that_has_only_those() {
    let config = server_config(Profile::SERVER).suites(Suites::Iot);
    let server = Server::start(config.build().unwrap(), echo);
    let (target, ca) = (server.target(), ca());
    let event = connected(&[&target, "--ca", &ca, "--suites", "iot"]);
    assert_eq!(event["verified"], true);
}

#[test]
fn datagrams_bytes_and_the_cookies_time_are_told() {
    let server = Server::echo();
    let event = connected(&[&server.target(), "--ca", &ca()]);
    for way in ["sent", "received"] {
        assert!(
            (3..=6).contains(&event["datagrams"][way].as_u64().unwrap()),
            "{event}"
        );
        assert!(
            (400..4000).contains(&event["bytes"][way].as_u64().unwrap()),
            "{event}"
        );
    }
    let [cookie, handshake] = ["cookie_ms", "handshake_ms"].map(|name| event[name].as_f64());
    assert!(cookie.unwrap() > 0.0 && cookie < handshake, "{event}");
}

#[test]
fn probes_find_a_server_that_answers_alive_and_lines_still_flow() {
    let config = server_config(Profile::SERVER).heartbeat(true);
    let server = Server::start(config.build().unwrap(), echo);
    let args = ["--probe-every", "50ms", "--format", "json"];
    let mut client = Process::connect(&server.target(), &args);
    let alive = |line: &str| line.contains(r#""event":"probe","result":"alive","rtt_ms":"#);
    client.wait_out(alive);
    client.write_line("between probes");
    client.wait_out(|line| line.contains("between probes"));
    client.wait_out(alive);
    assert_eq!(client.finish().status.code(), Some(0));
}

#[test]
fn a_server_that_does_not_run_is_silent_and_one_without_heartbeats_is_not_asked() {
    let config = server_config(Profile::SERVER).heartbeat(true);
    // It never looks at its socket after the first datagram.
    let server = Server::start(config.build().unwrap(), |mut stream| {
        stream.set_recv_timeout(Some(common::PATIENCE));
        assert!(matches!(stream.recv(&mut [0; 100]), Ok(Recv::Data(_))));
        std::sync::mpsc::channel::<()>()
            .1
            .recv_timeout(Duration::from_millis(700))
            .unwrap_err();
    });
    let mut client = Process::connect(&server.target(), &["--probe-every", "200ms"]);
    client.write_line("stop");
    client.wait_err(|line| line == "probe: silent, no answer within 200ms");
    drop(client);

    let server = Server::echo();
    let mut client = Process::connect(&server.target(), &["--probe-every", "50ms"]);
    client.wait_err(|line| line.contains("takes no heartbeat requests"));
    client.write_line("on");
    client.wait_out(|line| line == "on");
    let output = client.finish();
    assert_eq!(
        stderr(&output).matches("probe:").count(),
        1,
        "{}",
        stderr(&output)
    );
}

#[test]
fn load_takes_the_same_flags() {
    let dir = tempfile::tempdir().unwrap();
    let (server, key) = (psk_server(), secret(dir.path(), KEY));
    let target = server.target();
    let args = ["--psk-identity", "sensor-17", "--psk-key-file", &key];
    let output = run(&[&["load", &target, "--connections", "3"], &args[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let server = Server::echo();
    let target = server.target();
    let output = run(&[
        "load",
        &target,
        "--connections",
        "3",
        "--pin",
        &fingerprint(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_retransmission_timer_of_a_tenth_repeats_ten_times_as_often() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = silent.local_addr().unwrap().to_string();
    let timers = ["--retransmit-initial", "50ms", "--retransmit-max", "50ms"];
    let args = [
        "connect",
        &target,
        "--insecure",
        "--handshake-timeout",
        "400ms",
    ];
    let output = run(&[&args[..], &timers[..]].concat());
    assert_refused(&output, 1, &["not one datagram came back"]);
    silent.set_nonblocking(true).unwrap();
    let hellos = std::iter::from_fn(|| silent.recv(&mut [0; 2000]).ok()).count();
    // 1 and up to 7 repetitions; with the default timer there is only the first.
    assert!((4..=8).contains(&hellos), "{hellos}");
}

mod peers {
    //! Other implementations with a pre-shared key.

    use super::*;
    use common::peers::{gnutls_serv, s_server};

    #[test]
    fn openssl_s_server_has_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let key = secret(dir.path(), KEY);
        let (mut server, target) = s_server(|command| {
            command.args(["-nocert", "-psk", KEY, "-psk_identity", "sensor-17"]);
        });
        let args = ["--psk-identity", "sensor-17", "--psk-key-file", &key];
        let mut client = Process::client(&[&["connect", &target], &args[..]].concat());
        client.wait_err(|line| line.contains("pre-shared key \"sensor-17\""));
        client.write_line("over a key");
        assert!(server.says("over a key"));
        assert_eq!(client.finish().status.code(), Some(0));
    }

    #[test]
    fn gnutls_serv_has_the_same_key_and_echoes() {
        let dir = tempfile::tempdir().unwrap();
        let key = secret(dir.path(), KEY);
        let passwords = dir.path().join("passwords");
        std::fs::write(&passwords, format!("sensor-17:{KEY}\n")).unwrap();
        let (_server, target) = gnutls_serv(|command| {
            command.arg("--pskpasswd").arg(&passwords);
            command.args(["--priority", "NORMAL:-KX-ALL:+ECDHE-PSK:+PSK"]);
        });
        let args = ["--psk-identity", "sensor-17", "--psk-key-file", &key];
        let mut client = Process::client(&[&["connect", &target], &args[..]].concat());
        client.write_line("over a key");
        client.wait_out(|line| line == "over a key");
        let output = client.finish();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}
