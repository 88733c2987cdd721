//! Hellos that come again when the connection they began has ended: a client's timer made it repeat
//! one, and the listener was behind with its queue.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

#[macro_use]
mod common;

use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::server_config;
use dtls::core::{Connection, Progress, Read};
use dtls::{
    ClientConfig, Counter, DtlsConnector, DtlsListener, DtlsStream, Recv, ServerTrust, Stats,
    Transport,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn bind(transport: Transport) -> DtlsListener {
    let config = server_config().transport(transport).build().unwrap();
    DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// One port of a client, and the datagrams with which its latest connection asked for a cookie and
/// showed it.
struct Port {
    socket: UdpSocket,
    first_hello: Vec<u8>,
    hello: Vec<u8>,
}

/// Where a `HelloVerifyRequest` has its cookie, and where a ClientHello without a session has it.
const COOKIE_ASKED: Range<usize> = 28..49;
const COOKIE_SHOWN: Range<usize> = 61..82;

impl Port {
    fn of_client(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            first_hello: Vec::new(),
            hello: Vec::new(),
        }
    }

    /// Asks and shows its cookie, once.
    fn begin(mut self) -> (Self, Connection) {
        let timer = Duration::from_secs(60);
        let config = ClientConfig::builder(ServerTrust::Anyone)
            .retransmission_timer(timer, timer)
            .build()
            .unwrap();
        let (stats, server) = (Arc::<Stats>::default(), self.socket.peer_addr().unwrap());
        let mut client =
            Connection::connect(&config, "localhost", server, None, &stats, now()).unwrap();
        self.first_hello = self.send(&mut client);
        self.hello.clear();
        // The close of the connection before may come first.
        while self.hello.is_empty() {
            self.receive(&mut client);
            self.hello = self.send(&mut client);
        }
        (self, client)
    }

    /// Goes on without any repetition of its own.
    fn complete(self, mut client: Connection) -> (Self, Connection) {
        while client.handshake(now()).unwrap() == Progress::Waiting {
            self.receive(&mut client);
            self.send(&mut client);
        }
        (self, client)
    }

    /// Sends what there is, and returns the last of it.
    fn send(&self, client: &mut Connection) -> Vec<u8> {
        client.handshake(now()).unwrap();
        let mut last = Vec::new();
        while let Some(datagram) = client.transmit() {
            self.socket.send(&datagram).unwrap();
            last = datagram;
        }
        last
    }

    fn receive(&self, client: &mut Connection) {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap();
        client.receive(&buffer[..length], now());
    }

    fn connect(self) -> (Self, Connection) {
        let (port, client) = self.begin();
        port.complete(client)
    }

    /// Asks with the same random until it is given another cookie, and shows that.
    fn ask_anew(&self) {
        let mut answer = [0; 4096];
        loop {
            self.socket.send(&self.first_hello).unwrap();
            let length = self.socket.recv(&mut answer).unwrap();
            // Behind a handshake's header the message's type.
            let is_asked = length >= COOKIE_ASKED.end && (answer[0], answer[13]) == (22, 3);
            let cookie = &answer[COOKIE_ASKED];
            // Cookies of one second are the same.
            if is_asked && *cookie != self.hello[COOKIE_SHOWN] {
                let mut hello = self.hello.clone();
                hello[COOKIE_SHOWN].copy_from_slice(cookie);
                self.socket.send(&hello).unwrap();
                return;
            }
        }
    }

    fn repeat_hello(&self) {
        self.socket.send(&self.hello).unwrap();
    }
}

/// A connection from `port`: both its ends, and the port again.
fn pair(listener: &mut DtlsListener, port: Port) -> (DtlsStream, Connection, Port) {
    let client = thread::spawn(|| port.connect());
    let server = listener.accept().unwrap().accept().unwrap();
    let (port, client) = client.join().unwrap();
    (server, client, port)
}

#[track_caller]
fn assert_repeated(listener: &DtlsListener, repeated: u64, accepted: u64, reconnects: u64) {
    let stats = listener.stats();
    let counted = [
        Counter::HellosRepeated,
        Counter::ConnectionsAccepted,
        Counter::Reconnects,
    ];
    assert_eq!(
        counted.map(|counter| stats.get(counter)),
        [repeated, accepted, reconnects],
        "repeated, accepted, reconnects"
    );
}

fn a_hello_repeated_after_its_connection_has_ended_begins_no_other(transport: Transport) {
    let mut listener = bind(transport);
    let port = Port::of_client(listener.local_addr());
    let (server, _, port) = pair(&mut listener, port);
    drop(server);
    for _ in 0..3 {
        port.repeat_hello();
    }
    // The next connection of the same port comes behind them, and is the next to be accepted.
    let (server, _, port) = pair(&mut listener, port);
    assert_repeated(&listener, 3, 2, 0);
    drop(server);
    port.repeat_hello();
    let other = Port::of_client(listener.local_addr());
    let (server, ..) = pair(&mut listener, other);
    assert_repeated(&listener, 4, 3, 0);
    drop(server);
}

fn a_repeated_hello_that_a_connection_hands_back_as_it_ends_begins_no_other(transport: Transport) {
    let mut listener = bind(transport);
    let port = Port::of_client(listener.local_addr());
    let (server, _, port) = pair(&mut listener, port);
    // Nobody receives any more.
    port.repeat_hello();
    drop(server);
    let (server, ..) = pair(&mut listener, port);
    assert_repeated(&listener, 1, 2, 0);
    drop(server);
}

fn the_hello_of_a_client_that_started_over_begins_no_other_either(transport: Transport) {
    let mut listener = bind(transport);
    let port = Port::of_client(listener.local_addr());
    let (mut server, _, port) = pair(&mut listener, port);
    let first = port.hello.clone();
    let client = thread::spawn(|| port.connect());
    server.set_recv_timeout(Some(PATIENCE));
    assert_eq!(server.recv(&mut [0; 100]).unwrap(), Recv::Reconnected);
    assert!(server.accept_reconnect());
    let (port, _) = client.join().unwrap();
    drop(server);
    port.socket.send(&first).unwrap();
    port.repeat_hello();
    let (server, ..) = pair(&mut listener, port);
    assert_repeated(&listener, 2, 2, 1);
    drop(server);
}

fn a_hello_with_the_random_of_an_ended_connection_and_a_fresh_cookie_begins_another(
    transport: Transport,
) {
    let mut listener = bind(transport);
    let port = Port::of_client(listener.local_addr());
    let (server, _, port) = pair(&mut listener, port);
    drop(server);
    let client = thread::spawn(move || port.ask_anew());
    drop(listener.accept().unwrap());
    client.join().unwrap();
    assert_repeated(&listener, 0, 2, 0);
}

fn a_hello_repeated_after_its_client_has_started_over_is_not_answered(transport: Transport) {
    let mut listener = bind(transport);
    let port = Port::of_client(listener.local_addr());
    let (mut server, _, port) = pair(&mut listener, port);
    let first = port.hello.clone();
    let client = thread::spawn(|| port.connect());
    server.set_recv_timeout(Some(PATIENCE));
    let mut buffer = [0; 100];
    assert_eq!(server.recv(&mut buffer).unwrap(), Recv::Reconnected);
    assert!(server.accept_reconnect());
    let (port, mut client) = client.join().unwrap();
    for _ in 0..3 {
        port.socket.send(&first).unwrap();
    }
    client.write(b"data").unwrap();
    port.send(&mut client);
    assert_eq!(server.recv(&mut buffer).unwrap(), Recv::Data(4));
    server.send(b"answer").unwrap();
    // An answer to the hellos would be before it.
    port.receive(&mut client);
    assert_eq!(client.read(&mut buffer).unwrap(), Read::Data(6));
    assert_repeated(&listener, 0, 1, 1);
}

fn a_hello_whose_handshake_was_not_completed_may_come_again(transport: Transport) {
    let mut listener = bind(transport);
    let address = listener.local_addr();
    let timer = Duration::from_millis(100);
    let config = ClientConfig::builder(ServerTrust::Anyone)
        .handshake_timeout(PATIENCE)
        .retransmission_timer(timer, timer)
        .build()
        .unwrap();
    let client = thread::spawn(move || DtlsConnector::new(config).connect("localhost", address));
    // As a server does that has no thread for it.
    drop(listener.accept().unwrap());
    let server = listener.accept().unwrap().accept().unwrap();
    client.join().unwrap().unwrap();
    assert_eq!(listener.stats().get(Counter::HellosRepeated), 0);
    drop(server);
}

fn a_hello_repeated_before_its_connection_has_answered_begins_no_other(transport: Transport) {
    let mut listener = bind(transport);
    let port = Port::of_client(listener.local_addr());
    let beginning = thread::spawn(|| port.begin());
    let incoming = listener.accept().unwrap();
    let (port, client) = beginning.join().unwrap();
    port.repeat_hello();
    port.repeat_hello();
    // Whoever comes next is the next to be accepted.
    let next = Port::of_client(listener.local_addr());
    let (behind, ..) = pair(&mut listener, next);
    let completing = thread::spawn(|| port.complete(client));
    let server = incoming.accept().unwrap();
    completing.join().unwrap();
    assert_repeated(&listener, 0, 2, 0);
    drop((server, behind));
}

on_each_transport! {
    a_hello_repeated_after_its_connection_has_ended_begins_no_other,
    a_repeated_hello_that_a_connection_hands_back_as_it_ends_begins_no_other,
    the_hello_of_a_client_that_started_over_begins_no_other_either,
    a_hello_with_the_random_of_an_ended_connection_and_a_fresh_cookie_begins_another,
    a_hello_repeated_after_its_client_has_started_over_is_not_answered,
    a_hello_whose_handshake_was_not_completed_may_come_again,
    a_hello_repeated_before_its_connection_has_answered_begins_no_other,
}
