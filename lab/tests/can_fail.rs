//! Each safeguard of our server is watched by a scenario: without it that scenario turns red, with
//! all of them it is green.
//!
//! Needs `dtls-server-weakened`, the server with switches that no user gets, and our client.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{TestLab, statuses};

/// The folder of the built programs, after checking that those needed are there.
fn programs() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_dtls-lab"))
        .parent()
        .expect("a program is in a folder");
    for (program, build) in [
        ("dtls-client", "cargo build -p dtls-client"),
        (
            "dtls-server-weakened",
            "cargo build -p dtls-server --features testing --bin dtls-server-weakened",
        ),
    ] {
        assert!(
            folder.join(program).is_file(),
            "{program} is missing: run `{build}` first"
        );
    }
    folder.to_owned()
}

/// Plays the built-in scenario against the weakened server, with this safeguard off if one is named.
fn play(scenario: &str, client: &str, without: Option<&str>) -> (i32, Value) {
    let folder = programs();
    let server = folder.join("dtls-server-weakened");
    let mut arguments = vec![scenario, "--server", "ours", "--client", client];
    arguments.extend(["--family", "ipv4", "--seed", "7c1e"]);
    arguments.extend(["--server-bin", server.to_str().expect("a plain path")]);
    if let Some(safeguard) = without {
        arguments.extend(["--server-arg", "--without", "--server-arg", safeguard]);
    }
    TestLab::new().report(&arguments)
}

/// The scenarios that failed.
fn failed(report: &Value) -> Vec<&str> {
    let runs = report["runs"].as_array().expect("a report has runs");
    runs.iter()
        .filter(|run| run["status"] == "fail")
        .filter_map(|run| run["scenario"].as_str())
        .collect()
}

/// The scenario is green with every safeguard and red without this one, by the scenario itself and
/// not by its control.
///
/// Some safeguards only matter when a datagram falls into a window of microseconds, which not every
/// run brings about: without them one run in [`ATTEMPTS`] must be red, with them each must be green.
fn is_watched_by(safeguard: &str, scenario: &str, client: &str) {
    for attempt in 1..=ATTEMPTS {
        let (code, report) = play(scenario, client, None);
        assert_eq!(code, 0, "{scenario} with every safeguard: {report}");
        assert!(
            statuses(&report).iter().all(|status| *status == "pass"),
            "{report}"
        );

        let (code, report) = play(scenario, client, Some(safeguard));
        let red = failed(&report);
        if code == 1 {
            assert!(
                !red.is_empty() && red.iter().all(|name| *name == scenario),
                "without the {safeguard}: {report}"
            );
            return;
        }
        eprintln!("attempt {attempt}: {scenario} is still green without the {safeguard}");
    }
    panic!("{scenario} stays green without the {safeguard}");
}

/// At worst, on a machine with one core, half of the runs bring the window about.
const ATTEMPTS: u32 = 10;

#[test]
fn record_filter_is_watched_by_the_epoch_1_runt() {
    is_watched_by("record-filter", "spoof-epoch1-runt", "ours");
}

#[test]
fn record_filter_is_watched_by_ten_thousand_bad_records() {
    is_watched_by("record-filter", "spoof-10000-bad-records", "ours");
}

#[test]
fn icmp_policy_is_watched_by_the_forged_port_unreachable() {
    is_watched_by(
        "icmp-policy",
        "icmp-port-unreachable-established-server",
        "ours",
    );
}

#[test]
fn renumbering_is_watched_by_the_lost_first_hello() {
    // Our own client takes plaintext records whatever their number; OpenSSL's drops a repeated one.
    is_watched_by("renumbering", "handshake-drop-client-hello", "openssl");
}

#[test]
fn stray_forwarding_is_watched_by_a_hello_in_two_datagrams() {
    is_watched_by("stray-forwarding", "handshake-fragmented-hello", "openssl");
}

/// A scenario of the lab with one of its ends robbed of these arguments, and its controls.
fn without_arguments(scenario: &str, arguments: &str) -> TestLab {
    let lab = TestLab::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    for name in ["clean", "heartbeat-idle", scenario] {
        let file = folder.join(format!("{name}.toml"));
        let text = std::fs::read_to_string(file).expect("the scenarios are beside the tests");
        lab.scenario(name, &text);
        if name == scenario {
            assert!(text.contains(arguments), "{arguments} in {text}");
            // Its own control would notice as well, and leave it out.
            let robbed = text.replace(arguments, "");
            let robbed = robbed.replace("control = \"heartbeat-idle\"", "control = \"clean\"");
            lab.scenario(name, &robbed);
        }
    }
    lab
}

#[test]
fn client_without_heartbeats_is_noticed_on_an_idle_connection() {
    let lab = without_arguments("heartbeat-idle", "client_args = [\"--heartbeat\"]");
    let ours = ["heartbeat-idle", "--client", "ours", "--family", "ipv4"];
    let (code, report) = lab.report(&ours);
    assert_eq!(code, 1, "{report}");
    assert_eq!(statuses(&report), ["pass", "fail"], "{report}");
}

#[test]
fn server_that_asks_for_no_sign_of_life_is_noticed_when_the_client_is_gone() {
    let lab = without_arguments("heartbeat-client-gone", ", \"--probe-when-idle\", \"2s\"");
    let ours = ["heartbeat-client-gone", "--family", "ipv4"];
    let (code, report) = lab.report(&ours);
    assert_eq!(code, 1, "{report}");
    assert_eq!(failed(&report), ["heartbeat-client-gone"], "{report}");
}

#[test]
fn source_check_is_watched_by_1000_clients() {
    is_watched_by("source-check", "concurrent-1000-reuseaddr", "ours");
}
