//! What scenario files may say, what they may not, and how a refusal reads.

mod catalogue;
mod inject;
mod link;

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
fn many_clients_need_a_client_that_can() {
    let refusal = refusal("clients = 64\n[[play]]\nserver = \"ours\"\nclient = \"openssl\"\n");
    assert!(
        refusal.contains("only our client starts 64 at once"),
        "{refusal}"
    );
    assert_eq!(parse("clients = 64\n").unwrap().plays.len(), 1);
}
