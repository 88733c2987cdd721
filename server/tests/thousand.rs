//! A thousand connections at once on one port.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::thread;
use std::time::Duration;

use common::backend::Backend;
use common::{Finished, Pki, Server, now, receive, wait_until};
use dtls::{DtlsConnector, DtlsStream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

const CONNECTIONS: usize = 1000;
const CLIENT_THREADS: usize = 8;
const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_secs(1);

#[test]
fn a_thousand_connections_lose_nothing_and_all_are_closed_in_order() {
    let finished = serve_a_thousand("connected", &[], 1, CONNECTIONS);
    assert_eq!(finished.counter("datagrams_to_backend"), 0);
}

#[test]
fn a_thousand_forwarded_connections_lose_nothing_and_all_are_closed_in_order() {
    let backend = Backend::new().echo();
    let address = backend.address.to_string();
    // A descriptor towards the client and one towards the backend. The backend has one socket, whose
    // queue takes some 160 to 270 datagrams however small, and one thread that may have to wait.
    let finished = serve_a_thousand(
        "connected",
        &["--service", "forward", "--backend", &address],
        2,
        80,
    );
    let each = u64::try_from(CONNECTIONS * ROUNDS).unwrap();
    assert_eq!(finished.counter("datagrams_to_backend"), each);
    assert_eq!(finished.counter("datagrams_from_backend"), each);
}

#[test]
fn a_thousand_connections_on_one_socket_lose_nothing_and_all_are_closed_in_order() {
    // One socket for all: its queue is twice as long as the backend's above where the system's limits
    // are Linux's own, but a host may allow less, and its one reading thread may have to wait, too.
    let finished = serve_a_thousand("shared", &[], 1, 80);
    assert_eq!(finished.counter("dropped_inbox_full"), 0);
}

fn serve_a_thousand(
    transport: &str,
    arguments: &[&str],
    descriptors: usize,
    at_once: usize,
) -> Finished {
    // The clients' sockets are this process's.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let pki = Pki::new();
    let common = ["--max-connections", "1000", "--transport", transport];
    let server = pki.serve(&[&common, arguments].concat());
    let resources = |server: &Server| (server.threads().len(), server.descriptors());
    if transport == "shared" {
        // The listener's thread starts it with its first wait, perhaps after the server is ready.
        let names = || server.threads();
        wait_until("the receiver", names, |names| {
            names.iter().any(|name| name == "receiver")
        });
    }
    let quiet = resources(&server);
    let held = (quiet.0 + CONNECTIONS, quiet.1 + descriptors * CONNECTIONS);

    let connector = DtlsConnector::new(pki.client().build().unwrap());
    let mut clients: Vec<Vec<DtlsStream>> = thread::scope(|scope| {
        let connect = || connector.connect("localhost", server.address).unwrap();
        let threads: Vec<_> = (0..CLIENT_THREADS)
            .map(|_| {
                scope.spawn(move || {
                    (0..CONNECTIONS / CLIENT_THREADS)
                        .map(|_| connect())
                        .collect()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    // A server's worker lets go of its second descriptor just after its client has connected.
    wait_until(
        "threads, descriptors",
        || resources(&server),
        |&now| now == held,
    );

    thread::scope(|scope| {
        for streams in &mut clients {
            scope.spawn(move || {
                (0..ROUNDS).for_each(|round| echo_all(streams, round, at_once / CLIENT_THREADS))
            });
        }
    });
    assert_eq!(resources(&server), held, "all are still there");

    let asked = now();
    server.program.signal(Signal::SIGTERM);
    let finished = server.program.finish();
    let took = now() - asked;
    assert!(
        took < Duration::from_secs(6),
        "no longer than workers may take, not {took:?}"
    );
    finished.assert_success();
    for stream in clients.iter_mut().flatten() {
        assert_eq!(receive(stream), None, "close_notify");
    }
    assert_eq!(finished.counter("handshakes_completed"), 1000);
    assert_eq!(finished.counter("strays_dropped"), 0);
    assert_eq!(finished.counter("datagrams_unsent"), 0);
    assert_eq!(finished.counter("hellos_refused"), 0);
    finished
}

/// One datagram to each and back, `at_once` under way, then the rest of the second.
fn echo_all(streams: &mut [DtlsStream], round: usize, at_once: usize) {
    let end = now() + ROUND;
    let text = |group, n| format!("{round} {group} {n}").into_bytes();
    for (group, streams) in streams.chunks_mut(at_once).enumerate() {
        for (n, stream) in streams.iter_mut().enumerate() {
            stream.send(&text(group, n)).unwrap();
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            assert_eq!(receive(stream), Some(text(group, n)));
        }
    }
    while let Some(left) = end.checked_duration_since(now()) {
        thread::park_timeout(left);
    }
}
