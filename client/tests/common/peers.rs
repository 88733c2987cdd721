//! Other implementations' servers, as processes of a test. The programs are what `make deps`
//! installs; a missing one is a failure, not a skip.

use std::process::Command;

use super::{Process, free_port};

/// Starts `openssl s_server`, which serves one client, and gives its address.
pub(crate) fn s_server(args: impl Fn(&mut Command)) -> (Process, String) {
    let all = |command: &mut Command, port| {
        command.args(["s_server", "-dtls1_2", "-listen", "-accept"]);
        command.arg(format!("127.0.0.1:{port}"));
        args(command);
    };
    start("openssl", "openssl", all, "ACCEPT")
}

/// Starts `gnutls-serv`, which echoes to one client after another, and gives its address.
pub(crate) fn gnutls_serv(args: impl Fn(&mut Command)) -> (Process, String) {
    let all = |command: &mut Command, port: u16| {
        command.args(["--udp", "--echo", "--port", &port.to_string()]);
        args(command);
    };
    start("gnutls-serv", "gnutls-bin", all, "...done")
}

/// Starts a server on a free port and waits until it says that it listens; another program may
/// take the port between the choice and the start, so it tries again.
fn start(
    program: &str,
    package: &str,
    args: impl Fn(&mut Command, u16),
    ready: &str,
) -> (Process, String) {
    for _ in 0..5 {
        let port = free_port();
        let mut command = Command::new(program);
        args(&mut command, port);
        if let Err(error) = Command::new(program).arg("--version").output() {
            panic!("cannot start {program} ({error}): apt-get install {package}, or run make deps");
        }
        let mut server = Process::spawn(command);
        if server.says(ready) {
            return (server, format!("127.0.0.1:{port}"));
        }
    }
    panic!("{program} never said {ready:?}");
}
