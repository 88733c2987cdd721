//! Changed files and SIGHUP: what is new holds for new connections, live ones go on, and what is
//! wrong changes nothing.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use common::{Pki, Program, Server, assert_echo, command, receive};
use dtls::{ClientConfig, ClientConfigBuilder, DtlsConnector, DtlsStream, PskKey};
use dtls_certs::{Profile, Role};
use nix::sys::signal::Signal;

const KEY: &str = "6f1ed002ab5595859014ebf0951522d9";

/// Replaces a file in one step, as tools that renew certificates do.
fn put(pki: &Pki, name: &str, text: impl AsRef<[u8]>) {
    let fresh = pki.path("fresh");
    fs::write(&fresh, text).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(fresh, pki.path(name)).unwrap();
}

fn fingerprint(stream: &DtlsStream) -> String {
    stream.info().peer_chain[0].fingerprint.clone()
}

fn admits(server: &Server, client: ClientConfigBuilder) -> bool {
    let client = client.handshake_timeout(Duration::from_secs(3));
    DtlsConnector::new(client.build().unwrap())
        .connect("localhost", server.address)
        .is_ok()
}

/// A server with this configuration file.
#[track_caller]
fn serve(pki: &Pki, config: &str) -> Server {
    put(pki, "server.toml", config);
    let file = pki.path("server.toml");
    Server::from(command(["--config", &file, "--format", "json"]))
}

#[test]
fn a_renewed_certificate_is_shown_to_new_clients_and_live_connections_go_on() {
    let pki = Pki::new();
    let mut server = pki.serve(&[]);
    let connector = DtlsConnector::new(pki.client().build().unwrap());
    let mut live = connector.connect("localhost", server.address).unwrap();
    let (before, session) = (fingerprint(&live), live.session().unwrap());

    // One after the other, so that they do not belong together in between.
    let renewed = pki.pki.issue(Profile::SERVER).unwrap();
    put(&pki, "server.pem", &renewed.chain_pem);
    put(&pki, "server.key", &renewed.key_pem);
    server.program.wait_for("reloaded for new connections");
    assert_echo(&mut live, b"still here");
    let fresh = connector.connect("localhost", server.address).unwrap();
    assert_ne!(fingerprint(&fresh), before);
    let resumed = connector.resume("localhost", server.address, &session);
    assert!(resumed.unwrap().info().resumed, "tickets stay good");

    drop((live, fresh));
    let finished = server.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert!(finished.counter("reloads") >= 1);
}

#[test]
fn what_cannot_change_is_named_and_a_key_log_that_is_gone_is_not_written() {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    let listener = "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\n\
                    key = \"server.key\"\n";
    let mut server = serve(&pki, &format!("keylog = \"secrets\"\n{listener}"));
    assert!(admits(&server, pki.client()));
    let secrets = fs::read_to_string(pki.path("secrets")).unwrap();
    assert!(!secrets.is_empty());
    put(
        &pki,
        "server.toml",
        format!("{listener}hello-rate = 1000\n"),
    );
    server.program.wait_for("reloaded for new connections");
    let line = server
        .program
        .wait_for("takes effect with the next start only");
    assert!(line.contains("hello-rate"), "{line}");
    assert!(admits(&server, pki.client()));
    let after = fs::read_to_string(pki.path("secrets")).unwrap();
    assert_eq!(after, secrets);
}

#[test]
fn bad_new_files_keep_the_old_ones_and_are_told_once() {
    let pki = Pki::new();
    let mut server = pki.serve(&[]);
    let connector = DtlsConnector::new(pki.client().build().unwrap());
    let before = fingerprint(&connector.connect("localhost", server.address).unwrap());
    put(&pki, "server.pem", "no certificate");
    let line = server.program.wait_for("everything stays as it was");
    assert!(line.contains("server.pem has changed"), "{line}");
    assert!(line.contains("--cert: "), "{line}");
    let after = fingerprint(&connector.connect("localhost", server.address).unwrap());
    assert_eq!(after, before);

    // Asked for, it is told again.
    server.program.signal(Signal::SIGHUP);
    let line = server.program.wait_for("everything stays as it was");
    assert!(line.contains("SIGHUP"), "{line}");
    let renewed = pki.pki.issue(Profile::SERVER).unwrap();
    put(&pki, "server.key", &renewed.key_pem);
    put(&pki, "server.pem", &renewed.chain_pem);
    server.program.wait_for("reloaded for new connections");
    let finished = server.finish();
    let told = finished
        .stderr
        .matches("server.pem has changed, but")
        .count();
    assert_eq!(told, 1, "{finished:#?}");
}

#[test]
fn sighup_reads_everything_again_and_ends_nothing() {
    let mut server = Server::start(&["--listen", "127.0.0.1:0", "--format", "json"]);
    let connector = || {
        let anyone = ClientConfig::builder(dtls::ServerTrust::Anyone);
        DtlsConnector::new(anyone.build().unwrap())
    };
    let mut live = connector().connect("localhost", server.address).unwrap();
    for _ in 0..3 {
        server.program.signal(Signal::SIGHUP);
        server
            .program
            .wait_for("reloaded for new connections: SIGHUP");
        assert_echo(&mut live, b"still here");
        let fresh = connector().connect("localhost", server.address).unwrap();
        assert_eq!(
            fingerprint(&fresh),
            fingerprint(&live),
            "a throw-away one, too"
        );
    }
    server.program.signal(Signal::SIGTERM);
    drop(live);
    let finished = server.program.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert_eq!(finished.counter("reloads"), 3);
    assert_eq!(finished.counter("reloads_refused"), 0);
}

#[test]
fn keys_and_lists_that_have_changed_hold_for_new_connections_and_old_sessions() {
    let pki = Pki::new();
    put(&pki, "keys", format!("a:{KEY}\nb:{KEY}\n"));
    put(&pki, "allowed", "psk:a\npsk:b\n");
    let mut server = serve(
        &pki,
        "[[listener]]\nlisten = \"127.0.0.1:0\"\npsk-file = \"keys\"\nallow-file = \"allowed\"\n",
    );
    let client = |name: &str| {
        let key = PskKey::from_hex(KEY).unwrap();
        ClientConfig::psk_builder(name, key).handshake_timeout(Duration::from_secs(3))
    };
    let b = DtlsConnector::new(client("b").build().unwrap());
    let session = b
        .connect("localhost", server.address)
        .unwrap()
        .session()
        .unwrap();
    assert!(admits(&server, client("a")));
    assert!(
        b.resume("localhost", server.address, &session)
            .unwrap()
            .info()
            .resumed
    );

    put(&pki, "allowed", "psk:a\n");
    server.program.wait_for("allowed has changed");
    assert!(admits(&server, client("a")));
    assert!(!admits(&server, client("b")));
    assert!(b.resume("localhost", server.address, &session).is_err());

    put(&pki, "keys", format!("c:{KEY}\n"));
    put(&pki, "allowed", "psk:c\n");
    server.program.wait_for("reloaded for new connections");
    assert!(admits(&server, client("c")));
    assert!(!admits(&server, client("a")));
    server.finish();
}

#[test]
fn servers_with_one_key_file_resume_each_others_sessions_across_a_rotation() {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    let [old, new] = [1, 2].map(|id| format!("{id}:{id:064}\n"));
    put(&pki, "shared", &old);
    let config = "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\n\
                  key = \"server.key\"\nshared-keys = \"shared\"\n";
    put(&pki, "server.toml", config);
    let file = pki.path("server.toml");
    let mut servers = [(), ()].map(|()| Server::from(command(["--config", &file])));
    let connector = DtlsConnector::new(pki.client().build().unwrap());
    let made = |server: &Server| {
        let stream = connector.connect("localhost", server.address);
        stream.unwrap().session().unwrap()
    };
    let resumes = |server: &Server, session| {
        let stream = connector.resume("localhost", server.address, session);
        stream.unwrap().info().resumed
    };
    let of_old = made(&servers[0]);
    assert!(resumes(&servers[1], &of_old));
    for (text, resumed) in [
        (format!("{old}{new}"), true),
        (format!("{new}{old}"), true),
        (new.clone(), false),
    ] {
        put(&pki, "shared", text);
        for server in &mut servers {
            server.program.wait_for("shared has changed");
            assert_eq!(resumes(server, &of_old), resumed);
        }
    }
    assert!(resumes(&servers[1], &made(&servers[0])));
}

#[test]
fn a_newly_revoked_client_is_refused() {
    let pki = Pki::new();
    let revoked = Profile {
        name: "client-revoked",
        role: Role::Client,
        ..Profile::SERVER_REVOKED
    };
    let identity = pki.identity(revoked);
    let (ca, config) = (pki.path("ca.pem"), "client-ca = \"ca.pem\"");
    assert!(fs::exists(ca).unwrap());
    pki.files(Profile::SERVER);
    let start = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\nkey = \"server.key\"\n{config}\n"
    );
    let mut server = serve(&pki, &start);
    assert!(admits(&server, pki.client().identity(identity.clone())));
    // The configuration itself changes and names a file more.
    put(&pki, "crl.pem", pki.pki.crl_pem().unwrap());
    put(
        &pki,
        "server.toml",
        format!("{start}client-crl = \"crl.pem\"\n"),
    );
    server.program.wait_for("server.toml has changed");
    assert!(!admits(&server, pki.client().identity(identity)));
    assert!(admits(
        &server,
        pki.client().identity(pki.identity(Profile::CLIENT))
    ));
    server.finish();
}

#[test]
fn what_cannot_change_while_it_runs_is_named_and_the_rest_is_taken() {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    let pair = "cert = \"server.pem\"\nkey = \"server.key\"\n";
    let listener = format!("[[listener]]\nlisten = \"127.0.0.1:0\"\n{pair}");
    let mut server = serve(&pki, &listener);
    let fixed = "service = \"discard\"\nmax-connections = 5\n";
    put(
        &pki,
        "server.toml",
        format!("drain-timeout = \"7s\"\n{listener}{fixed}alpn = [\"x\"]\n"),
    );
    server.program.wait_for("reloaded for new connections");
    for named in [
        "drain-timeout",
        "max-connections of the listener at 127.0.0.1:0",
        "service of the listener at 127.0.0.1:0",
    ] {
        let words = format!("{named} takes effect with the next start");
        server.program.wait_for(&words);
    }
    let client = pki.client().alpn(["x"]).build().unwrap();
    let mut stream = DtlsConnector::new(client)
        .connect("localhost", server.address)
        .unwrap();
    assert_eq!(stream.info().alpn.as_deref(), Some(&b"x"[..]));
    assert_echo(&mut stream, b"still echo");

    for (text, words) in [
        (format!("{listener}{listener}"), "2 listeners and are 1"),
        (
            listener.replace("127.0.0.1:0", "127.0.0.1:1"),
            "cannot move",
        ),
        (format!("{listener}alpnn = []\n"), "did you mean `alpn`"),
        // What the next start would refuse is refused now.
        (
            format!("{listener}backend = \"127.0.0.1\"\n"),
            "give HOST:PORT",
        ),
    ] {
        put(&pki, "server.toml", text);
        let line = server.program.wait_for("everything stays as it was");
        assert!(line.contains(words), "{line}");
    }
    assert_echo(&mut stream, b"still echo");
    server.program.signal(Signal::SIGTERM);
    assert_eq!(receive(&mut stream), None);
    assert_eq!(server.program.finish().status.code(), Some(0));
}

#[test]
fn what_a_start_would_change_is_told_until_the_file_says_again_what_runs() {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    let listener = "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\n\
                    key = \"server.key\"\n";
    let mut server = serve(&pki, listener);
    for (drain, alpn, told) in [("7s", "a", true), ("7s", "b", true), ("5s", "c", false)] {
        put(
            &pki,
            "server.toml",
            format!("drain-timeout = \"{drain}\"\n{listener}alpn = [\"{alpn}\"]\n"),
        );
        server.program.wait_for("reloaded for new connections");
        if told {
            server.program.wait_for("drain-timeout takes effect");
        }
    }
    let finished = server.finish();
    let told = finished.stderr.matches("takes effect").count();
    assert_eq!(told, 2, "{finished:#?}");
}

#[test]
fn a_secret_that_others_can_read_is_warned_of_once_and_not_at_each_reload() {
    use std::os::unix::fs::PermissionsExt as _;

    let pki = Pki::new();
    let (_, key) = pki.files(Profile::SERVER);
    let expose = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    let listener = "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\n\
                    key = \"server.key\"\n";
    expose(0o604);
    let mut server = serve(&pki, listener);
    server.program.signal(Signal::SIGHUP);
    server.program.wait_for("reloaded for new connections");
    // Its change is noticed by itself, and said anew when it is undone.
    for mode in [0o600, 0o604] {
        expose(mode);
        server.program.wait_for("server.key has changed");
    }
    let finished = server.finish();
    let warnings = finished.stderr.matches("can be read by everybody").count();
    assert_eq!(warnings, 2, "{finished:#?}");
}

#[test]
fn a_default_that_is_written_out_is_no_change() {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    let listener = "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\n\
                    key = \"server.key\"\nbackend = \"localhost:9\"\n";
    put(&pki, "server.toml", listener);
    let file = pki.path("server.toml");
    let (mut program, most) = start_with_few_descriptors(&file);
    let defaults = format!(
        "service = \"forward\"\nsni-backend = []\nproxy-protocol = \"none\"\n\
         syslog-frames = \"keep\"\nidle-counts = \"both\"\nport-sharing = \"reuseport\"\n\
         transport = \"connected\"\nmax-connections = {most}\n"
    );
    let global = "drain-timeout = \"5s\"\n";
    put(&pki, "server.toml", format!("{global}{listener}{defaults}"));
    program.wait_for("reloaded for new connections");
    // And left out again.
    put(&pki, "server.toml", listener);
    program.wait_for("reloaded for new connections");
    let changed = defaults.replace("\"none\"", "\"first\"");
    put(&pki, "server.toml", format!("{listener}{changed}"));
    program.wait_for("proxy-protocol of the listener at 127.0.0.1:0 takes effect");
    program.signal(Signal::SIGTERM);
    let finished = program.finish();
    let told = finished.stderr.matches("takes effect").count();
    assert_eq!(told, 1, "{finished:#?}");
}

#[test]
fn connections_that_run_are_no_change_whatever_the_limits_have_become() {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    let listener = "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\n\
                    key = \"server.key\"\n";
    put(&pki, "server.toml", listener);
    let (mut program, most) = start_with_few_descriptors(&pki.path("server.toml"));
    let lowered = Command::new("prlimit")
        .args(["--nofile=200:200", "--pid", &program.pid().to_string()])
        .status()
        .expect("this test needs prlimit(1): make deps");
    assert!(lowered.success());
    put(
        &pki,
        "server.toml",
        format!("{listener}max-connections = {}\n", most + 1),
    );
    let line = program.wait_for("everything stays as it was");
    assert!(line.contains("the limit is 200"), "{line}");
    for (connections, told) in [
        (Some(most), false),
        (Some(5), true),
        (Some(most), false),
        (None, false),
    ] {
        let said = connections.map(|number| format!("max-connections = {number}\n"));
        let config = format!("{listener}{}", said.unwrap_or_default());
        put(&pki, "server.toml", config);
        program.wait_for("reloaded for new connections");
        if told {
            program.wait_for("max-connections of the listener at 127.0.0.1:0 takes effect");
        }
    }
    program.signal(Signal::SIGTERM);
    let finished = program.finish();
    let told = finished.stderr.matches("takes effect").count();
    assert_eq!(told, 1, "{finished:#?}");
}

/// Where descriptors are the tightest limit: how many threads are left depends on the moment. Gives the
/// number of connections, too.
fn start_with_few_descriptors(config: &str) -> (Program, usize) {
    let server = command(["--config", config]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"ulimit -n 256; exec "$@""#, "sh"])
        .arg(server.get_program())
        .args(server.get_args())
        .env_remove("RUST_LOG");
    let mut program = Program::start(shell).unwrap();
    let line = program.wait_for("listening on ");
    let most = line.split("at most ").nth(1).unwrap();
    let most = most.split(' ').next().unwrap().parse().unwrap();
    (program, most)
}

#[test]
fn an_empty_list_of_backends_is_none_at_the_start_too() {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    let listener = "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\n\
                    key = \"server.key\"\nsni-backend = []\n";
    let server = serve(&pki, listener);
    assert!(admits(&server, pki.client()));
}

#[test]
fn two_listeners_on_any_port_are_told_apart() {
    let pki = Pki::new();
    pki.files(Profile::SERVER);
    let listener = "[[listener]]\nlisten = \"127.0.0.1:0\"\ncert = \"server.pem\"\n\
                    key = \"server.key\"\n";
    let mut server = serve(&pki, &format!("{listener}{listener}"));
    for (first, second, named) in [
        ("", "hello-rate = 7\n", "listener 2 at 127.0.0.1:0"),
        ("hello-rate = 7\n", "", "listener 1 at 127.0.0.1:0"),
    ] {
        let config = format!("{listener}{first}{listener}{second}");
        put(&pki, "server.toml", config);
        let words = format!("hello-rate of {named} takes effect");
        server.program.wait_for(&words);
    }
    let finished = server.finish();
    let told = finished.stderr.matches("takes effect").count();
    assert_eq!(told, 2, "{finished:#?}");
}
