//! The server is killed amid its work, with no chance to tidy up, and started again at the same address.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::backend::Backend;
use common::{Pki, Server, assert_echo, wait_until};
use dtls::{DtlsConnector, DtlsStream};
use dtls_certs::Profile;
use nix::sys::signal::Signal;

const CLIENTS: usize = 20;

/// Clients that make handshakes without pause, so that the end comes in the midst of some.
const RESTLESS: usize = 4;

#[test]
fn clients_of_a_killed_server_resume_their_sessions_when_it_is_back() {
    for transport in ["connected", "shared"] {
        let shared = ["--shared-keys", "shared-keys", "--transport", transport];
        kill_and_start_again(&shared, true);
    }
}

#[test]
fn without_shared_keys_they_come_back_with_full_handshakes() {
    kill_and_start_again(&["--transport", "connected"], false);
}

fn kill_and_start_again(arguments: &[&str], resumes: bool) {
    let (pki, backend) = (Pki::new(), Backend::new().echo());
    pki.files(Profile::SERVER);
    pki.private("shared-keys", &format!("1:{:064}\n", 7));
    let files: Vec<String> = ["server.pem", "server.key", "keylog"]
        .map(|name| pki.path(name))
        .to_vec();
    let arguments: Vec<String> = arguments
        .iter()
        .map(|&argument| match argument {
            "shared-keys" => pki.path(argument),
            other => other.to_owned(),
        })
        .collect();
    let start = |address: &str| {
        let to = backend.address.to_string();
        let mut all = vec!["--listen", address, "--format", "json"];
        all.extend([
            "--cert", &files[0], "--key", &files[1], "--keylog", &files[2],
        ]);
        all.extend(["--service", "forward", "--backend", &to]);
        all.extend(["--drain-timeout", "0s"]);
        all.extend(arguments.iter().map(String::as_str));
        Server::start(&all)
    };
    let server = start("127.0.0.1:0");
    let address = server.address;
    let before = on_disk(&pki);

    // Short, so that a client which the death interrupts does not wait long for its next try.
    let config = || pki.client().handshake_timeout(Duration::from_secs(2));
    let connector = DtlsConnector::new(config().build().unwrap());
    let mut streams: Vec<DtlsStream> = (0..CLIENTS)
        .map(|_| connector.connect("localhost", address).unwrap())
        .collect();
    for stream in &mut streams {
        assert_echo(stream, b"before");
    }
    let sessions = streams.iter().map(|stream| stream.session().unwrap());
    let sessions: Vec<_> = sessions.collect();

    let (made, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let made_so_far = || made.load(Ordering::SeqCst);
    let server = thread::scope(|scope| {
        for _ in 0..RESTLESS {
            scope.spawn(|| {
                let connector = DtlsConnector::new(config().build().unwrap());
                while !done.load(Ordering::SeqCst) {
                    // While nobody is there, it fails.
                    if connector.connect("localhost", address).is_ok() {
                        made.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        wait_until("handshakes before", made_so_far, |&made| made >= 10);
        server.program.signal(Signal::SIGKILL);
        let killed = server.program.finish();
        assert_eq!(killed.status.signal(), Some(9), "{killed:#?}");
        let server = start(&address.to_string());
        let then = made_so_far();
        wait_until("handshakes after", made_so_far, |&made| made >= then + 10);
        done.store(true, Ordering::SeqCst);
        server
    });

    // Their keys died with the server: what they send is noise to the new one.
    for stream in &mut streams {
        stream.send(b"to nobody").unwrap();
    }
    for session in &sessions {
        let mut stream = connector.resume("localhost", address, session).unwrap();
        assert_eq!(stream.info().resumed, resumes);
        assert_echo(&mut stream, b"after");
    }
    let after = on_disk(&pki);
    for (name, text) in &before {
        if name != "keylog" {
            assert_eq!(Some(text), after.get(name), "{name}");
        }
    }
    assert_eq!(before.len(), after.len(), "no file more, none less");
    let lines = String::from_utf8(after["keylog"].clone()).unwrap();
    // A line is a label, 32 bytes and 48 bytes (the NSS key log format).
    let whole = |line: &str| line.starts_with("CLIENT_RANDOM ") && line.len() == 14 + 64 + 1 + 96;
    assert!(lines.ends_with('\n') && lines.lines().all(whole), "{lines}");

    drop(streams);
    let finished = server.finish();
    finished.assert_success();
    let resumed = if resumes { CLIENTS } else { 0 };
    assert_eq!(
        finished.counter("handshakes_resumed"),
        u64::try_from(resumed).unwrap()
    );
}

/// All files of the server, by name.
fn on_disk(pki: &Pki) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(pki.dir.path()).unwrap();
    files
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        })
        .collect()
}
