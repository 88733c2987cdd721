//! Which backend plays what, and what a machine without netem says. `tc` is made to refuse, so that these
//! hold on every kernel; that netem works where it is, `make lab-netem` shows.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{CLEAN, TestLab, statuses, why};

/// A link that netem could make, between OpenSSL's own programs.
const LOSSY: &str = r#"
name = "lossy"
claim = "Loss costs time."
control = "clean"
families = ["ipv4"]

[[play]]
server = "openssl"
server_args = ["-listen"]
client = "openssl"

[link.both]
delay = "1ms"
"#;

/// A lab on a kernel whose `tc` knows no netem.
fn lab() -> TestLab {
    lab_whose_tc_refuses("*")
}

/// A lab on a kernel whose `tc` refuses commands with such text, a pattern of the shell.
fn lab_whose_tc_refuses(pattern: &str) -> TestLab {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN).scenario("lossy", LOSSY);
    let tc = lab.path().join("tc");
    let refuses = format!(
        "#!/bin/sh\ncase $(cat) in {pattern})\n\
         echo 'Error: Specified qdisc kind is unknown.' >&2; exit 1;;\nesac\n"
    );
    std::fs::write(&tc, refuses).expect("the folder is ours");
    let mode = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&tc, mode).expect("the file is ours");
    lab
}

fn run(lab: &TestLab, arguments: &[&str], require: &str) -> Output {
    let mut command: Command = lab.command(arguments);
    let path = std::env::var("PATH").expect("there is a PATH");
    let path = format!("{}:{path}", lab.path().display());
    command.env("PATH", path).env("LAB_REQUIRE", require);
    command.output().expect("the lab was built with its tests")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn machine_without_netem_skips_and_fails_where_netem_is_required() {
    let lab = lab();
    let arguments = ["--backend", "netem", "--format", "json"];
    let output = run(&lab, &arguments, "");
    assert_eq!(output.status.code(), Some(0));
    let skipped = report(&output);
    assert_eq!(statuses(&skipped), ["skipped", "skipped"], "{skipped}");
    let reason = why(&skipped, "lossy");
    assert!(
        reason.contains("Specified qdisc kind is unknown"),
        "{reason}"
    );
    assert_eq!(skipped["runs"][0]["backend"], "netem");

    let output = run(&lab, &arguments, "netem");
    assert_eq!(output.status.code(), Some(1));
    let refused = report(&output);
    assert_eq!(statuses(&refused)[0], "required_but_skipped", "{refused}");
}

#[test]
fn netem_without_the_prio_that_goes_above_it_is_no_netem() {
    let lab = lab_whose_tc_refuses("*prio*");
    let arguments = ["clean", "--backend", "netem", "--format", "json"];
    let skipped = report(&run(&lab, &arguments, ""));
    assert_eq!(statuses(&skipped), ["skipped"], "{skipped}");
    let reason = why(&skipped, "clean");
    assert!(reason.contains("sch_prio"), "{reason}");
}

#[test]
fn wire_plays_where_there_is_no_netem_and_says_so() {
    let lab = lab();
    let output = run(&lab, &[], "");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("no kernel netem: `tc` says: Specified"),
        "{text}"
    );
    let lossy = text.lines().find(|line| line.starts_with("lossy"));
    assert!(lossy.is_some_and(|line| line.contains(" wire ")), "{text}");

    let required = run(&lab, &[], "netem");
    assert_eq!(required.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&required.stderr);
    assert!(stderr.contains("LAB_REQUIRE=netem"), "{stderr}");
}

#[test]
fn seed_asks_for_the_wire_because_netem_decides_by_itself() {
    let lab = lab();
    let output = run(&lab, &["--seed", "7c1e"], "netem");
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("take netem out of LAB_REQUIRE"), "{stderr}");
}

#[test]
fn scenario_that_needs_more_than_links_is_skipped_and_no_control_is_played_for_it() {
    let lab = lab();
    lab.scenario(
        "lossy",
        &LOSSY.replace("[link.both]", "[[rule]]\naction = \"drop\"\n[link.both]"),
    );
    let arguments = ["lossy", "--backend", "netem", "--format", "json"];
    let skipped = report(&run(&lab, &arguments, ""));
    assert_eq!(statuses(&skipped), ["skipped"], "{skipped}");
    let reason = why(&skipped, "lossy");
    assert!(reason.ends_with("needs the wire backend"), "{reason}");
}
