//! What a listener refuses to strangers, and that nobody else pays for it.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

#[macro_use]
mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{EchoServer, assert_echo, connector, server_config};
use dtls::core::{Connection, Progress};
use dtls::{ClientConfig, Counter, ServerTrust, Stats, Transport};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client with a source address of its own.
struct Caller {
    socket: UdpSocket,
    connection: Connection,
}

impl Caller {
    fn new(source: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect(server).unwrap();
        let config = ClientConfig::builder(ServerTrust::Anyone);
        let config = config.handshake_timeout(PATIENCE).build().unwrap();
        let stats = Arc::<Stats>::default();
        let connection =
            Connection::connect(&config, "localhost", server, None, &stats, now()).unwrap();
        Self { socket, connection }
    }

    /// What it would send now.
    fn writes(&mut self) -> Vec<Vec<u8>> {
        self.connection.handshake(now()).unwrap();
        std::iter::from_fn(|| self.connection.transmit()).collect()
    }

    /// Goes on until the handshake is complete or `patience` is at its end.
    fn shakes_hands(&mut self, patience: Duration) -> bool {
        let give_up = now() + patience;
        let mut buffer = [0; 4096];
        loop {
            for datagram in self.writes() {
                self.socket.send(&datagram).unwrap();
            }
            let now = now();
            if self.connection.handshake(now).unwrap() == Progress::Established {
                return true;
            }
            if now >= give_up {
                return false;
            }
            let due = self.connection.deadline().unwrap().min(give_up);
            let wait = due
                .saturating_duration_since(now)
                .max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            match self.socket.recv(&mut buffer) {
                Ok(length) => self.connection.receive(&buffer[..length], now),
                Err(_) => self.connection.handle_timeout(now).unwrap(),
            }
        }
    }

    /// Proves its address and says nothing more.
    fn asks_and_falls_silent(&mut self) {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..2 {
            for datagram in self.writes() {
                self.socket.send(&datagram).unwrap();
            }
            let length = self.socket.recv(&mut buffer).unwrap();
            self.connection.receive(&buffer[..length], now());
        }
    }

    fn closes(mut self) {
        self.connection.close();
        for datagram in std::iter::from_fn(|| self.connection.transmit()) {
            self.socket.send(&datagram).unwrap();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "clients of a test wait in real time"
)]
fn now() -> Instant {
    Instant::now()
}

#[track_caller]
fn wait_for(stats: &Stats, counter: Counter, wanted: u64) {
    let give_up = now() + PATIENCE;
    while stats.get(counter) < wanted {
        assert!(now() < give_up, "{counter:?} {}", stats.get(counter));
        thread::yield_now();
    }
}

fn handshakes_in_progress_are_limited_and_established_connections_are_not(transport: Transport) {
    let config = server_config()
        .transport(transport)
        .max_half_open(Some(2))
        .handshake_timeout(Duration::from_millis(1500));
    let server = EchoServer::start("127.0.0.1:0", config.build().unwrap());
    let mut established: Vec<_> = (0..4)
        .map(|_| connector().connect("localhost", server.address).unwrap())
        .collect();
    wait_for(&server.stats, Counter::HandshakesCompleted, 4);
    let mut silent: Vec<_> = (0..2)
        .map(|_| Caller::new(Ipv4Addr::LOCALHOST, server.address))
        .collect();
    silent.iter_mut().for_each(Caller::asks_and_falls_silent);
    let mut newest = Caller::new(Ipv4Addr::LOCALHOST, server.address);
    assert!(!newest.shakes_hands(Duration::from_millis(300)));
    assert!(server.stats.get(Counter::HellosOverHalfOpen) >= 1);
    for stream in &mut established {
        assert_echo(stream, b"not concerned");
    }
    // The silent ones are given up.
    assert!(newest.shakes_hands(PATIENCE));
    assert_eq!(server.stats.get(Counter::HandshakesTimedOut), 2);
}

fn connections_of_one_address_are_limited_and_another_address_is_served(transport: Transport) {
    let config = server_config().transport(transport).max_per_prefix(Some(2));
    let server = EchoServer::start("0.0.0.0:0", config.build().unwrap());
    let server_at = (Ipv4Addr::LOCALHOST, server.address.port()).into();
    let [here, there] = [Ipv4Addr::new(127, 0, 0, 8), Ipv4Addr::new(127, 0, 0, 9)];
    let mut first = Caller::new(here, server_at);
    let mut second = Caller::new(here, server_at);
    assert!(first.shakes_hands(PATIENCE) && second.shakes_hands(PATIENCE));
    let mut third = Caller::new(here, server_at);
    assert!(!third.shakes_hands(Duration::from_millis(300)));
    assert!(server.stats.get(Counter::HellosOverPrefix) >= 1);
    assert!(Caller::new(there, server_at).shakes_hands(PATIENCE));
    first.closes();
    assert!(third.shakes_hands(PATIENCE), "in the place of the first");
}

fn a_source_is_answered_at_its_rate_and_a_cookie_needs_no_answer(transport: Transport) {
    let config = server_config().transport(transport).hello_rate(Some(3));
    let server = EchoServer::start("127.0.0.1:0", config.build().unwrap());
    let mut late = Caller::new(Ipv4Addr::LOCALHOST, server.address);
    for datagram in late.writes() {
        late.socket.send(&datagram).unwrap();
    }
    wait_for(&server.stats, Counter::HelloVerifyRequests, 1);
    let mut other = Caller::new(Ipv4Addr::LOCALHOST, server.address);
    let hello = other.writes().remove(0);
    for _ in 0..50 {
        other.socket.send(&hello).unwrap();
    }
    wait_for(&server.stats, Counter::HellosOverRate, 40);
    assert!(server.stats.get(Counter::HelloVerifyRequests) < 10);
    // It has its cookie already, and no other hello is answered within the next 300 ms.
    assert!(late.shakes_hands(Duration::from_millis(300)));
}

fn an_answer_that_the_rate_forbids_is_not_counted_as_sent(transport: Transport) {
    let config = server_config().transport(transport).hello_rate(Some(3));
    let server = EchoServer::start("127.0.0.1:0", config.build().unwrap());
    let mut asked = Caller::new(Ipv4Addr::LOCALHOST, server.address);
    let hello = asked.writes().remove(0);
    asked.socket.send(&hello).unwrap();
    let mut buffer = [0; 4096];
    asked.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = asked.socket.recv(&mut buffer).unwrap();
    asked.connection.receive(&buffer[..length], now());
    // From another port the cookie is a bad one, and each such hello asks for an answer.
    let with_cookie = asked.writes().remove(0);
    let thief = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..50 {
        thief.send_to(&with_cookie, server.address).unwrap();
    }
    wait_for(&server.stats, Counter::HellosOverRate, 40);
    let answers = server.stats.get(Counter::HelloVerifyRequests);
    assert!((1..10).contains(&answers), "{answers}");
}

/// Hellos a second of the flood: each of its addresses at 40 times its rate.
const FLOOD: u32 = 20_000;
const FLOOD_ADDRESSES: u32 = 50;
const CLIENTS: u32 = 400;

/// Shorter than any flood: a client is served in the midst of it, or not at all.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

fn a_flood_of_hellos_from_other_addresses_keeps_no_client_away(transport: Transport) {
    let config = server_config().transport(transport).hello_rate(Some(10));
    let server = EchoServer::start("127.0.0.1:0", config.build().unwrap());
    let done = AtomicBool::new(false);
    let (completed, (sent, until_the_end)) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(server.address, &done));
        let clients: Vec<_> = (0..4)
            .map(|part| {
                let address = server.address;
                scope.spawn(move || {
                    let sources = (part * CLIENTS / 4)..((part + 1) * CLIENTS / 4);
                    sources
                        .filter(|n| {
                            let source = Ipv4Addr::from_bits(0x7f01_0001 + n);
                            Caller::new(source, address).shakes_hands(CLIENT_PATIENCE)
                        })
                        .count()
                })
            })
            .collect();
        let completed: usize = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();
        done.store(true, Ordering::Relaxed);
        (completed, flood.join().unwrap())
    });
    assert!(sent > 1000, "no flood: {sent}");
    assert!(until_the_end, "the last clients were served in peace");
    let refused = server.stats.get(Counter::HellosOverRate);
    assert!(
        completed * 100 >= CLIENTS as usize * 99,
        "{completed} of {CLIENTS}"
    );
    assert!(refused > 500, "{refused}");
}

/// Sends hellos from many addresses until `done`, for a minute at most; returns how many, and whether
/// it was at it until `done`.
fn flood(server: SocketAddr, done: &AtomicBool) -> (u32, bool) {
    let (start, patience) = (now(), Duration::from_secs(60));
    let mut callers: Vec<_> = (0..FLOOD_ADDRESSES)
        .map(|n| Caller::new(Ipv4Addr::from_bits(0x7f02_0001 + n), server))
        .collect();
    let hellos: Vec<_> = callers.iter_mut().map(|caller| caller.writes()).collect();
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        if start.elapsed() >= patience {
            return (sent, false);
        }
        for (caller, hello) in callers.iter().zip(&hellos) {
            caller.socket.send(&hello[0]).unwrap();
            sent += 1;
        }
        let due = Duration::from_secs(1) * sent / FLOOD;
        if let Some(early) = due.checked_sub(start.elapsed()) {
            thread::park_timeout(early);
        }
    }
    (sent, true)
}

on_each_transport! {
    handshakes_in_progress_are_limited_and_established_connections_are_not,
    connections_of_one_address_are_limited_and_another_address_is_served,
    a_source_is_answered_at_its_rate_and_a_cookie_needs_no_answer,
    an_answer_that_the_rate_forbids_is_not_counted_as_sent,
    a_flood_of_hellos_from_other_addresses_keeps_no_client_away,
}
