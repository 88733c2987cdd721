//! The report's words and counts.

use super::*;
use crate::adapter::Adapters;

fn row(status: Status) -> Row {
    Row {
        scenario: "clean".to_owned(),
        family: Family::Ipv4,
        server: "ours".to_owned(),
        client: "openssl".to_owned(),
        status,
        handshake_ms: Some(3.1),
        resent: Some(0),
        why: "because".to_owned(),
        handshake_only: false,
        known: None,
        evidence: Some("target/lab/latest/clean".to_owned()),
        replay: "dtls-lab run clean --seed 7c1e".to_owned(),
    }
}

fn table(statuses: &[Status]) -> String {
    let runs: Vec<Row> = statuses.iter().copied().map(row).collect();
    let summary = Summary::of(&runs, Duration::from_millis(71_040));
    let report = Report {
        seed: "7c1e".to_owned(),
        backend: "wire",
        runs,
        summary,
    };
    let mut text = anstream::StripStream::new(Vec::new());
    write_table(&mut text, &report).expect("memory takes everything");
    String::from_utf8(text.into_inner()).expect("the table is text")
}

const ALL: [Status; 8] = [
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
    assert!(text.contains("evidence  target/lab/latest/clean"), "{text}");
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
    let runs = vec![long];
    let summary = Summary::of(&runs, Duration::ZERO);
    let report = Report {
        seed: "7c1e".to_owned(),
        backend: "wire",
        runs,
        summary,
    };
    let mut text = anstream::StripStream::new(Vec::new());
    write_table(&mut text, &report).expect("memory takes everything");
    let text = String::from_utf8(text.into_inner()).expect("the table is text");
    assert!(
        text.contains("openssl -servername name.name.n…  "),
        "{text}"
    );
}
