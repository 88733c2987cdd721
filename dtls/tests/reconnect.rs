//! A client that starts over from the same address and port, in memory.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{anchors, identity};
use dtls::core::{Connection, HelloOutcome, HelloVerifier, Progress, Read};
use dtls::{ClientConfig, Counter, HandshakeError, ServerConfig, ServerTrust, Stats};
use dtls_certs::Profile;

const CLIENT: &str = "192.0.2.1:40000";
const SERVER: &str = "192.0.2.9:4433";

/// What answers at the server's address: the listener until a hello is verified, then a worker.
struct Server {
    verifier: HelloVerifier,
    connection: Option<Box<Connection>>,
    stats: Arc<Stats>,
    start: Instant,
    seen: Vec<Read>,
}

impl Server {
    fn new() -> Self {
        let config = ServerConfig::builder(identity(Profile::SERVER))
            .build()
            .unwrap();
        let stats = Arc::<Stats>::default();
        Self {
            verifier: HelloVerifier::new(Arc::new(config), Arc::clone(&stats)).unwrap(),
            connection: None,
            stats,
            start: now(),
            seen: Vec::new(),
        }
    }

    /// Takes datagrams of the client's 4-tuple and returns the answers, as the shell would.
    fn takes(&mut self, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for datagram in datagrams {
            let Some(connection) = &mut self.connection else {
                let addresses: [SocketAddr; 2] = [CLIENT, SERVER].map(|text| text.parse().unwrap());
                let [peer, local] = addresses;
                match self
                    .verifier
                    .receive(datagram, peer, local, 1_800_000_000, self.start)
                {
                    Ok(HelloOutcome::Answer(answer)) => answers.push(answer),
                    Ok(HelloOutcome::Verified(hello)) => {
                        let mut connection = hello.accept().unwrap();
                        connection.handshake(self.start).unwrap();
                        answers.extend(drain(&mut connection));
                        self.connection = Some(connection);
                    }
                    other => panic!("{other:?}"),
                }
                continue;
            };
            connection.receive(datagram, self.start);
            if connection.handshake(self.start).unwrap() == Progress::Established {
                let read = connection.read(&mut [0; 100]).unwrap();
                self.seen.push(read);
            }
            answers.extend(drain(connection));
        }
        answers
    }

    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().unwrap()
    }
}

fn client(start: Instant) -> Connection {
    let config = ClientConfig::builder(ServerTrust::Anchors(anchors()))
        .build()
        .unwrap();
    let stats = Arc::<Stats>::default();
    Connection::connect(
        &config,
        "localhost",
        SERVER.parse().unwrap(),
        None,
        &stats,
        start,
    )
    .unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the clock"
)]
fn now() -> Instant {
    Instant::now()
}

fn drain(connection: &mut Connection) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| connection.transmit()).collect()
}

fn takes(client: &mut Connection, datagrams: &[Vec<u8>], start: Instant) -> Vec<Vec<u8>> {
    for datagram in datagrams {
        client.receive(datagram, start);
        client.handshake(start).unwrap();
    }
    drain(client)
}

fn writes(client: &mut Connection, start: Instant) -> Vec<Vec<u8>> {
    client.handshake(start).unwrap();
    drain(client)
}

/// Runs a whole handshake and returns the client and its flights.
fn shake_hands(server: &mut Server) -> (Connection, Vec<Vec<Vec<u8>>>) {
    let mut client = client(server.start);
    let mut flights = vec![writes(&mut client, server.start)];
    for _ in 0..3 {
        let answers = server.takes(flights.last().unwrap());
        flights.push(takes(&mut client, &answers, server.start));
    }
    assert_eq!(
        client.handshake(server.start).unwrap(),
        Progress::Established
    );
    (client, flights)
}

#[track_caller]
fn assert_data_reaches(server: &mut Server, client: &mut Connection) {
    server.seen.clear();
    client.write(b"ping").unwrap();
    server.takes(&drain(client));
    assert_eq!(server.seen, [Read::Data(4)]);
    server.connection().write(b"pong").unwrap();
    let answers = drain(server.connection());
    takes(client, &answers, now());
    assert_eq!(client.read(&mut [0; 100]).unwrap(), Read::Data(4));
}

#[test]
fn the_old_connection_lives_until_the_new_handshake_is_complete() {
    let mut server = Server::new();
    let (mut old, _) = shake_hands(&mut server);
    assert_data_reaches(&mut server, &mut old);
    let start = server.start;

    let mut new = client(start);
    let flight_2 = server.takes(&writes(&mut new, start));
    assert_eq!(flight_2.len(), 1, "a HelloVerifyRequest");
    assert_data_reaches(&mut server, &mut old);
    let flight_3 = takes(&mut new, &flight_2, start);
    let flight_4 = server.takes(&flight_3);
    assert_data_reaches(&mut server, &mut old);
    // The client repeats its hello: the same candidate goes on.
    server.takes(&flight_3);
    let flight_5 = takes(&mut new, &flight_4, start);
    server.seen.clear();
    let flight_6 = server.takes(&flight_5);
    takes(&mut new, &flight_6, start);
    assert_eq!(server.seen, [Read::Reconnected]);
    assert_eq!(server.stats.get(Counter::Reconnects), 1);

    let successor = server.connection().take_successor().unwrap();
    server.connection = Some(successor);
    assert_data_reaches(&mut server, &mut new);
}

#[test]
fn spoofed_and_replayed_hellos_change_nothing() {
    let mut server = Server::new();
    let (mut live, flights) = shake_hands(&mut server);
    let start = server.start;
    // A spoofer cannot read the cookie that goes to the client's address, and makes us send only
    // so many there.
    let answers: usize = (0..100)
        .map(|_| server.takes(&writes(&mut client(start), start)).len())
        .sum();
    assert_eq!(answers, 20);
    // All that the client ever sent in the clear, its good cookie included.
    server.takes(&flights.concat());
    assert_data_reaches(&mut server, &mut live);
    assert_eq!(server.stats.get(Counter::HelloVerifyRequests), 21);
    assert_eq!(server.stats.get(Counter::Reconnects), 0);
    assert_eq!(
        server.connection().deadline(),
        None,
        "no candidate was made"
    );
}

#[test]
fn a_client_that_starts_over_in_the_middle_of_its_handshake_is_served() {
    let mut server = Server::new();
    let start = server.start;
    let mut abandoned = client(start);
    let flight_2 = server.takes(&writes(&mut abandoned, start));
    server.takes(&takes(&mut abandoned, &flight_2, start));
    let (mut client, _) = shake_hands(&mut server);
    assert_data_reaches(&mut server, &mut client);
}

#[test]
fn starting_over_in_the_middle_of_a_handshake_does_not_put_its_deadline_off() {
    let mut server = Server::new();
    let began = server.start;
    for round in 0..3 {
        server.start = began + round * Duration::from_secs(14);
        let start = server.start;
        let mut new = client(start);
        let flight_2 = server.takes(&writes(&mut new, start));
        let flight_4 = server.takes(&takes(&mut new, &flight_2, start));
        assert!(!flight_4.is_empty(), "{round}");
    }
    assert_eq!(server.stats.get(Counter::Reconnects), 2);
    let deadline = began + Duration::from_secs(30);
    let before = deadline - Duration::from_millis(1);
    server.connection().handle_timeout(before).unwrap();
    let end = server.connection().handle_timeout(deadline).unwrap_err();
    assert!(matches!(end, HandshakeError::TimedOut { .. }), "{end}");
}

#[test]
fn a_candidate_that_falls_silent_is_forgotten() {
    let mut server = Server::new();
    let (mut live, _) = shake_hands(&mut server);
    let start = server.start;
    let mut new = client(start);
    let flight_2 = server.takes(&writes(&mut new, start));
    server.takes(&takes(&mut new, &flight_2, start));
    assert!(server.connection().deadline().is_some());
    server
        .connection()
        .handle_timeout(start + Duration::from_secs(31))
        .unwrap();
    assert_eq!(server.connection().deadline(), None);
    assert_data_reaches(&mut server, &mut live);
}

#[test]
fn alternating_hellos_with_good_cookies_leave_one_candidate() {
    let mut server = Server::new();
    let (mut live, flights) = shake_hands(&mut server);
    let start = server.start;
    let mut new = client(start);
    let flight_2 = server.takes(&writes(&mut new, start));
    let flight_3 = takes(&mut new, &flight_2, start);
    // Each hello is new to the one before it; once, every one of them made a connection inside
    // the last.
    for _ in 0..500 {
        server.takes(&flight_3);
        server.takes(&flights[1]);
    }
    assert_eq!(server.stats.get(Counter::HelloVerifyRequests), 2);
    assert_data_reaches(&mut server, &mut live);
}

#[test]
fn a_connection_that_ends_with_its_successor_untaken_closes_both() {
    let mut server = Server::new();
    shake_hands(&mut server);
    let start = server.start;
    let (mut new, _) = shake_hands(&mut server);
    assert_eq!(server.seen.last(), Some(&Read::Reconnected));
    server.connection().close();
    let answers = drain(server.connection());
    for datagram in &answers {
        new.receive(datagram, start);
    }
    assert_eq!(new.read(&mut [0; 100]).unwrap(), Read::Closed);
}
