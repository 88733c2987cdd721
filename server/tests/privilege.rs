//! Root's privileges: given up for good, or not asked for in vain. Three tests begin with root's; for
//! others they are ignored: `make test` runs them where it may, and says so where not.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use common::backend::Backend;
use common::{Finished, Pki, Program, Server, assert_echo, command};
use dtls_certs::Profile;
use nix::unistd::User;

/// An account of every system.
const NOBODY: &str = "nobody";

#[test]
fn who_is_not_root_cannot_become_another_user() {
    // In a user namespace that maps nobody, not even root is root.
    let mut other = Command::new("unshare");
    other.args(["--user", env!("CARGO_BIN_EXE_dtls-server")]);
    other.args(["--listen", "127.0.0.1:0", "--user", NOBODY]);
    let refused = Program::start(other).unwrap().finish();
    assert_eq!(refused.status.code(), Some(3), "{refused:#?}");
    assert!(refused.stderr.contains("only root"), "{refused:#?}");
}

#[test]
#[ignore = "needs root"]
fn root_is_given_up_for_good_and_connections_go_on_working() {
    let pki = Pki::new();
    let backend = Backend::new().echo();
    let address = backend.address.to_string();
    for transport in ["connected", "shared"] {
        let server = pki.serve(&[
            "--user",
            NOBODY,
            "--transport",
            transport,
            "--metrics",
            "127.0.0.1:0",
            "--service",
            "forward",
            "--backend",
            &address,
        ]);
        let mut streams: Vec<_> = (0..3).map(|_| server.connect(pki.client())).collect();
        for stream in &mut streams {
            assert_echo(stream, b"served by nobody");
        }
        assert_nobody(&server);
        let finished = server.finish();
        assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    }
}

/// No thread has anything left of root.
#[track_caller]
fn assert_nobody(server: &Server) {
    let nobody = User::from_name(NOBODY).unwrap().unwrap();
    let tasks = fs::read_dir(format!("/proc/{}/task", server.program.pid())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let words = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap()
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        // Real, effective, saved, and that of the file system.
        assert_eq!(words("Uid:"), vec![nobody.uid.to_string(); 4], "{status}");
        assert_eq!(words("Gid:"), vec![nobody.gid.to_string(); 4], "{status}");
        assert!(!words("Groups:").contains(&"0".to_owned()), "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(words(set), ["0000000000000000"], "{set} {status}");
        }
        assert_eq!(words("NoNewPrivs:"), ["1"], "{status}");
        threads += 1;
    }
    assert!(threads > 3, "listener and workers, too");
}

#[test]
#[ignore = "needs root"]
fn a_port_for_root_is_bound_before_root_is_given_up() {
    if !common::namespace::inside(
        "a_port_for_root_is_bound_before_root_is_given_up",
        &[],
        "echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start",
    ) {
        return;
    }
    let pki = Pki::new();
    let (certificate, key) = pki.files(Profile::SERVER);
    let with = |listen: &str, transport: &str| {
        let mut all = vec!["--listen".to_owned(), listen.to_owned()];
        all.extend(["--user".to_owned(), NOBODY.to_owned()]);
        all.extend(["--transport".to_owned(), transport.to_owned()]);
        all.extend(["--cert".to_owned(), certificate.clone()]);
        all.extend(["--key".to_owned(), key.clone()]);
        all.extend(["--drain-timeout".to_owned(), "0s".to_owned()]);
        all
    };
    for listen in ["127.0.0.1:853", "[::]:853"] {
        let server = Server::from(command(with(listen, "shared")));
        let server = Server {
            address: "127.0.0.1:853".parse().unwrap(),
            ..server
        };
        let mut stream = server.connect(pki.client());
        assert_echo(&mut stream, b"a low port");
        assert_nobody(&server);
    }
    // Each of its connections would bind the port again.
    for more in [&[][..], &["--check".to_owned()]] {
        let arguments = [&with("127.0.0.1:853", "connected"), more].concat();
        let refused = Program::start(command(arguments)).unwrap().finish();
        assert_eq!(refused.status.code(), Some(2), "{refused:#?}");
        for word in ["--transport: ", "port 853", "--transport shared"] {
            assert!(refused.stderr.contains(word), "{word}: {refused:#?}");
        }
    }
}

#[test]
fn a_user_that_gives_nothing_up_is_refused() {
    for (name, word) in [("root", "gives nothing up"), ("no-such-user", "useradd")] {
        let refused = run(&["--listen", "127.0.0.1:0", "--user", name]);
        assert_eq!(refused.status.code(), Some(2), "{refused:#?}");
        assert!(refused.stderr.contains(word), "{refused:#?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_key_for_the_group_of_the_server_is_not_warned_of() {
    let pki = Pki::new();
    let (certificate, key) = pki.files(Profile::SERVER);
    let nobody = User::from_name(NOBODY).unwrap().unwrap();
    let (root, uid, gid) = (0, nobody.uid.as_raw(), nobody.gid.as_raw());
    let as_root = ["--check", "--listen", "127.0.0.1:0"].as_slice();
    let as_root = [as_root, &["--cert", &certificate, "--key", &key]].concat();
    let as_nobody = [&as_root[..], &["--user", NOBODY]].concat();
    for (owner, group, mode, arguments, readers) in [
        (root, gid, 0o640, &as_nobody, None),
        (root, gid, 0o640, &as_root, None),
        (root, gid, 0o711, &as_root, None),
        (root, gid, 0o644, &as_nobody, Some("everybody")),
        (root, root, 0o640, &as_root, Some("its whole group")),
        (uid, gid, 0o640, &as_nobody, Some("its whole group")),
    ] {
        chown(&key, Some(owner), Some(group)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let case = format!("{owner}:{group} {mode:o} {arguments:?}");
        let checked = run(arguments);
        assert_eq!(checked.status.code(), Some(0), "{case} {checked:#?}");
        match readers {
            Some(readers) => assert!(checked.stderr.contains(readers), "{case} {checked:#?}"),
            None => assert_eq!(checked.stderr, "", "{case}"),
        }
    }
}

fn run(arguments: &[&str]) -> Finished {
    Program::start(command(arguments)).unwrap().finish()
}
