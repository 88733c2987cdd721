//! What is passed on: boundaries, order, headers and frames.

use std::sync::Arc;
use std::thread;

use dtls_certs::Profile;
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader};

use crate::common::backend::Backend;
use crate::common::{Pki, Server, receive};
use crate::{TRANSPORTS, assert_nothing, forward, wide};

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
