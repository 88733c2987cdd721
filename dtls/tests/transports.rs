//! What a server's application sees is the same over both transports: threads, descriptors to poll,
//! ends.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

#[macro_use]
mod common;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{EchoServer, assert_echo, connector, echo, server_config};
use dtls::{AcceptError, Counter, DtlsListener, DtlsStream, Recv, Transport};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const PATIENCE: Duration = Duration::from_secs(10);

fn bind(transport: Transport) -> DtlsListener {
    let config = server_config().transport(transport).build().unwrap();
    DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap()
}

/// Both ends of a connection, with nobody in `accept` any more.
fn pair(listener: &mut DtlsListener) -> (DtlsStream, DtlsStream) {
    let address = listener.local_addr();
    let client = thread::spawn(move || connector().connect("localhost", address).unwrap());
    let server = listener.accept().unwrap().accept().unwrap();
    (server, client.join().unwrap())
}

fn readable(stream: &DtlsStream, timeout: PollTimeout) -> bool {
    let mut descriptors = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut descriptors, timeout).unwrap() == 1
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = now() + PATIENCE;
    while !condition() {
        assert!(now() < give_up, "{what}");
        thread::yield_now();
    }
}

#[expect(clippy::disallowed_methods, reason = "bounds the waits of a test")]
fn now() -> Instant {
    Instant::now()
}

fn one_thread_can_accept_shake_hands_and_serve(transport: Transport) {
    let mut listener = bind(transport);
    let (mut server, mut client) = pair(&mut listener);
    client.send(b"ping").unwrap();
    let mut buffer = [0; 100];
    assert_eq!(server.recv(&mut buffer).unwrap(), Recv::Data(4));
    server.send(b"pong").unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), Recv::Data(4));
    assert_eq!(listener.connections(), 1);
    drop(server);
    wait_until("the connection has left", || listener.connections() == 0);
}

fn a_descriptor_is_readable_for_data_and_quiet_once_all_is_received(transport: Transport) {
    let mut listener = bind(transport);
    let (mut server, mut client) = pair(&mut listener);
    server.set_recv_timeout(Some(Duration::ZERO));
    let mut buffer = [0; 100];
    assert_eq!(server.recv(&mut buffer).unwrap(), Recv::TimedOut);
    assert!(!readable(&server, PollTimeout::ZERO));
    for round in 0..100_u8 {
        for n in 0..3 {
            client.send(&[round, n]).unwrap();
        }
        let mut expected = 0;
        while expected < 3 {
            assert!(readable(&server, PollTimeout::try_from(PATIENCE).unwrap()));
            while let Recv::Data(length) = server.recv(&mut buffer).unwrap() {
                assert_eq!(buffer[..length], [round, expected]);
                expected += 1;
            }
        }
        assert!(!readable(&server, PollTimeout::ZERO));
    }
    let handle = server.handle();
    thread::spawn(move || handle.stop());
    assert!(readable(&server, PollTimeout::try_from(PATIENCE).unwrap()));
    assert_eq!(server.recv(&mut buffer).unwrap(), Recv::Stopped);
}

fn a_connection_outlives_its_listener(transport: Transport) {
    let mut listener = bind(transport);
    let (server, mut client) = pair(&mut listener);
    let (address, stats) = (listener.local_addr(), listener.stats());
    drop(listener);
    let serving = thread::spawn(|| echo(server));
    for round in 0..10_u8 {
        assert_echo(&mut client, &[round; 100]);
    }
    // Nobody answers strangers any more.
    let impatient = dtls::ClientConfig::builder(dtls::ServerTrust::Anyone)
        .handshake_timeout(Duration::from_millis(300));
    let stranger = dtls::DtlsConnector::new(impatient.build().unwrap());
    assert!(stranger.connect("localhost", address).is_err());
    client.close();
    serving.join().unwrap();
    assert_eq!(stats.get(Counter::ConnectionsAccepted), 1);
    // With the last connection the port is free.
    wait_until("the port is free", || rebinds(address, transport));
}

fn rebinds(address: SocketAddr, transport: Transport) -> bool {
    let config = server_config().transport(transport).build().unwrap();
    DtlsListener::bind(address, config).is_ok()
}

fn closing_ends_an_accept_that_waits(transport: Transport) {
    let mut listener = bind(transport);
    let handle = listener.handle();
    let (tell, told) = mpsc::channel();
    let waiting = thread::spawn(move || {
        // One peer first, so that it has been at work.
        let (server, client) = pair(&mut listener);
        tell.send(()).unwrap();
        let outcome = listener.accept();
        drop((server, client));
        outcome
    });
    told.recv_timeout(PATIENCE).unwrap();
    handle.close();
    let outcome = waiting.join().unwrap();
    assert!(matches!(outcome, Err(AcceptError::Closed)), "{outcome:?}");
}

fn a_thread_that_does_not_receive_delays_nobody_else(transport: Transport) {
    let mut listener = bind(transport);
    let (mut lazy, mut to_lazy) = pair(&mut listener);
    let stats = listener.stats();
    let others = thread::spawn(move || {
        while let Ok(incoming) = listener.accept() {
            thread::spawn(move || incoming.accept().map(echo));
        }
    });
    // Far more than is kept for it.
    for _ in 0..2000 {
        to_lazy.send(&[7; 1000]).unwrap();
    }
    let mut busy = connector().connect("localhost", lazy.local_addr()).unwrap();
    assert_echo(&mut busy, b"meanwhile");
    if transport == Transport::Shared {
        assert!(stats.get(Counter::DroppedInboxFull) > 0);
    }
    lazy.set_recv_timeout(Some(Duration::ZERO));
    let mut received = 0;
    while let Recv::Data(1000) = lazy.recv(&mut [0; 1100]).unwrap() {
        received += 1;
    }
    assert!((50..2000).contains(&received), "{received}");
    to_lazy.send(b"and on").unwrap();
    lazy.set_recv_timeout(Some(PATIENCE));
    assert_eq!(lazy.recv(&mut [0; 1100]).unwrap(), Recv::Data(6));
    drop((busy, others));
}

fn clients_that_come_and_go_from_few_ports_leave_nothing_behind(transport: Transport) {
    let config = server_config().transport(transport).build().unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let (address, stats, handle) = (listener.local_addr(), listener.stats(), listener.handle());
    let (ended, left) = mpsc::channel();
    let accepting = thread::spawn(move || {
        let mut workers = Vec::new();
        while let Ok(incoming) = listener.accept() {
            workers.push(thread::spawn(move || incoming.accept().map(echo)));
        }
        for worker in workers {
            worker.join().unwrap().unwrap();
        }
        ended.send(listener.connections()).unwrap();
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let connector = connector();
                for n in 0..25_u8 {
                    let mut stream = connector.connect("localhost", address).unwrap();
                    assert_echo(&mut stream, &[n]);
                }
                assert_eq!(connector.stats().get(Counter::Retransmissions), 0);
            });
        }
    });
    handle.close();
    assert_eq!(left.recv_timeout(PATIENCE).unwrap(), 0);
    accepting.join().unwrap();
    assert_eq!(stats.get(Counter::HandshakesCompleted), 100);
    assert_eq!(stats.get(Counter::ClosedByPeer), 100);
    // Nobody else's short-lived port is to be taken for something left behind.
    wait_until("the port is free", || rebinds(address, transport));
    let server = EchoServer::start(
        &address.to_string(),
        server_config().transport(transport).build().unwrap(),
    );
    let mut again = connector().connect("localhost", server.address).unwrap();
    assert_echo(&mut again, b"on the same port");
}

/// A client that goes on asking until it is told what to do, or has lost patience.
fn client(address: SocketAddr, patience: Duration) -> thread::JoinHandle<bool> {
    let config = dtls::ClientConfig::builder(dtls::ServerTrust::Anyone).handshake_timeout(patience);
    let connector = dtls::DtlsConnector::new(config.build().unwrap());
    thread::spawn(move || connector.connect("localhost", address).is_ok())
}

#[test]
fn a_peer_that_waits_to_be_accepted_counts_for_admission() {
    let mut listener = bind(Transport::Shared);
    listener.set_admission(|_, connections| connections < 2);
    let (address, stats) = (listener.local_addr(), listener.stats());
    let (server, first) = pair(&mut listener);
    let waiting = client(address, PATIENCE);
    wait_until("it waits", || listener.connections() == 2);
    assert_eq!(stats.get(Counter::ConnectionsAccepted), 1, "not yet");
    assert!(!client(address, Duration::from_millis(300)).join().unwrap());
    assert!(stats.get(Counter::HellosRefused) >= 1);
    assert_eq!(listener.connections(), 2);
    let accepted = listener.accept().unwrap().accept().unwrap();
    assert!(waiting.join().unwrap());
    assert_eq!(stats.get(Counter::ConnectionsAccepted), 2);
    assert_eq!(stats.get(Counter::HandoffsFailed), 0);
    drop((server, first, accepted));
}

#[test]
fn closing_forgets_the_peers_that_wait_to_be_accepted() {
    let mut listener = bind(Transport::Shared);
    let (address, handle) = (listener.local_addr(), listener.handle());
    let (server, first) = pair(&mut listener);
    let waiting = client(address, Duration::from_secs(1));
    wait_until("it waits", || listener.connections() == 2);
    handle.close();
    let outcome = listener.accept();
    assert!(matches!(outcome, Err(AcceptError::Closed)), "{outcome:?}");
    drop((server, first));
    wait_until("all are gone", || listener.connections() == 0);
    wait_until("so is the thread that reads", || {
        rebinds(address, Transport::Shared)
    });
    assert!(!waiting.join().unwrap());
}

on_each_transport! {
    one_thread_can_accept_shake_hands_and_serve,
    a_descriptor_is_readable_for_data_and_quiet_once_all_is_received,
    a_connection_outlives_its_listener,
    closing_ends_an_accept_that_waits,
    a_thread_that_does_not_receive_delays_nobody_else,
    clients_that_come_and_go_from_few_ports_leave_nothing_behind,
}
