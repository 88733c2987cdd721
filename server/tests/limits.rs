//! Who is let in, how many, and for how long.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use common::{Pki, assert_echo, receive, wait_until};
use dtls::{ConnectError, DtlsConnector, HandshakeError};
use dtls_certs::Profile;

#[test]
fn a_client_without_the_required_certificate_is_refused() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    // RSA: the handshake that needs the most of a worker's small stack.
    let server = pki.serve_as(Profile::SERVER_RSA, &["--client-ca", &ca]);
    let anonymous = DtlsConnector::new(pki.client().build().unwrap());
    let refused = anonymous.connect("localhost", server.address);
    assert!(
        matches!(
            refused,
            Err(ConnectError::Handshake(HandshakeError::Alert { .. }))
        ),
        "{refused:?}"
    );
    for profile in [Profile::CLIENT, Profile::SERVER_RSA] {
        let config = pki.client().identity(pki.identity(profile));
        let outcome =
            DtlsConnector::new(config.build().unwrap()).connect("localhost", server.address);
        // An RSA certificate, but for servers only.
        assert_eq!(outcome.is_ok(), profile == Profile::CLIENT, "{outcome:?}");
        if let Ok(mut stream) = outcome {
            assert_echo(&mut stream, b"with a certificate");
        }
    }
    let finished = server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("handshakes_completed"), 1);
    assert_eq!(finished.counter("handshakes_failed"), 2);
}

#[test]
fn the_newest_client_is_refused_at_the_limit_and_served_once_another_leaves() {
    let pki = Pki::new();
    let server = pki.serve(&["--max-connections", "2"]);
    let mut first = server.connect(pki.client());
    let mut second = server.connect(pki.client());
    let impatient = pki.client().handshake_timeout(Duration::from_millis(1500));
    let refused =
        DtlsConnector::new(impatient.build().unwrap()).connect("localhost", server.address);
    assert!(
        matches!(
            refused,
            Err(ConnectError::Handshake(HandshakeError::TimedOut { .. }))
        ),
        "{refused:?}"
    );
    assert_echo(&mut first, b"still here");
    assert_echo(&mut second, b"still here");
    drop(first);
    let mut third = server.connect(pki.client());
    assert_echo(&mut third, b"in its place");
    assert_echo(&mut second, b"still here");
    let finished = server.finish();
    finished.assert_success();
    // A hello and its repetition, and perhaps the third client's while the first was leaving.
    assert!(finished.counter("hellos_refused") >= 2, "{finished:#?}");
    assert_eq!(finished.counter("connections_accepted"), 3);
}

#[test]
fn a_source_is_refused_at_its_own_limits_over_either_transport() {
    let pki = Pki::new();
    for transport in ["connected", "shared"] {
        for (limit, counter) in [
            ("--max-per-prefix", "hellos_over_prefix"),
            ("--hello-rate", "hellos_over_rate"),
        ] {
            let server = pki.serve(&[limit, "1", "--transport", transport]);
            let mut first = server.connect(pki.client());
            let impatient = pki.client().handshake_timeout(Duration::from_millis(300));
            let impatient = DtlsConnector::new(impatient.build().unwrap());
            let refused = impatient.connect("localhost", server.address);
            assert!(refused.is_err(), "{limit} {transport}");
            assert_echo(&mut first, b"not concerned");
            let finished = server.finish();
            assert_eq!(finished.counter(counter), 1, "{limit} {transport}");
        }
    }
}

#[test]
fn workers_are_used_again_for_later_connections() {
    let pki = Pki::new();
    let server = pki.serve(&[]);
    for n in 0..50_u8 {
        let mut stream = server.connect(pki.client());
        assert_echo(&mut stream, &[n]);
    }
    // A client may return before its worker has noticed that it left.
    assert!(server.threads().len() < 25, "{:?}", server.threads());
    server.finish().assert_success();
}

#[test]
fn threads_and_descriptors_are_given_back_when_the_clients_have_left() {
    for (transport, own) in [("connected", None), ("shared", Some("receiver"))] {
        let quiet: Vec<_> = ["ctrl-c", "dtls-server", "listener"]
            .into_iter()
            .chain(own)
            .chain(["reload"])
            .collect();
        give_back(transport, &quiet);
    }
}

/// `quiet` are the threads of a server without connections.
fn give_back(transport: &str, quiet: &[&str]) {
    let pki = Pki::new();
    let server = pki.serve(&["--transport", transport]);
    // A thread gives itself its name.
    let wait_until_quiet = || {
        wait_until("threads", || server.threads(), |names| names == quiet);
    };
    wait_until_quiet();
    let before = server.descriptors();
    for _ in 0..2 {
        let connector = DtlsConnector::new(pki.client().build().unwrap());
        let streams: Vec<_> = (0..100)
            .map(|_| connector.connect("localhost", server.address).unwrap())
            .collect();
        assert!(server.threads().len() >= 100 + 3, "a thread each");
        assert!(server.descriptors() >= 100, "a descriptor each");
        drop(streams);
        wait_until("descriptors", || server.descriptors(), |&n| n == before);
    }
    wait_until_quiet();
    server.finish().assert_success();
}

#[test]
fn a_silent_client_is_closed_after_the_idle_timeout() {
    let pki = Pki::new();
    let server = pki.serve(&["--idle-timeout", "300ms"]);
    let mut stream = server.connect(pki.client());
    assert_echo(&mut stream, b"then silence");
    assert_eq!(receive(&mut stream), None);
    let finished = server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("idle_timeouts"), 1);
}

#[test]
fn the_key_log_is_for_its_owner_alone_and_is_appended_to() {
    let pki = Pki::new();
    let log = pki.path("keys");
    let mut lengths = Vec::new();
    for _ in 0..2 {
        let server = pki.serve(&["--keylog", &log]);
        assert_echo(&mut server.connect(pki.client()), b"logged");
        server.finish().assert_success();
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.lines().all(|line| line.starts_with("CLIENT_RANDOM ")));
        lengths.push(text.lines().count());
    }
    assert_eq!(lengths, [1, 2]);
    let mode = fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
