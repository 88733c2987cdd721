//! What a connection makes of an interface that takes less than the configured link MTU, and of
//! messages that claim so.
//!
//! Each test runs itself again in a user and network namespace, on the main thread of a process that
//! `unshare` starts: the loopback's MTU can be changed and ICMP messages can be forged there.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{connector, identity};
use dtls::{Counter, DtlsListener, DtlsStream, Recv, SendError, ServerConfig};
use dtls_certs::Profile;
use socket2::{Domain, Protocol, Socket, Type};

const INSIDE: &str = "DTLS_TEST_INSIDE_NAMESPACE";

/// Whether this is the process inside; if not, starts it and waits for its success.
fn inside(test: &str, loopback_mtu: u16) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let setup = format!("ip link set lo mtu {loopback_mtu} up && exec \"$0\" --exact \"$1\"");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", &setup])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "yes")
        .output()
        .expect("util-linux has unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "in a namespace (allowed? see /proc/sys/user/max_user_namespaces): {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// A server for one connection, which answers every message with its own payload limit.
fn limit_server(address: &str) -> (SocketAddr, JoinHandle<u64>) {
    let config = ServerConfig::builder(identity(Profile::SERVER_LONG_CHAIN))
        .handshake_timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let mut listener = DtlsListener::bind(address.parse().unwrap(), config).unwrap();
    let address = listener.local_addr();
    let thread = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().accept().unwrap();
        let mut buffer = [0; 16 * 1024];
        while let Recv::Data(_) = stream.recv(&mut buffer).unwrap() {
            let limit = stream.max_payload().to_string();
            stream.send(limit.as_bytes()).unwrap();
        }
        listener.stats().get(Counter::LinkMtuLowered)
    });
    (address, thread)
}

fn ask_limit(stream: &mut DtlsStream, question: &[u8]) -> usize {
    stream.set_recv_timeout(Some(Duration::from_secs(10)));
    stream.send(question).unwrap();
    let mut buffer = [0; 100];
    let Recv::Data(length) = stream.recv(&mut buffer).unwrap() else {
        panic!("no answer");
    };
    std::str::from_utf8(&buffer[..length])
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn an_interface_narrower_than_the_link_mtu_costs_no_time_and_shrinks_the_payload() {
    if !inside(
        "an_interface_narrower_than_the_link_mtu_costs_no_time_and_shrinks_the_payload",
        1300,
    ) {
        return;
    }
    for (address, headers) in [("127.0.0.1:0", 28), ("[::1]:0", 48)] {
        let (server, thread) = limit_server(address);
        let connector = connector();
        let mut stream = connector.connect("localhost", server).unwrap();
        // The chain filled datagrams of 1500 bytes: the kernel refused one, and from then on all fit.
        assert_eq!(connector.stats().get(Counter::Retransmissions), 0);
        let fits = 1300 - headers;
        let limit = ask_limit(&mut stream, b"?");
        assert!((fits - 60..fits).contains(&limit), "{address}: {limit}");

        // The client has sent nothing long yet. What it may send now still arrives, in fragments.
        let before = stream.max_payload();
        assert!(before > fits, "{address}: {before}");
        ask_limit(&mut stream, &vec![7; before]);
        assert_eq!(stream.max_payload(), limit, "{address}");
        match stream.send(&vec![7; before]) {
            Err(SendError::TooLong { limit: named, .. }) => assert_eq!(named, limit),
            other => panic!("{other:?}"),
        }
        assert_eq!(connector.stats().get(Counter::LinkMtuLowered), 1);
        assert_eq!(connector.stats().get(Counter::IcmpOnSend), 0);
        assert_eq!(connector.stats().get(Counter::DatagramsUnsent), 0);
        stream.close();
        assert_eq!(thread.join().unwrap(), 1, "{address}");
    }
}

/// An ICMP "fragmentation needed" (RFC 792, RFC 1191) about a UDP datagram.
fn too_big(from: SocketAddr, to: SocketAddr, next_hop_mtu: u16) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
        panic!("IPv4 only");
    };
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(next_hop_mtu.to_be_bytes());
    // The IP header that is quoted: 20 bytes, 1400 in all, UDP.
    message.extend([0x45, 0, 5, 120, 0, 0, 0, 0, 64, 17, 0, 0]);
    message.extend(source.octets());
    message.extend(destination.octets());
    message.extend(from.port().to_be_bytes());
    message.extend(to.port().to_be_bytes());
    message.extend([5, 100, 0, 0]);
    let sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

#[test]
fn forged_too_big_messages_shrink_nothing() {
    if !inside("forged_too_big_messages_shrink_nothing", 1500) {
        return;
    }
    let (server, thread) = limit_server("127.0.0.1:0");
    let connector = connector();
    let mut stream = connector.connect("localhost", server).unwrap();
    let (here, limit) = (stream.local_addr(), stream.max_payload());
    let forger = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    for next_hop_mtu in [68, 552, 1000, 0] {
        // About what the client sent, and about what the server sent.
        for (from, to) in [(here, server), (server, here)] {
            let forged = too_big(from, to, next_hop_mtu);
            for _ in 0..3 {
                forger
                    .send_to(&forged, &SocketAddr::new(from.ip(), 0).into())
                    .unwrap();
            }
            assert_eq!(ask_limit(&mut stream, &vec![7; limit]), limit);
            assert_eq!(stream.max_payload(), limit);
        }
    }
    let stats = connector.stats();
    let seen = stats.get(Counter::IcmpOnSend) + stats.get(Counter::IcmpOnReceive);
    assert!(seen >= 4, "the forgeries arrived: {seen}");
    assert_eq!(stats.get(Counter::LinkMtuLowered), 0);
    stream.close();
    assert_eq!(thread.join().unwrap(), 0);
}
