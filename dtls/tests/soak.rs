//! Connections of every kind, one after another, client and server in one process: over a wire in
//! memory that loses, doubles, reorders and forges, and over the loopback. `make memcheck` runs them by
//! the thousand under valgrind; `SOAK_CONNECTIONS` says how many.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::forgeries::{Row, table};
use common::pair::{CLIENT, SERVER, UNIX, now};
use common::{EchoServer, anchors, assert_echo, identity};
use dtls::core::{Connection, HelloOutcome, HelloVerifier, Liveness, Progress, Read};
use dtls::{
    ClientAuth, ClientConfig, ClientConfigBuilder, Counter, DtlsConnector, HandshakeError,
    PortSharing, PskKey, ServerConfig, ServerConfigBuilder, ServerTrust, Session, Stats, Trust,
};
use dtls_certs::Profile;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// As short as may be: OpenSSL's timers run on the real clock.
const FIRST_TIMER: Duration = Duration::from_millis(20);
const LONGEST_TIMER: Duration = Duration::from_millis(80);
/// Under valgrind everything takes fifty times as long.
const PATIENCE: Duration = Duration::from_secs(60);
const SEED: u64 = 0x7c1e;

fn connections() -> usize {
    match std::env::var("SOAK_CONNECTIONS") {
        Ok(number) => number.parse().expect("SOAK_CONNECTIONS is a number"),
        Err(_) => 96,
    }
}

/// What becomes of datagrams between the two ends.
struct Wire {
    chance: StdRng,
    rows: Vec<Row>,
    next_row: usize,
    forged: usize,
    lost: usize,
}

impl Wire {
    fn new() -> Self {
        Self {
            chance: StdRng::seed_from_u64(SEED),
            rows: table(),
            next_row: 0,
            forged: 0,
            lost: 0,
        }
    }

    /// What arrives of what was sent, and what was not.
    fn carry(&mut self, sent: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut arriving = Vec::new();
        for datagram in sent {
            match self.chance.random_range(0..100) {
                0..8 => {
                    self.lost += 1;
                    continue;
                }
                8..16 => arriving.push(datagram.clone()),
                _ => {}
            }
            arriving.push(datagram);
        }
        if self.chance.random_ratio(1, 8) {
            arriving.reverse();
        }
        if self.chance.random_ratio(1, 2) {
            let row = &self.rows[self.next_row % self.rows.len()];
            let place = self.chance.random_range(0..=arriving.len());
            arriving.splice(place..place, row.datagrams.iter().cloned());
            self.next_row += 1;
            self.forged += row.datagrams.len();
        }
        arriving
    }
}

/// What answers at the server's address: the listener until a hello is verified, then a worker.
struct Server {
    verifier: HelloVerifier,
    connection: Option<Box<Connection>>,
    received: Vec<Vec<u8>>,
    reconnected: bool,
}

impl Server {
    fn new(config: &Arc<ServerConfig>) -> Self {
        Self {
            verifier: HelloVerifier::new(Arc::clone(config), Arc::default()).unwrap(),
            connection: None,
            received: Vec::new(),
            reconnected: false,
        }
    }

    fn takes(&mut self, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for datagram in datagrams {
            let Some(connection) = &mut self.connection else {
                let [peer, local]: [SocketAddr; 2] = [CLIENT, SERVER].map(|at| at.parse().unwrap());
                match self.verifier.receive(datagram, peer, local, UNIX, now()) {
                    Ok(HelloOutcome::Answer(answer)) => answers.push(answer),
                    Ok(HelloOutcome::Verified(hello)) => {
                        let connection = self.connection.insert(hello.accept().unwrap());
                        proceed(connection, &mut self.received);
                        answers.extend(drain(connection));
                    }
                    Ok(HelloOutcome::Noise) => {}
                    Err(error) => panic!("{error}"),
                }
                continue;
            };
            connection.receive(datagram, now());
            if proceed(connection, &mut self.received) == Some(Read::Reconnected) {
                answers.extend(drain(connection));
                *connection = connection.take_successor().unwrap();
                self.reconnected = true;
            }
            answers.extend(drain(connection));
        }
        answers
    }
}

/// Goes on with whatever the connection is at; `None` while that is its handshake.
fn proceed(connection: &mut Connection, received: &mut Vec<Vec<u8>>) -> Option<Read> {
    if connection.handshake(now()).unwrap() == Progress::Waiting {
        return None;
    }
    let mut buffer = [0; 2000];
    loop {
        match connection.read(&mut buffer).unwrap() {
            Read::Data(length) => received.push(buffer[..length].to_vec()),
            other => return Some(other),
        }
    }
}

fn drain(connection: &mut Connection) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| connection.transmit()).collect()
}

/// Carries datagrams to and fro until `done`, and lets timers expire while nothing moves.
fn exchange(
    wire: &mut Wire,
    client: &mut Connection,
    server: &mut Server,
    received: &mut Vec<Vec<u8>>,
    mut done: impl FnMut(&mut Connection, &mut Server, &[Vec<u8>]) -> bool,
) {
    let give_up = now() + PATIENCE;
    proceed(client, received);
    while !done(client, server, received) {
        assert!(now() < give_up, "stuck: {client:?} {:?}", server.connection);
        let to_server = drain(client);
        let mut to_client = server
            .connection
            .as_deref_mut()
            .map_or_else(Vec::new, drain);
        if to_server.is_empty() && to_client.is_empty() {
            let mut ends: Vec<&mut Connection> = vec![&mut *client];
            ends.extend(server.connection.as_deref_mut());
            // Without a timer the other end, or the caller, has to speak first.
            let deadlines = ends.iter().filter_map(|end| end.deadline());
            let next = deadlines.min().unwrap_or_else(now);
            thread::park_timeout(next.saturating_duration_since(now()).min(LONGEST_TIMER));
            for end in ends {
                end.handle_timeout(now()).unwrap();
            }
            continue;
        }
        to_client.extend(server.takes(&wire.carry(to_server)));
        for datagram in wire.carry(to_client) {
            client.receive(&datagram, now());
            proceed(client, received);
        }
    }
}

/// Sends until it arrives, as an application over datagrams would, in both directions.
fn ping_pong(wire: &mut Wire, client: &mut Connection, server: &mut Server) {
    let mut at_client = Vec::new();
    server.received.clear();
    let give_up = now() + PATIENCE;
    let mut rounds = 0;
    while at_client.is_empty() {
        assert!(now() < give_up, "nothing arrives");
        if server.received.is_empty() {
            client.write(b"ping").unwrap();
        } else {
            server.connection.as_mut().unwrap().write(b"pong").unwrap();
        }
        let (to_server, to_client) = (drain(client), drain(server.connection.as_mut().unwrap()));
        let answers = server.takes(&wire.carry(to_server));
        for datagram in wire.carry([to_client, answers].concat()) {
            client.receive(&datagram, now());
            proceed(client, &mut at_client);
        }
        rounds += 1;
        assert!(rounds < 200, "nothing arrives");
    }
    assert!(server.received.iter().all(|data| data == b"ping"));
    assert!(at_client.iter().all(|data| data == b"pong"));
}

fn both_established(client: &mut Connection, server: &mut Server, _: &[Vec<u8>]) -> bool {
    let server = server.connection.as_mut();
    client.handshake_time().is_some() && server.is_some_and(|end| end.handshake_time().is_some())
}

fn hurried_client(trust: Trust) -> ClientConfigBuilder {
    ClientConfig::builder(trust).retransmission_timer(FIRST_TIMER, LONGEST_TIMER)
}

fn psk() -> PskKey {
    PskKey::new(*b"sixteen byte key").unwrap()
}

fn server_config(profile: Profile) -> ServerConfigBuilder {
    ServerConfig::builder(identity(profile))
        .client_auth(ClientAuth::Optional(Trust::Anchors(anchors())))
        .psk(|identity| (identity == b"sensor").then(psk))
        .heartbeat(true)
        .retransmission_timer(FIRST_TIMER, LONGEST_TIMER)
}

fn dial(config: &ClientConfig, session: Option<&Session>, stats: &Arc<Stats>) -> Connection {
    let server = SERVER.parse().unwrap();
    Connection::connect(config, "localhost", server, session, stats, now()).unwrap()
}

#[test]
fn connections_of_every_kind_survive_a_hostile_wire() {
    let trust = || Trust::Anchors(anchors());
    let plain = hurried_client(trust()).build().unwrap();
    let certified = hurried_client(trust())
        .identity(identity(Profile::CLIENT))
        .heartbeat(true)
        .build()
        .unwrap();
    let keyed = ClientConfig::psk_builder("sensor", psk())
        .retransmission_timer(FIRST_TIMER, LONGEST_TIMER)
        .build()
        .unwrap();
    let distrustful = hurried_client(Trust::Pins(vec![[7; 32].into()]))
        .build()
        .unwrap();
    let short = Arc::new(server_config(Profile::SERVER).build().unwrap());
    let long = Arc::new(server_config(Profile::SERVER_LONG_CHAIN).build().unwrap());

    let mut wire = Wire::new();
    let stats = Arc::<Stats>::default();
    let mut session: Option<Session> = None;
    let (mut reconnects, mut refused, mut abandoned, mut probes) = (0, 0, 0, 0);
    for number in 0..connections() {
        let kind = number % 8;
        let config = match kind {
            1 => &certified,
            2 => &keyed,
            3 => &distrustful,
            _ => &plain,
        };
        let mut server = Server::new(if kind == 4 { &long } else { &short });
        let offered = session.as_ref().filter(|_| kind == 5);
        let mut client = dial(config, offered, &stats);
        let mut received = Vec::new();
        if kind == 3 {
            // Its refusal ends the client; what the server makes of the alert is its own affair.
            let give_up = now() + PATIENCE;
            let refusal = loop {
                assert!(now() < give_up, "nobody refused anything");
                match client.handshake(now()) {
                    Ok(Progress::Waiting) => {}
                    Ok(Progress::Established) => panic!("a pin was overlooked"),
                    Err(error) => break error,
                }
                for datagram in server.takes(&drain(&mut client)) {
                    client.receive(&datagram, now());
                }
            };
            assert!(matches!(refusal, HandshakeError::Verification { .. }));
            server.takes(&drain(&mut client));
            refused += 1;
            continue;
        }
        if kind == 6 {
            // The client falls silent once the server has spent a key exchange on it.
            exchange(
                &mut wire,
                &mut client,
                &mut server,
                &mut received,
                |_, server, _| server.connection.is_some(),
            );
            drop(client);
            let worker = server.connection.as_mut().unwrap();
            let late = now() + Duration::from_secs(31);
            let outcome = worker.handle_timeout(late);
            assert!(outcome.is_err(), "given up: {outcome:?}");
            abandoned += 1;
            continue;
        }
        exchange(
            &mut wire,
            &mut client,
            &mut server,
            &mut received,
            both_established,
        );
        ping_pong(&mut wire, &mut client, &mut server);
        match kind {
            0 => session = client.session(),
            1 => {
                assert!(client.probe(PATIENCE, now()));
                exchange(
                    &mut wire,
                    &mut client,
                    &mut server,
                    &mut received,
                    |client, _, _| client.liveness().is_some(),
                );
                assert!(matches!(client.liveness(), Some(Liveness::Alive { .. })));
                probes += 1;
            }
            5 => assert!(client.info().resumed, "connection {number}"),
            7 => {
                // The client loses its keys and starts over, without a word.
                client = dial(&certified, None, &stats);
                exchange(
                    &mut wire,
                    &mut client,
                    &mut server,
                    &mut received,
                    |client, server, _| client.handshake_time().is_some() && server.reconnected,
                );
                ping_pong(&mut wire, &mut client, &mut server);
                reconnects += 1;
            }
            _ => {}
        }
        client.close();
        server.takes(&drain(&mut client));
    }
    let completed = stats.get(Counter::HandshakesCompleted);
    println!(
        "{completed} handshakes completed, {} flights sent again, {} datagrams lost, {} forged, \
         {reconnects} reconnects, {probes} probes, {refused} refused, {abandoned} abandoned",
        stats.get(Counter::Retransmissions),
        wire.lost,
        wire.forged,
    );
    assert!(wire.next_row > wire.rows.len(), "every row was sent");
    let expected = connections() - refused - abandoned + reconnects;
    assert_eq!(completed, u64::try_from(expected).unwrap());
}

#[test]
fn connections_over_the_loopback_end_in_order() {
    let per_thread = connections() / 12;
    let mut completed = 0;
    for sharing in [PortSharing::ReusePort, PortSharing::ReuseAddr] {
        let config = server_config(Profile::SERVER).port_sharing(sharing);
        let server = EchoServer::start("[::1]:0", config.build().unwrap());
        let address = server.address;
        let client = ClientConfig::builder(ServerTrust::Anchors(anchors()))
            .identity(identity(Profile::CLIENT))
            .heartbeat(true)
            .handshake_timeout(PATIENCE)
            .build()
            .unwrap();
        let connector = DtlsConnector::new(client);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let stranger = UdpSocket::bind("[::1]:0").unwrap();
                    for _ in 0..per_thread {
                        for row in table().iter().take(8) {
                            stranger.send_to(&row.datagrams[0], address).unwrap();
                        }
                        let mut stream = connector.connect("localhost", address).unwrap();
                        assert_echo(&mut stream, b"hello");
                        let found = stream.probe(PATIENCE).unwrap();
                        assert!(matches!(found, Liveness::Alive { .. }), "{found:?}");
                        let session = stream.session().unwrap();
                        drop(stream);
                        let mut stream = connector.resume("localhost", address, &session).unwrap();
                        assert_echo(&mut stream, b"hello again");
                        // Dropped: closed.
                    }
                });
            }
        });
        completed += connector.stats().get(Counter::HandshakesCompleted);
        for outcome in server.finish() {
            outcome.unwrap();
        }
    }
    println!("{completed} handshakes over the loopback");
    assert_eq!(completed, u64::try_from(2 * 3 * 2 * per_thread).unwrap());
}
