//! The report's words and counts.

use std::path::Path;

use super::*;
use crate::adapter::Adapters;

pub(super) fn row(status: Status) -> Row {
    Row {
        id: "clean.ipv4.ours.openssl".to_owned(),
        claim: "It works.".to_owned(),
        unverified_bytes: Some(Exchanged {
            received: 200,
            sent: 60,
        }),
        seconds: 0.5,
        sketch: None,
        scenario: "clean".to_owned(),
        family: Family::Ipv4,
        server: "ours".to_owned(),
        client: "openssl".to_owned(),
        backend: "wire",
        dilated: None,
        status,
        handshake_ms: Some(3.1),
        resent: Some(0),
        why: "because".to_owned(),
        handshake_only: false,
        known: None,
        evidence: Some("clean.ipv4.ours.openssl".to_owned()),
        replay: "dtls-lab run clean --seed 7c1e".to_owned(),
    }
}

pub(super) fn report(runs: Vec<Row>) -> Report {
    let summary = Summary::of(&runs, Duration::from_millis(71_040));
    Report {
        folder: "lab/latest".to_owned(),
        started_at: "2026-11-28T13:00:00Z".to_owned(),
        version: "0.1.0",
        seed: "7c1e".to_owned(),
        defect: None,
        backend: "wire".to_owned(),
        runs,
        summary,
        replay: "dtls-lab run --seed 7c1e".to_owned(),
    }
}

fn table(statuses: &[Status]) -> String {
    let report = report(statuses.iter().copied().map(row).collect());
    let mut text = anstream::StripStream::new(Vec::new());
    write_table(&mut text, &report, Path::new("lab/latest")).expect("memory takes everything");
    String::from_utf8(text.into_inner()).expect("the table is text")
}

pub(super) const ALL: [Status; 8] = [
    Status::Pass,
    Status::KnownFailure,
    Status::Fail,
    Status::UnexpectedPass,
    Status::Broken,
    Status::Unsupported,
    Status::Skipped,
    Status::RequiredButSkipped,
];

#[test]
fn last_line_counts_every_run_once() {
    let text = table(&ALL);
    let last = text.lines().last().expect("there is a last line");
    assert_eq!(
        last,
        "1 pass, 1 known failures of other implementations, 4 unexpected, 1 unsupported, \
         1 skipped in 71 s"
    );
}

#[test]
fn unexpected_runs_alone_come_with_evidence_and_replay() {
    assert!(!table(&[Status::Pass, Status::KnownFailure, Status::Skipped]).contains("replay"));
    let text = table(&[Status::Fail]);
    assert!(
        text.contains("replay    dtls-lab run clean --seed 7c1e"),
        "{text}"
    );
    assert!(text.contains("evidence  lab/latest/clean.ipv4"), "{text}");
}

#[test]
fn columns_stand_under_their_headings() {
    let text = table(&[Status::Pass]);
    let lines: Vec<&str> = text.lines().collect();
    for word in ["server", "client", "verdict"] {
        let column = lines[0].find(word).expect("a heading");
        assert_ne!(&lines[1][column..=column], " ", "{text}");
    }
}

#[test]
fn requirement_is_checked_and_all_means_everything() {
    assert!(
        Required::parse("openssl, ipv6", &Adapters::built_in())
            .expect("both exist")
            .demands("ipv6")
    );
    assert!(
        Required::parse("all", &Adapters::built_in())
            .expect("it exists")
            .demands("openssl")
    );
    assert!(
        !Required::parse("", &Adapters::built_in())
            .expect("nothing is required")
            .demands("openssl")
    );
    assert!(
        Required::parse("opnssl", &Adapters::built_in())
            .expect_err("a typo")
            .contains("`opnssl`")
    );
}

#[test]
fn endpoint_with_many_arguments_is_shortened_in_its_column() {
    let mut long = row(Status::Pass);
    long.client = format!("openssl -servername {}", "name.".repeat(30));
    let report = report(vec![long]);
    let mut text = anstream::StripStream::new(Vec::new());
    write_table(&mut text, &report, Path::new("lab/latest")).expect("memory takes everything");
    let text = String::from_utf8(text.into_inner()).expect("the table is text");
    assert!(
        text.contains("openssl -servername name.name.n…  "),
        "{text}"
    );
}

#[test]
fn json_of_every_verdict_keeps_the_schema() {
    let mut runs: Vec<Row> = ALL.map(row).to_vec();
    runs[0].handshake_ms = None;
    runs[0].resent = None;
    runs[0].unverified_bytes = None;
    runs[0].evidence = None;
    runs[1].known = Some("it is old".to_owned());
    let mut text = Vec::new();
    write_json(&mut text, &report(runs)).expect("memory takes everything");
    let document: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
    let schema = serde_json::from_str(include_str!("report.schema.json")).expect("it is JSON");
    let validator = jsonschema::validator_for(&schema).expect("it is a schema");
    let errors: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

fn junit(runs: Vec<Row>) -> quick_junit::Report {
    let mut text = Vec::new();
    write_junit(&mut text, &report(runs)).expect("memory takes everything");
    let text = String::from_utf8(text).expect("it is text");
    quick_junit::Report::deserialize_from_str(&text).expect("it is JUnit XML")
}

#[test]
fn junit_counts_failures_errors_and_skips_as_the_summary_does() {
    let mut other = row(Status::Pass);
    other.scenario = "loss-20".to_owned();
    let mut runs = ALL.map(row).to_vec();
    runs.push(other);
    let report = junit(runs);
    assert_eq!((report.tests, report.failures, report.errors), (9, 3, 1));
    let suites: Vec<_> = report
        .test_suites
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.tests,
                it.failures,
                it.errors,
                it.skipped,
            )
        })
        .collect();
    assert_eq!(suites, [("clean", 8, 3, 1, 3), ("loss-20", 1, 0, 0, 0)]);
}

#[test]
fn junit_tells_a_known_failure_apart_and_how_to_replay() {
    let mut known = row(Status::KnownFailure);
    known.known = Some("its socket is connected".to_owned());
    known.why = "closed \u{1b}[31mafter\u{0} <ICMP> & more".to_owned();
    let report = junit(vec![known]);
    let case = &report.test_suites[0].test_cases[0];
    let quick_junit::TestCaseStatus::Skipped { message, ty, .. } = &case.status else {
        panic!("{case:?}");
    };
    assert_eq!(ty.as_ref().map(|ty| ty.as_str()), Some("fail (known)"));
    let message = message.as_ref().expect("it has a reason").as_str();
    assert!(message.contains("its socket is connected"), "{message}");
    assert!(message.contains("after <ICMP> & more"), "{message}");
    let said = case
        .system_out
        .as_ref()
        .expect("it says something")
        .as_str();
    assert!(said.contains("dtls-lab run clean --seed 7c1e"), "{said}");
}
