//! What a run leaves for people and programs: the capture, the page, JSON and `JUnit` XML.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{CLEAN, TestLab, statuses};

/// What stands in the double quotes behind each `href=` of a page.
fn links(page: &str) -> Vec<&str> {
    let mut links = Vec::new();
    for rest in page.split("href=\"").skip(1) {
        links.extend(rest.split('"').next());
    }
    links
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The application data in a capture, a datagram a line with its port before it. No key log is named: the secrets
/// are in the file, or nothing is read. The port belongs to CoAP, which these lines are not.
fn application_data(capture: &Path) -> String {
    let output = Command::new("tshark")
        .arg("-r")
        .arg(capture)
        .args(["-d", "udp.port==5684,dtls", "-d", "dtls.port==5684,data"])
        .args(["-o", "data.show_as_text:TRUE", "-Y", "data"])
        .args(["-T", "fields", "-e", "udp.srcport", "-e", "data.text"])
        .output()
        .expect("tshark is installed: `make deps`, or apt-get install tshark");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn capture_of_the_simulator_shows_its_application_data_too() {
    let lab = TestLab::new();
    // A resumed handshake besides: its secrets are those of the session.
    let (code, report) = lab.report(&["clean", "resumed-drop-flight4", "--backend", "sim"]);
    assert_eq!(code, 0, "{report}");
    let runs = report["runs"].as_array().expect("a report has runs");
    let played: Vec<&Value> = runs.iter().filter(|run| run["status"] == "pass").collect();
    assert!(
        played.len() >= 3,
        "both scenarios, one over IPv6 too: {report}"
    );
    for run in played {
        let shown = application_data(&lab.evidence(run).join("wire.pcapng"));
        for from_server in [false, true] {
            assert!(
                shown.lines().any(|line| {
                    line.starts_with("5684\t") == from_server && line.contains("\tlab-")
                }),
                "{}: {shown:?}",
                run["id"]
            );
        }
    }
}

#[test]
fn capture_holds_the_secrets_that_show_its_application_data() {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN);
    let (code, report) = lab.report(&["--seed", "7c1e"]);
    assert_eq!(code, 0, "{report}");
    let capture = lab.evidence(&report["runs"][0]).join("wire.pcapng");
    let shown = application_data(&capture);
    for (from_server, ending) in [(false, '>'), (true, '<')] {
        assert!(
            shown.lines().any(|line| {
                line.starts_with("5684\t") == from_server
                    && line.contains("\tlab-")
                    && line.contains(ending)
            }),
            "no text with {ending} in {shown:?}"
        );
    }
    // Who hands it on can take the secrets out, with a tool of the same package.
    let output = Command::new("editcap")
        .arg("--discard-all-secrets")
        .args([&capture, &capture.with_file_name("without.pcapng")])
        .output()
        .expect("tshark's package brings editcap");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn page_tells_which_datagram_was_lost_and_how_to_replay_it() {
    let lab = TestLab::new();
    let (code, _) = lab.report(&["handshake-drop-hello-verify", "--backend", "sim"]);
    assert_eq!(code, 0);
    let page = read(&lab.out().join("latest/index.html"));
    let lost: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("<g class=\"lost\">"))
        .collect();
    assert!(!lost.is_empty(), "the run's ladder shows what was lost");
    for line in lost {
        assert!(line.contains(">HelloVerifyRequest</text>"), "{line}");
        assert!(line.contains("lost by rule 1"), "{line}");
    }
    assert!(page.contains("<code>dtls-lab run handshake-drop-hello-verify --backend sim --seed"));
}

#[test]
fn page_needs_nothing_from_elsewhere_and_its_links_lead_somewhere() {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN);
    let (code, report) = lab.report(&[]);
    assert_eq!((code, statuses(&report)), (0, vec!["pass"]), "{report}");
    // As a person opens it, and as one does who has moved the folder.
    let latest = lab.out().join("latest");
    let moved = lab.path().join("moved");
    let page = read(&latest.join("index.html"));
    std::fs::rename(latest.canonicalize().expect("it is there"), &moved).expect("it is ours");
    for elsewhere in ["http:", "https:", "src=", "@import", "url(http"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    let links = links(&page);
    for link in &links {
        match link.strip_prefix('#') {
            Some(id) => assert!(page.contains(&format!("id=\"{id}\"")), "#{id}"),
            None => assert!(moved.join(link).is_file(), "{link}"),
        }
    }
    for file in [
        "wire.pcapng",
        "server.log",
        "client.log",
        "report.json",
        "junit.xml",
    ] {
        assert!(links.iter().any(|link| link.ends_with(file)), "{file}");
    }
}

#[test]
fn every_report_of_the_catalogue_keeps_the_schema_and_its_counts() {
    let lab = TestLab::new();
    let (code, report) = lab.report(&["--backend", "sim", "--seed", "7c1e"]);
    assert_eq!(code, 0, "{report}");
    let schema = include_str!("../src/report/report.schema.json");
    let schema: Value = serde_json::from_str(schema).expect("it is JSON");
    let validator = jsonschema::validator_for(&schema).expect("it is a schema");
    let errors: Vec<String> = validator
        .iter_errors(&report)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");

    let latest = lab.out().join("latest");
    let kept: Value = serde_json::from_str(&read(&latest.join("report.json"))).expect("JSON");
    assert_eq!(kept, report, "what is printed is what is kept");
    let junit = quick_junit::Report::deserialize_from_str(&read(&latest.join("junit.xml")));
    let junit = junit.expect("it is JUnit XML");
    let sum = |name: &str| report["summary"][name].as_u64().expect("a count");
    let skipped: usize = junit.test_suites.iter().map(|suite| suite.skipped).sum();
    let told = [junit.tests, junit.failures + junit.errors, skipped].map(|count| count as u64);
    let not_played = sum("skipped") + sum("unsupported") + sum("known_failures");
    let runs = statuses(&report).len() as u64;
    assert_eq!(told, [runs, sum("unexpected"), not_played]);
    assert!(
        sum("pass") > 0 && sum("skipped") > 0,
        "both kinds are tried"
    );
}
