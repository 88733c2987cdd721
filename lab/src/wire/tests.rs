//! The engine on whole handshakes: rules meet the datagrams they name, attackers come in time.

mod changes;
mod models;

use std::time::Duration;

use super::{Cause, Delivery, Engine, Fate, Origin};
use crate::packet::{Datagram, Direction, Path};
use crate::record::{self, sample};
use crate::scenario::Scenario;

/// A scenario of these faults; its name, claim and control are of no interest here.
pub(crate) fn scenario(faults: &str) -> Scenario {
    let text = format!(
        "name = \"x\"\nclaim = \"-\"\ncontrol = \"clean\"\nattacker = \"on-path-full\"\n{faults}"
    );
    Scenario::parse("x.toml", &text).unwrap()
}

/// A frame from or to the client with this port.
pub(super) fn frame(direction: Direction, port: u16, payload: &[u8]) -> Vec<u8> {
    Datagram {
        path: path(direction, port),
        payload,
    }
    .to_frame()
}

fn path(direction: Direction, port: u16) -> Path {
    let to_server = Path {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        source: ([10, 0, 0, 1], port).into(),
        destination: ([10, 0, 0, 2], 4433).into(),
    };
    match direction {
        Direction::ToServer => to_server,
        Direction::ToClient => to_server.reversed(),
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What is delivered, in short words.
fn words(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| match &delivery.origin {
            Origin::Forged { what, .. } => format!("forged {what}"),
            Origin::Untouched => "untouched".to_owned(),
            Origin::TooBig { .. } => "too big".to_owned(),
            Origin::Sent { .. } => {
                let datagram = Datagram::from_frame(&delivery.frame).unwrap();
                record::describe(&record::parse(datagram.payload))
            }
        })
        .collect()
}

/// Offers a whole handshake, a millisecond between its datagrams; returns what was delivered
/// for each.
fn run(engine: &mut Engine) -> Vec<Vec<String>> {
    (0..)
        .zip(sample::full_handshake(1))
        .map(|(time, (direction, payload))| {
            let offered = engine.offer(ms(time), direction, frame(direction, 5000, &payload));
            words(&offered.deliveries)
        })
        .collect()
}

#[test]
fn packets_above_the_links_mtu_are_lost_and_their_sender_told_where_it_says_so() {
    for (announced, told) in [("", None), ("too_big = true", Some("too big"))] {
        let faults = format!("[link.to_client]\nmtu = 500\n{announced}");
        let mut engine = Engine::new(&scenario(&faults), 1);
        let (_, hello) = &sample::full_handshake(1)[0];
        let to_server = engine.offer(
            ms(0),
            Direction::ToServer,
            frame(Direction::ToServer, 5000, hello),
        );
        assert_eq!(to_server.decision.unwrap().fate, Fate::Delivered);
        for (payload, fate) in [(472, Fate::Delivered), (473, Fate::Dropped)] {
            let sent = frame(Direction::ToClient, 5000, &vec![0; payload]);
            let offered = engine.offer(ms(1), Direction::ToClient, sent);
            let decision = offered.decision.unwrap();
            assert_eq!(decision.fate, fate);
            if fate == Fate::Dropped {
                assert_eq!(decision.cause, Cause::Mtu);
                assert_eq!(words(&offered.deliveries), Vec::from_iter(told));
                let back = offered.deliveries.iter().map(|delivery| delivery.direction);
                assert!(back.eq(told.map(|_| Direction::ToServer)));
            }
        }
    }
}

#[test]
fn replays_copy_what_was_seen_and_wait_for_nothing_else() {
    let replay = "[[inject]]\nwhen = \"established\"\nto = \"server\"\n\
                  replay = { flight = 3 }\nrepeat = 2\nspacing = \"5ms\"";
    let mut engine = Engine::new(&scenario(replay), 1);
    let handshake = sample::full_handshake(1);
    for (direction, payload) in &handshake[..2] {
        engine.offer(ms(0), *direction, frame(*direction, 5000, payload));
    }
    assert_eq!(engine.established(ms(1), 0), [], "no flight 3 yet");

    let mut engine = Engine::new(&scenario(replay), 1);
    for (direction, payload) in &handshake {
        engine.offer(ms(0), *direction, frame(*direction, 5000, payload));
    }
    let copies = engine.established(ms(7), 0);
    assert_eq!(
        copies.iter().map(|copy| copy.at).collect::<Vec<_>>(),
        [ms(7), ms(12)]
    );
    for copy in copies {
        let payload = Datagram::from_frame(&copy.frame).unwrap().payload.to_vec();
        assert_eq!(payload, handshake[2].1);
    }
}

#[test]
fn forged_hellos_are_hellos() {
    let forged = "[[inject]]\nwhen = \"established\"\nto = \"server\"\ndatagram = \"client-hello\"";
    let mut engine = Engine::new(&scenario(forged), 1);
    let hello = sample::client_hello(1, false);
    engine.offer(
        ms(0),
        Direction::ToServer,
        frame(Direction::ToServer, 5000, &hello),
    );
    let forgeries = engine.established(ms(1), 0);
    let payload = Datagram::from_frame(&forgeries[0].frame).unwrap().payload;
    assert_eq!(record::describe(&record::parse(payload)), "ClientHello");
}

#[test]
fn perfect_wire_delivers_each_datagram_at_once_and_unchanged() {
    let mut engine = Engine::new(&scenario(""), 1);
    for (time, (direction, payload)) in (0..).zip(sample::full_handshake(1)) {
        let sent = frame(direction, 5000, &payload);
        let offered = engine.offer(ms(time), direction, sent.clone());
        let decision = offered.decision.unwrap();
        assert_eq!(
            (decision.fate, decision.cause),
            (Fate::Delivered, Cause::None)
        );
        let [delivery] = &offered.deliveries[..] else {
            panic!("{:?}", offered.deliveries);
        };
        assert_eq!(
            (delivery.at, delivery.direction, &delivery.frame),
            (ms(time), direction, &sent)
        );
    }
}

#[test]
fn rule_drops_the_datagram_it_names_and_no_other() {
    let rule = "[[rule]]\nselect = { flight = 4, datagram = \"last\" }\naction = \"drop\"\n";
    let mut engine = Engine::new(&scenario(rule), 1);
    let delivered = run(&mut engine);
    assert!(delivered[4].is_empty());
    assert!(
        delivered
            .iter()
            .enumerate()
            .all(|(index, words)| (words.len() == 1) == (index != 4))
    );
}

#[test]
fn first_transmission_is_dropped_and_the_second_delivered() {
    let rule = "[[rule]]\nselect = { flight = 1, transmission = 1 }\naction = \"drop\"\n";
    let mut engine = Engine::new(&scenario(rule), 1);
    let hello = frame(Direction::ToServer, 5000, &sample::client_hello(1, false));
    assert!(
        engine
            .offer(ms(0), Direction::ToServer, hello.clone())
            .deliveries
            .is_empty()
    );
    let again = engine.offer(ms(1000), Direction::ToServer, hello);
    assert_eq!(again.deliveries.len(), 1);
    assert_eq!(again.decision.unwrap().place.unwrap().transmission, 2);
}

#[test]
fn first_rule_that_takes_a_datagram_decides() {
    let rules = "[[rule]]\nselect = { flight = [1, 2] }\naction = \"pass\"\n[[rule]]\naction = \
                 \"drop\"\n";
    let mut engine = Engine::new(&scenario(rules), 1);
    let delivered: Vec<usize> = run(&mut engine).iter().map(Vec::len).collect();
    assert_eq!(delivered, [1, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn times_count_for_each_flow() {
    let mut engine = Engine::new(&scenario("[[rule]]\naction = \"drop\"\ntimes = 1\n"), 1);
    let mut delivered = |port| {
        let frame = frame(Direction::ToServer, port, &sample::application_data());
        engine
            .offer(ms(0), Direction::ToServer, frame)
            .deliveries
            .len()
    };
    assert_eq!([1, 2, 1, 2].map(&mut delivered), [0, 0, 1, 1]);
}

#[test]
fn rule_duplicates_and_delays() {
    let rules = "[[rule]]\nselect = { flight = 1 }\naction = { duplicate = 2 }\n[[rule]]\nselect = \
                 { flight = 2 }\naction = { delay = \"300ms\" }\n";
    let mut engine = Engine::new(&scenario(rules), 1);
    let hello = frame(Direction::ToServer, 5000, &sample::client_hello(1, false));
    let copies = engine.offer(ms(0), Direction::ToServer, hello).deliveries;
    let numbers: Vec<_> = copies
        .iter()
        .map(|delivery| match delivery.origin {
            Origin::Sent { copy, .. } => copy,
            _ => panic!("{delivery:?}"),
        })
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
    let verify = frame(Direction::ToClient, 5000, &sample::hello_verify());
    assert_eq!(
        engine.offer(ms(7), Direction::ToClient, verify).deliveries[0].at,
        ms(307)
    );
}

#[test]
fn held_datagram_follows_the_one_that_passes_it() {
    let rule = "[[rule]]\nselect = { flight = 4, datagram = 1 }\naction = { reorder = 1 }\n";
    let mut engine = Engine::new(&scenario(rule), 1);
    let delivered = run(&mut engine);
    assert!(delivered[3].is_empty());
    assert_eq!(delivered[4], ["ServerHelloDone", "ServerHello Certificate"]);
    assert_eq!(engine.next_due(), None);
}

#[test]
fn held_datagram_goes_by_itself_when_none_passes_it() {
    let rule = "[[rule]]\nselect = { flight = 1 }\naction = { reorder = 1 }\n";
    let mut engine = Engine::new(&scenario(rule), 1);
    let hello = frame(Direction::ToServer, 5000, &sample::client_hello(1, false));
    assert!(
        engine
            .offer(ms(5), Direction::ToServer, hello)
            .deliveries
            .is_empty()
    );
    let due = engine.next_due().unwrap();
    assert_eq!(due, ms(5) + super::rule::LONGEST_HOLD);
    assert!(engine.poll(due - ms(1)).is_empty());
    assert_eq!(words(&engine.poll(due)), ["ClientHello"]);
    assert_eq!(engine.next_due(), None);
}

#[test]
fn dropped_datagram_passes_no_held_one() {
    let rules = "[[rule]]\nselect = { flight = 4, datagram = 1 }\naction = { reorder = 1 \
                 }\n[[rule]]\nselect = { flight = 4, datagram = 2 }\naction = \"drop\"\n";
    let mut engine = Engine::new(&scenario(rules), 1);
    let delivered = run(&mut engine);
    assert!(delivered[4].is_empty());
    assert_eq!(delivered[6].len(), 2, "flight 6 passes and releases it");
}

#[test]
fn corruption_reaches_the_payload_with_a_right_checksum() {
    let mut engine = Engine::new(&scenario("[[rule]]\naction = { corrupt = 1 }\n"), 1);
    let payload = sample::application_data();
    let sent = frame(Direction::ToServer, 5000, &payload);
    let delivered = engine
        .offer(ms(0), Direction::ToServer, sent)
        .deliveries
        .remove(0)
        .frame;
    let mut repaired = delivered.clone();
    crate::packet::fix_checksums(&mut repaired);
    assert_eq!(delivered, repaired);
    assert_ne!(Datagram::from_frame(&delivered).unwrap().payload, payload);
}

#[test]
fn link_delays_within_its_jitter() {
    let link = "[link.both]\ndelay = \"20ms\"\njitter = \"5ms\"\n";
    let mut engine = Engine::new(&scenario(link), 1);
    let data = frame(Direction::ToServer, 5000, &sample::application_data());
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            engine
                .offer(ms(0), Direction::ToServer, data.clone())
                .deliveries[0]
                .at
        })
        .collect();
    times.sort_unstable();
    assert!(times[0] >= ms(15) && times[0] < ms(16), "{:?}", times[0]);
    assert!(
        times[199] <= ms(25) && times[199] > ms(24),
        "{:?}",
        times[199]
    );
}

#[test]
fn attacker_strikes_once_after_the_datagram_he_waits_for() {
    let inject = "[[inject]]\nafter = { flight = 4, datagram = \"last\" }\nto = \"server\"\nicmp = \
                  \"port-unreachable\"\ndelay = \"3ms\"\n";
    let mut engine = Engine::new(&scenario(inject), 1);
    let mut forged = Vec::new();
    for _ in 0..2 {
        for (direction, payload) in sample::full_handshake(1) {
            let offered = engine.offer(ms(10), direction, frame(direction, 5000, &payload));
            forged.extend(offered.deliveries.into_iter().skip(1));
        }
    }
    assert_eq!(words(&forged), ["forged icmp port-unreachable"]);
    assert_eq!(
        (forged[0].at, forged[0].direction),
        (ms(13), Direction::ToServer)
    );
    // The server's own Ethernet address comes first: it is for the server.
    assert_eq!(forged[0].frame[..6], [2, 0, 0, 0, 0, 2]);
}

#[test]
fn attacker_strikes_also_when_the_datagram_he_saw_is_lost() {
    let faults = "[[rule]]\naction = \"drop\"\n[[inject]]\nafter = { flight = 3 }\nto = \
                  \"client\"\ndatagram = \"empty\"\n";
    let delivered = run(&mut Engine::new(&scenario(faults), 1));
    assert_eq!(delivered.concat(), ["forged empty"]);
}

#[test]
fn established_sets_off_every_attacker_who_waits_for_it_once() {
    let injects = "[[inject]]\nwhen = \"established\"\nto = \"server\"\nicmp = \
                   \"all\"\n[[inject]]\nwhen = \"established\"\nto = \"client\"\ndatagram = { \
                   plaintext-alert = { level = 2, description = 40 } }\n";
    let mut engine = Engine::new(&scenario(injects), 1);
    assert!(engine.established(ms(0), 0).is_empty(), "no such flow yet");
    run(&mut engine);
    let forged = engine.established(ms(100), 0);
    assert_eq!(
        forged.len(),
        crate::icmp::kinds_of(crate::scenario::Family::Ipv4).count() + 1
    );
    assert_eq!(
        (forged[0].at, forged[1].at),
        (ms(100), ms(120)),
        "each error on its own"
    );
    let alert = Datagram::from_frame(&forged.last().unwrap().frame).unwrap();
    assert_eq!(alert.path, path(Direction::ToClient, 5000));
    assert_eq!(
        record::describe(&record::parse(alert.payload)),
        "alert(2,40)"
    );
    assert!(engine.established(ms(200), 0).is_empty());
}

#[test]
fn each_forged_datagram_is_what_its_name_says() {
    use crate::scenario::Forgery;
    let draws = super::rng::Draws {
        seed: 1,
        flow: 0,
        direction: Direction::ToServer,
        ordinal: 0,
    };
    let bytes = |forgery: Forgery| forgery.bytes(&mut draws.inject(0));
    let describe = |forgery| record::describe(&record::parse(&bytes(forgery)));
    assert!(bytes(Forgery::Empty).is_empty());
    assert_eq!(bytes(Forgery::Garbage { length: 99 }).len(), 99);
    assert_eq!(bytes(Forgery::Epoch1Runt { length: 1 }).len(), 14);
    assert_eq!(
        describe(Forgery::Epoch1Runt { length: 23 }),
        "application data"
    );
    for forgery in [
        Forgery::BadChangeCipherSpec,
        Forgery::PlaintextData,
        Forgery::TruncatedRecord,
    ] {
        assert_eq!(describe(forgery), "malformed", "{}", forgery.name());
    }
}

#[test]
fn flows_are_numbered_by_first_appearance_and_know_their_handshakes() {
    let mut engine = Engine::new(&scenario(""), 1);
    let mut offer = |direction, port, payload: &[u8]| {
        engine
            .offer(ms(0), direction, frame(direction, port, payload))
            .decision
            .unwrap()
    };
    let hello = sample::client_hello(1, false);
    assert_eq!(offer(Direction::ToServer, 6000, &hello).flow, 0);
    assert_eq!(offer(Direction::ToServer, 5000, &hello).flow, 1);
    let answer = offer(Direction::ToClient, 6000, &sample::hello_verify());
    assert_eq!(
        (answer.flow, answer.ordinal, answer.place.unwrap().flight),
        (0, 1, 2)
    );
    let again = offer(Direction::ToServer, 5000, &hello);
    assert_eq!(
        (again.flow, again.ordinal, again.place.unwrap().transmission),
        (1, 2, 2)
    );
    assert_eq!(
        engine
            .clients()
            .map(|client| client.port())
            .collect::<Vec<_>>(),
        [6000, 5000]
    );
}

#[test]
fn frame_that_is_no_datagram_passes_untouched() {
    let mut engine = Engine::new(&scenario("[[rule]]\naction = \"drop\"\n"), 1);
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([0; 20]);
    let offered = engine.offer(ms(4), Direction::ToServer, arp.clone());
    assert_eq!(offered.decision, None);
    assert_eq!(
        (offered.deliveries[0].at, &offered.deliveries[0].frame),
        (ms(4), &arp)
    );
}

#[test]
fn datagrams_of_one_slot_arrive_together() {
    let mut engine = Engine::new(&scenario("[link.to_server]\nslot = \"100ms\"\n"), 1);
    let mut at = |now| {
        let frame = frame(Direction::ToServer, 5000, &sample::application_data());
        engine.offer(now, Direction::ToServer, frame).deliveries[0].at
    };
    assert_eq!(at(ms(1)), ms(100));
    assert_eq!(at(ms(99)), ms(100));
    assert_eq!(at(ms(100)), ms(100));
    assert_eq!(at(ms(101)), ms(200));
}
