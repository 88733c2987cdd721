//! Each check can say no: OpenSSL's own programs against expectations they do not meet, and the
//! exit status that follows. A machine without namespaces or openssl fails these tests.

use crate::common::{CLEAN, TestLab, statuses, why};

/// A scenario between `s_server -listen` and `s_client`, controlled by [`CLEAN`].
fn scenario(name: &str, rest: &str) -> String {
    format!(
        r#"
name = "{name}"
claim = "Made up to be refuted or not."
control = "clean"
families = ["ipv4"]
deadline = "8s"
{rest}
"#
    )
}

const PLAY: &str = r#"
[[play]]
server = "openssl"
server_args = ["-listen"]
client = "openssl"
"#;

/// A fault that harms nobody; written before the play, whose keys it follows.
const DUPLICATE: &str = "rule = [{ select = { flight = 1 }, action = { duplicate = 1 } }]\n";

const ICMP_TO_SERVER: &str = r#"
[[inject]]
when = "established"
to = "server"
icmp = "port-unreachable"
"#;

/// Runs one made-up scenario with its control; exit status, its own status and reason.
fn verdict(rest: &str) -> (i32, String, String) {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN)
        .scenario("tried", &scenario("tried", rest));
    let (code, report) = lab.report(&[]);
    assert_eq!(statuses(&report)[0], "pass", "the control: {report}");
    // After its controls, by name.
    let tried = statuses(&report).last().copied().unwrap_or_default();
    (code, tried.to_owned(), why(&report, "tried").to_owned())
}

#[test]
fn openssl_that_dies_of_forged_icmp_is_a_failure() {
    let (code, status, why) = verdict(&format!(
        "attacker = \"off-path-4-tuple\"\n{PLAY}{ICMP_TO_SERVER}"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(
        why.contains("after the forged icmp port-unreachable"),
        "{why}"
    );
}

#[test]
fn failure_that_the_scenario_foretells_is_known() {
    let play = format!("{PLAY}fails_because = \"its connected socket reports ECONNREFUSED\"\n");
    let (code, status, why) = verdict(&format!(
        "attacker = \"off-path-4-tuple\"\n{play}{ICMP_TO_SERVER}"
    ));
    assert_eq!((code, status.as_str()), (0, "known_failure"), "{why}");
}

#[test]
fn pass_that_the_scenario_rules_out_fails_the_run() {
    let play = format!("{PLAY}fails_because = \"of nothing\"\n");
    let (code, status, why) = verdict(&format!(
        "{play}[[rule]]\nselect = {{ flight = 1, transmission = 1 }}\naction = {{ duplicate = 1 }}\n"
    ));
    assert_eq!((code, status.as_str()), (1, "unexpected_pass"), "{why}");
    assert!(why.contains("of nothing"), "{why}");
}

#[test]
fn handshake_slower_than_expected_is_a_failure() {
    let (code, status, why) = verdict(&format!(
        "{PLAY}[[rule]]\nselect = {{ flight = 1, transmission = 1 }}\naction = \"drop\"\n\
         [expect]\nhandshake_max = \"500ms\"\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("above 500"), "{why}");
}

#[test]
fn handshake_faster_than_the_fault_allows_is_a_failure() {
    let (code, status, why) = verdict(&format!(
        "{PLAY}[[rule]]\nselect = {{ flight = 1, transmission = 1 }}\naction = {{ duplicate = 1 }}\n\
         [expect]\nhandshake_min = \"900ms\"\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("below 900"), "{why}");
}

#[test]
fn more_resent_flights_than_expected_are_a_failure() {
    let (code, status, why) = verdict(&format!(
        "{PLAY}[[rule]]\nselect = {{ flight = 3, transmission = 1 }}\naction = \"drop\"\n\
         [expect]\nresent_max = 0\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("expected at most 0"), "{why}");
}

#[test]
fn fewer_resent_flights_than_expected_are_a_failure() {
    let (code, status, why) = verdict(
        &format!(
            "{PLAY}[[rule]]\nselect = {{ flight = 3, transmission = 1 }}\naction = \"delay\"\n\
         [expect]\nresent_min = 1\n"
        )
        .replace("action = \"delay\"", "action = { delay = \"10ms\" }"),
    );
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("expected at least 1"), "{why}");
}

#[test]
fn handshake_that_should_not_complete_and_does_is_a_failure() {
    let (code, status, why) = verdict(&format!(
        "{PLAY}[[rule]]\nselect = {{ flight = 1, transmission = 1 }}\naction = {{ duplicate = 1 }}\n\
         [expect]\noutcome = \"handshake-timeout\"\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("a handshake completed"), "{why}");
}

#[test]
fn client_that_dies_unnoticed_is_a_failure() {
    let (code, status, why) = verdict(&format!("{PLAY}[expect]\noutcome = \"client-gone\"\n"));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("the server never closed"), "{why}");
}

#[test]
fn client_that_comes_back_and_is_ignored_is_a_failure() {
    let (code, status, why) = verdict(&format!(
        "clients = 2\nin_turn = \"killed\"\nsame_port = true\n{PLAY}"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("1 of 2 handshakes completed"), "{why}");
}

#[test]
fn flight_that_never_fits_the_link_is_a_failure() {
    let (code, status, why) = verdict(&format!(
        "certificate = \"server-long-chain\"\n{}[link.both]\nmtu = 400\n",
        PLAY.replace("\"-listen\"", "\"-listen\", \"-mtu\", \"1400\"")
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("no handshake"), "{why}");
}

#[test]
fn missing_heartbeats_are_a_failure() {
    let (code, status, why) = verdict(&format!(
        "{DUPLICATE}{PLAY}[expect]\nheartbeats = {{ to_client = \">=1\" }}\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("0 heartbeats to the client"), "{why}");
}

#[test]
fn datagrams_shorter_than_expected_after_a_forgery_are_a_failure() {
    let (code, status, why) = verdict(&format!(
        "attacker = \"off-path-4-tuple\"\n{PLAY}[[inject]]\nwhen = \"established\"\nto = \"server\"\n\
         icmp = \"host-unreachable\"\n[expect]\nlongest_after = {{ to_server = \">=1300\" }}\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(
        why.contains("bytes in the longest packet to the server"),
        "{why}"
    );
}

#[test]
fn server_that_grows_beyond_the_bound_is_a_failure() {
    let (code, status, why) = verdict(&format!(
        "attacker = \"off-path-4-tuple\"\n{PLAY}[[inject]]\nwhen = \"established\"\nto = \"server\"\n\
         datagram = \"client-hello\"\n[expect]\nserver_growth = \">=1000000\"\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("the server grew by"), "{why}");
}

#[test]
fn dead_wire_is_a_failure_where_an_echo_is_expected() {
    let (code, status, why) = verdict(&format!(
        "{PLAY}[[rule]]\nselect = {{ flight = [4, 6] }}\naction = \"drop\"\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("no handshake"), "{why}");
}

#[test]
fn lost_application_data_is_a_failure() {
    let (code, status, why) = verdict(&format!(
        "{PLAY}[[rule]]\nselect = {{ content_type = \"application_data\" }}\naction = \"drop\"\n"
    ));
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("no data either way"), "{why}");
}

#[test]
fn fault_that_never_happens_is_the_labs_own_failure() {
    let (code, status, why) = verdict(&format!(
        "{PLAY}[[rule]]\nselect = {{ flight = 3, transmission = 7 }}\naction = \"drop\"\n"
    ));
    assert_eq!((code, status.as_str()), (1, "broken"), "{why}");
    assert!(why.contains("rule 1 never met a datagram"), "{why}");
}

#[test]
fn scenario_whose_control_fails_is_broken_and_not_tried() {
    let lab = TestLab::new();
    lab.scenario("clean", &format!("{CLEAN}[expect]\nresent_min = 3\n"))
        .scenario(
            "tried",
            &scenario(
                "tried",
                &format!(
                    "{PLAY}[[rule]]\nselect = {{ flight = 1 }}\naction = {{ duplicate = 1 }}\n"
                ),
            ),
        );
    let (code, report) = lab.report(&["tried"]);
    assert_eq!(
        (code, statuses(&report)),
        (1, vec!["fail", "broken"]),
        "{report}"
    );
    assert!(
        why(&report, "tried").contains("control clean did not pass"),
        "{report}"
    );
}

#[test]
fn endpoint_that_says_127_is_unsupported_and_no_failure() {
    let lab = TestLab::new();
    let server = lab.path().join("server");
    std::fs::write(&server, "#!/bin/sh\necho not this one >&2\nexit 127\n").expect("ours");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&server, mode).expect("ours");
    lab.scenario(
        "clean",
        &CLEAN.replace("\"openssl\"\nserver_args = [\"-listen\"]", "\"ours\""),
    );
    let server = server
        .to_str()
        .expect("a temporary folder has a plain name");
    let (code, report) = lab.report(&["--server-bin", server]);
    assert_eq!(
        (code, statuses(&report)),
        (0, vec!["unsupported"]),
        "{report}"
    );
    assert!(why(&report, "clean").contains("not this one"), "{report}");
}

#[test]
fn server_that_never_listens_is_the_labs_own_failure_with_its_last_words() {
    let lab = TestLab::new();
    lab.scenario(
        "clean",
        &CLEAN.replace("[\"-listen\"]", "[\"-no-such-flag\"]"),
    );
    let (code, report) = lab.report(&[]);
    assert_eq!((code, statuses(&report)), (1, vec!["broken"]), "{report}");
    assert!(why(&report, "clean").contains("no-such-flag"), "{report}");
}
