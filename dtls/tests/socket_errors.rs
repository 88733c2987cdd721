//! Errors of socket calls, on real sockets: every errno by which a kernel reports an ICMP error, the
//! ECONNRESET of other systems, and trouble of the host's own, at every receive and every send of either
//! end, in the handshake and after. None may end a connection. On Linux no ICMP message alone gives
//! ECONNRESET, so the call itself is made to fail.

#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{anchors, assert_echo, echo, identity};
use dtls::core::{Connection, Progress};
use dtls::{
    AcceptError, Call, ClientConfig, Counter, DtlsConnector, DtlsListener, ServerConfig,
    ServerTrust, Stats, calls_made, fail_call,
};
use dtls_certs::Profile;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Short, because lost sends wait for it, and long enough that a busy machine sends nothing again.
const FIRST_TIMER: Duration = Duration::from_millis(300);
const LONGEST_TIMER: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_secs(10);

const HINTS: [i32; 11] = [
    libc::ECONNREFUSED,
    libc::ECONNRESET,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::ENOPROTOOPT,
    libc::EOPNOTSUPP,
    libc::EPROTO,
    libc::EACCES,
    libc::EMSGSIZE,
];
const TROUBLES: [i32; 4] = [libc::ENOBUFS, libc::ENOMEM, libc::ENETDOWN, libc::EINTR];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

#[expect(
    clippy::disallowed_methods,
    reason = "clients of a test wait in real time"
)]
fn now() -> Instant {
    Instant::now()
}

/// Receives and sends of one end.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    handshake: [u32; 2],
    all: [u32; 2],
}

/// A connection with two echoes, one call of one end failing; the calls that end made, and the hints that
/// both counted.
fn connection(side: Side, bad: Option<(Call, u32, i32)>) -> (Calls, u64) {
    let config = ServerConfig::builder(identity(Profile::SERVER))
        .retransmission_timer(FIRST_TIMER, LONGEST_TIMER)
        .build()
        .unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let (address, handle, server_stats) =
        (listener.local_addr(), listener.handle(), listener.stats());
    let listening = thread::spawn(move || {
        // A worker of its own for the one connection; the listener goes on answering.
        let mut workers = Vec::new();
        while let Ok(incoming) = listener.accept() {
            workers.push(thread::spawn(move || {
                if let (Side::Server, Some((call, nth, errno))) = (side, bad) {
                    fail_call(call, nth, errno);
                }
                let stream = incoming.accept().unwrap();
                let handshake = calls_made();
                echo(stream);
                Calls {
                    handshake,
                    all: calls_made(),
                }
            }));
        }
        assert_eq!(workers.len(), 1);
        workers.pop().unwrap().join().unwrap()
    });
    // A thread of its own: it counts from zero.
    let (at_client, client_stats) = thread::spawn(move || client(address, side, bad))
        .join()
        .unwrap();
    handle.close();
    let at_server = listening.join().unwrap();
    let calls = match side {
        Side::Client => at_client,
        Side::Server => at_server,
    };
    let count = |stats: &Stats| stats.get(Counter::IcmpOnReceive) + stats.get(Counter::IcmpOnSend);
    (calls, client_stats + count(&server_stats))
}

fn client(address: SocketAddr, side: Side, bad: Option<(Call, u32, i32)>) -> (Calls, u64) {
    if let (Side::Client, Some((call, nth, errno))) = (side, bad) {
        fail_call(call, nth, errno);
    }
    let config = ClientConfig::builder(ServerTrust::Anchors(anchors()))
        .retransmission_timer(FIRST_TIMER, LONGEST_TIMER)
        .build()
        .unwrap();
    let connector = DtlsConnector::new(config);
    let mut stream = connector.connect("localhost", address).unwrap();
    let handshake = calls_made();
    for text in [b"one".as_slice(), b"two"] {
        assert_echo(&mut stream, text);
    }
    let stats = connector.stats();
    let hints = stats.get(Counter::IcmpOnReceive) + stats.get(Counter::IcmpOnSend);
    drop(stream);
    let all = calls_made();
    (Calls { handshake, all }, hints)
}

/// Every call that a connection without errors makes, with every one of these errors; the hints
/// counted. A datagram that is lost for good is sent again in the handshake only, so where these errors
/// lose one, sends after it are left out.
fn at_every_call(side: Side, errnos: &[i32], loses: bool) -> u64 {
    let (clean, hints) = connection(side, None);
    assert_eq!(hints, 0, "nothing was injected");
    let mut seen = 0;
    for call in [Call::Receive, Call::Send] {
        let last = match call {
            Call::Send if loses => clean.handshake[call as usize],
            _ => clean.all[call as usize],
        };
        assert!(last > 0, "{side:?}: {clean:?}");
        for nth in 1..=last {
            for errno in errnos {
                seen += connection(side, Some((call, nth, *errno))).1;
            }
        }
    }
    seen
}

#[test]
fn no_hint_of_icmp_at_any_call_of_the_client_ends_or_loses_anything() {
    let hints = at_every_call(Side::Client, &HINTS, false);
    assert!(hints > 50, "{hints} of the errors were met");
}

#[test]
fn no_hint_of_icmp_at_any_call_of_the_server_ends_or_loses_anything() {
    let hints = at_every_call(Side::Server, &HINTS, false);
    assert!(hints > 50, "{hints} of the errors were met");
}

#[test]
fn no_trouble_of_the_host_at_any_call_of_the_client_ends_the_connection() {
    assert_eq!(at_every_call(Side::Client, &TROUBLES, true), 0);
}

#[test]
fn no_trouble_of_the_host_at_any_call_of_the_server_ends_the_connection() {
    assert_eq!(at_every_call(Side::Server, &TROUBLES, true), 0);
}

/// What `connection` would send now.
fn writes(connection: &mut Connection) -> Vec<Vec<u8>> {
    connection.handshake(now()).unwrap();
    std::iter::from_fn(|| connection.transmit()).collect()
}

#[test]
fn a_hello_in_the_queue_of_a_connection_that_ends_survives_a_pending_hint_of_icmp() {
    let config = ServerConfig::builder(identity(Profile::SERVER));
    let address = "127.0.0.1:0".parse().unwrap();
    let mut listener = DtlsListener::bind(address, config.build().unwrap()).unwrap();
    let (address, handle, stats) = (listener.local_addr(), listener.handle(), listener.stats());
    let (end, ends) = mpsc::channel();
    let listening = thread::spawn(move || {
        let incoming = listener.accept().unwrap();
        let worker = thread::spawn(move || {
            let stream = incoming.accept().unwrap();
            ends.recv_timeout(PATIENCE).unwrap();
            let mut descriptors = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(PATIENCE).unwrap();
            assert_eq!(poll(&mut descriptors, patience).unwrap(), 1, "the hello");
            for (nth, errno) in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::EINTR]
                .into_iter()
                .enumerate()
            {
                fail_call(Call::Receive, u32::try_from(nth).unwrap() + 1, errno);
            }
            drop(stream);
        });
        // Goes on answering.
        assert!(matches!(listener.accept(), Err(AcceptError::Closed)));
        worker.join().unwrap();
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    let config = ClientConfig::builder(ServerTrust::Anchors(anchors()));
    let config = config.build().unwrap();
    let connect = || {
        let stats = Arc::<Stats>::default();
        Connection::connect(&config, "localhost", address, None, &stats, now()).unwrap()
    };
    let mut client = connect();
    let mut buffer = [0; 4096];
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while client.handshake(now()).unwrap() != Progress::Established {
        for datagram in writes(&mut client) {
            socket.send(&datagram).unwrap();
        }
        let length = socket.recv(&mut buffer).unwrap();
        client.receive(&buffer[..length], now());
    }
    for datagram in std::iter::from_fn(|| client.transmit()) {
        socket.send(&datagram).unwrap();
    }
    // It starts over from the same port, and says so once.
    let hello = writes(&mut connect()).remove(0);
    socket.send(&hello).unwrap();
    end.send(()).unwrap();
    let give_up = now() + PATIENCE;
    while stats.get(Counter::HelloVerifyRequests) < 2 {
        assert!(now() < give_up, "the hello is lost");
        thread::yield_now();
    }
    handle.close();
    listening.join().unwrap();
}
