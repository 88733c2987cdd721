//! A seed is a run: the same decisions again, and the evidence to show it.

use std::collections::BTreeMap;

use crate::common::{CLEAN, TestLab, statuses};
use serde_json::Value;

const LOSSY: &str = r#"
name = "lossy"
claim = "OpenSSL gets through 20 % loss."
control = "clean"
families = ["ipv4"]
deadline = "60s"

[[play]]
server = "openssl"
server_args = ["-listen"]
client = "openssl"

[link.both]
loss = "20%"
"#;

/// The fates of one run, by flow, direction and ordinal.
fn fates(seed: &str) -> BTreeMap<(u64, String, u64), Value> {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN).scenario("lossy", LOSSY);
    let (code, report) = lab.report(&["lossy", "--seed", seed]);
    assert_eq!(
        (code, statuses(&report)),
        (0, vec!["pass", "pass"]),
        "{report}"
    );
    let run = &report["runs"][1];
    let decisions = std::fs::read_to_string(lab.evidence(run).join("decisions.jsonl"));
    let decisions = decisions.expect("the evidence holds the decisions");
    decisions
        .lines()
        .map(|line| {
            let decision: Value = serde_json::from_str(line).expect("a JSON object a line");
            let number = |key: &str| decision[key].as_u64().expect("a number");
            let direction = decision["direction"]
                .as_str()
                .expect("a direction")
                .to_owned();
            (
                (number("flow"), direction, number("ordinal")),
                decision["fate"].clone(),
            )
        })
        .collect()
}

#[test]
fn same_seed_takes_the_same_decisions() {
    // How many datagrams there are follows from the programs' real timers; what becomes of the
    // nth one of a direction follows from the seed alone.
    let (first, second) = (fates("1"), fates("1"));
    let common: Vec<_> = first
        .keys()
        .filter(|key| second.contains_key(*key))
        .collect();
    assert!(common.len() > 8, "{first:?} {second:?}");
    for key in &common {
        assert_eq!(first[*key], second[*key], "{key:?}");
    }
    assert!(
        common.iter().any(|key| first[*key] == "dropped"),
        "nothing was ever lost: {first:?}"
    );

    let other = fates("2");
    let differs =
        |key: &&(u64, String, u64)| other.get(*key).is_some_and(|fate| *fate != first[*key]);
    assert!(
        first.keys().any(|key| differs(&key)),
        "another seed decides alike"
    );
}

#[test]
fn run_leaves_its_evidence_and_the_command_that_plays_it_again() {
    let lab = TestLab::new();
    lab.scenario("clean", CLEAN);
    let (code, report) = lab.report(&["--seed", "7c1e", "--server-arg=for ours"]);
    assert_eq!(code, 0, "{report}");
    let folder = lab
        .out()
        .join("latest")
        .join("clean.ipv4.openssl--listen.openssl");
    for file in [
        "wire.pcapng",
        "events.jsonl",
        "decisions.jsonl",
        "server.log",
        "client.log",
    ] {
        let size = std::fs::metadata(folder.join(file))
            .map(|file| file.len())
            .unwrap_or(0);
        assert!(size > 0, "{file} is missing or empty");
    }
    let replay = std::fs::read_to_string(folder.join("replay")).expect("the command is kept");
    let scenarios = lab.path().join("scenarios");
    let expected = format!(
        "dtls-lab run clean --seed 7c1e --family ipv4 --server 'openssl -listen' --client openssl \
         --scenarios {} --server-arg='for ours'",
        scenarios.display()
    );
    assert_eq!(replay.trim(), expected);
    let again = format!(
        "'{}' {} --out '{}'",
        env!("CARGO_BIN_EXE_dtls-lab"),
        expected.trim_start_matches("dtls-lab "),
        lab.path().join("again").display()
    );
    let again = std::process::Command::new("sh")
        .args(["-c", &again])
        .output();
    let again = again.expect("a shell");
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("1 pass"), "{said}");
    let capture = std::fs::File::open(folder.join("wire.pcapng")).expect("it exists");
    let mut reader = pcap_file::pcapng::PcapNgReader::new(capture).expect("it is pcapng");
    let mut packets = 0;
    while let Some(block) = reader.next_block() {
        let (block, _) = block.expect("every block is whole");
        packets += usize::from(block.as_enhanced_packet().is_some());
    }
    assert!(
        packets >= 12,
        "a handshake is at least six datagrams, seen at both ends: {packets}"
    );
}
