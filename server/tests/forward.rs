//! The forward service over real loopback sockets: a DTLS client, the server, a plain UDP backend.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::backend::Backend;
use common::{PATIENCE, Pki, Server, assert_echo, command, now, receive, wait_until};
use dtls::{ClientConfig, ClientConfigBuilder, DtlsConnector, DtlsStream, PskKey, Recv};
use dtls_certs::Profile;
use nix::sys::signal::Signal;
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader};

/// How connections receive and send; a forward waits for a descriptor of either.
const TRANSPORTS: [&str; 2] = ["connected", "shared"];

fn forward(pki: &Pki, backend: SocketAddr, arguments: &[&str]) -> Server {
    let backend = backend.to_string();
    let mut all = vec!["--service", "forward", "--backend", &backend];
    all.extend(arguments);
    pki.serve(&all)
}

/// A client whose datagrams may be large.
fn wide(pki: &Pki) -> ClientConfigBuilder {
    pki.client().link_mtu(16_384)
}

#[test]
fn datagrams_keep_their_boundaries_both_ways() {
    TRANSPORTS.into_iter().for_each(keep_boundaries);
}

fn keep_boundaries(transport: &str) {
    let (pki, backend) = (Pki::new(), Backend::new());
    let arguments = ["--link-mtu", "16384", "--transport", transport];
    let server = forward(&pki, backend.address, &arguments);
    let mut stream = server.connect(wide(&pki));
    let limit = stream.max_payload();
    assert!(limit > 16_000, "{limit}");
    let mut bytes = 0;
    let lengths = [
        1,
        2,
        100,
        548,
        1200,
        1400,
        1472,
        1500,
        4096,
        9000,
        limit - 1,
        limit,
    ];
    for (n, length) in lengths.into_iter().enumerate() {
        let question = vec![u8::try_from(n).unwrap(); length];
        stream.send(&question).unwrap();
        let (got, from) = backend.receive();
        assert_eq!(got, question);
        let answer = vec![!u8::try_from(n).unwrap(); length];
        backend.send(&answer, from);
        assert_eq!(receive(&mut stream), Some(answer));
        bytes += u64::try_from(length).unwrap();
    }
    let finished = server.finish();
    finished.assert_success();
    let count = u64::try_from(lengths.len()).unwrap();
    for counter in ["datagrams_to_backend", "datagrams_from_backend"] {
        assert_eq!(finished.counter(counter), count, "{counter}");
    }
    for counter in ["bytes_to_backend", "bytes_from_backend"] {
        assert_eq!(finished.counter(counter), bytes, "{counter}");
    }
    assert_eq!(receive(&mut stream), None, "close_notify");
}

#[test]
fn the_name_a_client_asks_for_chooses_the_backend_and_not_who_may() {
    TRANSPORTS.into_iter().for_each(choose_by_name);
}

fn choose_by_name(transport: &str) {
    const KEY: &str = "6f1ed002ab5595859014ebf0951522d9";
    let pki = Pki::new();
    let [named, starred, others] = [(); 3].map(|()| Backend::new());
    let (cert, key) = pki.files(Profile::SERVER_WRONG_NAME);
    let keys = pki.private("keys", &format!("a:{KEY}\nb:{KEY}\n"));
    let ca = pki.path("ca.pem");
    let server = forward(
        &pki,
        others.address,
        &[
            &[
                "--transport",
                transport,
                "--psk-file",
                &keys,
                "--client-ca",
                &ca,
            ][..],
            &["--allow", "psk:a", "--allow", "san:client.lab"],
            &["--sni", &format!("wrong-name.invalid={cert},{key}")],
            &[
                "--sni-backend",
                &format!("Wrong-Name.invalid={}", named.address),
            ],
            &["--sni-backend", &format!("*.lab={}", starred.address)],
        ]
        .concat(),
    );
    let by_certificate = pki.client().identity(pki.identity(Profile::CLIENT));
    let by_certificate = DtlsConnector::new(by_certificate.build().unwrap());
    let by_key = |identity| {
        let config = ClientConfig::psk_builder(identity, PskKey::from_hex(KEY).unwrap());
        let config = config.handshake_timeout(Duration::from_secs(2));
        DtlsConnector::new(config.build().unwrap())
    };
    let reaches = |stream: &mut DtlsStream, backend: &Backend, name: &str| {
        stream.send(name.as_bytes()).unwrap();
        assert_eq!(backend.receive().0, name.as_bytes(), "{transport}");
    };
    for (connector, name, backend) in [
        (&by_certificate, "wrong-name.invalid", &named),
        (&by_certificate, "server.lab", &starred),
        (&by_certificate, "localhost", &others),
        (&by_key("a"), "sensors.lab", &starred),
        (&by_key("a"), "elsewhere", &others),
    ] {
        let mut stream = connector.connect(name, server.address).unwrap();
        reaches(&mut stream, backend, name);
        let session = stream.session().unwrap();
        let mut resumed = connector.resume(name, server.address, &session).unwrap();
        assert!(resumed.info().resumed, "{name}");
        reaches(&mut resumed, backend, name);
    }
    for name in ["wrong-name.invalid", "sensors.lab", "elsewhere"] {
        assert!(by_key("b").connect(name, server.address).is_err(), "{name}");
    }
}

#[test]
fn many_datagrams_cross_in_both_directions_at_once_in_order() {
    TRANSPORTS.into_iter().for_each(cross_in_both_directions);
}

fn cross_in_both_directions(transport: &str) {
    const COUNT: u32 = 2000;
    // Less than a receive queue holds, so that nothing is lost on the loopback.
    const WINDOW: u32 = 32;
    let (pki, backend) = (Pki::new(), Backend::new());
    let server = forward(&pki, backend.address, &["--transport", transport]);
    let mut stream = server.connect(pki.client());
    stream.send(b"who").unwrap();
    let (_, client) = backend.receive();
    let socket = Arc::clone(&backend.socket);
    // Every datagram of the backend carries how many of the client's it has seen, and the reverse.
    let other = thread::spawn(move || {
        let mut buffer = [0; 64];
        for n in 0..COUNT {
            socket.send_to(&n.to_be_bytes(), client).unwrap();
            if n >= WINDOW {
                let (length, _) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..length], (n - WINDOW).to_be_bytes());
            }
        }
    });
    for n in 0..COUNT {
        stream.send(&n.to_be_bytes()).unwrap();
        if n >= WINDOW {
            let expected = (n - WINDOW).to_be_bytes().to_vec();
            assert_eq!(receive(&mut stream), Some(expected));
        }
    }
    other.join().unwrap();
}

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
fn a_backend_that_comes_later_is_reached_by_the_same_connection() {
    let (pki, backend) = (Pki::new(), Backend::new());
    let address = backend.address;
    drop(backend);
    let server = forward(&pki, address, &[]);
    let mut stream = server.connect(pki.client());
    for _ in 0..5 {
        stream.send(b"anybody there?").unwrap();
        assert_nothing(&mut stream);
    }
    let backend = Backend::at(address).echo();
    assert_echo_soon(&mut stream);
    drop(backend);
    let finished = server.finish();
    finished.assert_success();
    assert!(finished.counter("backend_refused") >= 5, "{finished:#?}");
    assert_eq!(finished.counter("handshakes_completed"), 1);
}

#[test]
fn a_backend_may_restart_on_its_port_any_number_of_times() {
    let (pki, backend) = (Pki::new(), Backend::new());
    let address = backend.address;
    let server = forward(&pki, address, &[]);
    let mut stream = server.connect(pki.client());
    let mut echo = backend.echo();
    for _ in 0..4 {
        assert_echo_soon(&mut stream);
        drop(echo);
        stream.send(b"lost").unwrap();
        assert_nothing(&mut stream);
        echo = Backend::at(address).echo();
    }
    let finished = server.finish();
    finished.assert_success();
    assert!(finished.counter("backend_refused") >= 4, "{finished:#?}");
}

#[test]
fn answers_that_do_not_fit_and_empty_ones_are_dropped_and_counted() {
    let (pki, backend) = (Pki::new(), Backend::new());
    let server = forward(&pki, backend.address, &[]);
    let mut stream = server.connect(pki.client());
    let limit = stream.max_payload();
    stream.send(b"go").unwrap();
    let (_, client) = backend.receive();
    for length in [limit + 1, 16_384, 16_385, 65_000, 0, limit] {
        backend.send(&vec![9; length], client);
    }
    assert_eq!(receive(&mut stream).unwrap().len(), limit);
    let finished = server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("dropped_backend_too_long"), 4);
    assert_eq!(finished.counter("dropped_backend_empty"), 1);
    assert_eq!(finished.counter("datagrams_from_backend"), 1);
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
fn the_proxy_header_names_the_client_on_the_first_or_on_every_datagram() {
    for (which, listen, headers) in [
        ("none", "127.0.0.1:0", [false, false, false]),
        ("first", "127.0.0.1:0", [true, false, false]),
        ("every", "127.0.0.1:0", [true, true, true]),
        ("every", "[::1]:0", [true, true, true]),
    ] {
        let (pki, backend) = (Pki::new(), Backend::new());
        let (certificate, key) = pki.files(Profile::SERVER);
        let to = backend.address.to_string();
        let server = Server::start(&[
            "--listen",
            listen,
            "--cert",
            &certificate,
            "--key",
            &key,
            "--format",
            "json",
            "--service",
            "forward",
            "--backend",
            &to,
            "--proxy-protocol",
            which,
            "--drain-timeout",
            "0s",
        ]);
        let mut stream = server.connect(pki.client());
        let addresses = ProxiedAddress::datagram(stream.local_addr(), server.address);
        let mut header_bytes = 0;
        for expected in headers {
            stream.send(b"payload").unwrap();
            let (got, from) = backend.receive();
            let payload = if expected {
                let (header, length) = ProxyHeader::parse(&got, ParseConfig::default()).unwrap();
                assert_eq!(header.proxied_address(), Some(&addresses), "{which}");
                header_bytes += u64::try_from(length).unwrap();
                &got[length..]
            } else {
                &got
            };
            assert_eq!(payload, b"payload", "{which}");
            // No header comes back.
            backend.send(b"answer", from);
            assert_eq!(receive(&mut stream).unwrap(), b"answer");
        }
        let finished = server.finish();
        let count = headers.into_iter().filter(|&sent| sent).count();
        assert_eq!(
            finished.counter("proxy_headers"),
            u64::try_from(count).unwrap()
        );
        assert_eq!(finished.counter("proxy_header_bytes"), header_bytes);
        assert_eq!(finished.counter("bytes_to_backend"), 21);
    }
}

#[test]
fn a_backend_that_restarted_is_told_the_client_again() {
    let (pki, backend) = (Pki::new(), Backend::new());
    let address = backend.address;
    let server = forward(&pki, address, &["--proxy-protocol", "first"]);
    let mut stream = server.connect(pki.client());
    stream.send(b"one").unwrap();
    assert!(backend.receive().0.len() > 3);
    stream.send(b"two").unwrap();
    assert_eq!(backend.receive().0, b"two");
    drop(backend);
    stream.send(b"lost").unwrap();
    assert_nothing(&mut stream);
    let backend = Backend::at(address);
    stream.send(b"three").unwrap();
    let (got, _) = backend.receive();
    let (header, length) = ProxyHeader::parse(&got, ParseConfig::default()).unwrap();
    assert_eq!(
        header.proxied_address().unwrap().source,
        stream.local_addr()
    );
    assert_eq!(got[length..], *b"three");
}

#[test]
fn frames_of_syslog_become_a_datagram_a_message_only_if_asked_for() {
    let record = b"5 <1>ab8 <2>cde\n0 <3>";
    let framed = &record[..17];
    let split = ["--syslog-frames", "split"];
    let proxied = ["--syslog-frames", "split", "--proxy-protocol", "every"];
    let kept: &[&[u8]] = &[framed, record, b"<4>no frame"];
    let apart: &[&[u8]] = &[b"<1>ab", b"<2>cde\n0", record, b"<4>no frame"];
    for (arguments, expected) in [(&[][..], kept), (&split, apart), (&proxied, apart)] {
        let (pki, backend) = (Pki::new(), Backend::new());
        let server = forward(&pki, backend.address, arguments);
        let mut stream = server.connect(pki.client());
        for data in [framed, record, b"<4>no frame"] {
            stream.send(data).unwrap();
        }
        for &message in expected {
            let (datagram, _) = backend.receive();
            let header = if arguments.len() == proxied.len() {
                let (header, length) =
                    ProxyHeader::parse(&datagram, ParseConfig::default()).unwrap();
                assert!(header.proxied_address().is_some());
                length
            } else {
                0
            };
            assert_eq!(datagram[header..], *message);
        }
        let finished = server.finish();
        finished.assert_success();
        let bytes: usize = expected.iter().map(|message| message.len()).sum();
        assert_eq!(
            finished.counter("datagrams_to_backend"),
            expected.len() as u64
        );
        assert_eq!(finished.counter("bytes_to_backend"), bytes as u64);
    }
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

#[test]
fn a_connection_without_a_local_port_towards_the_backend_is_closed_in_order_and_counted() {
    if !common::namespace::inside(
        "a_connection_without_a_local_port_towards_the_backend_is_closed_in_order_and_counted",
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
fn a_forward_without_a_usable_backend_does_not_start() {
    for (arguments, names) in [
        (&["--service", "forward"][..], "--backend HOST:PORT"),
        (
            &["--service", "echo", "--backend", "127.0.0.1:9"],
            "--backend: it has no effect",
        ),
        (
            &["--proxy-protocol", "every"],
            "--proxy-protocol: it has no effect",
        ),
        (
            &["--service", "forward", "--backend", "127.0.0.1"],
            "--backend: cannot look up 127.0.0.1:",
        ),
        (
            &[
                "--service",
                "forward",
                "--backend",
                "no-such-host.invalid:53",
            ],
            "no-such-host.invalid:53",
        ),
    ] {
        let all = [&["--listen", "127.0.0.1:0"], arguments].concat();
        let finished = common::Program::start(command(all)).unwrap().finish();
        assert_eq!(finished.status.code(), Some(2), "{finished:#?}");
        assert!(finished.stderr.contains(names), "{finished:#?}");
    }
}

/// Nothing comes for a moment, in which the connection stays open.
#[track_caller]
fn assert_nothing(stream: &mut DtlsStream) {
    stream.set_recv_timeout(Some(Duration::from_millis(50)));
    assert_eq!(stream.recv(&mut [0; 64]).unwrap(), Recv::TimedOut);
}

/// Datagrams may be lost while a backend starts; asks until it answers.
#[track_caller]
fn assert_echo_soon(stream: &mut DtlsStream) {
    let deadline = now() + PATIENCE;
    stream.set_recv_timeout(Some(Duration::from_millis(100)));
    loop {
        stream.send(b"hello again").unwrap();
        match stream.recv(&mut [0; 64]).unwrap() {
            Recv::Data(_) => return,
            Recv::TimedOut => assert!(now() < deadline, "no answer"),
            other => panic!("{other:?}"),
        }
    }
}
