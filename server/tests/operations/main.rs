//! What a running server tells those who run it: metrics, health, readiness, status and the log.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

#[path = "../common/mod.rs"]
mod common;
mod metrics;
mod readers;
mod manager;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use common::{PATIENCE, Pki, Program, Server, assert_echo, command, receive};
use dtls_certs::Profile;
use metrics::Exposition;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A server with its operations pages.
struct Operated {
    server: Server,
    pages: SocketAddr,
}

fn serve(pki: &Pki, arguments: &[&str]) -> Operated {
    let mut server = pki.serve(&[&["--metrics", "127.0.0.1:0"], arguments].concat());
    let line = server.program.wait_for("operations pages at http://");
    let address = line.split("http://").nth(1).unwrap();
    let pages = address.split('/').next().unwrap().parse().unwrap();
    Operated { server, pages }
}

impl Operated {
    /// The status and the body of a page.
    fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = ask(self.pages, &request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(head.contains(&length), "{head}");
        (status, body.to_owned())
    }

    fn metrics(&self) -> Exposition {
        let (status, page) = self.get("/metrics");
        assert_eq!(status, 200);
        Exposition::parse(&page)
    }
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn readiness_ends_with_the_signal_and_health_with_the_process() {
    let pki = Pki::new();
    let mut operated = serve(&pki, &["-v", "--drain-timeout", "1h"]);
    let mut stream = operated.server.connect(pki.client());
    assert_eq!(operated.get("/ready"), (200, "ready\n".to_owned()));
    assert_eq!(operated.get("/health"), (200, "alive\n".to_owned()));
    operated.server.program.signal(Signal::SIGTERM);
    operated.server.program.wait_for("waiting up to 1h");
    assert_eq!(operated.get("/ready"), (503, "draining\n".to_owned()));
    assert_eq!(operated.get("/health").0, 200);
    assert_eq!(operated.metrics().get("dtls_server_ready"), 0.0);
    assert_echo(&mut stream, b"still served");
    drop(stream);
    let finished = operated.server.program.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
}

#[test]
fn the_status_command_shows_a_running_server() {
    let pki = Pki::new();
    let operated = serve(&pki, &["--max-connections", "77"]);
    let pages = operated.pages.to_string();
    let mut stream = operated.server.connect(pki.client());
    assert_echo(&mut stream, b"hello");
    let status = |arguments: &[&str]| {
        let all = [&["status", &pages], arguments].concat();
        Program::start(command(all)).unwrap().finish()
    };
    let text = status(&[]);
    assert_eq!(text.status.code(), Some(0), "{text:#?}");
    let row = text.stdout.lines().last().unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    let listener = operated.server.address.to_string();
    let expected = [&listener, "echo", "1", "77", "0", "1", "0", "0", "0"];
    assert_eq!(cells, expected, "{text:#?}");
    let json = status(&["--format", "json"]);
    let value: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(value["ready"], true);
    assert_eq!(value["listeners"][0]["counters"]["handshakes_completed"], 1);

    let mut watching = Program::start(command(["status", &pages, "--watch=50ms"])).unwrap();
    watching.wait_for("handshakes/s");
    watching.wait_for("handshakes/s");
}

#[test]
fn the_status_command_says_what_is_wrong() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let none = Program::start(command(["status", &address])).unwrap();
    let none = none.finish();
    assert_eq!(none.status.code(), Some(1), "{none:#?}");
    assert!(none.stderr.contains("running with --metrics"), "{none:#?}");

    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    let asking = Program::start(command(["status", &address])).unwrap();
    let (mut asker, _) = stranger.accept().unwrap();
    asker.write_all(b"SSH-2.0-OpenSSH_10.0\r\n").unwrap();
    drop((asker, stranger));
    let finished = asking.finish();
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    assert!(
        finished.stderr.contains("is no dtls-server") || finished.stderr.contains("no answer from"),
        "{finished:#?}"
    );
}

#[test]
fn a_metrics_port_that_is_taken_stops_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = ["--listen", "127.0.0.1:0", "--metrics", &address];
    let finished = Program::start(command(arguments)).unwrap().finish();
    assert_eq!(finished.status.code(), Some(3), "{finished:#?}");
    assert!(
        finished.stderr.contains(&format!("--metrics {address}")),
        "{finished:#?}"
    );
}

#[test]
fn the_json_log_is_one_object_a_line_with_the_connection_it_is_about() {
    let pki = Pki::new();
    let (certificate, key) = pki.files(Profile::SERVER);
    let mut program = Program::start(command([
        "--listen",
        "127.0.0.1:0",
        "--cert",
        &certificate,
        "--key",
        &key,
        "--drain-timeout",
        "0s",
        "--log-format",
        "json",
        "-vv",
    ]))
    .unwrap();
    let line: Value = serde_json::from_str(&program.wait_for("listening on ")).unwrap();
    let message = line["message"].as_str().unwrap();
    let address = message.split(' ').nth(2).unwrap().parse().unwrap();
    let server = Server { program, address };
    let mut streams: Vec<_> = (0..2).map(|_| server.connect(pki.client())).collect();
    for stream in &mut streams {
        assert_echo(stream, b"hello");
    }
    let finished = server.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert_eq!(receive(&mut streams[0]), None);
    let lines: Vec<Value> = finished
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    for line in &lines {
        for field in ["time", "level", "target", "message"] {
            assert!(line[field].is_string(), "{line}");
        }
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    let connected: Vec<_> = lines
        .iter()
        .filter(|line| line["message"].as_str().unwrap().starts_with("connected"))
        .collect();
    assert_eq!(connected.len(), 2, "one line a connection");
    let peers: BTreeSet<_> = streams
        .iter()
        .map(|stream| stream.local_addr().to_string())
        .collect();
    let logged: BTreeSet<_> = connected
        .iter()
        .map(|line| line["peer"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(logged, peers);
    for line in connected {
        assert_eq!(line["level"], "info");
        assert_eq!(line["listener"], address.to_string());
        assert_eq!(line["resumed"], false);
        assert!(line["handshake_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(line["server_name"], "localhost");
        // The line at its end has the same number.
        let ends = lines.iter().filter(|end| {
            end["connection"] == line["connection"]
                && end["message"] == "closed by the server's shutdown"
        });
        assert_eq!(ends.count(), 1, "{line}");
    }
}
