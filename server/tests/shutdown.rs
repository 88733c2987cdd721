//! The end of the server: every client hears of it, and it comes within a bound.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{PATIENCE, Pki, Server, assert_echo, now, receive, wait_until};
use dtls::{Counter, DtlsConnector, StreamHandle};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

#[test]
fn a_signal_closes_every_connection_in_order_and_the_process_exits_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let pki = Pki::new();
        let server = pki.serve(&["--drain-timeout", "0s"]);
        let mut streams: Vec<_> = (0..8).map(|_| server.connect(pki.client())).collect();
        for stream in &mut streams {
            assert_echo(stream, b"established");
        }
        server.program.signal(signal);
        let finished = server.program.finish();
        finished.assert_success();
        for stream in &mut streams {
            assert_eq!(receive(stream), None, "close_notify after {signal}");
        }
    }
}

#[test]
fn connections_go_on_during_the_drain_and_no_new_one_begins() {
    let pki = Pki::new();
    let mut server = pki.serve(&["-v", "--drain-timeout", "3s"]);
    let mut stream = server.connect(pki.client());
    let asked = now();
    server.program.signal(Signal::SIGTERM);
    server
        .program
        .wait_for("waiting up to 3s for 1 connections");
    let hopeful = pki.client().handshake_timeout(Duration::from_millis(500));
    let refused = DtlsConnector::new(hopeful.build().unwrap()).connect("localhost", server.address);
    assert!(refused.is_err());
    assert_echo(&mut stream, b"still served");
    assert!(now() - asked < Duration::from_secs(3), "too slow to tell");
    assert_eq!(receive(&mut stream), None, "close_notify");
    assert!(now() - asked >= Duration::from_secs(3));
    let finished = server.program.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert_eq!(finished.counter("handshakes_completed"), 1);
}

#[test]
fn the_drain_ends_with_the_last_connection() {
    let pki = Pki::new();
    let mut server = pki.serve(&["-v", "--drain-timeout", "1h"]);
    let streams: Vec<_> = (0..3).map(|_| server.connect(pki.client())).collect();
    server.program.signal(Signal::SIGTERM);
    server
        .program
        .wait_for("waiting up to 1h for 3 connections");
    drop(streams);
    let finished = server.program.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert_eq!(finished.counter("closed_by_peer"), 3);
}

#[test]
fn without_connections_there_is_nothing_to_wait_for() {
    let pki = Pki::new();
    let server = pki.serve(&["--drain-timeout", "1h"]);
    server.finish().assert_success();
}

#[test]
fn a_handshake_that_hangs_does_not_delay_the_end() {
    let pki = Pki::new();
    let mut server = pki.serve(&["-vv", "--handshake-timeout", "1h"]);
    // A man in the middle passes both hellos on and keeps the server's flight to himself.
    let (front, back) = (udp(), udp());
    back.connect(server.address).unwrap();
    let connector = DtlsConnector::new(pki.client().build().unwrap());
    let outgoing = connector
        .prepare("localhost", front.local_addr().unwrap(), None)
        .unwrap();
    let handle = outgoing.handle();
    let client = thread::spawn(move || outgoing.connect());
    let mut buffer = [0; 2048];
    let (length, from) = front.recv_from(&mut buffer).unwrap();
    back.send(&buffer[..length]).unwrap();
    let length = back.recv(&mut buffer).unwrap();
    front.send_to(&buffer[..length], from).unwrap();
    let length = front.recv(&mut buffer).unwrap();
    back.send(&buffer[..length]).unwrap();
    let flight = back.recv(&mut buffer).unwrap();
    assert!(flight > 500, "the server's certificate, not {flight} bytes");

    let asked = now();
    server.program.signal(Signal::SIGTERM);
    server.program.wait_for("stopped in its handshake");
    let finished = server.program.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert!(now() - asked < Duration::from_secs(5));
    handle.stop();
    assert!(client.join().unwrap().is_err());
}

#[test]
fn a_worker_that_cannot_end_is_cut_off() {
    let stuck = Stuck::new(&["--drain-timeout", "300ms"]);
    stuck.server.program.signal(Signal::SIGTERM);
    let finished = stuck.server.program.finish();
    stuck.client.stop();
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    assert!(finished.stderr.contains("cut off: 1;"), "{finished:#?}");
    assert_eq!(finished.counter("handshakes_completed"), 0);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut stuck = Stuck::new(&["-v", "--drain-timeout", "1h"]);
    stuck.server.program.signal(Signal::SIGTERM);
    stuck.server.program.wait_for("ended by a signal");
    stuck.server.program.signal(Signal::SIGTERM);
    let finished = stuck.server.program.finish();
    stuck.client.stop();
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    assert_eq!(finished.stdout, "", "no time for counters");
}

/// A server with a worker that hangs where nothing wakes it: in a write to a full pipe.
struct Stuck {
    server: Server,
    client: StuckClient,
    _pipe: File,
    _pki: Pki,
}

struct StuckClient {
    thread: JoinHandle<()>,
    handle: StreamHandle,
}

impl StuckClient {
    fn stop(self) {
        self.handle.stop();
        self.thread.join().unwrap();
    }
}

impl Stuck {
    fn new(arguments: &[&str]) -> Self {
        let pki = Pki::new();
        let path = pki.path("pipe");
        mkfifo(path.as_str(), Mode::S_IRWXU).unwrap();
        let mut pipe = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)
            .unwrap();
        while pipe.write(&[b'\n'; 4096]).is_ok() {}
        let server = pki.serve(&[&["--keylog", &path], arguments].concat());

        let derived = Arc::new(AtomicBool::new(false));
        let notice = Arc::clone(&derived);
        let config = pki
            .client()
            .key_log(Arc::new(move |_| notice.store(true, Ordering::SeqCst)));
        let connector = DtlsConnector::new(config.build().unwrap());
        let outgoing = connector
            .prepare("localhost", server.address, None)
            .unwrap();
        let handle = outgoing.handle();
        let thread = thread::spawn(move || assert!(outgoing.connect().is_err()));
        // Once the client has derived its keys it sends its last flight; if it must repeat that, a
        // second later, the worker hangs.
        wait_until(
            "keys",
            || derived.load(Ordering::SeqCst),
            |&derived| derived,
        );
        let stats = connector.stats();
        let before = stats.get(Counter::Retransmissions);
        wait_until(
            "retransmissions",
            || stats.get(Counter::Retransmissions),
            |&now| now > before,
        );
        Self {
            server,
            client: StuckClient { thread, handle },
            _pipe: pipe,
            _pki: pki,
        }
    }
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
