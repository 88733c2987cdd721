//! What the program says to wrong usage and a wrong environment: one clear line that names the
//! thing and the remedy, the right exit code, no panic.

mod common;

use common::{assert_refused, pki, run, stdout};
use dtls_certs::Profile;

const HOST: &str = "127.0.0.1:9";

#[test]
fn wrong_usage_is_one_line_naming_the_argument_and_exit_code_2() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["connect"], &["HOST:PORT"]),
        (
            &["connect", "localhost"],
            &["'localhost'", "no port", "localhost:4433"],
        ),
        (
            &["connect", "localhost:https"],
            &["`https` is no port", "65535"],
        ),
        (&["connect", "localhost:0"], &["`0` is no port"]),
        (&["connect", "::1"], &["brackets", "[::1]:4433"]),
        (&["connect", "[::g]:1"], &["`::g` is no IPv6 address"]),
        (
            &["connect", HOST, "--insecur"],
            &["'--insecur'", "'--insecure'"],
        ),
        (&["connect", HOST, "--cert", "x"], &["--key"]),
        (&["connect", HOST, "--key", "x"], &["--cert"]),
        (
            &["connect", HOST, "--ca", "x", "--insecure"],
            &["--ca", "--insecure"],
        ),
        (
            &["connect", HOST, "--handshake-timeout", "0s"],
            &["--handshake-timeout", "more than 0"],
        ),
        (
            &["connect", HOST, "--handshake-timeout", "5"],
            &["--handshake-timeout", "30s"],
        ),
        (
            &["connect", HOST, "--insecure", "--link-mtu", "303"],
            &["--link-mtu", "304"],
        ),
        (
            &["connect", HOST, "--insecure", "--link-mtu", "16385"],
            &["--link-mtu", "16384"],
        ),
        (
            &["connect", HOST, "--psk-identity", "me"],
            &["--psk-key-file"],
        ),
        (
            &["connect", HOST, "--psk-key-file", "x"],
            &["--psk-identity"],
        ),
        (&["connect", HOST, "--crl", "x"], &["required", "--ca"]),
        (
            &["connect", HOST, "--pin", "ab:cd"],
            &["--pin", "\"ab:cd\"", "64 hexadecimal digits"],
        ),
        (
            &["connect", HOST, "--known-peers", "x", "--insecure"],
            &["--known-peers", "--insecure"],
        ),
        (&["connect", HOST, "--suites", "all"], &["--suites", "iot"]),
        (
            &["load", HOST, "--insecure", "--suites", "AES128-SHA"],
            &["--suites", "\"AES128-SHA\"", "AEAD"],
        ),
        (
            &["load", HOST, "--insecure", "--groups", "P-256,P-257"],
            &["--groups", "\"P-257\"", "X25519"],
        ),
        (
            &["connect", HOST, "--insecure", "--alpn", "a,,b"],
            &["--alpn", "0 bytes long", "1 to 255"],
        ),
        (
            &[
                "connect",
                HOST,
                "--insecure",
                "--retransmit-initial",
                "10ms",
            ],
            &["--retransmit-initial", "10ms", "20 ms"],
        ),
        (
            &["connect", HOST, "--insecure", "--retransmit-max", "500ms"],
            &["--retransmit-max", "1s to 500ms"],
        ),
        (
            &["connect", HOST, "--probe-every", "0s"],
            &["--probe-every", "more than 0"],
        ),
        (&["connect", HOST, "--format", "xml"], &["--format", "json"]),
        (
            &["load", HOST, "--connections", "0"],
            &["--connections", "0"],
        ),
        (
            &["load", HOST, "--concurrency", "0"],
            &["--concurrency", "0"],
        ),
        (&["load", HOST, "--size", "15"], &["--size", "16"]),
        (
            &["load", HOST, "--timeout", "0s"],
            &["--timeout", "more than 0"],
        ),
        (&["load", HOST, "--messages", "-1"], &["-1"]),
        (&["lode"], &["'lode'", "'load'"]),
    ];
    for (args, words) in cases {
        let output = run(args);
        assert_refused(&output, 2, words);
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn files_that_do_not_hold_what_they_should_are_named_with_their_flag() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let missing = dir.path().join("missing.pem").display().to_string();
    let keylog = dir.path().join("no/such/folder").display().to_string();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").expect("a writable directory");
    let empty = empty.display().to_string();
    let short = common::secret(dir.path(), "0badcafe\n");
    common::secret_mode(&empty);
    let [cert, other_key, key] = [
        pki().chain(Profile::CLIENT),
        pki().key(Profile::SERVER),
        pki().key(Profile::CLIENT),
    ]
    .map(|path| path.display().to_string());
    for command in ["connect", "load"] {
        let refused = |args: &[&str], words: &[&str]| {
            assert_refused(&run(&[&[command, HOST], args].concat()), 2, words);
        };
        refused(&["--ca", &missing], &["--ca", &missing, "No such file"]);
        refused(&["--ca", &empty], &["--ca", &empty, "no certificate"]);
        refused(&["--ca", &key], &["--ca", &key, "no certificate"]);
        refused(&["--cert", &missing, "--key", &key], &["--cert", &missing]);
        refused(
            &["--cert", &cert, "--key", &empty],
            &["--key", &empty, "no private key"],
        );
        refused(
            &["--cert", &cert, "--key", &other_key],
            &[&other_key, "does not belong"],
        );
        refused(&["--insecure", "--keylog", &keylog], &["--keylog", &keylog]);
        refused(
            &["--known-peers", &key],
            &["--known-peers", &key, "line 1", "host:port"],
        );
        refused(
            &["--known-peers", &keylog],
            &["--known-peers", &keylog, "No such file"],
        );
        refused(
            &["--ca", &cert, "--crl", &cert],
            &["--crl", &cert, "no revocation list"],
        );
        let psk = |file: &str, words: &[&str]| {
            refused(&["--psk-identity", "me", "--psk-key-file", file], words);
        };
        psk(&missing, &["--psk-key-file", &missing, "No such file"]);
        psk(
            &short,
            &["--psk-key-file", "4 bytes", "openssl rand -hex 32"],
        );
        psk(&empty, &["--psk-key-file", "0 bytes"]);
    }
}

#[test]
fn a_name_that_does_not_resolve_is_the_environments_fault() {
    for command in ["connect", "load"] {
        let output = run(&[command, "no-such-host.invalid:4433", "--insecure"]);
        assert_refused(&output, 3, &["no-such-host.invalid", "check the name"]);
    }
}

#[test]
fn help_explains_the_exit_codes_the_events_and_how_long_it_waits() {
    let help = |args: &[&str]| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0));
        stdout(&output)
    };
    assert!(help(&["--help"]).contains("Exit codes:"));
    let connect = help(&["connect", "--help"]);
    for part in [
        "Exit codes:",
        "\"event\":\"closed\"",
        "after the end of the input",
        "[default: 1s]",
    ] {
        assert!(connect.contains(part), "{part:?} is missing in:\n{connect}");
    }
    assert!(help(&["load", "--help"]).contains("Exit codes:"));
}
