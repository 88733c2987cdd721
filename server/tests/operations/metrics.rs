//! The metrics page is valid OpenMetrics and tells what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;

use dtls_certs::Profile;
use serde_json::Value;

use super::common::backend::Backend;
use super::common::{Pki, Program, Server, assert_echo, command, wait_until};
use super::{Operated, serve};

/// A metrics page, held against the rules of OpenMetrics 1.0 while it is read.
pub(super) struct Exposition(BTreeMap<String, f64>);

impl Exposition {
    #[track_caller]
    pub(super) fn parse(page: &str) -> Self {
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
    pub(super) fn get(&self, series: &str) -> f64 {
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
