//! What scenario files may say, what they may not, and how a refusal reads.

use std::path::Path;
use std::time::Duration;

use crate::packet::Direction;
use crate::record::MessageType;
use crate::scenario::{
    Action, Catalogue, Comparison, Family, Forgery, GeModel, Leave, Mtu, Outcome, Payload,
    Position, Scenario, Trigger,
};

/// What every file needs, on three lines.
const HEAD: &str = "name = \"x\"\nclaim = \"It works.\"\ncontrol = \"clean\"\n";

fn parse(rest: &str) -> Result<Scenario, String> {
    Scenario::parse("scenarios/x.toml", &format!("{HEAD}{rest}")).map_err(|error| error.to_string())
}

/// The refusal of a file whose fourth line is `rest`.
fn refusal(rest: &str) -> String {
    parse(rest).unwrap_err()
}

#[test]
fn three_lines_make_a_scenario() {
    let scenario = parse("").unwrap();
    assert_eq!(scenario.families, [Family::Ipv4, Family::Ipv6]);
    assert_eq!(scenario.plays.len(), 2);
    assert_eq!(scenario.expect.outcome, Outcome::Echo);
    assert_eq!(
        (scenario.clients, scenario.deadline),
        (1, Duration::from_secs(30))
    );
}

#[test]
fn rule_keeps_all_it_says() {
    let scenario = parse(
        "[[rule]]\nselect = { flight = 4, datagram = \"last\", transmission = [1, 2], every = 3, \
         chance = \"12.5%\" }\naction = { delay = \"1s 500ms\" }\ntimes = 2\n",
    )
    .unwrap();
    let rule = &scenario.rules[0];
    assert_eq!(rule.action, Action::Delay(Duration::from_millis(1500)));
    assert_eq!(rule.times, Some(2));
    assert_eq!(
        rule.select.direction,
        Some(Direction::ToClient),
        "flight 4 is the server's"
    );
    assert_eq!(rule.select.flights, [4]);
    assert_eq!(rule.select.transmissions, [1, 2]);
    assert_eq!(rule.select.datagram, Some(Position::Last));
    assert_eq!(rule.select.every, Some(3));
    assert_eq!(rule.select.chance.unwrap().to_string(), "12.5%");
}

#[test]
fn message_gives_the_direction_away() {
    let rule = "[[rule]]\nselect = { message = \"ClientKeyExchange\" }\naction = \"drop\"\n";
    let select = parse(rule).unwrap().rules.remove(0).select;
    assert_eq!(select.direction, Some(Direction::ToServer));
    assert_eq!(select.message, Some(MessageType::ClientKeyExchange));
}

#[test]
fn flights_of_both_sides_leave_the_direction_open() {
    let rule = "[[rule]]\nselect = { flight = [1, 2] }\naction = \"drop\"\n";
    assert_eq!(parse(rule).unwrap().rules[0].select.direction, None);
}

#[test]
fn link_both_holds_in_both_directions() {
    let scenario =
        parse("[link.both]\ndelay = \"20ms\"\njitter = \"5ms\"\nloss = \"5%\"\n").unwrap();
    assert_eq!(scenario.to_server, scenario.to_client);
    assert_eq!(scenario.to_server.delay, Duration::from_millis(20));
}

#[test]
fn links_have_an_mtu_that_some_link_could_have() {
    let scenario = parse("[link.to_client]\nmtu = 576\ntoo_big = true\n").unwrap();
    let mtu = Mtu {
        bytes: 576,
        announced: true,
    };
    assert_eq!(
        (scenario.to_server.mtu, scenario.to_client.mtu),
        (None, Some(mtu))
    );
    let nothing = parse("[link.both]\ntoo_big = true\n").unwrap_err();
    assert!(
        nothing.contains("`too_big` announces the link's `mtu`"),
        "{nothing}"
    );
    let narrow = parse("[link.both]\nmtu = 67\n").unwrap_err();
    assert!(narrow.contains("no link has an `mtu` below 68"), "{narrow}");
}

#[test]
fn certificates_are_those_of_the_test_pki() {
    let scenario = parse("certificate = \"server-long-chain\"\n").unwrap();
    assert_eq!(scenario.certificate.name, "server-long-chain");
    let wrong = parse("certificate = \"server-long-chian\"\n").unwrap_err();
    assert!(wrong.contains("server-long-chain"), "{wrong}");
    let client = parse("certificate = \"client\"\n").unwrap_err();
    assert!(
        client.contains("no server certificate `client`"),
        "{client}"
    );
}

#[test]
fn clients_come_in_turn_only_if_there_are_several() {
    let two = parse("clients = 2\nin_turn = \"killed\"\nsame_port = true\n").unwrap();
    assert_eq!((two.in_turn, two.same_port), (Some(Leave::Killed), true));
    assert_eq!(two.plays.len(), 2, "any client can be started twice");
    let one = parse("in_turn = \"closed\"\n").unwrap_err();
    assert!(one.contains("nobody to come after it"), "{one}");
    let at_once = parse("clients = 2\nresume = true\n").unwrap_err();
    assert!(at_once.contains("come after one another"), "{at_once}");
}

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
fn expectation_keeps_its_bounds() {
    let expect = parse(
        "[expect]\nhandshake_min = \"900ms\"\nhandshake_max = \"1.5s\"\nresent_min = 1\n\
         threads_left = 0\n[expect.server]\nstrays = \">=1\"\n",
    )
    .unwrap()
    .expect;
    assert_eq!(expect.handshake_max, Some(Duration::from_millis(1500)));
    assert!(expect.threads_left.unwrap().holds(0) && !expect.threads_left.unwrap().holds(1));
    let strays = expect.server_counters["strays"];
    assert_eq!(
        (strays.comparison, strays.to_string().as_str()),
        (Comparison::AtLeast, ">=1")
    );
    assert!(strays.holds(1) && !strays.holds(0));
}

/// What stands on line 4, and what the refusal must say after `x.toml:4:`.
const REFUSED: &[(&str, &str)] = &[
    (
        "contol = \"clean\"",
        "1: unknown key `contol`, did you mean `control`?",
    ),
    (
        "handshake = \"pks\"",
        "13: there is no handshake `pks`, did you mean `psk`?",
    ),
    (
        "wrong_key = true",
        "13: `wrong_key` is about a pre-shared key",
    ),
    ("rules = [\"T8\"]", "10: T8 is not of DTLS 1.2: "),
    (
        "bugs = [\"B99\"]",
        "9: unknown value `B99`, did you mean `B19`?",
    ),
    ("bugs = [\"B5\"]", "9: B5 is not of DTLS 1.2: "),
    (
        "expect = { repeats = [{ flight = 4, after = [\"3s\", \"1s\"] }] }",
        "23: `after` lists when the flight is sent again",
    ),
    (
        "expect = { repeats = [{ flight = 4, aftr = [\"1s\"] }] }",
        "37: unknown key `aftr`, did you mean `after`?",
    ),
    (
        "rule = [{ action = { prepend = \"empty\" } }]",
        "9: `prepend` puts one record before the datagram's own",
    ),
    (
        "rule = [{ action = { prepend = \"plaintext-dat\" } }]",
        "32: unknown value `plaintext-dat`, did you mean `plaintext-data`?",
    ),
    (
        "rule = [{ actoin = \"drop\" }]",
        "11: unknown key `actoin`, did you mean `action`?",
    ),
    (
        "rule = [{ action = \"dorp\" }]",
        "20: unknown value `dorp`, did you mean `drop`?",
    ),
    (
        "rule = [{ select = { mesage = \"Finished\" }, action = \"drop\" }]",
        "22: unknown key `mesage`, did you mean `message`?",
    ),
    (
        "rule = [{ select = { message = \"ServerHelo\" }, action = \"drop\" }]",
        "32: unknown value `ServerHelo`, did you mean `ServerHello`?",
    ),
    (
        "rule = [{ select = { flight = 7 }, action = \"drop\" }]",
        "31: there is no flight 7; write 1 to 6",
    ),
    (
        "rule = [{ select = { flight = 4, direction = \"to_server\" }, action = \"drop\" }]",
        "20: flight 4 goes to_client and never to_server",
    ),
    (
        "rule = [{ select = { flight = [1, 2], direction = \"to_server\" }, action = \"drop\" }]",
        "20: `flight` names flights of both directions",
    ),
    (
        "rule = [{ select = { direction = \"to_client\", message = \"ClientHello\" }, action = \
         \"drop\" }]",
        "20: ClientHello goes to_server and never to_client",
    ),
    (
        "rule = [{ select = { flight = 3, message = \"ClientKeyExchange\" }, action = \"drop\" }]",
        "20: no such flight carries ClientKeyExchange, only [5]",
    ),
    (
        "rule = [{ select = { epoch = 1, message = \"ServerHello\" }, action = \"drop\" }]",
        "20: ServerHello travels in epoch 0",
    ),
    (
        "rule = [{ select = { epoch = 0, message = \"Finished\" }, action = \"drop\" }]",
        "20: Finished travels in epoch 1",
    ),
    (
        "rule = [{ select = { content_type = \"alert\", message = \"Finished\" }, action = \
         \"drop\" }]",
        "20: Finished travels in handshake records",
    ),
    (
        "rule = [{ select = { transmission = 0 }, action = \"drop\" }]",
        "37: invalid value: integer `0`, expected a nonzero u32",
    ),
    (
        "rule = [{ select = { chance = \"101%\" }, action = \"drop\" }]",
        "31: `101%` is no chance; write \"0%\" to \"100%\"",
    ),
    (
        "rule = [{ select = { chance = \"0%\" }, action = \"drop\" }]",
        "20: a chance of 0% selects nothing",
    ),
    (
        "rule = [{ action = { delay = 5 } }]",
        "30: invalid type: integer `5`, expected a string",
    ),
    (
        "rule = [{ action = \"delay\" }]",
        "20: this word needs a value: write { word = value }",
    ),
    (
        "rule = [{ action = { reorder = 0 } }]",
        "9: an action of 0 does nothing",
    ),
    (
        "rule = [{ action = { duplicate = 101 } }]",
        "9: `duplicate` makes at most 100 copies",
    ),
    (
        "link.both = { jitter = \"5ms\" }",
        "13: `jitter` exceeds `delay`",
    ),
    (
        "link.both = { reorder = \"5%\" }",
        "13: `reorder` lets datagrams overtake",
    ),
    (
        "link = { both = { loss = \"5%\" }, to_server = { loss = \"1%\" } }",
        "17: link.both already says all",
    ),
    (
        "inject = [{ when = \"established\", to = \"server\", icmp = \"all\" }]",
        "11: an inject is an attacker's doing: name the `attacker`",
    ),
    (
        "attacker = \"on-path\"",
        "12: unknown value `on-path`, did you mean `on-path-full`?",
    ),
    ("deadline = \"soon\"", "12: `soon` is no length of time"),
    ("families = []", "12: no family: write ipv4, ipv6"),
    (
        "clients = 0",
        "11: invalid value: integer `0`, expected a nonzero u32",
    ),
    (
        "expect = { handshake_min = \"2s\", handshake_max = \"1s\" }",
        "10: `handshake_min` exceeds `handshake_max`",
    ),
    (
        "expect = { resent_min = 2, resent_max = 1 }",
        "10: `resent_min` exceeds `resent_max`",
    ),
    (
        "expect = { threads_left = \"few\" }",
        "27: `few` is no bound",
    ),
    (
        "play = [{ server = \"ours\" }]",
        "9: the key `client` is missing",
    ),
    (
        "play = [{ server = \"ours\", client = \"opensll\" }]",
        "37: unknown value `opensll`, did you mean `openssl`?",
    ),
];

#[test]
fn each_mistake_is_named_with_its_place_and_a_remedy() {
    for (line, expected) in REFUSED {
        let refusal = refusal(line);
        assert!(
            refusal.starts_with(&format!("scenarios/x.toml:4:{expected}")),
            "\n    line: {line}\nexpected: {expected}\n refusal: {refusal}"
        );
        assert!(!refusal.contains('\n'), "more than one line: {refusal}");
    }
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

#[test]
fn links_lose_in_bursts_and_have_a_rate_in_the_words_of_tc() {
    let scenario = parse(
        "[link.to_server]\ngemodel = { p = \"1%\", r = \"30%\", 1-h = \"80%\", 1-k = \"0.5%\" }\n\
         [link.to_client]\ngemodel = { p = \"10%\" }\nrate = \"64kbit\"\nlimit = 20\n",
    )
    .unwrap();
    let model = scenario.to_server.gemodel.unwrap();
    let words = |model: GeModel| {
        [model.p, model.r, model.loss_in_bad, model.loss_in_good].map(|chance| chance.to_string())
    };
    assert_eq!(words(model), ["1%", "30%", "80%", "0.5%"]);
    let usual = scenario.to_client.gemodel.unwrap();
    assert_eq!(
        words(usual),
        ["10%", "90%", "100%", "0%"],
        "as tc-netem has it"
    );
    assert_eq!(scenario.to_client.rate.unwrap().0.get(), 64_000);
    assert_eq!(scenario.to_client.limit.unwrap().get(), 20);
}

#[test]
fn impossible_links_and_changes_are_refused() {
    let cases = [
        (
            "link.both = { loss = \"1%\", gemodel = { p = \"1%\" } }",
            "`loss` and `gemodel` are two models of loss",
        ),
        (
            "link.both = { gemodel = { r = \"1%\" } }",
            "the key `p` is missing",
        ),
        (
            "link.both = { gemodel = { p = \"1%\", \"1-j\" = \"1%\" } }",
            "unknown key `1-j`, did you mean `1-h`?",
        ),
        (
            "link.both = { gemodel = { p = \"1%\", 1-h = \"0%\" } }",
            "never loses anything",
        ),
        (
            "link.both = { rate = \"64kbps\" }",
            "`64kbps` is no rate; write",
        ),
        (
            "link.both = { rate = \"0kbit\" }",
            "`0kbit` is no rate; write",
        ),
        ("link.both = { limit = 3 }", "set a `rate` or a `delay`"),
        ("link.both = { ratte = \"1kbit\" }", "did you mean `rate`?"),
        (
            "blackhole = [{ lasts = \"2s\" }]",
            "a blackhole needs one trigger",
        ),
        (
            "blackhole = [{ when = \"established\", lasts = \"0s\" }]",
            "swallows nothing",
        ),
        (
            "blackhole = [{ when = \"established\", lasts = \"2s\", repeat = 2 }]",
            "need a `spacing`",
        ),
        (
            "blackhole = [{ when = \"established\", lasts = \"2s\", repeat = 2, spacing = \"2s\" }]",
            "need a `spacing`",
        ),
        (
            "blackhole = [{ when = \"established\", lasts = \"2s\", spacing = \"3s\" }]",
            "write repeat = 2 or more",
        ),
        (
            "blackhole = [{ when = \"established\", last = \"2s\" }]",
            "unknown key `last`, did you mean `lasts`?",
        ),
        (
            "rebind = [{ when = \"established\" }]",
            "the key `what` is missing",
        ),
        (
            "rebind = [{ when = \"established\", what = \"prt\" }]",
            "unknown value `prt`, did you mean `port`?",
        ),
        (
            "rebind = [{ what = \"port\" }]",
            "a rebind needs one trigger",
        ),
        ("expect = { outcome = \"cut-off\" }", "write a [[rebind]]"),
    ];
    for (text, expected) in cases {
        let refusal = refusal(text);
        assert!(refusal.starts_with("scenarios/x.toml:4:"), "{refusal}");
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[test]
fn many_clients_need_a_client_that_can() {
    let refusal = refusal("clients = 64\n[[play]]\nserver = \"ours\"\nclient = \"openssl\"\n");
    assert!(
        refusal.contains("only our client starts 64 at once"),
        "{refusal}"
    );
    assert_eq!(parse("clients = 64\n").unwrap().plays.len(), 1);
}

#[test]
fn scenario_with_a_fault_needs_a_control() {
    let text = "name = \"x\"\nclaim = \"It works.\"\n[[rule]]\naction = \"drop\"\n";
    let refusal = Scenario::parse("x.toml", text).unwrap_err().to_string();
    assert!(
        refusal.starts_with("x.toml:1:8: a scenario with a fault needs a `control`"),
        "{refusal}"
    );
}

#[test]
fn name_must_be_that_of_the_file() {
    let refusal = Scenario::parse("scenarios/y.toml", HEAD)
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("write name = \"y\" or rename the file"),
        "{refusal}"
    );
}

#[test]
fn broken_toml_is_one_line_with_its_place() {
    let refusal = refusal("claim =");
    assert!(refusal.starts_with("scenarios/x.toml:4:"), "{refusal}");
    assert!(!refusal.contains('\n'), "{refusal}");
}

#[test]
fn control_must_be_a_scenario() {
    let clean = "name = \"clean\"\nclaim = \"It works.\"\n";
    let files = |control: &str| {
        [
            ("a/clean.toml", clean.to_owned()),
            ("a/x.toml", HEAD.replace("\"clean\"", control)),
        ]
    };
    let catalogue = Catalogue::parse(files("\"clean\"")).unwrap();
    assert_eq!(catalogue.iter().count(), 2);
    assert_eq!(catalogue.nearest("claen"), Some("clean"));
    let refusal = Catalogue::parse(files("\"cleen\""))
        .unwrap_err()
        .to_string();
    assert_eq!(
        refusal,
        "a/x.toml:3:11: control `cleen` is not the name of a scenario, did you mean `clean`?"
    );
    let refusal = Catalogue::parse(files("\"x\"")).unwrap_err().to_string();
    assert!(
        refusal.starts_with("a/x.toml:3:11: the controls of `x` form a circle"),
        "{refusal}"
    );
}

#[test]
fn two_scenarios_of_one_name_are_refused() {
    let clean = "name = \"clean\"\nclaim = \"It works.\"\n";
    let refusal = Catalogue::parse([("a/clean.toml", clean), ("b/clean.toml", clean)])
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("a second scenario is named `clean`"),
        "{refusal}"
    );
}

#[test]
fn every_scenario_of_the_lab_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    let catalogue = Catalogue::parse(files)
        .map_err(|error| error.to_string())
        .unwrap();
    assert!(catalogue.iter().count() >= 24);
}

#[test]
fn example_of_the_guide_is_valid() {
    let guide = include_str!("../../../scenarios/README.md");
    let example = guide
        .split("```")
        .nth(1)
        .unwrap()
        .trim_start_matches("toml");
    let scenario = Scenario::parse("example.toml", example).unwrap();
    assert_eq!(scenario.rules[0].select.datagram, Some(Position::Last));
}
