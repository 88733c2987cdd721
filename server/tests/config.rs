//! The configuration file, through the real program: what it starts, what `--check` says of it, and
//! how a wrong one is refused.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use common::{Finished, Pki, Program, assert_echo, command, receive};
use dtls::{ClientConfig, DtlsConnector, DtlsStream, PskKey};
use dtls_certs::Profile;
use nix::sys::signal::Signal;
use serde_json::Value;

const KEY: &str = "6f1ed002ab5595859014ebf0951522d9";

/// A PKI's folder with a server's pair, keys, and this configuration.
fn folder(text: &str) -> Pki {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    pki.files(Profile::CLIENT);
    pki.files(Profile::SERVER_WRONG_NAME);
    fs::write(pki.path("keys"), format!("a:{KEY}\n")).unwrap();
    fs::set_permissions(pki.path("keys"), private()).unwrap();
    fs::write(pki.path("server.toml"), text).unwrap();
    pki
}

#[track_caller]
fn run(pki: &Pki, arguments: &[&str]) -> Finished {
    let config = pki.path("server.toml");
    let all = [&["--config", &config], arguments].concat();
    Program::start(command(all)).unwrap().finish()
}

/// What `--check --format json` says of each listener.
#[track_caller]
fn checked(pki: &Pki, arguments: &[&str]) -> Vec<Value> {
    let all = [&["--check", "--format", "json"], arguments].concat();
    let finished = run(pki, &all);
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    report["listeners"].as_array().unwrap().clone()
}

/// A setting's value, and who said so.
fn setting<'a>(listener: &'a Value, key: &str) -> (&'a Value, &'a str) {
    let settings = listener["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["key"] == key);
    let setting = setting.unwrap_or_else(|| panic!("no {key} in {listener}"));
    (&setting["value"], setting["from"].as_str().unwrap())
}

#[track_caller]
fn connect(pki: &Pki, address: SocketAddr) -> DtlsStream {
    DtlsConnector::new(pki.client().build().unwrap())
        .connect("localhost", address)
        .unwrap()
}

#[test]
fn each_listener_of_a_file_has_its_own_service_and_certificate() {
    let pki = folder(
        "drain-timeout = \"3s\"\n\
         [[listener]]\n\
         listen = \"127.0.0.1:0\"\ncert = \"server.pem\"\nkey = \"server.key\"\n\
         [[listener]]\n\
         listen = \"127.0.0.1:0\"\nservice = \"discard\"\npsk-file = \"keys\"\n\
         [[listener.sni]]\nname = \"wrong-name.invalid\"\n\
         cert = \"server-wrong-name.pem\"\nkey = \"server-wrong-name.key\"\n\
         [[listener]]\n\
         listen = \"127.0.0.1:0\"\nservice = \"chargen\"\ncert = \"server.pem\"\nkey = \"server.key\"\n\
         sni = [{ name = \"wrong-name.invalid\", cert = \"server-wrong-name.pem\", key = \"server-wrong-name.key\" }]\n",
    );
    // The second one lacks the certificate of those who ask for no name.
    let finished = run(&pki, &[]);
    assert_eq!(finished.status.code(), Some(2), "{finished:#?}");
    assert!(finished.stderr.contains("server.toml:10:"), "{finished:#?}");

    let text = fs::read_to_string(pki.path("server.toml")).unwrap();
    let text: Vec<&str> = text.lines().collect();
    let text = [&text[..9], &text[13..]].concat().join("\n");
    fs::write(pki.path("server.toml"), text).unwrap();

    let config = pki.path("server.toml");
    let mut program = Program::start(command(["--config", &config, "--format", "json"])).unwrap();
    let addresses: Vec<SocketAddr> = (0..3)
        .map(|_| {
            let line = program.wait_for("listening on ");
            line.split(' ').nth(2).unwrap().parse().unwrap()
        })
        .collect();
    let mut echo = connect(&pki, addresses[0]);
    assert_echo(&mut echo, b"hello");
    let psk = ClientConfig::psk_builder("a", PskKey::from_hex(KEY).unwrap());
    let mut discard = DtlsConnector::new(psk.build().unwrap())
        .connect("localhost", addresses[1])
        .unwrap();
    discard.send(b"into the void").unwrap();
    let mut chargen = DtlsConnector::new(pki.client().build().unwrap())
        .connect("wrong-name.invalid", addresses[2])
        .unwrap();
    chargen.send(b"more").unwrap();
    assert!(receive(&mut chargen).is_some());

    program.signal(Signal::SIGTERM);
    let finished = program.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert_eq!(finished.counter("handshakes_completed"), 3);
    for stream in [&mut echo, &mut discard, &mut chargen] {
        assert_eq!(receive(stream), None, "close_notify from each listener");
    }
}

#[test]
fn a_flag_wins_over_the_file_in_every_listener() {
    let pki = folder(
        "[[listener]]\nlisten = \"127.0.0.1:1\"\nidle-timeout = \"1m\"\nlink-mtu = 1300\n\
         [[listener]]\nlisten = \"127.0.0.1:2\"\nidle-timeout = \"2m\"\n",
    );
    let listeners = checked(&pki, &["--idle-timeout", "none"]);
    assert_eq!(listeners.len(), 2);
    for listener in &listeners {
        assert_eq!(setting(listener, "idle-timeout"), (&"none".into(), "flag"));
    }
    let (mtu, from) = setting(&listeners[0], "link-mtu");
    assert_eq!(*mtu, 1300);
    assert!(from.ends_with("server.toml:4:1"), "{from}");
    assert_eq!(
        setting(&listeners[1], "link-mtu"),
        (&1400.into(), "default")
    );
}

#[test]
fn an_explicit_key_wins_over_a_preset() {
    let pki = folder(
        "[[listener]]\npreset = \"coaps\"\npsk-file = \"keys\"\nidle-timeout = \"1h\"\n\
         [[listener]]\npreset = \"syslog\"\ncert = \"server.pem\"\nkey = \"server.key\"\n\
         client-ca = \"ca.pem\"\nlisten = \"127.0.0.1\"\n\
         [[listener]]\npreset = \"radius\"\ncert = \"server.pem\"\nkey = \"server.key\"\n\
         client-ca = \"ca.pem\"\n",
    );
    let listeners = checked(&pki, &[]);
    let [coaps, syslog, radius] = &listeners[..] else {
        panic!("{listeners:?}");
    };
    assert_eq!(coaps["listen"], "[::]:5684");
    assert_eq!(coaps["pre_shared_keys"], 1);
    assert_eq!(setting(coaps, "suites"), (&"iot".into(), "preset coaps"));
    assert_eq!(setting(coaps, "idle-timeout").0, "1h");
    assert_eq!(setting(coaps, "client-auth").0, "off");
    assert_eq!(syslog["listen"], "127.0.0.1:6514");
    assert_eq!(
        setting(syslog, "client-auth"),
        (&"required".into(), "preset syslog")
    );
    assert_eq!(setting(syslog, "idle-counts").0, "to-server");
    assert_eq!(setting(syslog, "syslog-frames").0, "split");
    assert_eq!(radius["listen"], "[::]:2083");
    assert_eq!(setting(radius, "client-auth").0, "required");
    assert_eq!(setting(radius, "suites").0, "recommended");
}

#[test]
fn check_says_for_people_what_would_be_started_and_binds_nothing() {
    let pki = folder("");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let keylog = pki.path("keylog");
    let arguments = ["--listen", &address, "--check", "--backend", "127.0.0.1:9"];
    let finished = run(&pki, &[&arguments[..], &["--keylog", &keylog]].concat());
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert_eq!(finished.stderr, "");
    for words in [
        &format!("listener {address}\n"),
        "service             forward",
        "idle-timeout        1m",
        "throw-away certificate",
    ] {
        assert!(finished.stdout.contains(words), "{words}: {finished:#?}");
    }
    assert!(!fs::exists(keylog).unwrap(), "nothing is made");
    drop(taken);
}

#[test]
fn a_wrong_file_is_refused_with_line_key_and_remedy() {
    let pair = "cert = \"server.pem\"\nkey = \"server.key\"\n";
    for (text, place, words) in [
        ("[[listener]]\n", ":1:1: ", ["listen", "[::]:4433"]),
        (
            "[[listener]]\nlisten = \"::1\"\n",
            ":2:1: ",
            ["lacks a port", "[::1]:4433"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\n[[listener]]\nlisten = \"127.0.0.1:1\"\n",
            ":4:1: ",
            ["in the way of", "[::]:1"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\ncert = \"missing.pem\"\nkey = \"server.key\"\n",
            ":3:1: ",
            ["missing.pem", "No such file"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\ncert = \"server.pem\"\nkey = \"client.key\"\n",
            ":4:1: ",
            ["client.key", "does not belong"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\ncert = \"server.pem\"\n",
            ":3:1: ",
            ["server.pem", "private key"],
        ),
        (
            &format!("[[listener]]\npreset = \"syslog\"\n{pair}"),
            ":1:1: ",
            ["client-auth", "client-ca"],
        ),
        (
            "[[listener]]\npreset = \"coaps\"\n",
            ":2:1: ",
            ["throw-away", "--psk-file"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\nlink-mtu = 100\n",
            ":3:1: ",
            ["100", "304"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\nhandshake-timeout = \"2h\"\n",
            ":3:1: ",
            ["handshake timeout", "1 h"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\nservice = \"forward\"\n",
            ":3:1: ",
            ["forward", "--backend"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\nservice = \"echo\"\nbackend = \"127.0.0.1:1\"\n",
            ":4:1: ",
            ["backend", "forward"],
        ),
        (
            "keylog = \"missing/keys\"\n[[listener]]\nlisten = \"[::]:1\"\n",
            ":1:1: ",
            ["missing/keys", "No such file"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\nclient-crl = \"ca.pem\"\n",
            ":3:1: ",
            ["revocation lists", "--client-ca"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\npsk-file = \"server.pem\"\n",
            ":3:1: ",
            ["server.pem:1", "IDENTITY:KEY"],
        ),
        (
            "[[listener]]\nlisten = \"[::]:1\"\nclient-cert = \"x\"\n",
            ":3:1: ",
            ["unknown key", "valid here"],
        ),
    ] {
        let pki = folder(text);
        for arguments in [&["--check"][..], &[]] {
            let finished = run(&pki, arguments);
            assert_eq!(finished.status.code(), Some(2), "{text}{finished:#?}");
            assert_eq!(finished.stdout, "");
            assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
            for word in [&format!("server.toml{place}"), words[0], words[1]] {
                assert!(
                    finished.stderr.contains(word),
                    "{word:?}: {text}{finished:#?}"
                );
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_and_one_address_for_many_are_refused() {
    let pki = folder("[[listener]]\nlisten = \"[::]:1\"\n[[listener]]\nlisten = \"[::]:2\"\n");
    let finished = run(&pki, &["--listen", "[::]:3"]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("--listen: "), "{finished:#?}");
    assert!(finished.stderr.contains("2 listeners"), "{finished:#?}");

    let missing = pki.path("missing.toml");
    let finished = Program::start(command(["--config", &missing]))
        .unwrap()
        .finish();
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("--config: "), "{finished:#?}");
    assert!(finished.stderr.contains(&missing), "{finished:#?}");
}

fn private() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;

    fs::Permissions::from_mode(0o600)
}
