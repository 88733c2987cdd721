//! What the network does in mid-run: blackholes begin and end when they should, and a NAT that rebinds
//! translates both ways and forgets.

use std::net::SocketAddr;

use super::{Engine, Fate, frame, ms, scenario};
use crate::packet::{Datagram, Direction, Path, fix_checksums};
use crate::record::sample;
use crate::wire::{Cause, Decision, Delivery};

/// Offers data; the decision, and what is delivered.
fn offer(
    engine: &mut Engine,
    now: u64,
    direction: Direction,
    frame: Vec<u8>,
) -> (Decision, Vec<Delivery>) {
    let offered = engine.offer(ms(now), direction, frame);
    (offered.decision.unwrap(), offered.deliveries)
}

/// When, of all milliseconds up to 100, data in this direction is swallowed after a hello at 10 ms.
fn swallowed(blackhole: &str, direction: Direction) -> Vec<u64> {
    let faults = format!("[[blackhole]]\nafter = {{ flight = 1 }}\n{blackhole}\n");
    let mut engine = Engine::new(&scenario(&faults), 1);
    let hello = frame(Direction::ToServer, 5000, &sample::client_hello(1, false));
    let (decision, _) = offer(&mut engine, 10, Direction::ToServer, hello);
    assert_eq!(
        decision.fate,
        Fate::Delivered,
        "what sets it off comes through"
    );
    let data = frame(direction, 5000, &sample::application_data());
    (11..=100)
        .filter(|now| {
            let (decision, deliveries) = offer(&mut engine, *now, direction, data.clone());
            let gone = decision.cause == Cause::Blackhole(0);
            assert_eq!(
                (gone, decision.fate == Fate::Dropped),
                (deliveries.is_empty(), gone)
            );
            gone
        })
        .collect()
}

#[test]
fn blackhole_swallows_everything_for_its_time_and_nothing_else() {
    for direction in Direction::BOTH {
        let seen = swallowed("delay = \"5ms\"\nlasts = \"20ms\"", direction);
        assert_eq!(seen, (15..35).collect::<Vec<_>>());
    }
}

#[test]
fn blackhole_of_one_direction_leaves_the_other_alone() {
    let hole = "direction = \"to_client\"\nlasts = \"20ms\"";
    assert!(swallowed(hole, Direction::ToServer).is_empty());
    assert_eq!(swallowed(hole, Direction::ToClient).len(), 19);
}

#[test]
fn blackhole_comes_again_as_often_as_it_says() {
    let seen = swallowed(
        "lasts = \"2ms\"\nrepeat = 3\nspacing = \"10ms\"",
        Direction::ToClient,
    );
    assert_eq!(seen, [11, 20, 21, 30, 31]);
}

#[test]
fn blackhole_takes_what_a_rule_lets_pass_and_waits_for_data_where_it_says_so() {
    let faults =
        "[[rule]]\naction = \"pass\"\n[[blackhole]]\nwhen = \"established\"\nlasts = \"1s\"\n";
    let mut engine = Engine::new(&scenario(faults), 1);
    let data = frame(Direction::ToServer, 5000, &sample::application_data());
    let (before, _) = offer(&mut engine, 0, Direction::ToServer, data.clone());
    assert_eq!(before.cause, Cause::Rule(0));
    engine.established(ms(1), 0);
    let (inside, _) = offer(&mut engine, 2, Direction::ToServer, data.clone());
    assert_eq!(inside.cause, Cause::Blackhole(0));
    engine.established(ms(500), 0);
    let (after, _) = offer(&mut engine, 1001, Direction::ToServer, data);
    assert_eq!(after.cause, Cause::Rule(0), "it is set off once");
}

/// A client and a server of each IP version.
fn pairs() -> [(SocketAddr, SocketAddr); 2] {
    [
        "10.0.0.1:5000 10.0.0.2:4433",
        "[fd00::1]:5000 [fd00::2]:4433",
    ]
    .map(|pair| {
        let (client, server) = pair.split_once(' ').unwrap();
        (client.parse().unwrap(), server.parse().unwrap())
    })
}

fn between(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    Datagram {
        path: Path {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source,
            destination,
        },
        payload: &sample::application_data(),
    }
    .to_frame()
}

/// Where the delivered datagram comes from and goes to; its checksums are right.
fn ends(delivery: &Delivery) -> (SocketAddr, SocketAddr) {
    let mut repaired = delivery.frame.clone();
    fix_checksums(&mut repaired);
    assert_eq!(delivery.frame, repaired);
    let path = Datagram::from_frame(&delivery.frame).unwrap().path;
    (path.source, path.destination)
}

#[test]
fn rebound_client_has_another_place_at_the_server_and_none_of_its_own() {
    for (client, server) in pairs() {
        for what in ["port", "address"] {
            let faults = format!("[[rebind]]\nwhen = \"established\"\nwhat = \"{what}\"\n");
            let mut engine = Engine::new(&scenario(&faults), 1);
            let (_, before) = offer(&mut engine, 0, Direction::ToServer, between(client, server));
            assert_eq!(ends(&before[0]), (client, server));
            engine.established(ms(1), 0);

            let (decision, there) =
                offer(&mut engine, 2, Direction::ToServer, between(client, server));
            assert_eq!(
                (decision.flow, decision.ordinal, decision.rebound),
                (0, 2, 1)
            );
            let (place, to) = ends(&there[0]);
            assert_eq!(to, server);
            assert_ne!(place.port(), client.port());
            assert_eq!(place.ip() == client.ip(), what == "port");

            let (decision, back) =
                offer(&mut engine, 3, Direction::ToClient, between(server, place));
            assert_eq!((decision.flow, decision.rebound), (0, 1));
            assert_eq!(ends(&back[0]), (server, client));

            let (decision, lost) =
                offer(&mut engine, 4, Direction::ToClient, between(server, client));
            assert_eq!((decision.flow, decision.rebound), (0, 0));
            assert_eq!((decision.fate, decision.cause), (Fate::Dropped, Cause::Nat));
            assert_eq!(lost, []);
        }
    }
}

#[test]
fn no_two_clients_share_a_place() {
    let faults = "[[rebind]]\nwhen = \"established\"\nwhat = \"port\"\n";
    let mut engine = Engine::new(&scenario(faults), 1);
    let server: SocketAddr = "10.0.0.2:4433".parse().unwrap();
    // Each one's next port is another one's own, and that of the last is the first that a NAT gives.
    let clients = [65_533, 65_534, 65_535, 1024];
    let client = |port| SocketAddr::new([10, 0, 0, 1].into(), port);
    for port in clients {
        offer(
            &mut engine,
            0,
            Direction::ToServer,
            between(client(port), server),
        );
    }
    let mut places: Vec<SocketAddr> = clients.map(client).to_vec();
    for (flow, port) in (0..).zip(clients) {
        engine.established(ms(1), flow);
        let sent = between(client(port), server);
        let (decision, there) = offer(&mut engine, 2, Direction::ToServer, sent);
        assert_eq!(decision.flow, flow);
        places.push(ends(&there[0]).0);
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 2 * clients.len(), "{places:?}");
}

#[test]
fn attackers_know_the_place_of_a_rebound_client() {
    let faults = "[[rebind]]\nafter = { ordinal = 1, direction = \"to_server\" }\nwhat = \"port\"\n\
                  [[inject]]\nwhen = \"established\"\nto = \"server\"\ndatagram = \"empty\"\n\
                  [[inject]]\nwhen = \"established\"\nto = \"client\"\ndatagram = \"empty\"\n";
    let mut engine = Engine::new(&scenario(faults), 1);
    let (client, server) = pairs()[0];
    offer(&mut engine, 0, Direction::ToServer, between(client, server));
    let forged = engine.established(ms(1), 0);
    let place = SocketAddr::new(client.ip(), client.port() + 1);
    assert_eq!(ends(&forged[0]), (place, server));
    assert_eq!(ends(&forged[1]), (server, client));
}
