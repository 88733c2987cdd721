//! Probes over real loopback sockets: between our own ends, and of GnuTLS's server.

#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

#[macro_use]
mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{EchoServer, PKI, anchors, assert_echo, server_config};
use dtls::{
    ClientConfig, ClientConfigBuilder, Counter, DtlsConnector, DtlsListener, Liveness, Recv,
    ServerTrust, Stats, Transport,
};
use dtls_certs::Profile;

/// Longer than any machine needs; a wait that ends in good order never takes it.
const PATIENCE: Duration = Duration::from_secs(10);

fn client_config() -> ClientConfigBuilder {
    ClientConfig::builder(ServerTrust::Anchors(anchors()))
        .handshake_timeout(PATIENCE)
        .heartbeat(true)
}

fn connector() -> DtlsConnector {
    DtlsConnector::new(client_config().build().unwrap())
}

fn server(transport: Transport) -> EchoServer {
    let config = server_config().transport(transport).heartbeat(true);
    let config = config.build().unwrap();
    EchoServer::start("127.0.0.1:0", config)
}

#[track_caller]
fn assert_alive(found: Liveness) {
    match found {
        Liveness::Alive { rtt } => assert!(rtt < PATIENCE, "{rtt:?}"),
        other => panic!("{other:?}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test that waits needs the clock"
)]
#[track_caller]
fn wait_for(stats: &Stats, counter: Counter, n: u64) {
    let deadline = Instant::now() + PATIENCE;
    while stats.get(counter) < n {
        assert!(Instant::now() < deadline, "{} < {n}", counter.name());
        thread::park_timeout(Duration::from_millis(1));
    }
}

fn a_peer_that_receives_is_alive_before_and_after_data(transport: Transport) {
    let server = server(transport);
    let mut stream = connector().connect("localhost", server.address).unwrap();
    for _ in 0..3 {
        assert_alive(stream.probe(PATIENCE).unwrap());
        assert_echo(&mut stream, b"data");
    }
    assert_eq!(server.stats.get(Counter::HeartbeatResponsesSent), 3);
}

fn a_resumed_session_agrees_on_heartbeats_anew(transport: Transport) {
    let server = server(transport);
    let connector = connector();
    let mut first = connector.connect("localhost", server.address).unwrap();
    assert_echo(&mut first, b"first");
    let session = first.session().unwrap();
    drop(first);
    let mut second = connector
        .resume("localhost", server.address, &session)
        .unwrap();
    assert!(second.info().resumed);
    assert_alive(second.probe(PATIENCE).unwrap());
    assert_echo(&mut second, b"second");
}

fn a_peer_without_heartbeats_cannot_be_asked(transport: Transport) {
    let server = EchoServer::start(
        "127.0.0.1:0",
        server_config().transport(transport).build().unwrap(),
    );
    let mut stream = connector().connect("localhost", server.address).unwrap();
    let found = stream.probe(PATIENCE).unwrap();
    assert_eq!(found, Liveness::NotNegotiated);
    assert_echo(&mut stream, b"data");
}

fn data_that_arrives_during_a_probe_is_received_afterwards_in_order(transport: Transport) {
    let server = server(transport);
    let mut stream = connector().connect("localhost", server.address).unwrap();
    stream.set_recv_timeout(Some(PATIENCE));
    for n in 0..20_u8 {
        stream.send(&[n; 100]).unwrap();
    }
    // The server answers in order, so all echoes come before the sign of life.
    assert_alive(stream.probe(PATIENCE).unwrap());
    let mut buffer = [0; 200];
    for n in 0..20_u8 {
        // Half a record at a time.
        assert_eq!(stream.recv(&mut buffer[..60]).unwrap(), Recv::Data(60));
        assert_eq!(stream.recv(&mut buffer[..60]).unwrap(), Recv::Data(40));
        assert_eq!(buffer[..40], [n; 40]);
    }
    assert_echo(&mut stream, b"and on");
}

fn the_rest_of_a_record_outlives_a_probe(transport: Transport) {
    let server = server(transport);
    let mut stream = connector().connect("localhost", server.address).unwrap();
    stream.set_recv_timeout(Some(PATIENCE));
    stream.send(b"first and second").unwrap();
    let mut buffer = [0; 9];
    assert_eq!(stream.recv(&mut buffer[..5]).unwrap(), Recv::Data(5));
    assert_alive(stream.probe(PATIENCE).unwrap());
    assert_eq!(stream.recv(&mut buffer[..5]).unwrap(), Recv::Data(5));
    assert_alive(stream.probe(PATIENCE).unwrap());
    assert_eq!(stream.recv(&mut buffer).unwrap(), Recv::Data(6));
    assert_eq!(&buffer[..6], b"second");
}

fn a_peer_that_does_not_receive_is_silent_until_it_does(transport: Transport) {
    let config = server_config()
        .transport(transport)
        .heartbeat(true)
        .build()
        .unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let address = listener.local_addr();
    let client = thread::spawn(move || connector().connect("localhost", address).unwrap());
    let mut server = listener.accept().unwrap().accept().unwrap();
    let mut stream = client.join().unwrap();
    let found = stream.probe(Duration::from_millis(50)).unwrap();
    assert_eq!(found, Liveness::Silent);
    let answering = thread::spawn(move || server.recv(&mut [0; 100]).unwrap());
    // It has two requests to answer now, and the answer to the first settles nothing.
    assert_alive(stream.probe(PATIENCE).unwrap());
    drop(stream);
    assert_eq!(answering.join().unwrap(), Recv::Closed);
}

#[test]
fn datagrams_that_keep_coming_do_not_stop_the_clock_of_a_probe() {
    let config = server_config().heartbeat(true).build().unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let address = listener.local_addr();
    let connector = connector();
    let stats = connector.stats();
    let client = thread::spawn(move || connector.connect("localhost", address).unwrap());
    let mut server = listener.accept().unwrap().accept().unwrap();
    let mut stream = client.join().unwrap();
    // On the loopback they lie in the client's socket once they are sent.
    for _ in 0..50 {
        server.send(b"data").unwrap();
    }
    let before = stats.get(Counter::DatagramsReceived);
    assert_eq!(stream.probe(Duration::ZERO).unwrap(), Liveness::Silent);
    let taken = stats.get(Counter::DatagramsReceived) - before;
    assert!(taken <= 1, "{taken} datagrams after the time was over");
    for _ in 0..50 {
        assert_eq!(stream.recv(&mut [0; 100]).unwrap(), Recv::Data(4));
    }
}

fn a_closed_or_stopped_connection_ends_a_probe_and_the_next_receive_says_why(transport: Transport) {
    let config = server_config()
        .transport(transport)
        .heartbeat(true)
        .build()
        .unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let address = listener.local_addr();
    let client = thread::spawn(move || connector().connect("localhost", address).unwrap());
    drop(listener.accept().unwrap().accept().unwrap());
    let mut stream = client.join().unwrap();
    assert_eq!(stream.probe(PATIENCE).unwrap(), Liveness::Silent);
    assert_eq!(stream.recv(&mut [0; 100]).unwrap(), Recv::Closed);

    let server = server(transport);
    let mut stream = connector().connect("localhost", server.address).unwrap();
    stream.handle().stop();
    assert_eq!(stream.probe(PATIENCE).unwrap(), Liveness::Silent);
    assert_eq!(stream.recv(&mut [0; 100]).unwrap(), Recv::Stopped);
}

fn an_idle_server_asks_and_gives_up_only_a_client_that_does_not_answer(transport: Transport) {
    let config = server_config()
        .transport(transport)
        .idle_timeout(Some(Duration::from_millis(50)))
        .probe_when_idle(Some(Duration::from_millis(500)))
        .build()
        .unwrap();
    let server = EchoServer::start("127.0.0.1:0", config);
    let mut stream = connector().connect("localhost", server.address).unwrap();
    let handle = stream.handle();
    let idle = thread::spawn(move || {
        // Answers, and returns when stopped.
        let outcome = stream.recv(&mut [0; 100]).unwrap();
        (outcome, stream)
    });
    wait_for(&server.stats, Counter::HeartbeatResponsesReceived, 3);
    assert_eq!(server.stats.get(Counter::IdleTimeouts), 0);
    handle.stop();
    let (outcome, _stream) = idle.join().unwrap();
    assert_eq!(outcome, Recv::Stopped);
    wait_for(&server.stats, Counter::IdleTimeouts, 1);
    assert_eq!(server.stats.get(Counter::ProbesUnanswered), 1);
}

/// Passes datagrams between one client and a server until dropped; then the port is unreachable.
struct Relay {
    address: SocketAddr,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").unwrap();
        back.connect(server).unwrap();
        for socket in [&front, &back] {
            socket
                .set_read_timeout(Some(Duration::from_millis(2)))
                .unwrap();
        }
        let address = front.local_addr().unwrap();
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut client = None;
            let mut buffer = [0; 2000];
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                if let Ok((length, from)) = front.recv_from(&mut buffer) {
                    client = Some(from);
                    back.send(&buffer[..length]).unwrap();
                }
                if let (Ok(length), Some(client)) = (back.recv(&mut buffer), client) {
                    front.send_to(&buffer[..length], client).unwrap();
                }
            }
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn an_unreachable_port_makes_the_client_ask_and_silence_is_reported_as_idle() {
    let server = server(Transport::default());
    let relay = Relay::to(server.address);
    let config = client_config().probe_when_idle(Some(Duration::from_millis(200)));
    let connector = DtlsConnector::new(config.build().unwrap());
    let mut stream = connector.connect("localhost", relay.address).unwrap();
    assert_echo(&mut stream, b"through the relay");
    drop(relay);
    // The port answers with ICMP now. Without an idle timeout nothing else would end the wait.
    stream.send(b"anyone?").unwrap();
    stream.set_recv_timeout(Some(PATIENCE));
    assert_eq!(stream.recv(&mut [0; 100]).unwrap(), Recv::Idle);
    let stats = connector.stats();
    assert!(stats.get(Counter::IcmpOnReceive) > 0);
    assert_eq!(stats.get(Counter::ProbesUnanswered), 1);
}

/// GnuTLS's echo server with heartbeats; killed when dropped.
struct GnutlsServ {
    child: Child,
    port: u16,
    _files: Arc<tempfile::TempDir>,
}

impl GnutlsServ {
    fn start(priority: &str) -> Self {
        let files = Arc::new(tempfile::tempdir().unwrap());
        let leaf = PKI.issue(Profile::SERVER).unwrap();
        let (chain, key) = (files.path().join("chain.pem"), files.path().join("key.pem"));
        std::fs::write(&chain, &leaf.chain_pem).unwrap();
        std::fs::write(&key, &leaf.key_pem).unwrap();
        // Another program may take the port between the choice and the start.
        for _ in 0..5 {
            // Free on every address, as the server binds them all.
            let free = UdpSocket::bind("[::]:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut child = Command::new("gnutls-serv")
                .args(["--udp", "--heartbeat", "--echo", "--crlf"])
                .args(["--port", &port.to_string(), "--priority", priority])
                .arg("--x509certfile")
                .arg(&chain)
                .arg("--x509keyfile")
                .arg(&key)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| {
                    panic!(
                        "cannot start gnutls-serv ({error}): apt-get install gnutls-bin, \
                         or run make deps"
                    )
                });
            let lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let (ready, readiness) = mpsc::channel();
            // Reads to the end, so that the pipe never fills.
            thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    if line.contains("listening on IPv4") && line.ends_with("done") {
                        drop(ready.send(line));
                    }
                }
            });
            let server = Self {
                child,
                port,
                _files: files.clone(),
            };
            if readiness.recv_timeout(PATIENCE).is_ok() {
                return server;
            }
        }
        panic!("gnutls-serv never said that it listens");
    }
}

impl Drop for GnutlsServ {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn gnutls_serv_answers_probes_between_data_with_every_suite_it_has() {
    for (suite, priority) in [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "+AES-128-GCM"),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "+AES-256-GCM"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "+CHACHA20-POLY1305"),
    ] {
        let server = GnutlsServ::start(&format!("NORMAL:-CIPHER-ALL:{priority}"));
        let address = SocketAddr::from(([127, 0, 0, 1], server.port));
        let connector = connector();
        let mut stream = connector.connect("localhost", address).unwrap();
        assert_eq!(stream.info().cipher, suite);
        for text in ["first", "second", "third"] {
            assert_echo(&mut stream, text.as_bytes());
            assert_alive(stream.probe(PATIENCE).unwrap());
        }
        assert_echo(&mut stream, b"last");
        let stats = connector.stats();
        assert_eq!(stats.get(Counter::HeartbeatResponsesReceived), 3, "{suite}");
        let dropped = stats
            .iter()
            .filter(|(counter, n)| *n > 0 && counter.name().starts_with("dropped"));
        assert_eq!(dropped.count(), 0, "{suite}");
    }
}

fn gnutls_cli_answers_the_probes_of_our_server(transport: Transport) {
    let config = server_config()
        .transport(transport)
        .heartbeat(true)
        .build()
        .unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let stats = listener.stats();
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, PKI.ca_pem()).unwrap();
    let mut client = Command::new("gnutls-cli")
        .args(["--udp", "--heartbeat", "--port"])
        .arg(listener.local_addr().port().to_string())
        .arg("--x509cafile")
        .arg(&ca)
        .arg("127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot start gnutls-cli ({error}): apt-get install gnutls-bin, or run make deps"
            )
        });
    let mut stream = listener.accept().unwrap().accept().unwrap();
    for _ in 0..3 {
        assert_alive(stream.probe(PATIENCE).unwrap());
        // Having answered, gnutls-cli looks at its standard input only after data has arrived.
        stream.send(b"data\n").unwrap();
    }
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"from them\n").unwrap();
    stream.set_recv_timeout(Some(PATIENCE));
    assert_eq!(stream.recv(&mut [0; 100]).unwrap(), Recv::Data(10));
    assert_eq!(stats.get(Counter::HeartbeatResponsesReceived), 3);
    client.kill().unwrap();
    client.wait().unwrap();
}

on_each_transport! {
    a_peer_that_receives_is_alive_before_and_after_data,
    a_resumed_session_agrees_on_heartbeats_anew,
    a_peer_without_heartbeats_cannot_be_asked,
    data_that_arrives_during_a_probe_is_received_afterwards_in_order,
    the_rest_of_a_record_outlives_a_probe,
    a_peer_that_does_not_receive_is_silent_until_it_does,
    a_closed_or_stopped_connection_ends_a_probe_and_the_next_receive_says_why,
    an_idle_server_asks_and_gives_up_only_a_client_that_does_not_answer,
    gnutls_cli_answers_the_probes_of_our_server,
}
