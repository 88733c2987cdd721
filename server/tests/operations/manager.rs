//! What systemd is told, and the unit for it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::Signal;

use super::common::{PATIENCE, Pki, Program, Server, command};

#[test]
fn the_service_manager_hears_when_the_server_is_ready_and_when_it_ends() {
    let pki = Pki::new();
    let path = pki.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut buffer = [0; 1024];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut program = command(["--listen", "127.0.0.1:0", "--drain-timeout", "1h"]);
    program.env("NOTIFY_SOCKET", &path);
    let server = Server::from(program);
    let ready = heard();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    // What was announced holds.
    let stream = server.connect(dtls::ClientConfig::builder(dtls::ServerTrust::Anyone));
    server.program.signal(Signal::SIGTERM);
    let stopping = heard();
    assert!(
        stopping.lines().any(|line| line == "STOPPING=1"),
        "{stopping}"
    );
    assert!(stopping.contains("1 connections"), "{stopping}");
    drop(stream);
    assert_eq!(server.program.finish().status.code(), Some(0));
}

#[test]
fn the_systemd_unit_is_one_and_its_command_is_valid() {
    let text = include_str!("../../../dist/dtls-server.service");
    let installed = "ExecStart=/usr/local/bin/dtls-server ";
    let line = text.lines().find_map(|line| line.strip_prefix(installed));
    let arguments: Vec<_> = line.unwrap().split(' ').collect();
    let pki = Pki::new();
    // The names that systemd looks at, of what is not installed here.
    let here = format!("ExecStart={} ", env!("CARGO_BIN_EXE_dtls-server"));
    let unit = pki.path("dtls-server.service");
    fs::write(&unit, text.replace(installed, &here)).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", &unit])
        .output()
        .expect("this test needs systemd-analyze(1): make deps");
    // It may complain of other units of this host.
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("dtls-server.service"), "{said}");
    assert!(output.status.success(), "{said}");

    let config = pki.path("server.toml");
    fs::write(&config, "[[listener]]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let arguments = arguments.into_iter().map(|argument| match argument {
        "/etc/dtls-server/server.toml" => config.clone(),
        other => other.to_owned(),
    });
    let all: Vec<_> = arguments.chain(["--check".to_owned()]).collect();
    let checked = Program::start(command(all)).unwrap().finish();
    assert_eq!(checked.status.code(), Some(0), "{checked:#?}");
}
