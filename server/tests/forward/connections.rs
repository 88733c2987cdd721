//! One connection and its socket towards the backend, from beginning to end.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use dtls::{DtlsStream, Recv};
use dtls_certs::Profile;
use nix::sys::signal::Signal;

use crate::common::backend::Backend;
use crate::common::{PATIENCE, Pki, Server, assert_echo, namespace, now, receive, wait_until};
use crate::{TRANSPORTS, forward};

#[test]
fn each_connection_has_a_socket_of_its_own_and_answers_find_their_client() {
    let (pki, backend) = (Pki::new(), Backend::new());
    let server = forward(&pki, backend.address, &[]);
    let mut streams: Vec<_> = (0..16).map(|_| server.connect(pki.client())).collect();
    let mut seen = HashSet::new();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.send(format!("question {n}").as_bytes()).unwrap();
    }
    for _ in 0..16 {
        let (question, from) = backend.receive();
        assert!(seen.insert(from), "one socket for two connections");
        let question = String::from_utf8(question).unwrap();
        backend.send(question.replace("question", "answer").as_bytes(), from);
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        let answer = format!("answer {n}").into_bytes();
        assert_eq!(receive(stream), Some(answer));
    }
}

#[test]
fn the_sockets_towards_the_backend_go_with_their_connections() {
    let (pki, backend) = (Pki::new(), Backend::new().echo());
    let server = forward(&pki, backend.address, &[]);
    let quiet = server.descriptors();
    let mut streams: Vec<_> = (0..20).map(|_| server.connect(pki.client())).collect();
    for stream in &mut streams {
        assert_echo(stream, b"here");
    }
    // One towards the client and one towards the backend.
    assert_eq!(server.descriptors(), quiet + 40);
    drop(streams);
    wait_until("descriptors", || server.descriptors(), |&now| now == quiet);
}

#[test]
fn a_stranger_cannot_send_to_a_client_through_its_backend_socket() {
    let (pki, backend) = (Pki::new(), Backend::new());
    let server = forward(&pki, backend.address, &[]);
    let mut stream = server.connect(pki.client());
    stream.send(b"go").unwrap();
    let (_, client) = backend.receive();
    let stranger = Backend::new();
    stranger.send(b"from the stranger", client);
    backend.send(b"from the backend", client);
    let got = receive(&mut stream).unwrap();
    assert_eq!(got, b"from the backend");
}

#[test]
fn what_the_backend_sends_keeps_a_connection_from_being_idle_unless_told_otherwise() {
    for (whose, kept) in [("both", true), ("to-server", false)] {
        let (pki, backend) = (Pki::new(), Backend::new());
        let idle = ["--idle-timeout", "500ms", "--idle-counts", whose];
        let server = forward(&pki, backend.address, &idle);
        let mut stream = server.connect(pki.client());
        stream.send(b"subscribe").unwrap();
        let (_, client) = backend.receive();
        // A notification each 100 ms, for three times the idle timeout.
        let end = now() + Duration::from_millis(1500);
        let mut closed = false;
        stream.set_recv_timeout(Some(Duration::from_millis(100)));
        while now() < end && !closed {
            backend.send(b"notification", client);
            closed = loop {
                match stream.recv(&mut [0; 64]).unwrap() {
                    Recv::Data(_) => {}
                    Recv::TimedOut => break false,
                    Recv::Closed => break true,
                    other => panic!("{other:?}"),
                }
            };
        }
        assert_eq!(!closed, kept, "{whose}");
        let finished = server.finish();
        assert_eq!(finished.counter("idle_timeouts"), u64::from(!kept));
    }
}

#[test]
fn a_signal_closes_forwarding_connections_in_the_middle_of_traffic() {
    TRANSPORTS.into_iter().for_each(close_in_the_middle);
}

fn close_in_the_middle(transport: &str) {
    let (pki, backend) = (Pki::new(), Backend::new().echo());
    let server = forward(&pki, backend.address, &["--transport", transport]);
    let mut streams: Vec<_> = (0..8).map(|_| server.connect(pki.client())).collect();
    for stream in &mut streams {
        assert_echo(stream, b"before");
    }
    let closed = thread::scope(|scope| {
        let busy: Vec<_> = streams
            .iter_mut()
            .map(|stream| scope.spawn(|| talk_until_closed(stream)))
            .collect();
        server.program.signal(Signal::SIGTERM);
        busy.into_iter()
            .map(|client| client.join().unwrap())
            .filter(|&closed| closed)
            .count()
    });
    assert_eq!(closed, 8);
    server.program.finish().assert_success();
}

/// Sends and receives without end; says whether a close_notify ended it in time.
fn talk_until_closed(stream: &mut DtlsStream) -> bool {
    let end = now() + PATIENCE;
    stream.set_recv_timeout(Some(Duration::from_millis(5)));
    while now() < end {
        stream.send(b"in the middle").unwrap();
        if stream.recv(&mut [0; 64]).unwrap() == Recv::Closed {
            return true;
        }
    }
    false
}

#[test]
fn a_connection_without_a_local_port_towards_the_backend_is_closed_in_order_and_counted() {
    if !namespace::inside(
        "connections::a_connection_without_a_local_port_towards_the_backend_is_closed_in_order_and_counted",
        &["--user", "--map-root-user"],
        "echo 40001 40003 >/proc/sys/net/ipv4/ip_local_port_range",
    ) {
        return;
    }
    let (pki, backend) = (
        Pki::new(),
        Backend::at("127.0.0.1:5000".parse().unwrap()).echo(),
    );
    let (certificate, key) = pki.files(Profile::SERVER);
    let mut server = Server::start(&[
        "--listen",
        "127.0.0.1:5001",
        "--cert",
        &certificate,
        "--key",
        &key,
        "--format",
        "json",
        "--service",
        "forward",
        "--backend",
        &backend.address.to_string(),
    ]);
    // Two of the three ports are this client's and its backend socket's, the third the next one's.
    let mut first = server.connect(pki.client());
    assert_echo(&mut first, b"here");
    let mut second = server.connect(pki.client());
    assert_eq!(receive(&mut second), None, "close_notify");
    server.program.wait_for("no local port is left");
    drop(second);
    assert_echo(&mut first, b"still here");
    drop(first);
    // The ports come back.
    wait_until(
        "a third connection",
        || {
            let mut third = server.connect(pki.client());
            third.send(b"now").unwrap();
            receive(&mut third).is_some()
        },
        |&served| served,
    );
    let finished = server.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert!(finished.counter("backend_ports_exhausted") >= 1);
}
