//! The checker is checked: each defect turns exactly its scenarios red, and each rule has a defect that
//! breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use strum::IntoEnumIterator;

use super::Defect;
use crate::rules::{RULES, RuleId};
use crate::run::Finished;
use crate::scenario::{Catalogue, Family};
use crate::schedule::{Filter, plan, run_all};
use crate::sim::Simulator;
use crate::verdict::{Verdict, judge};

/// A defect, the rules that it breaks, and the scenarios that say so, but for those of mere weather. Where the rules of
/// every run say it, only controls are tried.
const TABLE: &[(Defect, &[RuleId], &[&str])] = &[
    (
        Defect::NoCookie,
        &[RuleId::C1],
        &["clean", "clean-long-chain"],
    ),
    (
        Defect::ServerHelloRenumbered,
        &[RuleId::C2],
        &["clean", "clean-long-chain"],
    ),
    (
        Defect::AnyCookie,
        &[RuleId::C3],
        &["cookie-flipped", "cookie-forged"],
    ),
    (
        Defect::Amplifies,
        &[RuleId::C4],
        &["clean", "clean-long-chain"],
    ),
    (
        Defect::HelloVerifyTimer,
        &[RuleId::C5],
        &[
            "cookie-flipped",
            "delay-1500ms",
            "handshake-drop-flight3",
            "handshake-drop-hello-verify",
            "handshake-drop-hello-verify-thrice",
            "hello-unreachable",
            "hello-verify-late",
            "silence-from-flight-3",
        ],
    ),
    (
        Defect::OneHelloVerifyRequest,
        &[RuleId::C6],
        &[
            "handshake-drop-hello-verify",
            "handshake-drop-hello-verify-thrice",
            "hello-unreachable",
        ],
    ),
    (
        Defect::TwoHelloVerifyRequests,
        &[RuleId::C6],
        &["handshake-drop-hello-verify-thrice"],
    ),
    (
        Defect::Initial400Ms,
        &[RuleId::T1, RuleId::U1],
        &[
            "cookie-flipped",
            "longrtt-750ms",
            "flight-4-part",
            "forged-too-big-handshake",
            "handshake-drop-client-hello",
            "handshake-drop-flight3",
            "handshake-drop-flight4",
            "handshake-drop-flight5",
            "handshake-drop-flight6",
            "handshake-drop-flight6-twice",
            "handshake-drop-hello-verify",
            "handshake-drop-hello-verify-thrice",
            "handshake-drop-ticket",
            "hello-unreachable",
            "hello-verify-late",
            "icmp-all-handshake",
            "last-flight-after-minutes",
            "mtu-1280-silent",
            "mtu-576-silent",
            "refragment",
            "silence-for-minutes",
            "silence-from-flight-1",
            "silence-from-flight-3",
            "silence-from-flight-4",
            "silence-from-flight-5",
        ],
    ),
    (
        Defect::NoBackoff,
        &[RuleId::T1, RuleId::U1],
        &[
            "flight-4-part",
            "handshake-drop-flight6-twice",
            "handshake-drop-hello-verify-thrice",
            "last-flight-after-minutes",
            "mtu-1280-silent",
            "mtu-576-silent",
            "refragment",
            "silence-for-minutes",
            "silence-from-flight-1",
            "silence-from-flight-3",
            "silence-from-flight-4",
            "silence-from-flight-5",
            "wrong-key-duplicates",
        ],
    ),
    (
        Defect::Gaps13612,
        &[RuleId::T1],
        &[
            "flight-4-part",
            "handshake-drop-hello-verify-thrice",
            "last-flight-after-minutes",
            "mtu-576-silent",
            "silence-for-minutes",
            "silence-from-flight-1",
            "silence-from-flight-3",
            "silence-from-flight-4",
            "silence-from-flight-5",
        ],
    ),
    (
        Defect::Cap32s,
        &[RuleId::T1],
        &["last-flight-after-minutes", "silence-for-minutes"],
    ),
    (
        Defect::TimerCarriedOver,
        &[RuleId::T2],
        &[
            "cookie-flipped",
            "flight-4-part",
            "forged-too-big-handshake",
            "handshake-drop-flight3",
            "handshake-drop-ticket",
            "icmp-all-handshake",
            "last-flight-after-minutes",
            "reconnect-drop-flight4",
            "replay-flight-5",
            "silence-from-flight-3",
            "silence-from-flight-4",
            "silence-from-flight-5",
        ],
    ),
    (
        Defect::DeafServer,
        &[RuleId::T2],
        &[
            "flight-4-part",
            "forged-too-big-handshake",
            "handshake-drop-flight4",
            "icmp-all-handshake",
            "mtu-1280-silent",
            "mtu-576-silent",
            "reconnect-drop-flight4",
            "refragment",
            "resumed-drop-flight4",
            "resumed-drop-last-flight",
            "silence-from-flight-4",
        ],
    ),
    (
        Defect::ServerWithoutTimer,
        &[RuleId::T2],
        &[
            "delay-1500ms",
            "longrtt-750ms",
            "duplicate-everything",
            "flight-4-part",
            "forged-too-big-handshake",
            "handshake-drop-flight4",
            "icmp-all-handshake",
            "mtu-1280-silent",
            "mtu-576-silent",
            "reconnect-drop-flight4",
            "refragment",
            "resumed-drop-flight4",
            "resumed-drop-last-flight",
            "silence-from-flight-4",
            "wrong-key-duplicates",
        ],
    ),
    (
        Defect::OldRecordNumbers,
        &[RuleId::T3],
        &[
            "certificate-verify-late",
            "delay-1500ms",
            "longrtt-750ms",
            "flight-4-part",
            "forged-too-big-handshake",
            "handshake-drop-flight4",
            "handshake-drop-flight5",
            "icmp-all-handshake",
            "mtu-1280-silent",
            "mtu-576-silent",
            "reconnect-drop-flight4",
            "refragment",
            "silence-from-flight-4",
            "silence-from-flight-5",
            "wrong-key-duplicates",
        ],
    ),
    (
        Defect::RefragmentedNeverJoined,
        &[RuleId::T4],
        &[
            "flight-4-part",
            "mtu-1280-silent",
            "mtu-576-silent",
            "refragment",
        ],
    ),
    (
        Defect::DuplicateStorm,
        &[RuleId::T5],
        &[
            "duplicate-everything",
            "flight-4-part",
            "refragment",
            "wrong-key-duplicates",
        ],
    ),
    (
        Defect::LastFlightNeverResent,
        &[RuleId::T6],
        &[
            "handshake-drop-flight6",
            "handshake-drop-flight6-twice",
            "handshake-drop-ticket",
            "last-flight-after-minutes",
            "reconnect-same-port",
            "replay-flight-5",
        ],
    ),
    (
        Defect::LastFlightTimer,
        &[RuleId::T6],
        &[
            "delay-1500ms",
            "longrtt-750ms",
            "flight-4-part",
            "handshake-drop-flight6",
            "handshake-drop-flight6-twice",
            "handshake-drop-ticket",
            "last-flight-after-minutes",
            "last-flight-quiet",
            "replay-flight-5",
        ],
    ),
    (
        Defect::ResumedLastFlightNeverResent,
        &[RuleId::T7],
        &["resumed-drop-last-flight"],
    ),
    (Defect::PartHoldsTimer, &[RuleId::T9], &["flight-4-part"]),
    (
        Defect::FatalOutOfOrder,
        &[RuleId::O1],
        &[
            "duplicate-everything",
            "mtu-1280-silent",
            "mtu-576-silent",
            "reorder-every-flight",
            "replay-everything",
        ],
    ),
    (Defect::FatalEarlyRecord, &[RuleId::O2], &["finished-early"]),
    (
        Defect::ReplaysDelivered,
        &[RuleId::R1],
        &["duplicate-everything"],
    ),
    (
        Defect::WindowBeforeMac,
        &[RuleId::R1],
        &["bad-mac-far-ahead"],
    ),
    (
        Defect::FatalBadRecord,
        &[RuleId::R2],
        &[
            "empty-datagram",
            "mixed-datagram",
            "spoof-10000-bad-records-client",
            "spoof-epoch1-runt",
            "spoof-plaintext-established",
            "spoof-plaintext-handshake",
        ],
    ),
    (
        Defect::BadRecordAnswered,
        &[RuleId::R2],
        &[
            "empty-datagram",
            "mixed-datagram",
            "spoof-10000-bad-records-client",
            "spoof-epoch1-runt",
            "spoof-plaintext-established",
            "spoof-plaintext-handshake",
        ],
    ),
    (
        Defect::ObeysPlaintextAlert,
        &[RuleId::R3],
        &[
            "spoof-10000-bad-records-client",
            "spoof-plaintext-alert",
            "spoof-plaintext-established",
        ],
    ),
    (
        Defect::BadRecordTakesNeighbours,
        &[RuleId::R4],
        &["mixed-datagram"],
    ),
    (
        Defect::HelloCloses,
        &[RuleId::A1],
        &[
            "reconnect-hello-alone",
            "reconnect-same-port",
            "reconnect-spoofed",
        ],
    ),
    (
        Defect::DeafToNewHello,
        &[RuleId::A1],
        &["reconnect-same-port"],
    ),
    (
        Defect::NeverShrinks,
        &[RuleId::M1],
        &[
            "mtu-1280-silent",
            "mtu-576-silent",
            "reconnect-drop-flight4",
        ],
    ),
    (
        Defect::ObeysTooBig,
        &[RuleId::M2],
        &[
            "forged-too-big-handshake",
            "icmp-too-big-1000",
            "icmp-too-big-552",
            "icmp-too-big-68",
        ],
    ),
    (
        Defect::FatalErrno,
        &[RuleId::I1],
        &[
            "forged-too-big-handshake",
            "icmp-all-established",
            "icmp-all-handshake",
            "icmp-port-unreachable-established-client",
            "icmp-port-unreachable-established-server",
            "icmp-port-unreachable-handshake-client",
            "icmp-port-unreachable-handshake-server",
            "icmp-too-big-1000",
            "icmp-too-big-552",
            "icmp-too-big-68",
        ],
    ),
    (
        Defect::IcmpRepeatsFlight,
        &[RuleId::I2],
        &[
            "forged-too-big-handshake",
            "icmp-all-handshake",
            "icmp-port-unreachable-handshake-client",
            "icmp-port-unreachable-handshake-server",
        ],
    ),
    (
        Defect::GivesUpOnBadRecords,
        &[RuleId::K1],
        &["spoof-10000-bad-records-client"],
    ),
    (Defect::Mute, &[RuleId::L1], &["clean", "clean-long-chain"]),
];

/// Rules that no simulated end breaks, and who shows that their scenarios can fail.
const ELSEWHERE: &[(RuleId, &str)] = &[
    (
        RuleId::H1,
        "ends without heartbeats fail heartbeat-idle and heartbeat-client-gone on the wire, in tests/can_fail.rs",
    ),
    (
        RuleId::N1,
        "OpenSSL's server without -listen, which answers whoever spoke last, fails nat-rebind-address on the wire",
    ),
];

/// The scenarios that a defect turns red, each with its reason.
fn red(catalogue: &Catalogue, defect: Option<Defect>) -> BTreeMap<String, String> {
    let lab = Simulator::new(0x7c1e, PathBuf::new(), defect, String::new())
        .expect("OpenSSL sees the clock");
    let ours = Some("ours".to_owned());
    let filter = Filter {
        names: Vec::new(),
        family: Some(Family::Ipv4),
        server: ours.clone(),
        client: ours,
        pair: None,
        netem: false,
    };
    let plan = plan(catalogue, &filter).expect("there are scenarios");
    let run = |job: &crate::run::Job<'_>| {
        Finished::untried(match lab.try_out(job) {
            Ok(seen) => judge(job.scenario, &job.play, &seen),
            Err(verdict) => verdict,
        })
    };
    let finished = run_all(&run, &plan, 2, &|_| ());
    let tried = plan.iter().zip(finished);
    tried
        .filter_map(|(planned, finished)| match finished.verdict {
            Verdict::Fail(why) => Some((planned.job.scenario.name.clone(), why)),
            _ => None,
        })
        .collect()
}

/// Every scenario of the lab whose faults are aimed: weather, be it left to chance or not, may or may not meet a
/// defect.
fn certain() -> Catalogue {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = std::fs::read_dir(folder).expect("the scenarios are beside the source");
    let files = files.map(|entry| entry.expect("the folder is readable").path());
    let files = files.filter(|path| path.extension().is_some_and(|it| it == "toml"));
    let files = files.filter_map(|path| {
        let text = std::fs::read_to_string(&path).expect("the file is readable");
        let weather = [
            "loss =",
            "corrupt =",
            "duplicate = \"",
            "gemodel",
            "jitter",
            "rate =",
            "chance =",
            "[[blackhole]]",
            "[[rebind]]",
        ];
        (!weather.iter().any(|word| text.contains(word))).then_some((path, text))
    });
    Catalogue::parse(files).expect("the scenarios are valid")
}

#[test]
fn each_defect_turns_exactly_its_scenarios_red() {
    let catalogue = certain();
    assert_eq!(red(&catalogue, None), BTreeMap::new(), "without a defect");
    let mut wrong = Vec::new();
    for (defect, rules, expected) in TABLE {
        let red = red(&catalogue, Some(*defect));
        let names: BTreeSet<&str> = red.keys().map(String::as_str).collect();
        if names != expected.iter().copied().collect() {
            wrong.push(format!("{defect}: {red:#?}"));
        }
        for rule in *rules {
            let says = |(name, why): (&String, &String)| {
                let shown = catalogue
                    .get(name)
                    .is_some_and(|it| it.shows.contains(rule));
                // L1 is what every run ends with.
                shown || why.contains(&format!("{rule}: ")) || *rule == RuleId::L1
            };
            assert!(red.iter().any(says), "{defect} breaks {rule}: {red:#?}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_rule_is_broken_by_a_defect() {
    for rule in RULES.iter().filter(|rule| rule.absent.is_none()) {
        let here = TABLE.iter().any(|(_, broken, _)| broken.contains(&rule.id));
        let elsewhere = ELSEWHERE.iter().any(|(broken, _)| *broken == rule.id);
        assert!(
            here != elsewhere,
            "{} is broken by nobody, or twice",
            rule.id
        );
    }
}

#[test]
fn each_defect_stands_in_the_table() {
    for defect in Defect::iter().filter(|it| *it != Defect::AnswersDuplicates) {
        let rows = TABLE.iter().filter(|(it, _, _)| *it == defect).count();
        assert!(rows >= 1, "{defect}");
    }
}
