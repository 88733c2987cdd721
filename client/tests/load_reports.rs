//! The reports of `dtls-client load` as files, and what `compare` and `merge` make of them.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use common::load::{assert_valid, doubts, load};
use common::network::{Fate, Network};
use common::{Process, Server, assert_refused, ca, run, stderr, stdout};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

fn save(dir: &Path, name: &str, report: &Value) -> String {
    let path = dir.join(name).display().to_string();
    fs::write(&path, report.to_string()).unwrap();
    path
}

#[test]
fn the_histogram_log_has_a_tagged_line_for_each_phase_with_every_measurement() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.hdr").display().to_string();
    let server = Server::echo();
    let args = ["--connections", "30", "--messages", "4", "--hdr", &file];
    let (report, code) = load(server.address, &args);
    assert_eq!(code, Some(0), "{report:#}");
    let log = fs::read(&file).unwrap();
    let mut found = Vec::new();
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(interval.encoded_histogram())
                .unwrap();
            let histogram: Histogram<u64> = Deserializer::new()
                .deserialize(&mut Cursor::new(bytes))
                .unwrap();
            let tag = interval.tag().unwrap().as_str().to_owned();
            let max = report["latency"][&tag]["max_ms"].as_f64().unwrap();
            #[expect(clippy::cast_precision_loss, reason = "compared to a thousandth")]
            let its = histogram.max() as f64 / 1e6;
            assert!((its / max - 1.0).abs() < 0.002, "{tag}: {its} and {max}");
            found.push((tag, histogram.len()));
        }
    }
    let expected = [
        ("start_delay", 30),
        ("cookie", 30),
        ("full_handshake", 30),
        ("first_byte", 30),
        ("message", 120),
    ]
    .map(|(tag, count)| (tag.to_owned(), count));
    assert_eq!(found, expected);
}

#[test]
fn the_page_needs_nothing_else_and_has_charts_with_units_for_light_and_dark() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.html").display().to_string();
    let server = Server::echo();
    let args = ["--rate", "20..60/1s", "--messages", "2", "--html", &file];
    let (report, _) = load(server.address, &args);
    let page = fs::read_to_string(&file).unwrap();
    assert_eq!(page.matches("<svg").count(), 4, "{report:#}");
    for part in [
        "latency (ms)",
        "percentile",
        "intended start (s)",
        "full handshake",
        "prefers-color-scheme: dark",
        "<h2>Knee</h2>",
        "<h2>Set-up</h2>",
        "20..60/1s",
    ] {
        assert!(page.contains(part), "{part:?} is missing");
    }
    // Nothing is fetched; a namespace's name is no address.
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for part in ["<script", "http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(part), "{part:?} is there");
    }
}

/// Two runs that begin at the same moment, as two machines make them.
fn together(server: &Server, args: &[&str]) -> Vec<Value> {
    // Both programs are up by then, on a busy machine as well.
    let start = std::time::SystemTime::now() + Duration::from_secs(10);
    let start = humantime::format_rfc3339_millis(start).to_string();
    let (target, ca) = (server.target(), ca());
    let base = [
        "load",
        &target,
        "--ca",
        &ca,
        "--format",
        "json",
        "--start-at",
        &start,
    ];
    let all = [&base, args].concat();
    let runs = [Process::client(&all), Process::client(&all)];
    runs.into_iter()
        .map(|run| {
            let output = run.finish();
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            serde_json::from_slice(&output.stdout).unwrap()
        })
        .collect()
}

#[test]
fn merged_reports_are_what_one_machine_would_have_found() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::echo();
    // Stretches long enough that a busy machine begins both in the same.
    let args = ["--rate", "10,20/2s", "--p99", "30s", "--messages", "5"];
    let reports = together(&server, &args);
    let files: Vec<String> = reports
        .iter()
        .enumerate()
        .map(|(at, report)| save(dir.path(), &format!("{at}.json"), report))
        .collect();
    let output = run(&["merge", &files[0], &files[1], "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let merged: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_valid(&merged);
    for name in [
        "begun",
        "completed",
        "handshakes",
        "sent",
        "received",
        "cookies",
    ] {
        let sum: u64 = reports
            .iter()
            .map(|report| report[name].as_u64().unwrap())
            .sum();
        assert_eq!(merged[name], sum, "{name}");
    }
    for phase in ["full_handshake", "message", "cookie"] {
        let of = |name: &str| -> Vec<f64> {
            let all = reports.iter();
            all.map(|report| report["latency"][phase][name].as_f64().unwrap())
                .collect()
        };
        let ours = |name: &str| merged["latency"][phase][name].as_f64().unwrap();
        assert_eq!(ours("count"), of("count").iter().sum::<f64>());
        assert_eq!(ours("max_ms"), of("max_ms").into_iter().fold(0.0, f64::max));
        let p50 = of("p50_ms");
        assert!(
            (p50[0].min(p50[1])..=p50[0].max(p50[1])).contains(&ours("p50_ms")),
            "{phase}"
        );
    }
    // Both at once are twice the rate.
    assert_eq!(merged["plan"]["rate"], "20,40/2s");
    assert_eq!(merged["knee"]["rate"].as_f64(), Some(40.0), "{merged:#}");
    let begun = |at: usize| merged["windows"][at]["begun"].as_u64();
    assert_eq!((begun(0), begun(1)), (Some(40), Some(80)));
    assert!(!doubts(&merged, "merged_apart"), "{merged:#}");

    let output = run(&["merge", &files[0], &files[0]]);
    assert_refused(&output, 2, &[&files[0], "twice"]);
    let copy = save(dir.path(), "copy.json", &reports[0]);
    let output = run(&["merge", &files[0], &files[1], &copy]);
    assert_refused(&output, 2, &[&copy, "the same run"]);
    let text = stdout(&run(&["merge", &files[0], &files[1]]));
    assert!(text.contains("120 completed, 0 failed"), "{text}");
}

#[test]
fn runs_one_after_another_are_repetitions_and_other_plans_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::echo();
    let run_with = |name: &str, args: &[&str]| {
        let base = ["--rate", "40", "--duration", "500ms", "--messages", "1"];
        let (report, code) = load(server.address, &[&base, args].concat());
        assert_eq!(code, Some(0), "{report:#}");
        (save(dir.path(), name, &report), report)
    };
    let (first, one) = run_with("first.json", &[]);
    let (second, two) = run_with("second.json", &["--seed", "2", "--threads", "1"]);
    let output = run(&["merge", &first, &second, "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let merged: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_valid(&merged);
    assert!(doubts(&merged, "merged_apart"), "{merged:#}");
    assert_eq!(
        (&merged["completed"], &merged["windows"]),
        (&40.into(), &serde_json::json!([]))
    );
    // As often as in each, not twice as often.
    let seconds = |report: &Value| report["seconds"].as_f64().unwrap();
    let both = seconds(&one) + seconds(&two);
    assert!((seconds(&merged) - both).abs() < 0.01, "{merged:#}");
    assert_eq!(merged["plan"]["rate"], "40");

    let (other, _) = run_with("other.json", &["--size", "200", "--timeout", "3s"]);
    let output = run(&["merge", &first, &other]);
    assert_refused(
        &output,
        2,
        &[&other, &first, "another plan (size, timeout)"],
    );
    let text = stdout(&run(&["compare", &first, &other]));
    assert!(text.contains("the plans differ in size, timeout"), "{text}");
}

#[test]
fn a_run_through_a_slower_network_is_worse_and_the_same_run_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::echo();
    let slow = Network::start(server.address, |_| Fate::After(Duration::from_millis(250)));
    let args = ["--rate", "60", "--connections", "60", "--messages", "1"];
    let (a, b) = (load(server.address, &args).0, load(slow.address, &args).0);
    let [a, b] = [
        save(dir.path(), "a.json", &a),
        save(dir.path(), "b.json", &b),
    ];
    let verdicts = |b: &str| -> Vec<(String, String)> {
        let output = run(&["compare", &a, b, "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(comparison["differences"], serde_json::json!([]));
        let lines = comparison["lines"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        lines
            .map(|line| (text(&line["what"]), text(&line["verdict"])))
            .collect()
    };
    let against_slow = verdicts(&b);
    for what in ["cookie round trip p50", "full handshake p50", "message p50"] {
        let line = (what.to_owned(), "worse".to_owned());
        assert!(against_slow.contains(&line), "{what}: {against_slow:?}");
    }
    for (what, verdict) in verdicts(&a) {
        assert!(
            ["same", "unknown"].contains(&verdict.as_str()),
            "{what}: {verdict}"
        );
    }
    let text = stdout(&run(&["compare", &a, &b]));
    assert!(
        text.contains("full handshake p50") && text.contains("worse"),
        "{text}"
    );
}

#[test]
fn what_is_no_report_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::echo();
    let (mut report, _) = load(server.address, &["--connections", "2"]);
    let good = save(dir.path(), "good.json", &report);
    let missing = dir.path().join("missing.json").display().to_string();
    let other = save(
        dir.path(),
        "other.json",
        &serde_json::json!({"completed": 1}),
    );
    report["form"] = 1.into();
    let old = save(dir.path(), "old.json", &report);
    report["form"] = 3.into();
    report["histograms"]["message"] = "AAAA".into();
    let broken = save(dir.path(), "broken.json", &report);
    for (file, words) in [
        (&missing, "No such file"),
        (&other, "no report of dtls-client load"),
        (&old, "has form 1"),
        (&broken, "no HDR histogram"),
    ] {
        assert_refused(&run(&["compare", &good, file]), 2, &[file, words]);
        assert_refused(&run(&["merge", file, &good]), 2, &[file, words]);
    }
}

#[test]
fn runs_that_begin_at_the_same_time_do() {
    let server = Server::echo();
    let start = std::time::SystemTime::now() + Duration::from_millis(1500);
    let start = humantime::format_rfc3339_millis(start).to_string();
    let args = ["--connections", "2", "--start-at", &start];
    let (report, code) = load(server.address, &args);
    assert_eq!(code, Some(0), "{report:#}");
    let began = humantime::parse_rfc3339(report["started_at"].as_str().unwrap()).unwrap();
    let meant = humantime::parse_rfc3339(&start).unwrap();
    let late = began.duration_since(meant).unwrap();
    assert!(late < Duration::from_secs(1), "{late:?}");
}
