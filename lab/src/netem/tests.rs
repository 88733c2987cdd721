//! Links become the words of tc-netem(8), and what netem cannot do stays with the wire.

use super::*;
use crate::wire::tests::scenario;

/// The commands for the link to the server.
fn commands(faults: &str) -> String {
    let scenario = scenario(faults);
    qdiscs("x", &scenario.to_server, !scenario.rules.is_empty())
}

#[test]
fn links_are_told_to_tc_in_its_own_words() {
    let cases = [
        ("", "limit 1000"),
        ("loss = \"12.5%\"", "limit 1000 loss random 12.5%"),
        (
            "gemodel = { p = \"1%\", r = \"30%\", 1-h = \"80%\", 1-k = \"0.5%\" }",
            "limit 1000 loss gemodel 1% 30% 80% 0.5%",
        ),
        (
            "delay = \"20ms\"\njitter = \"5ms\"\nreorder = \"25%\"\nduplicate = \"1%\"",
            "limit 1000 delay 20000us 5000us duplicate 1% reorder 25%",
        ),
        (
            "rate = \"64kbit\"\nlimit = 20\nslot = \"10ms\"",
            "limit 20 rate 64000bit slot 10000us 10000us",
        ),
    ];
    for (link, words) in cases {
        assert_eq!(
            commands(&format!("[link.to_server]\n{link}\n")),
            format!("qdisc add dev x root netem {words}\n")
        );
    }
}

#[test]
fn what_a_rule_lets_pass_has_a_band_that_only_delays() {
    let commands = commands(
        "[[rule]]\naction = \"pass\"\n[link.to_server]\nloss = \"5%\"\ndelay = \"20ms\"\n",
    );
    let lines: Vec<&str> = commands.lines().collect();
    let bands =
        "qdisc add dev x root handle 1: prio bands 2 priomap 1 1 1 1 1 1 0 1 1 1 1 1 1 1 1 1";
    assert_eq!(
        lines,
        [
            bands,
            "qdisc add dev x parent 1:1 netem limit 1000 delay 20000us",
            "qdisc add dev x parent 1:2 netem limit 1000 delay 20000us loss random 5%",
        ]
    );
    let band_of = |priority: i32| bands.split(' ').nth(11 + priority as usize).unwrap();
    assert_eq!((band_of(PASSES), band_of(0)), ("0", "1"));
}

#[test]
fn what_netem_cannot_do_needs_the_wire_and_says_so() {
    let link = |link: &str| format!("[link.both]\n{link}\n");
    let clean = Scenario::parse("x.toml", "name = \"x\"\nclaim = \"-\"\n").unwrap();
    assert_eq!(suffices_for(&clean), Ok(()), "a control");
    let no_link = suffices_for(&scenario("clients = 64\n")).unwrap_err();
    assert!(no_link.contains("no link for netem"), "{no_link}");
    for fits in [
        link("loss = \"5%\""),
        link("rate = \"64kbit\""),
        format!("[[rule]]\naction = \"pass\"\n{}", link("loss = \"5%\"")),
    ] {
        assert_eq!(suffices_for(&scenario(&fits)), Ok(()), "{fits}");
    }
    let lossy = |faults: &str| format!("{faults}{}", link("loss = \"5%\""));
    for (faults, what) in [
        (link("mtu = 1280"), "a link's `mtu`"),
        (link("corrupt = \"1%\""), "`corrupt`"),
        (lossy("[[rule]]\naction = \"drop\"\n"), "a rule"),
        (
            format!("[[rule]]\naction = \"pass\"\n{}", link("rate = \"64kbit\"")),
            "what a rule lets pass",
        ),
        (
            lossy("[[blackhole]]\nwhen = \"established\"\nlasts = \"1s\"\n"),
            "a blackhole",
        ),
        (
            lossy("[[rebind]]\nwhen = \"established\"\nwhat = \"port\"\n"),
            "a NAT",
        ),
        (
            lossy("[[inject]]\nwhen = \"established\"\nto = \"server\"\ndatagram = \"empty\"\n"),
            "an attacker",
        ),
    ] {
        let why = suffices_for(&scenario(&faults)).unwrap_err();
        assert!(
            why.starts_with(what) && why.ends_with("needs the wire backend"),
            "{why}"
        );
    }
}

#[test]
fn tc_that_refuses_is_quoted_with_what_to_do() {
    let refused = Missing::Refused("Specified qdisc kind is unknown".to_owned()).to_string();
    assert!(
        refused.contains("modprobe -a sch_netem sch_prio"),
        "{refused}"
    );
}
