//! Each service, over real loopback sockets.

mod common;

use common::{Pki, Server, assert_echo, receive};
use dtls::{ClientConfig, Recv, ServerTrust};

#[test]
fn echo_returns_every_datagram_as_it_came() {
    let pki = Pki::new();
    // The client's goodbye may still be on its way when the signal comes.
    let server = pki.serve(&["--service", "echo", "--drain-timeout", "10s"]);
    let mut stream = server.connect(pki.client());
    let limit = stream.max_payload();
    for length in [1, 100, limit - 1, limit] {
        assert_echo(&mut stream, &vec![7; length]);
    }
    drop(stream);
    let finished = server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("handshakes_completed"), 1);
    assert_eq!(finished.counter("closed_by_peer"), 1);
}

#[test]
fn echo_returns_a_datagram_beyond_its_link_mtu_in_pieces() {
    let pki = Pki::new();
    let server = pki.serve(&["--link-mtu", "600"]);
    let mut stream = server.connect(pki.client().link_mtu(1500));
    let data: Vec<u8> = (0..=u8::MAX).cycle().take(1400).collect();
    stream.send(&data).unwrap();
    let mut answer = Vec::new();
    while answer.len() < data.len() {
        let piece = receive(&mut stream).unwrap();
        assert!(piece.len() < 600, "{}", piece.len());
        answer.extend(piece);
    }
    assert_eq!(answer, data);
}

#[test]
fn discard_answers_nothing() {
    let pki = Pki::new();
    let server = pki.serve(&["--service", "discard"]);
    let mut stream = server.connect(pki.client());
    for _ in 0..10 {
        stream.send(b"into the void").unwrap();
    }
    // An answer to any of them would come before the answer to this.
    stream.close();
    assert_eq!(receive(&mut stream), None, "close_notify comes first");
    let finished = server.finish();
    finished.assert_success();
    assert!(finished.counter("datagrams_received") >= 10);
}

#[test]
fn chargen_answers_each_datagram_with_1_to_512_characters() {
    let pki = Pki::new();
    let server = pki.serve(&["--service", "chargen"]);
    let mut stream = server.connect(pki.client());
    let mut lengths = Vec::new();
    for _ in 0..64 {
        stream.send(b"more").unwrap();
        let answer = receive(&mut stream).unwrap();
        assert!(answer.starts_with(b" "));
        assert!(
            answer
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n'))
        );
        lengths.push(answer.len());
    }
    assert!(lengths.iter().all(|length| (1..=512).contains(length)));
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() > 1, "the length is random");
    stream.set_recv_timeout(Some(std::time::Duration::ZERO));
    assert_eq!(stream.recv(&mut [0; 1]).unwrap(), Recv::TimedOut);
}

#[test]
fn without_a_certificate_a_throw_away_one_with_the_printed_fingerprint_is_used() {
    let mut program = common::Program::start(common::command(["--listen", "[::1]:0"])).unwrap();
    let said = program.wait_for("throw-away certificate");
    let line = program.wait_for("listening on ");
    let address = line.split(' ').nth(2).unwrap().parse().unwrap();
    let server = Server { program, address };
    let stream = server.connect(ClientConfig::builder(ServerTrust::Anyone));
    let info = stream.info();
    let fingerprint = &info.peer_chain[0].fingerprint;
    assert!(said.ends_with(fingerprint), "{said}\n{fingerprint}");
}
