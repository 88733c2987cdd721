//! `--dilate`: programs whose clocks run faster, and those that cannot be hurried.

use serde_json::Value;

use crate::common::{TestLab, statuses, why};

/// `clean` between these ends, and a HelloVerifyRequest that is lost twice, which costs 1 and 2 s.
fn lab(end: &str) -> TestLab {
    let lab = TestLab::new();
    let play = format!("[[play]]\nserver = \"{end}\"\nclient = \"{end}\"\n");
    let scenario = |name: &str, more: &str| {
        let text = format!(
            "name = \"{name}\"\nclaim = \"Made up.\"\nfamilies = [\"ipv4\"]\n{more}\n{play}"
        );
        lab.scenario(name, &text);
    };
    scenario("clean", "");
    scenario(
        "lost-twice",
        "control = \"clean\"\n[[rule]]\nselect = { message = \"HelloVerifyRequest\", transmission = [1, 2] }\n\
         action = \"drop\"\n",
    );
    lab
}

fn run_of<'a>(report: &'a Value, scenario: &str) -> &'a Value {
    let runs = report["runs"].as_array().expect("a report has runs");
    let run = runs.iter().find(|run| run["scenario"] == scenario);
    run.expect("the scenario was run")
}

#[test]
fn hurried_programs_show_the_same_times_in_a_tenth_of_ours() {
    for end in ["openssl", "gnutls"] {
        let (code, report) = lab(end).report(&["--dilate", "10"]);
        assert_eq!((code, statuses(&report)), (0, vec!["pass"; 2]), "{report}");
        let run = run_of(&report, "lost-twice");
        assert_eq!(run["dilated"], 10, "{end}: {}", why(&report, "lost-twice"));
        // GnuTLS waits for 1 and 3 s. What they compute takes ten times as long by their clocks.
        let expected = if end == "gnutls" { 4.0 } else { 3.0 };
        let shown = run["handshake_ms"].as_f64().expect("it was complete") / 1000.0;
        assert!(
            (expected * 0.95..expected + 4.0).contains(&shown),
            "{end}: {shown} s"
        );
        // The programs' start and end besides.
        let took = run["seconds"].as_f64().expect("it took some time");
        assert!(took < shown, "{end}: {took} s for {shown} s");
        let replay = run["replay"].as_str().expect("there is one");
        assert!(replay.ends_with("--dilate 10"), "{replay}");
    }
}

#[test]
fn program_that_cannot_be_hurried_plays_at_its_own_pace_and_is_named() {
    let lab = lab("openssl-blocking");
    let (code, report) = lab.report(&["--dilate", "10"]);
    assert_eq!((code, statuses(&report)), (0, vec!["pass"; 2]), "{report}");
    let run = run_of(&report, "lost-twice");
    assert_eq!(run["dilated"], Value::Null);
    let shown = run["handshake_ms"].as_f64().expect("it was complete");
    assert!((2900.0..7000.0).contains(&shown), "{shown} ms");
    let reason = "not dilated: openssl-blocking (client): first resend after ";
    let why = why(&report, "lost-twice");
    assert!(
        why.starts_with(reason) && why.ends_with("s instead of 0.10 s"),
        "{why}"
    );

    let output = lab.run(&["clean", "--dilate", "10"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().any(|line| line.starts_with(reason)), "{text}");
}

/// `clean` with OpenSSL's server in a script that begins so.
fn lab_with_server(beginning: &str) -> TestLab {
    let lab = TestLab::new();
    lab.program(
        "mine.sh",
        &format!(
            "{beginning}\nexec openssl s_server -quiet -nbio -dtls1_2 -accept $1 -cert $2 -cert_chain $2 -key $3"
        ),
    )
    .adapter(
        "mine",
        "name = \"mine\"\nabout = \"A script.\"\ninstall = \"write it\"\n[server]\n\
         command = [\"./mine.sh\", \"{address}\", \"{cert}\", \"{key}\"]\ndata = \"lines\"\n",
    )
    .scenario(
        "clean",
        "name = \"clean\"\nclaim = \"Made up.\"\nfamilies = [\"ipv4\"]\n\
         [[play]]\nserver = \"mine\"\nclient = \"openssl\"\n",
    );
    lab
}

#[test]
fn hurried_run_that_is_not_as_expected_is_played_again_at_its_own_pace() {
    // What it receives is not to be seen while its clock is fast.
    let lab = lab_with_server("[ -z \"$FAKETIME\" ] || exec >/dev/null");
    let (code, report) = lab.report(&["--dilate", "10"]);
    assert_eq!((code, statuses(&report)), (0, vec!["pass"]), "{report}");
    assert_eq!(run_of(&report, "clean")["dilated"], Value::Null);
    let why = why(&report, "clean");
    assert!(
        why.starts_with("not dilated, for with x10 it was not as expected: no data to the server"),
        "{why}"
    );
    let first = lab.out().join("latest/clean.ipv4.mine.openssl.x10");
    assert!(
        why.ends_with("(see clean.ipv4.mine.openssl.x10)") && first.join("wire.pcapng").is_file(),
        "{why}"
    );
}

#[test]
fn server_that_does_not_start_hurried_plays_at_its_own_pace() {
    let lab = lab_with_server("[ -z \"$FAKETIME\" ] || { echo not like this >&2; exit 1; }");
    let (code, report) = lab.report(&["--dilate", "10"]);
    assert_eq!((code, statuses(&report)), (0, vec!["pass"]), "{report}");
    let why = why(&report, "clean");
    let expected = "not dilated: mine (server, met by openssl): with libfaketime it does not listen: not like this";
    assert_eq!(why, expected);
}

#[test]
fn dilation_is_refused_where_there_is_no_clock_to_hurry() {
    for backend in ["sim", "netem"] {
        let output = TestLab::new().run(&["--dilate", "10", "--backend", backend]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains("--dilate hurries real programs"),
            "{stderr}"
        );
    }
    let output = TestLab::new().run(&["--dilate", "1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("--dilate") && stderr.contains("2..=20"),
        "{stderr}"
    );
}
