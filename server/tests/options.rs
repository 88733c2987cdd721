//! What the flags of a listener do, seen by a client.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{PATIENCE, Pki, Program, Server, assert_echo, command};
use dtls::{ClientConfig, ClientConfigBuilder, DtlsConnector, HandshakeInfo, Liveness, PskKey};
use dtls_certs::{Profile, Role};

const KEY: &str = "6f1ed002ab5595859014ebf0951522d9";

/// Connects, sees its data come back, and tells what was agreed on.
#[track_caller]
fn connected(server: &Server, client: ClientConfigBuilder) -> HandshakeInfo {
    let mut stream = server.connect(client);
    assert_echo(&mut stream, b"hello");
    stream.info()
}

/// Whether the server lets the client in: in DTLS 1.2 the client learns it in its handshake.
fn admits(server: &Server, client: ClientConfigBuilder) -> bool {
    let client = client.handshake_timeout(Duration::from_secs(3));
    DtlsConnector::new(client.build().unwrap())
        .connect("localhost", server.address)
        .is_ok()
}

/// A file of pre-shared keys that nobody else can read.
fn psk_file(pki: &Pki, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;

    let path = pki.path("keys");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn psk_client(identity: &str) -> ClientConfigBuilder {
    ClientConfig::psk_builder(identity, PskKey::from_hex(KEY).unwrap())
}

#[test]
fn pre_shared_keys_alone_need_no_certificate() {
    let pki = Pki::new();
    let keys = psk_file(&pki, &format!("# one\nsensor:17:{KEY}\n"));
    let listen = ["--listen", "127.0.0.1:0", "--format", "json"];
    let server = Server::start(&[&listen[..], &["--psk-file", &keys]].concat());
    let info = connected(&server, psk_client("sensor:17"));
    assert!(info.verified);
    assert!(info.cipher.contains("PSK"), "{info:?}");
    assert!(!admits(&server, psk_client("sensor:18")));
    assert!(!admits(&server, pki.client()));
    let finished = server.finish();
    finished.assert_success();
    assert!(
        finished.stderr.contains("1 pre-shared keys"),
        "{finished:#?}"
    );
}

#[test]
fn a_pre_shared_key_stands_for_a_required_certificate() {
    let pki = Pki::new();
    let keys = psk_file(&pki, &format!("a:{KEY}\n"));
    let ca = pki.path("ca.pem");
    let server = pki.serve(&["--psk-file", &keys, "--client-ca", &ca]);
    connected(&server, psk_client("a"));
    connected(
        &server,
        pki.client().identity(pki.identity(Profile::CLIENT)),
    );
    assert!(!admits(&server, pki.client()));
}

#[test]
fn files_with_secrets_that_others_can_read_are_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;

    let pki = Pki::new();
    let keys = psk_file(&pki, &format!("a:{KEY}\n"));
    let shared = pki.private("shared-keys", &format!("1:{:064}\n", 7));
    let log = pki.private("keylog", "");
    let (cert, key) = pki.files(Profile::SERVER);
    let (named_cert, named_key) = pki.files(Profile::SERVER_WRONG_NAME);
    let sni = format!("wrong-name.invalid={named_cert},{named_key}");
    let arguments = [
        &[
            "--check",
            "--listen",
            "127.0.0.1:0",
            "--cert",
            &cert,
            "--key",
            &key,
            "--keylog",
            &log,
        ][..],
        &["--psk-file", &keys, "--shared-keys", &shared, "--sni", &sni],
    ]
    .concat();
    let checked = || {
        let finished = Program::start(command(&arguments)).unwrap().finish();
        assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
        finished.stderr
    };
    assert_eq!(checked(), "", "nobody else can read them");
    for (file, harm) in [
        (&keys, "pass for each client"),
        (&shared, "read resumed connections"),
        (&key, "pass for this server"),
        (&named_key, "pass for this server"),
        (&log, "read connections"),
    ] {
        for (mode, readers) in [(0o640, "its whole group"), (0o604, "everybody")] {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
            let warning = checked();
            assert_eq!(warning.lines().count(), 1, "{warning}");
            for word in [readers, harm, &format!("chmod 600 {file}")] {
                assert!(warning.contains(word), "{word}: {warning}");
            }
        }
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn an_optional_certificate_may_be_missing_but_not_bad() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    let server = pki.serve(&["--client-ca", &ca, "--client-auth", "optional"]);
    connected(&server, pki.client());
    connected(
        &server,
        pki.client().identity(pki.identity(Profile::CLIENT)),
    );
    let stranger = Pki::new().identity(Profile::CLIENT);
    assert!(!admits(&server, pki.client().identity(stranger)));
}

#[test]
fn a_pinned_client_needs_no_authority_and_others_are_refused() {
    let pki = Pki::new();
    let friend = Pki::new().identity(Profile::CLIENT);
    let pin = friend.fingerprint().unwrap();
    let server = pki.serve(&["--client-pin", &pin]);
    connected(&server, pki.client().identity(friend.clone()));
    let other = pki.identity(Profile::CLIENT);
    assert!(!admits(&server, pki.client().identity(other.clone())));
    assert!(!admits(&server, pki.client()));

    let ca = pki.path("ca.pem");
    let server = pki.serve(&["--client-pin", &pin, "--client-ca", &ca]);
    connected(&server, pki.client().identity(friend));
    connected(&server, pki.client().identity(other));
}

#[test]
fn a_revoked_client_is_refused() {
    let pki = Pki::new();
    let (ca, crl) = (pki.path("ca.pem"), pki.path("crl.pem"));
    fs::write(&crl, pki.pki.crl_pem().unwrap()).unwrap();
    let server = pki.serve(&["--client-ca", &ca, "--client-crl", &crl]);
    connected(
        &server,
        pki.client().identity(pki.identity(Profile::CLIENT)),
    );
    let revoked = pki.identity(Profile {
        name: "client-revoked",
        role: Role::Client,
        ..Profile::SERVER_REVOKED
    });
    assert!(!admits(&server, pki.client().identity(revoked)));
}

#[test]
fn of_good_certificates_only_those_on_the_allow_list_are_let_in() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    let friend = pki.identity(Profile::CLIENT);
    let pin = friend.fingerprint().unwrap();
    for entry in [&pin, "san:client.lab", "san:*.LAB"] {
        let server = pki.serve(&["--client-ca", &ca, "--allow", entry]);
        connected(&server, pki.client().identity(friend.clone()));
        assert!(!admits(&server, pki.client()), "{entry}");
        let stranger = Pki::new().identity(Profile::CLIENT);
        assert!(!admits(&server, pki.client().identity(stranger)), "{entry}");
        let finished = server.finish();
        assert_eq!(finished.counter("refused_certificate_not_allowed"), 0);
    }
    let list = pki.path("allowed");
    fs::write(&list, "# nobody here\nsan:other.lab\npsk:a\n").unwrap();
    let server = pki.serve(&["--client-ca", &ca, "--allow-file", &list]);
    assert!(!admits(&server, pki.client().identity(friend)));
    assert_eq!(
        server.finish().counter("refused_certificate_not_allowed"),
        1
    );
}

#[test]
fn of_known_identities_only_those_on_the_allow_list_are_let_in() {
    let pki = Pki::new();
    let keys = psk_file(&pki, &format!("a:{KEY}\nb:{KEY}\n"));
    let server = pki.serve(&["--psk-file", &keys, "--allow", "psk:a"]);
    connected(&server, psk_client("a"));
    assert!(!admits(&server, psk_client("b")));
    assert!(!admits(&server, psk_client("c")));
    // Who has no key at all is on no list.
    assert!(!admits(&server, pki.client()));
    assert!(!admits(
        &server,
        pki.client().identity(pki.identity(Profile::CLIENT))
    ));
    let finished = server.finish();
    assert_eq!(finished.counter("refused_psk_not_allowed"), 1);
    assert_eq!(finished.counter("refused_psk_unknown"), 1);
}

#[test]
fn the_name_a_client_asks_for_chooses_the_certificate() {
    let pki = Pki::new();
    let (cert, key) = pki.files(Profile::SERVER_WRONG_NAME);
    let sni = format!("wrong-name.invalid={cert},{key}");
    let server = pki.serve(&["--sni", &sni]);
    let config = pki.client().build().unwrap();
    for (name, subject_name) in [
        ("wrong-name.invalid", "wrong-name.invalid"),
        ("server.lab", "server.lab"),
    ] {
        let stream = DtlsConnector::new(config.clone())
            .connect(name, server.address)
            .unwrap();
        let names = &stream.info().peer_chain[0].names;
        assert!(names.iter().any(|name| name == subject_name), "{names:?}");
    }
}

#[test]
fn the_first_application_protocol_that_both_have_is_spoken() {
    let pki = Pki::new();
    let server = pki.serve(&["--alpn", "coap", "--alpn", "radius/1.1"]);
    let info = connected(&server, pki.client().alpn(["radius/1.1", "coap"]));
    assert_eq!(info.alpn.as_deref(), Some(&b"coap"[..]));
    assert!(!admits(&server, pki.client().alpn(["h2"])));
}

#[test]
fn ccm_suites_are_spoken_with_suites_iot_only() {
    let pki = Pki::new();
    let keys = psk_file(&pki, &format!("a:{KEY}\n"));
    for (suites, said) in [
        ("iot", "Ciphersuite: PSK-AES128-CCM8"),
        ("recommended", "handshake failure"),
    ] {
        let server = pki.serve(&["--psk-file", &keys, "--suites", suites]);
        let mut client = Command::new("openssl");
        client
            .args(["s_client", "-dtls1_2", "-brief", "-connect"])
            .arg(server.address.to_string())
            .args(["-psk_identity", "a", "-psk", KEY])
            .args(["-cipher", "PSK-AES128-CCM8:@SECLEVEL=0"])
            .env_remove("OPENSSL_CONF");
        let mut client = Program::start(client).expect("no openssl program; run: make deps");
        client.wait_for(said);
        client.finish();
    }
}

#[test]
fn heartbeats_are_answered_where_agreed_on() {
    let pki = Pki::new();
    for (flag, agreed) in [
        (&["--heartbeat"][..], true),
        (&["--heartbeat=false"], false),
        (&["--probe-when-idle", "5s"], true),
    ] {
        let server = pki.serve(flag);
        let mut stream = server.connect(pki.client().heartbeat(true));
        let answer = stream.probe(PATIENCE).unwrap();
        assert_eq!(matches!(answer, Liveness::Alive { .. }), agreed, "{flag:?}");
        assert_eq!(answer == Liveness::NotNegotiated, !agreed, "{flag:?}");
    }
}
