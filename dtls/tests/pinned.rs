//! Memory that strangers can pin: nothing before their address is verified, a stated bound after.
//!
//! Measured from outside, as the growth of the process's data segment (`VmData`) over many peers: that
//! counts what is allocated, touched or not. nextest runs each test in a process of its own, on which
//! this relies.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use common::forgeries::message;
use common::pair::{SERVER, UNIX, drain, now, record};
use common::{anchors, identity};
use dtls::core::{Connection, HelloOutcome, HelloVerifier, VerifiedHello};
use dtls::{ClientAuth, ClientConfig, Counter, ServerConfig, ServerTrust, Stats, Trust};
use dtls_certs::Profile;

/// What `docs/threat-model.md` states, in KiB.
const HALF_OPEN: usize = 112;
const HALF_OPEN_AT_WORST: usize = 512;

const PEERS: u16 = 100;

/// `VmData` of `proc_pid_status(5)`, in KiB.
fn data_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

struct World {
    client: ClientConfig,
    verifier: HelloVerifier,
    stats: Arc<Stats>,
    start: Instant,
}

impl World {
    fn new() -> Self {
        // A client certificate is asked for: of all messages that a client sends, the longest.
        let trust = Trust::Anchors(anchors());
        let server = ServerConfig::builder(identity(Profile::SERVER))
            .client_auth(ClientAuth::Required(trust))
            .build()
            .unwrap();
        let stats = Arc::<Stats>::default();
        Self {
            client: ClientConfig::builder(ServerTrust::Anchors(anchors()))
                .build()
                .unwrap(),
            verifier: HelloVerifier::new(Arc::new(server), Arc::clone(&stats)).unwrap(),
            stats,
            start: now(),
        }
    }

    fn takes(&mut self, datagram: &[u8], port: u16) -> HelloOutcome {
        let (peer, local): (SocketAddr, SocketAddr) =
            (([192, 0, 2, 1], port).into(), SERVER.parse().unwrap());
        self.verifier
            .receive(datagram, peer, local, UNIX, self.start)
            .unwrap()
    }

    fn hello(&self) -> (Connection, Vec<u8>) {
        let (stats, server) = (Arc::default(), SERVER.parse().unwrap());
        let mut client =
            Connection::connect(&self.client, "localhost", server, None, &stats, self.start)
                .unwrap();
        client.handshake(self.start).unwrap();
        let hello = drain(&mut client).remove(0);
        (client, hello)
    }

    fn verified(&mut self, port: u16) -> VerifiedHello {
        let (mut client, hello) = self.hello();
        let HelloOutcome::Answer(question) = self.takes(&hello, port) else {
            panic!("no question");
        };
        client.receive(&question, self.start);
        client.handshake(self.start).unwrap();
        match self.takes(&drain(&mut client).remove(0), port) {
            HelloOutcome::Verified(hello) => hello,
            other => panic!("{other:?}"),
        }
    }
}

/// KiB for each of many peers that send `datagrams` behind their hello, and fall silent.
fn pinned_by_each(datagrams: &[Vec<u8>]) -> usize {
    let mut world = World::new();
    let hellos: Vec<_> = (1..=PEERS).map(|port| world.verified(port)).collect();
    let mut half_open = Vec::with_capacity(hellos.len());
    let before = data_kib();
    for hello in hellos {
        let mut connection = hello.accept().unwrap();
        connection.handshake(world.start).unwrap();
        drop(drain(&mut connection));
        for datagram in datagrams {
            connection.receive(datagram, world.start);
            connection.handshake(world.start).unwrap();
        }
        drop(drain(&mut connection));
        half_open.push(connection);
    }
    let grown = data_kib() - before;
    assert_eq!(world.stats.get(Counter::HandshakesFailed), 0);
    grown / half_open.len()
}

#[test]
fn a_half_open_peer_pins_no_more_than_stated() {
    let each = pinned_by_each(&[]);
    println!("{each} KiB for each half-open peer");
    assert!((60..=HALF_OPEN).contains(&each), "{each} KiB");
}

#[test]
fn a_half_open_peer_pins_no_more_than_stated_with_the_worst_it_can_send() {
    const LONGEST: usize = 16 * 1024;
    let mut worst = Vec::new();
    // Records of the next epoch, as long as may be, alone and behind a change: far more than are kept.
    for number in 0..40 {
        let early = record(22, 1, number, &[7; LONGEST + 200]);
        worst.push(early.clone());
        worst.push([record(20, 0, 9, &[1]), early].concat());
    }
    // Messages of which only the first byte comes, and the announced rest is waited for.
    for ahead in 2..40 {
        for message_type in [11, 15, 16] {
            let announced = u32::try_from(LONGEST).unwrap();
            let first = message(message_type, announced, ahead, 0, b"x");
            // The next one is judged at once: it must be the certificate that is asked for.
            if ahead > 2 || message_type == 11 {
                worst.push(record(22, 0, 9, &first));
            }
        }
    }
    let each = pinned_by_each(&worst);
    println!("{each} KiB for each half-open peer that sends the worst");
    assert!((300..=HALF_OPEN_AT_WORST).contains(&each), "{each} KiB");
}

#[test]
fn unverified_peers_pin_nothing() {
    let mut world = World::new();
    let (_client, hello) = world.hello();
    let garbage = record(23, 1, 9, &[7; 1000]);
    let mut wrong_cookie = hello.clone();
    // Behind record header, message header, version, random and an empty session id.
    let cookie = 13 + 12 + 2 + 32 + 1;
    assert_eq!(wrong_cookie[cookie], 0, "no cookie yet");
    wrong_cookie.splice(cookie..=cookie, [4, 1, 2, 3, 4]);
    // The lengths of the record, the message and its fragment, all below 252.
    for length in [12, 13 + 3, 13 + 11] {
        wrong_cookie[length] += 4;
    }
    // Whatever the first ones set up for good.
    for port in 1..100 {
        drop(world.takes(&hello, port));
    }
    drop(world.takes(&wrong_cookie, 1));
    let before = data_kib();
    for port in 100..20_000 {
        assert!(matches!(world.takes(&hello, port), HelloOutcome::Answer(_)));
        assert!(matches!(
            world.takes(&wrong_cookie, port),
            HelloOutcome::Answer(_)
        ));
        assert!(matches!(world.takes(&garbage, port), HelloOutcome::Noise));
    }
    let grown = data_kib() - before;
    assert!(grown < 64, "{grown} KiB for 19,900 strangers");
}
