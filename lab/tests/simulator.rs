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
