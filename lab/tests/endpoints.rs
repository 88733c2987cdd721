//! Adapters and their programs as people get them wrong: missing, hanging, flooding, gone at once,
//! promising too much. Each is named, bounded in time and size, and nothing of it remains.

use serde_json::Value;

use crate::common::{TestLab, statuses, why};

/// A scenario between the adapters `mine` and `openssl`.
fn scenario(server: &str, client: &str) -> String {
    format!(
        "name = \"clean\"\nclaim = \"Made up.\"\nfamilies = [\"ipv4\"]\ndeadline = \"4s\"\n\
         [[play]]\nserver = \"{server}\"\nclient = \"{client}\"\n"
    )
}

/// The adapter `mine` with one side, played by a shell script.
fn lab_with(role: &str, script: &str, more: &str) -> TestLab {
    let lab = TestLab::new();
    let data = if role == "server" { "echo" } else { "lines" };
    lab.program("mine.sh", script).adapter(
        "mine",
        &format!(
            "name = \"mine\"\nabout = \"A script.\"\ninstall = \"write it\"\n[{role}]\n\
             command = [\"./mine.sh\", \"{{host}}\", \"{{port}}\", \"{{cert}}\", \"{{key}}\", \"{{ca}}\"]\n\
             data = \"{data}\"\n{more}\n"
        ),
    );
    let (server, client) = if role == "server" {
        ("mine", "openssl")
    } else {
        ("openssl", "mine")
    };
    lab.scenario("clean", &scenario(server, client));
    lab
}

/// Its one run: exit status, status, reason.
fn verdict(lab: &TestLab) -> (i32, String, String) {
    let (code, report) = lab.report(&[]);
    let status = statuses(&report)[0].to_owned();
    (code, status, why(&report, "clean").to_owned())
}

/// Whether a process with this word in its command line runs.
fn runs(marker: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("Linux has /proc");
    processes.flatten().any(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(marker)
    })
}

#[test]
fn program_that_is_missing_is_skipped_by_name_and_can_be_required() {
    let lab = TestLab::new();
    lab.adapter(
        "mine",
        "name = \"mine\"\nabout = \"Nothing.\"\ninstall = \"write it first\"\n[server]\n\
         command = [\"no-such-program-of-mine\"]\ndata = \"echo\"\n",
    )
    .scenario("clean", &scenario("mine", "openssl"));
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (0, "skipped"), "{why}");
    assert!(
        why.contains("no-such-program-of-mine") && why.contains("write it first"),
        "{why}"
    );
    let required = lab.command(&[]).env("LAB_REQUIRE", "mine").output();
    assert_eq!(required.expect("the lab was built").status.code(), Some(1));
}

#[test]
fn server_that_ends_at_once_is_named_with_its_last_words() {
    let lab = lab_with("server", "echo 'not today' >&2; exit 3", "");
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (1, "broken"), "{why}");
    assert!(
        why.contains("the server did not start to listen") && why.contains("not today"),
        "{why}"
    );
}

#[test]
fn client_that_ends_at_once_fails_with_its_last_words() {
    let lab = lab_with("client", "echo 'no such host' >&2; exit 3", "");
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("no such host"), "{why}");
}

#[test]
fn server_that_hangs_is_named_and_nothing_it_started_remains() {
    // One child leaves the process group and keeps the pipes open.
    let lab = lab_with("server", "setsid sleep 7654321 &\nexec sleep 7654322", "");
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (1, "broken"), "{why}");
    assert!(why.contains("it still runs"), "{why}");
    assert!(!runs("7654321") && !runs("7654322"), "they still run");
}

#[test]
fn client_that_hangs_fails_at_the_deadline_and_what_it_left_behind_is_told() {
    let lab = lab_with("client", "setsid sleep 7654323 &\nexec sleep 7654324", "");
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(
        why.contains("nothing was ever sent") && why.contains("left behind and killed"),
        "{why}"
    );
    assert!(!runs("7654323") && !runs("7654324"), "they still run");
}

#[test]
fn client_that_prints_without_end_is_told_and_its_log_is_bounded() {
    let lab = lab_with("client", "exec yes a-line-that-says-nothing", "");
    let patient = scenario("openssl", "mine").replace("4s", "15s");
    lab.scenario("clean", &patient);
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (1, "fail"), "{why}");
    assert!(why.contains("the client printed without end"), "{why}");
    let log = lab.out().join("latest/clean.ipv4.openssl.mine/client.log");
    let length = std::fs::metadata(log).expect("it is evidence").len();
    assert!(length < 8 << 20, "{length} bytes");
}

#[test]
fn client_that_floods_the_wire_is_named_and_nothing_of_it_remains() {
    // Two of them, one of which leaves the process group.
    let flood = "exec dd if=/dev/zero bs=64 status=none count=76543250000 >&3";
    let lab = lab_with(
        "client",
        &format!("exec bash -c \"exec 3>/dev/udp/$1/$2; setsid bash -c '{flood}' & {flood}\""),
        "",
    );
    let patient = scenario("openssl", "mine").replace("4s", "90s");
    lab.scenario("clean", &patient);
    let (code, report) = lab.report(&[]);
    let why = why(&report, "clean");
    assert_eq!((code, statuses(&report)), (1, vec!["fail"]), "{why}");
    assert!(
        why.starts_with("the client sent without end: the lab stopped looking at its datagram "),
        "{why}"
    );
    let took = report["runs"][0]["seconds"]
        .as_f64()
        .expect("it took some time");
    assert!(took < 60.0, "{took} s, though nothing more was looked at");
    assert!(!runs("count=76543250000"), "they still flood");
    let folder = lab.out().join("latest/clean.ipv4.openssl.mine");
    for (file, most) in [("wire.pcapng", 100), ("events.jsonl", 200)] {
        let length = std::fs::metadata(folder.join(file))
            .expect("it is evidence")
            .len();
        assert!(length < most << 20, "{file}: {length} bytes");
    }
}

#[test]
fn adapter_of_ones_own_plays() {
    let serve = "exec openssl s_server -quiet -dtls1_2 -accept $1:$2 -cert $3 -key $4";
    let lab = lab_with("server", serve, "");
    // It prints what it receives and does not echo.
    let adapter = lab.path().join("adapters/mine.toml");
    let text = std::fs::read_to_string(&adapter).expect("it was written");
    std::fs::write(&adapter, text.replace("\"echo\"", "\"lines\"")).expect("it is ours");
    let connect = "[client]\ncommand = [\"openssl\", \"s_client\", \"-dtls1_2\", \"-nbio\", \
                   \"-connect\", \"{address}\"]\ndata = \"lines\"\n";
    lab.adapter(
        "other",
        &format!("name = \"other\"\nabout = \"s_client.\"\ninstall = \"get it\"\n{connect}"),
    )
    .scenario("clean", &scenario("mine", "other"));
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (0, "pass"), "{why}");
}

#[test]
fn program_that_promises_to_say_what_it_cannot_play_is_asked_for_a_made_up_scenario() {
    let promise = "says_unsupported = true";
    let serve = "exec openssl s_server -quiet -dtls1_2 -accept $1:$2 -cert $3 -key $4";
    let honest = format!("[ \"$LAB_TASK\" = echo ] || exit 127\n{serve}");
    let lab = lab_with("server", &honest, promise);
    let (_, _, why_honest) = verdict(&lab);
    assert!(!why_honest.contains("promises"), "{why_honest}");

    let lab = lab_with("server", serve, promise);
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (1, "broken"), "{why}");
    assert!(
        why.contains("the adapter `mine` promises") && why.contains("still ran"),
        "{why}"
    );

    let lab = lab_with("server", "exit 0", promise);
    let (_, _, why) = verdict(&lab);
    assert!(why.contains("it ended with exit status: 0"), "{why}");

    let lab = lab_with("server", "echo 'not this' >&2; exit 127", promise);
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (0, "unsupported"), "{why}");
}

#[test]
fn run_that_asks_for_the_made_up_scenario_has_all_of_its_own_time() {
    // The answer takes as long as the run may.
    let serve =
        "exec openssl s_server -quiet -dtls1_2 -accept $1:$2 -cert $3 -cert_chain $3 -key $4";
    let slow = format!("[ \"$LAB_TASK\" = echo ] || {{ sleep 4; exit 127; }}\n{serve}");
    let lab = lab_with("server", &slow, "says_unsupported = true");
    // It prints what it receives and does not echo.
    let adapter = lab.path().join("adapters/mine.toml");
    let text = std::fs::read_to_string(&adapter).expect("it was written");
    std::fs::write(&adapter, text.replace("\"echo\"", "\"lines\"")).expect("it is ours");
    let (code, status, why) = verdict(&lab);
    assert_eq!((code, status.as_str()), (0, "pass"), "{why}");
}

#[test]
fn mistake_in_an_adapter_is_one_line_with_its_place() {
    let lab = lab_with("server", "exit 0", "redy = true");
    let output = lab.run(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("mine.toml:7:1: unknown key `redy`, did you mean `ready`?"),
        "{stderr}"
    );
}

/// The matrix of `openssl` with itself in this scenario, and the exit status.
fn matrix(lab: &TestLab, arguments: &[&str]) -> (i32, Value) {
    let output = lab
        .matrix(&[
            "--server", "openssl", "--client", "openssl", "--format", "json",
        ])
        .args(arguments)
        .output()
        .expect("the lab was built");
    let matrix = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("the lab is not killed"), matrix)
}

#[test]
fn matrix_plays_pairs_that_no_scenario_names_as_often_as_asked() {
    let lab = TestLab::new();
    lab.scenario("clean", &scenario("ours", "ours"));
    let (code, matrix) = matrix(&lab, &["clean", "--repeat", "2"]);
    let cell = &matrix["cells"][0];
    assert_eq!((code, cell["state"].as_str()), (0, Some("ok")), "{matrix}");
    assert_eq!((&cell["passed"], &cell["of"]), (&2.into(), &2.into()));
    let version = matrix["servers"][0]["version"].as_str();
    assert!(
        version.is_some_and(|it| it.starts_with("OpenSSL")),
        "{matrix}"
    );
    assert_ne!(cell["runs"][0]["replay"], cell["runs"][1]["replay"]);
    assert_ne!(cell["runs"][0]["id"], cell["runs"][1]["id"]);
}

#[test]
fn expectation_that_is_out_of_date_makes_the_matrix_fail() {
    let lab = TestLab::new();
    lab.scenario("clean", &scenario("ours", "ours"));
    for (expectation, code, state) in [
        ("", 0, "ok"),
        ("sometimes = true", 0, "ok"),
        ("sometimes = false", 1, "unexpected_pass"),
        ("rule = \"C1\"", 1, "unexpected_pass"),
    ] {
        let text = if expectation.is_empty() {
            String::new()
        } else {
            format!("[[expect]]\nservers = [\"openssl\"]\nreason = \"of nothing\"\n{expectation}\n")
        };
        let file = lab.path().join("expectations.toml");
        std::fs::write(&file, text).expect("the folder is ours");
        let file = file.to_str().expect("a plain name");
        let (got, matrix) = matrix(&lab, &["clean", "--expectations", file]);
        let cell = &matrix["cells"][0];
        assert_eq!(
            (got, cell["state"].as_str()),
            (code, Some(state)),
            "{expectation}: {matrix}"
        );
    }
}

#[test]
fn player_that_does_not_exist_is_refused_with_those_that_do() {
    let output = TestLab::new().matrix(&["--server", "gnutsl"]).output();
    let output = output.expect("the lab was built");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("no server is named `gnutsl`") && stderr.contains("gnutls, "),
        "{stderr}"
    );
}
