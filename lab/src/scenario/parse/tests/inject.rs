//! What attackers may be told to send, and what not.

use super::*;

#[test]
fn only_who_sees_datagrams_can_replay_them() {
    let replay = "[[inject]]\nwhen = \"established\"\nto = \"server\"\nreplay = { flight = 3 }\n";
    let blind = parse(&format!("attacker = \"off-path-4-tuple\"\n{replay}")).unwrap_err();
    assert!(blind.contains("on-path-observer"), "{blind}");
    let observer = format!("attacker = \"on-path-observer\"\n{replay}");
    assert!(parse(&observer).is_ok());
    let other_way = parse(&observer.replace("flight = 3", "flight = 4")).unwrap_err();
    assert!(other_way.contains("go the other way"), "{other_way}");
}

#[test]
fn inject_knows_icmp_by_name_for_each_family() {
    let scenario = parse(
        "attacker = \"off-path-4-tuple\"\n[[inject]]\nwhen = \"established\"\nto = \"server\"\n\
         icmp = \"port-unreachable\"\n",
    )
    .unwrap();
    let Payload::Icmp(icmp) = &scenario.injects[0].payload else {
        panic!("{:?}", scenario.injects);
    };
    let numbers: Vec<_> = icmp
        .kinds
        .iter()
        .map(|kind| (kind.icmp_type, kind.code))
        .collect();
    assert_eq!(numbers, [(3, 3), (1, 4)]);
    assert_eq!(scenario.injects[0].trigger, Trigger::Established);
}

#[test]
fn inject_knows_icmp_by_numbers_for_one_family() {
    let inject = |families: &str| {
        parse(&format!(
            "attacker = \"off-path-4-tuple\"\nfamilies = {families}\n[[inject]]\n\
             after = {{ flight = 4 }}\nto = \"client\"\nicmp = \"3/4\"\nmtu = 552\n"
        ))
    };
    let Payload::Icmp(icmp) = inject("[\"ipv4\"]").unwrap().injects.remove(0).payload else {
        panic!("an ICMP error was asked for");
    };
    assert_eq!((icmp.kinds[0].name, icmp.mtu), ("packet-too-big", 552));
    let both = inject("[\"ipv4\", \"ipv6\"]").unwrap_err();
    assert!(
        both.contains("3/4 means different errors in ICMP and ICMPv6"),
        "{both}"
    );
    let wrong = inject("[\"ipv6\"]").unwrap_err();
    assert!(wrong.contains("ipv6 has no ICMP error `3/4`"), "{wrong}");
}

#[test]
fn forged_datagram_has_its_parameters() {
    let scenario = parse(
        "attacker = \"off-path-4-tuple\"\n[[inject]]\nwhen = \"established\"\nto = \"server\"\n\
         datagram = { epoch-1-runt = { length = 8 } }\n[[inject]]\nwhen = \"established\"\n\
         to = \"client\"\ndatagram = \"empty\"\n",
    )
    .unwrap();
    let forgeries: Vec<_> = scenario
        .injects
        .iter()
        .map(|inject| &inject.payload)
        .collect();
    assert_eq!(
        forgeries,
        [
            &Payload::Datagrams(vec![Forgery::Epoch1Runt { length: 8 }]),
            &Payload::Datagrams(vec![Forgery::Empty])
        ]
    );
}

#[test]
fn inject_must_say_one_trigger_and_one_payload() {
    let refusal = |inject: &str| {
        refusal(&format!(
            "attacker = \"off-path-blind\"\ninject = [{{ to = \"server\", {inject} }}]"
        ))
    };
    for (inject, expected) in [
        ("icmp = \"all\"", "an inject needs one trigger"),
        (
            "icmp = \"all\", when = \"established\", after = { flight = 1 }",
            "an inject needs one trigger",
        ),
        ("when = \"established\"", "an inject sends one thing"),
        (
            "when = \"established\", icmp = \"all\", datagram = \"empty\"",
            "an inject sends one thing",
        ),
        (
            "when = \"established\", datagram = \"empty\", flip_cookie = true",
            "`flip_cookie` is about the hello with the cookie",
        ),
        (
            "when = \"established\", icmp = \"port-unreachable\", mtu = 552",
            "only icmp = \"packet-too-big\" or \"all\" carries an `mtu`",
        ),
        (
            "when = \"established\", icmp = \"port-unreachabel\"",
            "did you mean `port-unreachable`?",
        ),
        (
            "when = \"established\", datagram = { epoch-1-runt = { length = 24 } }",
            "a record of 24 bytes is no runt; write 1 to 23",
        ),
        (
            "after = { flight = 4, direction = \"to_server\" }, icmp = \"all\"",
            "flight 4 goes to_client and never to_server",
        ),
    ] {
        let refusal = refusal(inject);
        assert!(refusal.starts_with("scenarios/x.toml:5:"), "{refusal}");
        assert!(refusal.contains(expected), "{inject}: {refusal}");
    }
}
