//! Wrong usage and poor machines: one clear line on stderr, exit 2 or 3, no panic.

use std::process::{Command, Output};

use crate::common::{CLEAN, TestLab};

/// The one line on stderr, after checking that it is one and how the lab ended.
fn complaint(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("dtls-lab: "), "{stderr}");
    stderr
}

#[test]
fn misspelt_scenario_key_is_named_with_its_line_and_a_suggestion() {
    let lab = TestLab::new();
    lab.scenario("clean", &CLEAN.replace("claim =", "clam ="));
    let line = complaint(&lab.run(&[]), 2);
    assert!(line.contains("clean.toml:3:1"), "{line}");
    assert!(
        line.contains("`clam`") && line.contains("`claim`"),
        "{line}"
    );
}

#[test]
fn unknown_scenario_is_named_with_a_suggestion() {
    let line = complaint(&TestLab::new().run(&["cleen"]), 2);
    assert!(
        line.contains("`cleen`") && line.contains("`clean`"),
        "{line}"
    );
    assert!(line.contains("dtls-lab list"), "{line}");
}

#[test]
fn filter_that_leaves_nothing_is_refused() {
    let line = complaint(&TestLab::new().run(&["clean", "--server", "gnutls"]), 2);
    assert!(line.contains("--server"), "{line}");
}

#[test]
fn unreadable_scenario_folder_is_named() {
    let lab = TestLab::new();
    let folder = lab.path().join("nowhere");
    let folder = folder
        .to_str()
        .expect("a temporary folder has a plain name");
    let line = complaint(&lab.run(&["--scenarios", folder]), 2);
    assert!(
        line.contains("nowhere") && line.contains("--scenarios"),
        "{line}"
    );
}

#[test]
fn folder_without_scenarios_is_refused() {
    let lab = TestLab::new();
    let folder = lab
        .path()
        .to_str()
        .expect("a temporary folder has a plain name");
    let line = complaint(&lab.run(&["--scenarios", folder]), 2);
    assert!(line.contains("--scenarios"), "{line}");
}

#[test]
fn missing_server_is_named_with_the_command_that_builds_it() {
    let lab = TestLab::new();
    let nowhere = lab
        .path()
        .to_str()
        .expect("a temporary folder has a plain name");
    let line = complaint(&lab.run(&["clean", "--bin-dir", nowhere]), 3);
    assert!(line.contains("dtls-server is missing"), "{line}");
    assert!(line.contains("cargo build"), "{line}");
}

#[test]
fn bad_seed_is_refused_with_an_example() {
    let output = TestLab::new().run(&["--seed", "xyz"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("`xyz` is no hexadecimal number"),
        "{stderr}"
    );
}

#[test]
fn unknown_requirement_is_refused_with_the_valid_ones() {
    let lab = TestLab::new();
    let output = lab
        .command(&["clean"])
        .env("LAB_REQUIRE", "openssl,netm")
        .output();
    let line = complaint(&output.expect("the lab was built"), 2);
    assert!(line.contains("`netm`") && line.contains("ipv6"), "{line}");
}

#[test]
fn evidence_that_cannot_be_written_is_reported_before_anything_runs() {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN);
    let file = lab.path().join("file");
    std::fs::write(&file, "").expect("the folder is ours");
    let file = file.join("below");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dtls-lab"));
    command
        .args(["run", "--scenarios"])
        .arg(lab.path().join("scenarios"));
    let output = command
        .arg("--out")
        .arg(file)
        .output()
        .expect("the lab was built");
    let line = complaint(&output, 3);
    assert!(line.contains("below") && line.contains("--out"), "{line}");
}

#[test]
fn machine_that_forbids_namespaces_is_told_the_remedy() {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN);
    // A user namespace whose own limits allow no further namespace, as a locked-down machine has.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command.arg(
        "echo 0 >/proc/sys/user/max_net_namespaces && \
         echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"",
    );
    command.arg("sh").arg(env!("CARGO_BIN_EXE_dtls-lab"));
    command
        .arg("run")
        .arg("--scenarios")
        .arg(lab.path().join("scenarios"));
    let output = command
        .arg("--out")
        .arg(lab.out())
        .output()
        .expect("util-linux has unshare");
    let line = complaint(&output, 3);
    assert!(
        line.contains("as root") && line.contains("sysctl"),
        "{line}"
    );
}

#[test]
fn missing_openssl_is_skipped_and_counted_and_can_be_required() {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN);
    let nowhere = lab.path().join("empty");
    std::fs::create_dir(&nowhere).expect("the folder is ours");
    // The lab finds `ip` in the system's folders by itself; `openssl` it takes from the PATH.
    let output = lab
        .command(&[])
        .env("PATH", &nowhere)
        .output()
        .expect("the lab was built");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(stdout.contains("`openssl` is not on the PATH"), "{stdout}");
    assert!(
        stdout.contains("0 pass") && stdout.contains("1 skipped"),
        "{stdout}"
    );
    assert!(stdout.contains("NOTHING WAS TRIED"), "{stdout}");

    let output = lab
        .command(&[])
        .env("PATH", &nowhere)
        .env("LAB_REQUIRE", "openssl")
        .output();
    let output = output.expect("the lab was built");
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("SKIPPED (required)"), "{stdout}");
}

#[test]
fn no_rule_and_no_bug_of_dtls_1_2_is_without_a_scenario() {
    for command in ["rules", "bugs"] {
        let nowhere = TestLab::new();
        let output = Command::new(env!("CARGO_BIN_EXE_dtls-lab"))
            .args([command, "--format", "json"])
            .current_dir(nowhere.path())
            .output();
        let output = output.expect("the lab was built");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let rows: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("a JSON document");
        let rows = rows.as_array().expect("a list").clone();
        assert!(rows.len() >= 27, "{command}: {rows:#?}");
        for row in rows {
            let absent = row["absent"].as_str().is_some_and(|why| !why.is_empty());
            let expected = if absent { "not in DTLS 1.2" } else { "not run" };
            assert_eq!(row["status"], expected, "{row:#}");
        }
    }
}

#[test]
fn defect_is_for_simulated_ends() {
    let output = TestLab::new().run(&["clean", "--defect", "mute"]);
    let line = complaint(&output, 2);
    assert!(line.contains("--backend sim"), "{line}");
}

#[test]
fn list_shows_every_scenario_with_its_claim() {
    let output = Command::new(env!("CARGO_BIN_EXE_dtls-lab"))
        .arg("list")
        .output();
    let output = output.expect("the lab was built");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"));
    for file in files.expect("the scenarios are beside the tests") {
        let path = file.expect("the folder is readable").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a plain name");
        assert!(
            stdout.lines().any(|line| line == name),
            "{name} is not listed:\n{stdout}"
        );
    }
}
