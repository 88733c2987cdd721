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
        "drain-timeout  5s\n",
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

/// Files that are wrong; where, and words of what is wrong and of what to do. The place is that of
/// the key, or of the listener that lacks one.
#[rustfmt::skip]
const WRONG: &[(&str, &str, [&str; 2])] = &[
    // No TOML.
    ("[[listener]\n", ":1:12: ", ["unclosed array table", "expected `]`"]),
    ("[listener]\n", ":1:1: ", ["invalid type", "[[listener]]"]),
    ("[[listener]]\nlisten = [::]:1\n", ":2:14: ", ["unexpected key or value", "quotation marks"]),
    ("[[listener]]\ncert = \"a\"\ncert = \"b\"\n", ":3:1: ", ["duplicate key", "leave one"]),
    // Keys that there are not.
    ("drain = \"1s\"\n", ":1:1: ", ["unknown key", "did you mean `drain-timeout`"]),
    ("listen = \"[::]:1\"\n", ":1:1: ", ["unknown key `listen`", "`listener`"]),
    ("[[listeners]]\n", ":1:3: ", ["unknown key", "did you mean `listener`"]),
    ("[[listener]]\ncerts = \"a\"\n", ":2:1: ", ["unknown key", "did you mean `cert`"]),
    ("[[listener]]\nLISTEN client-cert = \"x\"\n", ":3:1: ", ["unknown key", "valid here"]),
    ("[[listener]]\nLISTEN sni = [{ name = \"a\", certificate = \"b\", key = \"c\" }]\n", ":3:", ["unknown key `certificate`", "valid here: name, cert, key"]),
    // Values of the wrong kind.
    ("[[listener]]\nlisten = 4433\n", ":2:10: ", ["integer", "in quotation marks"]),
    ("[[listener]]\nLISTEN idle-timeout = 60\n", ":3:16: ", ["integer", "in quotation marks"]),
    ("[[listener]]\nLISTEN heartbeat = \"yes\"\n", ":3:13: ", ["yes", "true or false"]),
    ("[[listener]]\nLISTEN alpn = \"coap\"\n", ":3:8: ", ["coap", "a list in brackets"]),
    ("[[listener]]\nLISTEN max-connections = 0\n", ":3:19: ", ["`0`", "1 or more"]),
    ("[[listener]]\nLISTEN hello-rate = -1\n", ":3:14: ", ["`-1`", "1 or more"]),
    ("[[listener]]\nLISTEN link-mtu = 70000\n", ":3:12: ", ["70000", "up to 65535"]),
    ("[[listener]]\nLISTEN sni = [{ name = \"a\", cert = \"b\" }]\n", ":3:8: ", ["`key` is missing", "add it"]),
    // Values that mean nothing.
    ("[[listener]]\nlisten = \"here\"\n", ":2:10: ", ["give an IP address and a port", "[::]:4433"]),
    ("metrics = \"9464\"\n[[listener]]\n", ":1:11: ", ["give an IP address and a TCP port", "127.0.0.1:9464"]),
    ("drain-timeout = \"soon\"\n[[listener]]\n", ":1:17: ", ["expected number", "500ms, 90s or 5m"]),
    ("[[listener]]\nLISTEN idle-timeout = \"soon\"\n", ":3:16: ", ["expected number", "`none`"]),
    ("[[listener]]\nLISTEN preset = \"coap\"\n", ":3:10: ", ["`coap`", "did you mean `coaps`"]),
    ("[[listener]]\nLISTEN suites = \"iots\"\n", ":3:10: ", ["`iots`", "did you mean `iot`"]),
    ("[[listener]]\nLISTEN transport = \"tcp\"\n", ":3:13: ", ["`tcp`", "valid here: connected, shared"]),
    ("[[listener]]\nLISTEN client-pin = [\"ab\"]\n", ":3:14: ", ["ab", "64 hexadecimal digits"]),
    ("[[listener]]\nLISTEN allow = [\"somebody\"]\n", ":3:9: ", ["somebody", "psk:IDENTITY"]),
    ("user = \"no-such-user\"\n[[listener]]\nLISTEN", ":1:1: ", ["no such user", "useradd"]),
    ("user = \"root\"\n[[listener]]\nLISTEN", ":1:1: ", ["gives nothing up", "name a user"]),
    ("keylog = \"missing/keys\"\n[[listener]]\nLISTEN", ":1:1: ", ["missing/keys", "choose another file"]),
    // Where to listen.
    ("[[listener]]\n", ":1:1: ", ["listen: ", "[::]:4433"]),
    ("[[listener]]\nlisten = \"::1\"\n", ":2:1: ", ["lacks a port", "[::1]:4433"]),
    ("[[listener]]\nLISTEN[[listener]]\nlisten = \"127.0.0.1:1\"\n", ":4:1: ", ["in the way of", "a port of its own"]),
    // Who the server is.
    ("[[listener]]\nLISTEN cert = \"missing.pem\"\nkey = \"server.key\"\n", ":3:1: ", ["missing.pem", "give the certificate chain's PEM file"]),
    ("[[listener]]\nLISTEN cert = \"server.pem\"\nkey = \"server.pem\"\n", ":4:1: ", ["server.pem", "give the private key's PEM file"]),
    ("[[listener]]\nLISTEN cert = \"server.pem\"\nkey = \"client.key\"\n", ":4:1: ", ["does not belong", "issued together"]),
    ("[[listener]]\nLISTEN cert = \"server-expired.pem\"\nkey = \"server-expired.key\"\n", ":3:1: ", ["expired on", "renew it"]),
    ("[[listener]]\nLISTEN cert = \"server.pem\"\n", ":3:1: ", ["server.pem", "needs --key"]),
    ("[[listener]]\nLISTEN key = \"server.key\"\n", ":3:1: ", ["server.key", "needs --cert"]),
    ("[[listener]]\nLISTEN sni = [{ name = \"a\", cert = \"server.pem\", key = \"server.key\" }]\n", ":3:1: ", ["no certificate", "--cert and --key"]),
    ("[[listener]]\nLISTEN PAIR sni = [{ name = \"127.0.0.1\", cert = \"server.pem\", key = \"server.key\" }]\n", ":5:1: ", ["127.0.0.1", "a host name"]),
    ("[[listener]]\npreset = \"coaps\"\n", ":2:1: ", ["throw-away", "--psk-file"]),
    ("[[listener]]\nLISTEN psk-hint = \"x\"\n", ":3:1: ", ["pre-shared keys", "add --psk-file"]),
    ("[[listener]]\nLISTEN psk-file = \"server.pem\"\n", ":3:1: ", ["server.pem:1: ", "IDENTITY:KEY"]),
    ("[[listener]]\nLISTEN shared-keys = \"server.pem\"\n", ":3:1: ", ["server.pem:1: ", "openssl rand -hex 32"]),
    // Who the clients are.
    ("[[listener]]\npreset = \"syslog\"\nPAIR", ":1:1: ", ["client-auth", "--client-ca"]),
    ("[[listener]]\nLISTEN client-auth = \"off\"\nclient-ca = \"ca.pem\"\n", ":4:1: ", ["no effect", "leave one of them out"]),
    ("[[listener]]\nLISTEN client-ca = \"server.key\"\n", ":3:1: ", ["server.key", "authorities' certificates in PEM form"]),
    ("[[listener]]\nLISTEN client-crl = \"ca.pem\"\n", ":3:1: ", ["revocation lists", "add --client-ca"]),
    ("[[listener]]\nLISTEN client-ca = \"ca.pem\"\nclient-crl = \"ca.pem\"\n", ":4:1: ", ["ca.pem", "revocation lists in PEM form"]),
    ("[[listener]]\nLISTEN allow = [\"san:a\"]\n", ":3:1: ", ["prove who they are", "add --client-ca"]),
    ("[[listener]]\nLISTEN client-ca = \"ca.pem\"\nallow-file = \"server.pem\"\n", ":4:1: ", ["server.pem:1: ", "psk:IDENTITY"]),
    // What is behind it, and how.
    ("[[listener]]\nLISTEN service = \"forward\"\n", ":3:1: ", ["forward needs", "--backend HOST:PORT"]),
    ("[[listener]]\nLISTEN service = \"echo\"\nbackend = \"127.0.0.1:1\"\n", ":4:1: ", ["no effect", "--service forward"]),
    ("[[listener]]\nLISTEN backend = \"127.0.0.1\"\n", ":3:1: ", ["cannot look up 127.0.0.1", "give HOST:PORT"]),
    ("[[listener]]\nLISTEN sni-backend = [{ name = \"a\", backend = \"127.0.0.1:1\" }]\n", ":3:1: ", ["no effect", "--service forward"]),
    ("[[listener]]\nLISTEN link-mtu = 100\n", ":3:1: ", ["100", "304"]),
    ("[[listener]]\nLISTEN handshake-timeout = \"2h\"\n", ":3:1: ", ["handshake timeout", "1 h"]),
    ("[[listener]]\nLISTEN retransmit-initial = \"1ms\"\n", ":3:1: ", ["retransmission timer", "20 ms"]),
];

#[test]
fn each_wrong_file_is_refused_with_line_key_and_remedy() {
    assert!(WRONG.len() >= 40);
    let pki = folder("");
    pki.files(Profile::SERVER_EXPIRED);
    let mut failures = Vec::new();
    for (text, place, words) in WRONG {
        let text = text.replace("LISTEN ", "LISTEN").replace("PAIR ", "PAIR");
        let text = text.replace("LISTEN", "listen = \"[::]:1\"\n");
        let text = text.replace("PAIR", "cert = \"server.pem\"\nkey = \"server.key\"\n");
        fs::write(pki.path("server.toml"), &text).unwrap();
        for arguments in [&["--check"][..], &[]] {
            let finished = run(&pki, arguments);
            let said = &finished.stderr;
            let good = finished.status.code() == Some(2)
                && finished.stdout.is_empty()
                && said.lines().count() == 1
                && said.contains(&format!("server.toml{place}"))
                && words.iter().all(|word| said.contains(word));
            if !good {
                failures.push(format!("{text}expected {place}{words:?}\n{finished:#?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_limit_that_the_system_cannot_honour_is_told_with_its_place_and_exit_code_3() {
    let pki = folder("[[listener]]\nlisten = \"[::]:1\"\nmax-connections = 100000000\n");
    for arguments in [&["--check"][..], &[]] {
        let finished = run(&pki, arguments);
        assert_eq!(finished.status.code(), Some(3), "{finished:#?}");
        for word in ["server.toml:3:1: ", "100000000", "raise it", "at most"] {
            assert!(finished.stderr.contains(word), "{word}: {finished:#?}");
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
