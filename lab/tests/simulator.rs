//! The simulator as a person uses it: the scenario files on a virtual clock, the same twice.

use std::path::{Path, PathBuf};

use crate::common::{TestLab, statuses};

/// A file of each run's evidence, by the name of the run.
fn evidence(out: &Path, file: &str) -> Vec<(PathBuf, String)> {
    let latest = out.join("latest").canonicalize().expect("the lab has run");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&latest).expect("the folder is ours") {
        let folder = entry.expect("the folder is ours").path();
        if let Ok(text) = std::fs::read_to_string(folder.join(file)) {
            let name = folder.strip_prefix(&latest).expect("it lies below");
            found.push((name.to_owned(), text));
        }
    }
    found.sort();
    found
}

#[test]
fn scenario_files_pass_on_the_virtual_clock_and_what_needs_the_wire_is_counted() {
    let lab = TestLab::new();
    let (code, report) = lab.report(&["--backend", "sim", "--seed", "7c1e"]);
    assert_eq!(code, 0, "{report}");
    let statuses = statuses(&report);
    let passed = statuses.iter().filter(|it| **it == "pass").count();
    let skipped = statuses.iter().filter(|it| **it == "skipped").count();
    assert!(passed >= 40, "{report}");
    assert_eq!(passed + skipped, statuses.len(), "{report}");
    assert_eq!(report["summary"]["skipped"], skipped);
    for run in report["runs"].as_array().expect("a report has runs") {
        let why = run["why"].as_str().expect("a run has a reason");
        assert_eq!(run["status"] == "skipped", !why.is_empty(), "{run}");
    }
}

#[test]
fn all_backends_share_one_report_in_which_nothing_is_skipped_that_one_of_them_plays() {
    let lab = TestLab::new();
    // The wire takes the first alone, both take the second, and the simulator alone the third.
    let names = ["heartbeat-idle", "clean", "silence-for-minutes"];
    let pair = ["--server", "ours", "--client", "ours", "--family", "ipv4"];
    let seed = ["--backend", "all", "--seed", "7c1e"];
    let (code, report) = lab.report(&[&names[..], &pair, &seed].concat());
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["summary"]["skipped"], 0, "{report}");
    let runs = report["runs"].as_array().expect("a report has runs");
    let on = |scenario: &str, client: &str| -> Vec<&str> {
        let those = runs.iter().filter(|run| run["scenario"] == scenario);
        let those = those.filter(|run| run["client"] == client);
        those.filter_map(|run| run["backend"].as_str()).collect()
    };
    assert_eq!(on("clean", "ours"), ["sim", "wire"], "{report}");
    assert_eq!(
        on("heartbeat-idle", "ours --heartbeat"),
        ["wire"],
        "{report}"
    );
    let patient = "ours --handshake-timeout 4m";
    assert_eq!(on("silence-for-minutes", patient), ["sim"], "{report}");
    for run in runs {
        assert!(lab.evidence(run).join("wire.pcapng").is_file(), "{run}");
    }
    let replay = report["replay"].as_str().expect("a command");
    assert!(replay.contains(" --backend all --seed 7c1e"), "{replay}");
}

#[test]
fn skip_of_the_simulator_can_be_refused() {
    let lab = TestLab::new();
    let mut command = lab.command(&["concurrent-64-reuseport", "--backend", "sim"]);
    let output = command.env("LAB_REQUIRE", "wire").output();
    let output = output.expect("the lab was built with its tests");
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("SKIPPED (required)"), "{stdout}");
    assert!(stdout.contains("a matter of the real program"), "{stdout}");
}

#[test]
fn same_seed_gives_the_same_trace_and_another_seed_another() {
    let traces = |seed: &str| {
        let lab = TestLab::new();
        let (code, report) = lab.report(&["loss-*", "--backend", "sim", "--seed", seed]);
        assert_eq!(code, 0, "{report}");
        evidence(&lab.out(), "events.jsonl")
    };
    let (first, second, other) = (traces("7c1e"), traces("7c1e"), traces("7c1f"));
    assert!(first.len() >= 7, "controls and six lossy runs: {first:?}");
    assert_eq!(first, second);
    assert_ne!(first, other);
}

/// `dtls-lab` with these arguments.
fn lab(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dtls-lab"));
    let output = command.args(arguments).output();
    let output = output.expect("the lab was built with its tests");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn planted_defect_is_found_shrunk_and_told_in_words_that_replay_it() {
    let explore = ["explore", "--space", "drops3", "--handshake", "psk"];
    let defect = ["--defect", "two-hello-verify-requests"];
    let (code, out, _) = lab(&[&explore[..], &defect[..]].concat());
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("  drop the 1st HelloVerifyRequest\n  drop the 2nd"),
        "{out}"
    );
    // The line it prints is a command that fails in the same way.
    let replay = out
        .lines()
        .find_map(|line| line.split_once("replay    dtls-lab "));
    let words: Vec<&str> = replay.expect("a replay line").1.split(' ').collect();
    let (code, again, _) = lab(&words);
    assert_eq!(code, Some(1), "{again}");
    assert!(
        again.contains("FAIL") && again.contains("HelloVerifyRequest  dropped"),
        "{again}"
    );
}

#[test]
fn decisions_of_an_earlier_run_are_played_again() {
    let lab_ = TestLab::new();
    let (code, report) = lab_.report(&["handshake-drop-flight4", "--backend", "sim"]);
    assert_eq!(code, 0, "{report}");
    let runs = report["runs"].as_array().expect("a report has runs");
    let file = runs
        .iter()
        .filter(|run| run["scenario"] == "handshake-drop-flight4")
        .filter(|run| run["server"] == "ours" && run["client"] == "ours")
        .map(|run| lab_.evidence(run).join("decisions.jsonl"))
        .next()
        .expect("one was played");
    let file = file.to_str().expect("a plain path");
    let (code, out, error) = lab(&["explore", "--handshake", "full", "--decisions", file]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("drop the 1st ServerHello"), "{out}");
    assert!(out.contains("agree after 1.000 s"), "{out}");
}

#[test]
fn impossible_case_and_fault_are_refused_with_what_is_possible() {
    let (code, _, error) = lab(&[
        "explore",
        "--space",
        "duplicates",
        "--handshake",
        "psk",
        "--case",
        "8000",
    ]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("duplicates has 8 cases"), "{error}");
    let (code, _, error) = lab(&[
        "explore",
        "--handshake",
        "psk",
        "--faults",
        "to_clint#1=drop",
    ]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("to_client#2=drop"), "{error}");
    let (code, _, error) = lab(&["oracle", "--loss", "95"]);
    assert_eq!(code, Some(2), "{error}");
}

#[test]
fn oracle_agrees_draws_and_says_no_to_a_defect() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plot = folder.path().join("oracle.svg");
    let small = [
        "oracle",
        "--handshake",
        "psk",
        "--handshakes",
        "200",
        "--loss",
        "20",
    ];
    let out = folder.path().to_str().expect("a plain path");
    let small = [&small[..], &["--seed", "7c1e", "--out", out]].concat();
    let drawn = ["--plot", plot.to_str().expect("a plain path")];
    let (code, out, error) = lab(&[&small[..], &drawn[..]].concat());
    assert_eq!(code, Some(0), "{out}{error}");
    let svg = std::fs::read_to_string(&plot).expect("it was drawn");
    assert!(
        svg.contains("<svg") && svg.contains("20 % loss: agrees"),
        "{svg}"
    );
    let (code, out, _) = lab(&[&small[..], &["--defect", "no-backoff"][..]].concat());
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("WRONG, expected 0, 1, 3, 7"), "{out}");
}

#[test]
fn page_of_a_run_shows_the_oracles_answer_unless_a_defect_was_planted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().to_str().expect("a plain path");
    let oracle = ["oracle", "--handshakes", "200", "--loss", "20"];
    let oracle = [&oracle[..], &["--seed", "7c1e", "--out", out]].concat();
    let page = |oracle: &[&str]| {
        lab(oracle);
        let run = ["run", "clean", "--backend", "sim", "--family", "ipv4"];
        let (code, text, error) = lab(&[&run[..], &["--out", out]].concat());
        assert_eq!(code, Some(0), "{text}{error}");
        let page = folder.path().join("latest/index.html");
        std::fs::read_to_string(page).expect("a run leaves a page")
    };
    let sound = page(&oracle);
    assert!(sound.contains("20 % loss: agrees"), "the plot's legend");
    assert!(sound.contains("ours server, simulated, flight 4"));
    let planted = [&oracle[..], &["--defect", "no-backoff"]].concat();
    assert!(!page(&planted).contains("% loss:"));
    let alone = std::fs::read_to_string(folder.path().join("oracle.html"));
    let alone = alone.expect("the oracle leaves a page of its own");
    assert!(alone.contains("The defect no-backoff was planted"));
}
