//! What the server says when it cannot start: one clear line that names the thing and the remedy,
//! and an exit code that says whose fault it is.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::fs;
use std::process::Command;

use common::{Finished, Pki, Program, Server, command};
use dtls_certs::Profile;
use nix::unistd::geteuid;

/// Runs the server with arguments that must not start it.
#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) -> Finished {
    assert_refused(command(arguments), code, words)
}

#[track_caller]
fn assert_refused(command: Command, code: i32, words: &[&str]) -> Finished {
    let finished = Program::start(command).unwrap().finish();
    assert_eq!(finished.status.code(), Some(code), "{finished:#?}");
    assert_eq!(finished.stdout, "");
    for word in words {
        assert!(
            finished.stderr.contains(word),
            "no {word:?} in {finished:#?}"
        );
    }
    assert!(!finished.stderr.contains("panicked"), "{finished:#?}");
    finished
}

/// With a certificate and a key, on a free port.
#[track_caller]
fn refused_pair(certificate: &str, key: &str, words: &[&str]) {
    let listen = [
        "--listen",
        "127.0.0.1:0",
        "--cert",
        certificate,
        "--key",
        key,
    ];
    let finished = refused(&listen, 2, words);
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
}

#[test]
fn a_certificate_or_key_that_cannot_be_used_is_named() {
    let pki = Pki::new();
    let (certificate, key) = pki.files(Profile::SERVER);
    let missing = pki.path("missing.pem");
    let garbage = pki.path("garbage.pem");
    fs::write(&garbage, "no certificate").unwrap();
    refused_pair(&missing, &key, &[&missing, "No such file", "--cert"]);
    refused_pair(&certificate, &missing, &[&missing, "No such file", "--key"]);
    refused_pair(&garbage, &key, &[&garbage, "no certificate", "--cert"]);
    refused_pair(
        &certificate,
        &garbage,
        &[&garbage, "no private key", "--key"],
    );
    // Swapped by mistake.
    refused_pair(&key, &certificate, &[&key, "no certificate"]);
    // A file, but not one that can be read.
    let folder = pki.path("");
    refused_pair(&folder, &key, &[&folder, "directory"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let pki = Pki::new();
    let (certificate, key) = pki.files(Profile::SERVER);
    let (_, other) = pki.files(Profile::CLIENT);
    refused_pair(
        &certificate,
        &other,
        &[&certificate, &other, "does not belong"],
    );
    assert_ne!(key, other);
}

#[test]
fn a_certificate_that_is_not_valid_now_is_refused() {
    let pki = Pki::new();
    for (profile, problem) in [
        (Profile::SERVER_EXPIRED, "expired on"),
        (Profile::SERVER_NOT_YET_VALID, "not valid before"),
    ] {
        let (certificate, key) = pki.files(profile);
        refused_pair(&certificate, &key, &[&certificate, problem, "renew"]);
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_the_remedy() {
    let pki = Pki::new();
    let (cert, key) = pki.files(Profile::SERVER);
    let ca = pki.path("ca.pem");
    let pin = "ab".repeat(32);
    let sni = format!("a.example={cert},{key}");
    let address = format!("127.0.0.1={cert},{key}");
    for (arguments, words) in [
        (
            vec!["--client-ca", &ca, "--client-auth", "off"],
            ["--client-ca: ", "no effect", "leave one"],
        ),
        (
            vec!["--client-pin", &pin, "--client-auth", "off"],
            ["--client-pin: ", "no effect", "leave one"],
        ),
        (
            vec!["--client-auth", "required"],
            ["--client-auth: ", "--client-ca", "--client-pin"],
        ),
        (
            vec!["--client-auth", "optional"],
            ["--client-auth: ", "--client-ca", "--client-pin"],
        ),
        (
            vec!["--client-crl", "crl.pem"],
            ["--client-crl: ", "authorities", "--client-ca"],
        ),
        (
            vec!["--psk-hint", "x"],
            ["--psk-hint: ", "pre-shared keys", "--psk-file"],
        ),
        (vec!["--sni", &sni], ["--sni: ", "--cert", "--key"]),
        (
            vec!["--cert", &cert, "--key", &key, "--sni", &address],
            ["--sni: ", "127.0.0.1", "host name"],
        ),
        (
            vec!["--sni-backend", "a=127.0.0.1:1"],
            ["--sni-backend: ", "no effect", "forward"],
        ),
        (
            vec!["--backend", "127.0.0.1:1", "--sni-backend", "a=127.0.0.1"],
            ["--sni-backend: ", "127.0.0.1", "HOST:PORT"],
        ),
        (
            vec![
                "--backend",
                "127.0.0.1:1",
                "--sni-backend",
                "10.0.0.1=127.0.0.1:1",
            ],
            ["--sni-backend: ", "10.0.0.1", "host name"],
        ),
        (
            vec!["--client-ca", &ca, "--client-crl", &cert],
            ["--client-crl: ", &cert, "revocation list"],
        ),
        (
            vec!["--retransmit-initial", "5s", "--retransmit-max", "1s"],
            ["--retransmit-initial: ", "5s", "20 ms"],
        ),
        (
            vec!["--probe-when-idle", "0s"],
            ["--probe-when-idle: ", "probe", "more than 0"],
        ),
        (
            vec!["--allow", "san:a"],
            ["--allow: ", "--client-ca", "--psk-file"],
        ),
        (
            vec![
                "--client-ca",
                &ca,
                "--client-auth",
                "optional",
                "--allow",
                "san:a",
            ],
            ["--allow: ", "without proof", "--client-auth"],
        ),
        (
            vec!["--client-ca", &ca, "--allow-file", "missing"],
            ["--allow-file: ", "missing", "No such file"],
        ),
        (
            vec!["--client-ca", &ca, "--allow-file", &cert],
            ["--allow-file: ", ":1: ", "psk:IDENTITY"],
        ),
        (
            vec!["--shared-keys", &cert],
            ["--shared-keys: ", ":1: ", "openssl rand -hex 32"],
        ),
        (
            vec!["--alpn", ""],
            ["--alpn: ", "application protocol", "1 to 255"],
        ),
    ] {
        let listen = ["--listen", "127.0.0.1:0"];
        let finished = refused(&[&listen[..], &arguments].concat(), 2, &words);
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
    }
}

#[test]
fn a_wrong_line_among_pre_shared_keys_is_named_without_the_key() {
    let pki = Pki::new();
    let path = pki.path("keys");
    let key = "6f1ed002ab5595859014ebf0951522d9";
    for (text, words) in [
        (format!("a:{key}\nb:{key}0\n"), [":2: ", "hexadecimal"]),
        (format!("{key}\n"), [":1: ", "IDENTITY:KEY"]),
        (format!("a:{key}\na:{key}\n"), [":2: ", "line 1"]),
        ("# none\n".to_owned(), ["no pre-shared key", "IDENTITY:KEY"]),
    ] {
        fs::write(&path, text).unwrap();
        let arguments = ["--listen", "127.0.0.1:0", "--psk-file", &path];
        let finished = refused(&arguments, 2, &words);
        assert!(finished.stderr.contains("--psk-file: "), "{finished:#?}");
        assert!(finished.stderr.contains(&path), "{finished:#?}");
        assert!(!finished.stderr.contains(&key[..8]), "{finished:#?}");
    }
    let missing = pki.path("missing");
    let arguments = ["--listen", "127.0.0.1:0", "--psk-file", &missing];
    refused(&arguments, 2, &["--psk-file: ", &missing, "No such file"]);
}

#[test]
fn a_certificate_without_its_key_and_the_other_way_round_is_refused() {
    for (given, wanted) in [("--cert", "--key"), ("--key", "--cert")] {
        let listen = ["--listen", "127.0.0.1:0", given, "server.pem"];
        let words = [given, wanted, "server.pem", "throw-away"];
        let finished = refused(&listen, 2, &words);
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
    }
}

#[test]
fn client_authorities_that_cannot_be_read_are_named() {
    let listen = ["--listen", "127.0.0.1:0", "--client-ca", "missing.pem"];
    let finished = refused(&listen, 2, &["--client-ca", "missing.pem", "No such file"]);
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
}

#[test]
fn a_key_log_that_cannot_be_written_is_named() {
    let pki = Pki::new();
    let log = pki.path("missing/keys");
    let listen = ["--listen", "127.0.0.1:0", "--keylog", &log];
    let finished = refused(&listen, 2, &["--keylog", &log, "No such file"]);
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
}

#[test]
fn a_port_in_use_is_named_with_the_remedy_and_exit_code_3() {
    for sharing in ["reuseport", "reuseaddr"] {
        let shared = ["--listen", "127.0.0.1:0", "--port-sharing", sharing];
        let first = Server::start(&shared);
        let address = first.address.to_string();
        let second = ["--listen", &address, "--port-sharing", sharing];
        let finished = refused(&second, 3, &[&address, "in use", "another port"]);
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
    }
}

#[test]
fn an_address_of_another_host_is_named() {
    // TEST-NET-1, RFC 5737.
    let words = ["192.0.2.1:4433", "no interface of this host"];
    refused(&["--listen", "192.0.2.1:4433"], 3, &words);
}

#[test]
fn more_connections_than_descriptors_are_refused_with_the_number_that_fits() {
    let mut shell = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_dtls-server");
    shell.args(["-c", r#"ulimit -n 256; exec "$@""#, "sh", program]);
    shell.args(["--listen", "127.0.0.1:0", "--max-connections", "65"]);
    let words = [
        "--max-connections 65",
        "258 descriptors",
        "256",
        "ulimit",
        "64 at most",
    ];
    assert_refused(shell, 3, &words);
}

#[test]
fn more_connections_than_threads_are_refused_with_the_number_that_fits() {
    let mut shell = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_dtls-server");
    // POSIX has no such option of ulimit, and shells have different ones.
    let script = r#"ulimit -u 100 2>/dev/null || ulimit -p 100; exec "$@""#;
    shell.args(["-c", script, "sh", program]);
    shell.args(["--listen", "127.0.0.1:0", "--max-connections", "35"]);
    if geteuid().is_root() {
        // The limit does not hold for root.
        shell.args(["--user", "nobody"]);
    }
    let words = [
        "--max-connections 35",
        "101 threads",
        "RLIMIT_NPROC",
        "leaves 100 of 100",
        "ulimit -Hu 101",
        "34 at most",
    ];
    assert_refused(shell, 3, &words);
}

#[test]
fn bad_values_are_named_with_what_would_be_right() {
    for (arguments, words) in [
        (
            vec!["--listen", "localhost"],
            ["'localhost'", "127.0.0.1:4433"],
        ),
        (vec!["--listen", "127.0.0.1:99999"], ["99999", "--listen"]),
        (vec!["--bogus"], ["'--bogus'", "--help"]),
        (vec![], ["--listen", "--help"]),
        (
            vec!["--listen", "[::1]:0", "--service", "daytime"],
            ["daytime", "chargen"],
        ),
        (
            vec!["--listen", "[::1]:0", "--idle-timeout", "soon"],
            ["soon", "none"],
        ),
        (
            vec!["--listen", "[::1]:0", "--idle-timeout", "0s"],
            ["idle timeout", "more than 0"],
        ),
        (
            vec!["--listen", "[::1]:0", "--handshake-timeout", "2h"],
            ["handshake timeout", "1 h"],
        ),
        (
            vec!["--listen", "[::1]:0", "--sni", "a=b"],
            ["a=b", "NAME=CERT,KEY"],
        ),
        (
            vec!["--listen", "[::1]:0", "--client-pin", "ab:cd"],
            ["ab:cd", "64 hexadecimal digits"],
        ),
        (
            vec!["--listen", "[::1]:0", "--link-mtu", "100"],
            ["100", "304"],
        ),
        (
            vec!["--listen", "[::1]:0", "--max-connections", "0"],
            ["--max-connections", "0"],
        ),
    ] {
        refused(&arguments, 2, &words);
    }
}
