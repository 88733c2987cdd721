//! Listener, stream and connector over real loopback sockets.

#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

#[macro_use]
mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{EchoServer, anchors, assert_echo, connector, identity, server_config};
use dtls::core::{Connection, Progress, Read};
use dtls::{
    BindError, ClientConfig, ConnectError, Counter, DtlsConnector, DtlsListener, HandshakeError,
    PortSharing, Recv, ServerTrust, Stats, Transport,
};
use dtls_certs::Profile;

const ADDRESSES: [&str; 4] = ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"];
const SHARINGS: [PortSharing; 2] = [PortSharing::ReusePort, PortSharing::ReuseAddr];

fn data_flows_both_ways_on_every_kind_of_address_and_port_sharing(transport: Transport) {
    for sharing in SHARINGS {
        for address in ADDRESSES {
            let config = server_config()
                .transport(transport)
                .port_sharing(sharing)
                .build()
                .unwrap();
            let server = EchoServer::start(address, config);
            let mut to = server.address;
            if to.ip().is_unspecified() {
                to.set_ip(if to.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    "::1".parse().unwrap()
                });
            }
            let mut streams: Vec<_> = (0..4)
                .map(|_| connector().connect("localhost", to).unwrap())
                .collect();
            for stream in &mut streams {
                assert_echo(stream, b"hello");
                assert_echo(stream, b"again");
            }
            let info = streams[0].info();
            assert!(info.verified, "{address}: {}", info.verification);
            assert_eq!((info.version, info.group), ("DTLSv1.2", Some("X25519")));
            assert_eq!(info.retransmissions, 0);
            drop(streams);
            let stats = server.stats.clone();
            assert!(server.finish().iter().all(Result::is_ok));
            assert_eq!(
                stats.get(Counter::HandshakesCompleted),
                4,
                "{address} {sharing:?}"
            );
            assert_eq!(stats.get(Counter::ClosedByPeer), 4, "{address} {sharing:?}");
        }
    }
}

fn a_wildcard_listener_answers_from_the_address_it_was_asked_at(transport: Transport) {
    let server = EchoServer::start(
        "0.0.0.0:0",
        server_config().transport(transport).build().unwrap(),
    );
    for ip in ["127.0.0.1", "127.0.0.2", "127.3.2.1"] {
        let to = format!("{ip}:{}", server.address.port()).parse().unwrap();
        let config = ClientConfig::builder(ServerTrust::Anyone).build().unwrap();
        let mut stream = DtlsConnector::new(config).connect("localhost", to).unwrap();
        assert_eq!(stream.peer_addr(), to);
        assert_echo(&mut stream, ip.as_bytes());
    }
}

fn many_clients_at_once_need_no_retransmission_under_either_port_sharing(transport: Transport) {
    for sharing in SHARINGS {
        let config = server_config()
            .transport(transport)
            .port_sharing(sharing)
            .build()
            .unwrap();
        let server = EchoServer::start("127.0.0.1:0", config);
        let connector = connector();
        std::thread::scope(|scope| {
            for n in 0..64_u8 {
                let (connector, address) = (&connector, server.address);
                scope.spawn(move || {
                    let mut stream = connector.connect("localhost", address).unwrap();
                    assert_echo(&mut stream, &[n; 100]);
                });
            }
        });
        let stats = server.stats.clone();
        server.finish();
        assert_eq!(stats.get(Counter::HandshakesCompleted), 64);
        assert_eq!(stats.get(Counter::StraysDropped), 0, "{sharing:?}");
        assert_eq!(stats.get(Counter::Retransmissions), 0, "{sharing:?}");
        assert_eq!(
            connector.stats().get(Counter::Retransmissions),
            0,
            "{sharing:?}"
        );
        if sharing == PortSharing::ReusePort {
            assert_eq!(stats.get(Counter::StraysToListener), 0);
        }
    }
}

fn a_second_server_on_the_port_is_refused_even_though_ports_are_shared(transport: Transport) {
    for sharing in SHARINGS {
        let config = server_config()
            .transport(transport)
            .port_sharing(sharing)
            .build()
            .unwrap();
        let first = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config.clone()).unwrap();
        let second = DtlsListener::bind(first.local_addr(), config);
        assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
    }
}

fn a_certificate_for_another_name_or_authority_is_refused_by_the_client(transport: Transport) {
    for (profile, reason) in [
        (Profile::SERVER_WRONG_NAME, "hostname mismatch"),
        (
            Profile::SERVER_OTHER_CA,
            "unable to get local issuer certificate",
        ),
    ] {
        let config = dtls::ServerConfig::builder(identity(profile))
            .transport(transport)
            .handshake_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let server = EchoServer::start("127.0.0.1:0", config);
        match connector().connect("localhost", server.address) {
            Err(ConnectError::Handshake(HandshakeError::Verification { reason: found })) => {
                assert_eq!(found, reason);
            }
            other => panic!("{other:?}"),
        }
        // The alert travels in the clear, so the server waits in case it is forged.
        let outcome = server.finish().pop().unwrap();
        assert!(
            matches!(outcome, Err(HandshakeError::Alert { .. })),
            "{outcome:?}"
        );
    }
}

fn a_client_without_a_certificate_is_refused_where_one_is_required(transport: Transport) {
    let config = server_config()
        .transport(transport)
        .client_ca(anchors())
        .build()
        .unwrap();
    let server = EchoServer::start("127.0.0.1:0", config);
    let refused = connector().connect("localhost", server.address);
    assert!(
        matches!(
            refused,
            Err(ConnectError::Handshake(HandshakeError::Alert { .. }))
        ),
        "{refused:?}"
    );
    let config = ClientConfig::builder(ServerTrust::Anchors(anchors()))
        .identity(identity(Profile::CLIENT))
        .build()
        .unwrap();
    let mut stream = DtlsConnector::new(config)
        .connect("localhost", server.address)
        .unwrap();
    assert_echo(&mut stream, b"with a certificate");
}

fn a_session_is_resumed_without_certificates(transport: Transport) {
    let server = EchoServer::start(
        "[::1]:0",
        server_config().transport(transport).build().unwrap(),
    );
    let connector = connector();
    let mut first = connector.connect("localhost", server.address).unwrap();
    assert_echo(&mut first, b"first");
    let session = first.session().unwrap();
    drop(first);
    let mut second = connector
        .resume("localhost", server.address, &session)
        .unwrap();
    assert!(second.info().resumed);
    assert_echo(&mut second, b"second");
}

fn a_stopped_stream_wakes_up_and_can_still_close_in_order(transport: Transport) {
    let config = server_config().transport(transport).build().unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let address = listener.local_addr();
    let client = std::thread::spawn(move || connector().connect("localhost", address).unwrap());
    let mut server = listener.accept().unwrap().accept().unwrap();
    let mut client = client.join().unwrap();
    let handle = server.handle();
    let blocked = std::thread::spawn(move || {
        let outcome = server.recv(&mut [0; 100]).unwrap();
        server.send(b"bye").unwrap();
        (outcome, server)
    });
    handle.stop();
    let (outcome, server) = blocked.join().unwrap();
    assert_eq!(outcome, Recv::Stopped);
    drop(server);
    let mut buffer = [0; 100];
    assert_eq!(client.recv(&mut buffer).unwrap(), Recv::Data(3));
    assert_eq!(client.recv(&mut buffer).unwrap(), Recv::Closed);
}

/// Handshakes on `socket` and echoes once; the connection is not closed.
fn visit(socket: &UdpSocket) -> Connection {
    let config = ClientConfig::builder(ServerTrust::Anyone).build().unwrap();
    let (stats, server) = (Arc::<Stats>::default(), socket.peer_addr().unwrap());
    let mut client =
        Connection::connect(&config, "localhost", server, None, &stats, now()).unwrap();
    let mut buffer = [0; 4096];
    let mut pump = |client: &mut Connection| {
        while let Some(datagram) = client.transmit() {
            socket.send(&datagram).unwrap();
        }
        let length = socket
            .recv(&mut buffer)
            .expect("an answer, without any retransmission");
        client.receive(&buffer[..length], now());
    };
    while client.handshake(now()).unwrap() == Progress::Waiting {
        pump(&mut client);
    }
    client.write(b"ping").unwrap();
    let mut read = Read::Empty;
    while read == Read::Empty {
        pump(&mut client);
        read = client.read(&mut [0; 100]).unwrap();
    }
    assert_eq!(read, Read::Data(4));
    client
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// A client's socket whose wait is shorter than the first retransmission.
fn one_port(server: &EchoServer) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(900)))
        .unwrap();
    socket
}

fn a_client_that_closes_and_returns_from_the_same_port_loses_no_hello(transport: Transport) {
    for sharing in SHARINGS {
        let config = server_config()
            .transport(transport)
            .port_sharing(sharing)
            .build()
            .unwrap();
        let server = EchoServer::start("127.0.0.1:0", config);
        let socket = one_port(&server);
        for _ in 0..50 {
            let mut client = visit(&socket);
            client.close();
            while let Some(datagram) = client.transmit() {
                socket.send(&datagram).unwrap();
            }
        }
        assert_eq!(server.stats.get(Counter::HandshakesCompleted), 50);
    }
}

fn a_client_that_starts_over_from_the_same_port_is_served_at_once(transport: Transport) {
    let server = EchoServer::start(
        "127.0.0.1:0",
        server_config().transport(transport).build().unwrap(),
    );
    let socket = one_port(&server);
    for _ in 0..8 {
        visit(&socket);
    }
    assert_eq!(server.stats.get(Counter::Reconnects), 7);
    assert_eq!(server.stats.get(Counter::ConnectionsAccepted), 1);
}

fn a_replaced_configuration_is_for_new_connections_and_those_that_start_over(transport: Transport) {
    let old = server_config().transport(transport).build().unwrap();
    let server = EchoServer::start("127.0.0.1:0", old.clone());
    let seen = |connection: &Connection| connection.info().peer_chain[0].fingerprint.clone();
    let connector = connector();
    let mut stream = connector.connect("localhost", server.address).unwrap();
    let before = stream.info().peer_chain[0].fingerprint.clone();
    let session = stream.session().unwrap();
    let socket = one_port(&server);
    assert_eq!(seen(&visit(&socket)), before);

    let next = identity(Profile::SERVER_RSA);
    let after = next.fingerprint().unwrap();
    let next = dtls::ServerConfig::builder(next).keys_of(&old);
    server.handle.replace_config(next.build().unwrap());
    assert_echo(&mut stream, b"the live connection goes on");
    assert_eq!(seen(&visit(&socket)), after);
    assert_eq!(server.stats.get(Counter::Reconnects), 1);
    let fresh = connector.connect("localhost", server.address).unwrap();
    assert_eq!(fresh.info().peer_chain[0].fingerprint, after);
    let resumed = connector.resume("localhost", server.address, &session);
    assert!(resumed.unwrap().info().resumed, "the ticket keys are kept");

    server
        .handle
        .replace_config(server_config().build().unwrap());
    let resumed = connector.resume("localhost", server.address, &session);
    assert!(!resumed.unwrap().info().resumed, "these are other keys");
}

fn noise_at_the_listener_is_counted_and_ends_nothing(transport: Transport) {
    let server = EchoServer::start(
        "127.0.0.1:0",
        server_config().transport(transport).build().unwrap(),
    );
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for noise in [
        &b""[..],
        b"x",
        b"GET / HTTP/1.0\r\n\r\n",
        &[22; 1200],
        &[0; 4096],
    ] {
        stranger.send_to(noise, server.address).unwrap();
    }
    let mut stream = connector().connect("localhost", server.address).unwrap();
    assert_echo(&mut stream, b"alive");
    assert_eq!(server.stats.get(Counter::DroppedEmpty), 1);
    assert_eq!(server.stats.get(Counter::UnknownPeer), 4);
}

fn empty_runt_and_garbage_datagrams_from_the_peer_end_nothing(transport: Transport) {
    // The client's port is taken over after its handshake, as a spoofer with raw sockets would.
    let server = EchoServer::start(
        "127.0.0.1:0",
        server_config().transport(transport).build().unwrap(),
    );
    let mut stream = connector().connect("localhost", server.address).unwrap();
    assert_echo(&mut stream, b"before");
    let descriptor = std::os::fd::AsFd::as_fd(&stream)
        .try_clone_to_owned()
        .unwrap();
    let spoofer = UdpSocket::from(descriptor);
    let runt = [23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 2, 1, 2];
    for datagram in [&b""[..], &runt, b"garbage"] {
        spoofer.send(datagram).unwrap();
    }
    assert_echo(&mut stream, b"after");
    assert_eq!(server.stats.get(Counter::DroppedRunt), 1);
    assert_eq!(server.stats.get(Counter::DroppedEmpty), 1);
    assert_eq!(server.stats.get(Counter::DroppedMalformedRecord), 1);
}

fn a_payload_beyond_the_limit_is_refused_and_one_at_the_limit_arrives(transport: Transport) {
    let server = EchoServer::start(
        "127.0.0.1:0",
        server_config().transport(transport).build().unwrap(),
    );
    let mut stream = connector().connect("localhost", server.address).unwrap();
    let limit = stream.max_payload();
    assert_eq!(limit, 1372 - 13 - 8 - 16, "IPv4, AES-GCM");
    assert!(stream.send(&vec![0; limit + 1]).is_err());
    assert_echo(&mut stream, &vec![7; limit]);
}

#[test]
fn a_handshake_with_a_silent_server_ends_at_its_deadline() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = ClientConfig::builder(ServerTrust::Anyone)
        .handshake_timeout(Duration::from_millis(1500))
        .build()
        .unwrap();
    let refused = DtlsConnector::new(config).connect("localhost", silent.local_addr().unwrap());
    match refused {
        Err(ConnectError::Handshake(HandshakeError::TimedOut {
            retransmissions: 1, ..
        })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unreachable_port_is_waited_out_like_silence() {
    let address = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = ClientConfig::builder(ServerTrust::Anyone)
        .handshake_timeout(Duration::from_millis(1500))
        .build()
        .unwrap();
    let connector = DtlsConnector::new(config);
    let refused = connector.connect("localhost", address);
    assert!(
        matches!(
            refused,
            Err(ConnectError::Handshake(HandshakeError::TimedOut { .. }))
        ),
        "{refused:?}"
    );
    assert!(connector.stats().get(Counter::IcmpOnReceive) > 0);
}

fn a_handle_that_outlives_its_stream_does_not_keep_the_port_from_the_client(transport: Transport) {
    let config = server_config().transport(transport).build().unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(listener.local_addr()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(900)))
        .unwrap();
    let workers = std::thread::spawn(move || {
        let handles: Vec<_> = (0..2)
            .map(|_| {
                let incoming = listener.accept().unwrap();
                let handle = incoming.handle();
                let mut stream = incoming.accept().unwrap();
                let mut buffer = [0; 100];
                let Recv::Data(length) = stream.recv(&mut buffer).unwrap() else {
                    panic!("no data");
                };
                stream.send(&buffer[..length]).unwrap();
                handle
            })
            .collect();
        drop(handles);
    });
    visit(&socket);
    // The first answer now is the server's close_notify.
    socket.recv(&mut [0; 1500]).unwrap();
    visit(&socket);
    workers.join().unwrap();
}

fn the_unspecified_address_reaches_a_server_on_this_host(transport: Transport) {
    let server = EchoServer::start(
        "0.0.0.0:0",
        server_config().transport(transport).build().unwrap(),
    );
    let mut stream = connector().connect("localhost", server.address).unwrap();
    assert_echo(&mut stream, b"here");
}

fn an_idle_report_starts_the_timeout_anew_and_times_without_end_are_taken(transport: Transport) {
    let config = server_config()
        .transport(transport)
        .idle_timeout(Some(Duration::from_millis(200)))
        .build()
        .unwrap();
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let address = listener.local_addr();
    let client = std::thread::spawn(move || connector().connect("localhost", address).unwrap());
    let mut server = listener.accept().unwrap().accept().unwrap();
    let client = client.join().unwrap();
    server.set_recv_timeout(Some(Duration::MAX));
    for _ in 0..2 {
        let before = now();
        assert_eq!(server.recv(&mut [0; 100]).unwrap(), Recv::Idle);
        assert!(now() - before >= Duration::from_millis(150));
    }
    drop(client);
}

fn a_name_that_can_be_no_hosts_is_refused(transport: Transport) {
    let server = EchoServer::start(
        "127.0.0.1:0",
        server_config().transport(transport).build().unwrap(),
    );
    for name in ["", "a\0b"] {
        let refused = connector().connect(name, server.address);
        assert!(
            matches!(refused, Err(ConnectError::Config(_))),
            "{refused:?}"
        );
    }
}

on_each_transport! {
    data_flows_both_ways_on_every_kind_of_address_and_port_sharing,
    a_wildcard_listener_answers_from_the_address_it_was_asked_at,
    many_clients_at_once_need_no_retransmission_under_either_port_sharing,
    a_second_server_on_the_port_is_refused_even_though_ports_are_shared,
    a_certificate_for_another_name_or_authority_is_refused_by_the_client,
    a_client_without_a_certificate_is_refused_where_one_is_required,
    a_session_is_resumed_without_certificates,
    a_stopped_stream_wakes_up_and_can_still_close_in_order,
    a_client_that_closes_and_returns_from_the_same_port_loses_no_hello,
    a_client_that_starts_over_from_the_same_port_is_served_at_once,
    a_replaced_configuration_is_for_new_connections_and_those_that_start_over,
    noise_at_the_listener_is_counted_and_ends_nothing,
    empty_runt_and_garbage_datagrams_from_the_peer_end_nothing,
    a_payload_beyond_the_limit_is_refused_and_one_at_the_limit_arrives,
    a_handle_that_outlives_its_stream_does_not_keep_the_port_from_the_client,
    the_unspecified_address_reaches_a_server_on_this_host,
    an_idle_report_starts_the_timeout_anew_and_times_without_end_are_taken,
    a_name_that_can_be_no_hosts_is_refused,
}
