//! What a running server tells those who run it: metrics, health, readiness, status and the log.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use common::backend::Backend;
use common::{PATIENCE, Pki, Program, Server, assert_echo, command, now, receive, wait_until};
use dtls_certs::Profile;
use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
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

/// A metrics page, held against the rules of OpenMetrics 1.0 while it is read.
struct Exposition(BTreeMap<String, f64>);

impl Exposition {
    #[track_caller]
    fn parse(page: &str) -> Self {
        let body = page.strip_suffix("# EOF\n").expect("ends with # EOF");
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        // Name, type and unit of the present family.
        let (mut name, mut kind, mut unit) = (String::new(), String::new(), None);
        let mut helped = false;
        for line in body.lines() {
            if let Some(meta) = line.strip_prefix("# ") {
                let mut words = meta.splitn(3, ' ');
                let (what, of, text) = (
                    words.next().unwrap(),
                    words.next().unwrap(),
                    words.next().unwrap(),
                );
                match what {
                    "HELP" => {
                        assert!(families.insert(of.to_owned()), "{of} twice");
                        assert!(text.len() > 5 && !text.contains('`'), "{line}");
                        (name, unit, helped) = (of.to_owned(), None, true);
                        kind.clear();
                    }
                    "TYPE" => {
                        assert!(helped && of == name, "{line}");
                        assert!(["counter", "gauge", "histogram"].contains(&text), "{line}");
                        text.clone_into(&mut kind);
                    }
                    "UNIT" => {
                        assert!(of == name && name.ends_with(&format!("_{text}")), "{line}");
                        unit = Some(text.to_owned());
                    }
                    other => panic!("{other} in {line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let sample = series.split('{').next().unwrap();
            let suffix = sample.strip_prefix(&name).expect("of its family");
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_sum", "_count", "_bucket"],
                other => panic!("{other:?} before {line}"),
            };
            assert!(suffixes.contains(&suffix), "{line}");
            let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(sample.chars().all(valid), "{line}");
            // A name that ends in a unit says so.
            for known in ["seconds", "bytes"] {
                if name.ends_with(known) && kind != "counter" {
                    assert_eq!(unit.as_deref(), Some(known), "{name}");
                }
            }
            assert_labels(&series[sample.len()..]);
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0 && value.is_finite(), "{line}");
            let twice = samples.insert(series.to_owned(), value);
            assert!(twice.is_none(), "{series} twice");
        }
        Self(samples)
    }

    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        *self
            .0
            .get(series)
            .unwrap_or_else(|| panic!("no {series} in {:#?}", self.0.keys()))
    }

    /// The cumulative counts of a histogram, by upper bound as written.
    fn buckets(&self, name: &str, labels: &str) -> Vec<(String, f64)> {
        let prefix = format!("{name}_bucket{{");
        let mut found: Vec<_> = self
            .0
            .iter()
            .filter(|(series, _)| series.starts_with(&prefix) && series.contains(labels))
            .map(|(series, value)| {
                let bound = series.split("le=\"").nth(1).unwrap();
                (bound.split('"').next().unwrap().to_owned(), *value)
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| {
            let number = |text: &str| text.replace("+Inf", "inf").parse::<f64>().unwrap();
            number(a).total_cmp(&number(b))
        });
        found
    }
}

/// `{name="value",…}`, or nothing.
#[track_caller]
fn assert_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let inner = labels
        .strip_prefix('{')
        .and_then(|labels| labels.strip_suffix('}'))
        .unwrap();
    // No value here holds a comma.
    for label in inner.split(',') {
        let (name, value) = label.split_once('=').unwrap();
        assert!(name.chars().all(|c| c.is_ascii_lowercase()), "{labels}");
        assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'));
    }
}

#[test]
fn the_metrics_page_is_valid_and_tells_what_happened() {
    let (pki, backend) = (Pki::new(), Backend::new().echo());
    let address = backend.address.to_string();
    let operated = serve(&pki, &["--service", "forward", "--backend", &address]);
    let listener = format!("listener=\"{}\"", operated.server.address);
    let own = |name: &str| format!("dtls_server_{name}{{{listener}}}");
    let before = operated.metrics();
    assert_eq!(before.get(&own("handshakes_completed_total")), 0.0);
    assert_eq!(before.get(&own("connections")), 0.0);
    assert_eq!(before.get("dtls_server_ready"), 1.0);

    let mut streams: Vec<_> = (0..3)
        .map(|_| operated.server.connect(pki.client()))
        .collect();
    for stream in &mut streams {
        assert_echo(stream, b"twelve bytes");
    }
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger
        .send_to(b"no hello", operated.server.address)
        .unwrap();
    wait_until(
        "noise",
        || operated.metrics().get(&own("unknown_peer_total")),
        |&count| count > 0.0,
    );
    let now = operated.metrics();
    for (name, expected) in [
        ("handshakes_completed_total", 3.0),
        ("connections", 3.0),
        ("handshakes_in_progress", 0.0),
        ("datagrams_to_backend_total", 3.0),
        ("bytes_from_backend_total", 36.0),
    ] {
        assert_eq!(now.get(&own(name)), expected, "{name}");
    }
    assert_eq!(now.get("dtls_server_backend_ports"), 3.0);
    assert!(now.get("process_resident_memory_bytes") > 1e6);
    assert!(now.get("process_open_fds") > 6.0);
    let runts = format!("dtls_server_dropped_total{{{listener},reason=\"runt\"}}");
    assert_eq!(now.get(&runts), 0.0);

    let name = "dtls_server_handshake_duration_seconds";
    let full = format!("{{{listener},kind=\"full\"}}");
    assert_eq!(now.get(&format!("{name}_count{full}")), 3.0);
    let buckets = now.buckets(name, "kind=\"full\"");
    assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    assert_eq!(buckets.last().unwrap(), &("+Inf".to_owned(), 3.0));
    assert!(now.get(&format!("{name}_sum{full}")) > 0.0);
}

#[test]
fn every_counter_of_the_report_is_a_metric() {
    let pki = Pki::new();
    let operated = serve(&pki, &[]);
    let listener = operated.server.address.to_string();
    let metrics = operated.metrics();
    let finished = operated.server.finish();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    for name in report["counters"].as_object().unwrap().keys() {
        match name.strip_prefix("dropped_") {
            Some(reason) => metrics.get(&format!(
                "dtls_server_dropped_total{{listener=\"{listener}\",reason=\"{reason}\"}}"
            )),
            None => metrics.get(&format!(
                "dtls_server_{name}_total{{listener=\"{listener}\"}}"
            )),
        };
    }
}

#[test]
fn each_listener_has_its_own_samples_and_its_line_in_the_status() {
    let pki = Pki::new();
    let (certificate, key) = pki.files(Profile::SERVER);
    let file = pki.path("server.toml");
    let text = format!(
        "metrics = \"127.0.0.1:0\"\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\ncert = {certificate:?}\nkey = {key:?}\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\ncert = {certificate:?}\nkey = {key:?}\nservice = \"discard\"\n"
    );
    fs::write(&file, text).unwrap();
    let mut program = Program::start(command(["--config", &file])).unwrap();
    let first = program.wait_for("service echo");
    program.wait_for("service discard");
    let line = program.wait_for("operations pages at http://");
    let pages = line.split("http://").nth(1).unwrap();
    let pages = pages.split('/').next().unwrap().parse().unwrap();
    let address: SocketAddr = first.split(' ').nth(2).unwrap().parse().unwrap();
    let server = Server { program, address };
    let operated = Operated { server, pages };
    let mut stream = operated.server.connect(pki.client());
    assert_echo(&mut stream, b"to the first");
    let metrics = operated.metrics();
    let counts: Vec<f64> = metrics
        .0
        .iter()
        .filter(|(series, _)| series.starts_with("dtls_server_connections{"))
        .map(|(_, count)| *count)
        .collect();
    assert_eq!(counts.len(), 2);
    assert_eq!(counts.iter().sum::<f64>(), 1.0);
    let (_, status) = operated.get("/status");
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["listeners"][0]["connections"], 1);
    assert_eq!(status["listeners"][1]["service"], "discard");
    assert_eq!(status["listeners"][1]["connections"], 0);
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
fn other_requests_are_refused() {
    let pki = Pki::new();
    let operated = serve(&pki, &[]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("\x16\x03\x01 what is this\r\n\r\n", "400"),
    ] {
        let answer = ask(operated.pages, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let head = ask(operated.pages, "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    // A request without end.
    let mut endless = TcpStream::connect(operated.pages).unwrap();
    while endless.write_all(&[b'a'; 4096]).is_ok() {}
    assert_eq!(operated.get("/health").0, 200);
}

#[test]
fn idle_readers_hold_neither_the_pages_nor_their_connections() {
    let pki = Pki::new();
    let operated = serve(&pki, &[]);
    let silent = || TcpStream::connect(operated.pages).unwrap();
    let begun = now();
    let mut first: Vec<_> = (0..10).map(|_| silent()).collect();
    assert_eq!(operated.get("/health").0, 200);
    for stream in &mut first {
        // Still open: the answer did not wait for their end.
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]).map_err(|error| error.kind());
        // After two seconds they are cut off.
        if begun.elapsed() < Duration::from_millis(1500) {
            assert_eq!(read, Err(ErrorKind::WouldBlock));
        }
    }
    // More than there is room for: the oldest pays.
    let mut more: Vec<_> = (0..100).map(|_| silent()).collect();
    assert_eq!(operated.get("/health").0, 200);
    // Their time is up, also for those that say something now and then.
    let dribble = more.pop().unwrap();
    wait_until(
        "the dribbling reader is cut off",
        || (&dribble).write_all(b"G").is_err(),
        |cut_off| *cut_off,
    );
    for mut stream in first.into_iter().chain(more) {
        stream.set_nonblocking(false).unwrap();
        assert_closed_unanswered(&mut stream);
    }
}

#[track_caller]
fn assert_closed_unanswered(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let read = stream.read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "{read:?}"
    );
}

#[test]
fn a_flood_from_one_host_cuts_off_no_other() {
    let pki = Pki::new();
    let operated = serve(&pki, &[]);
    let begin = || TcpStream::connect(operated.pages).unwrap();
    let end_of_flood = |scraper: &mut TcpStream| {
        scraper.write_all(b"GET /health HT").unwrap();
        let mut flood: Vec<_> = (0..100).map(|_| from_elsewhere(operated.pages)).collect();
        // The first of the flood is the first that makes room, once there is none.
        assert_closed_unanswered(&mut flood[0]);
        flood
    };
    // On a busy machine its two seconds may be over by then.
    wait_until(
        "the scraper is answered",
        || {
            let mut scraper = begin();
            let flood = end_of_flood(&mut scraper);
            drop(scraper.write_all(b"TP/1.1\r\n\r\n"));
            let mut answer = String::new();
            drop(scraper.read_to_string(&mut answer));
            drop(flood);
            answer
        },
        |answer| answer.starts_with("HTTP/1.1 200 OK"),
    );
}

/// A connection whose other end has another address of the loopback.
fn from_elsewhere(to: SocketAddr) -> TcpStream {
    let SocketAddr::V4(to) = to else {
        panic!("{to} is no IPv4 address");
    };
    let kind = (
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
    );
    let socket = socket::socket(kind.0, kind.1, kind.2, None).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 2, 0)).unwrap();
    socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    TcpStream::from(socket)
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
    let text = include_str!("../../dist/dtls-server.service");
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
