//! Those who ask for pages: wrongly, slowly, too many at once.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

use super::common::{PATIENCE, Pki, now, wait_until};
use super::{ask, serve};

#[test]
fn other_requests_are_refused() {
    let pki = Pki::new();
    let operated = serve(&pki, &[]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("\x16\x03\x01 what is this\r\n\r\n", "400"),
    ] {
        let answer = ask(operated.pages, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let head = ask(operated.pages, "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    // A request without end.
    let mut endless = TcpStream::connect(operated.pages).unwrap();
    while endless.write_all(&[b'a'; 4096]).is_ok() {}
    assert_eq!(operated.get("/health").0, 200);
}

#[test]
fn idle_readers_hold_neither_the_pages_nor_their_connections() {
    let pki = Pki::new();
    let operated = serve(&pki, &[]);
    let silent = || TcpStream::connect(operated.pages).unwrap();
    let begun = now();
    let mut first: Vec<_> = (0..10).map(|_| silent()).collect();
    assert_eq!(operated.get("/health").0, 200);
    for stream in &mut first {
        // Still open: the answer did not wait for their end.
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]).map_err(|error| error.kind());
        // After two seconds they are cut off.
        if begun.elapsed() < Duration::from_millis(1500) {
            assert_eq!(read, Err(ErrorKind::WouldBlock));
        }
    }
    // More than there is room for: the oldest pays.
    let mut more: Vec<_> = (0..100).map(|_| silent()).collect();
    assert_eq!(operated.get("/health").0, 200);
    // Their time is up, also for those that say something now and then.
    let dribble = more.pop().unwrap();
    wait_until(
        "the dribbling reader is cut off",
        || (&dribble).write_all(b"G").is_err(),
        |cut_off| *cut_off,
    );
    for mut stream in first.into_iter().chain(more) {
        stream.set_nonblocking(false).unwrap();
        assert_closed_unanswered(&mut stream);
    }
}

#[track_caller]
fn assert_closed_unanswered(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let read = stream.read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "{read:?}"
    );
}

#[test]
fn a_flood_from_one_host_cuts_off_no_other() {
    let pki = Pki::new();
    let operated = serve(&pki, &[]);
    let begin = || TcpStream::connect(operated.pages).unwrap();
    let end_of_flood = |scraper: &mut TcpStream| {
        scraper.write_all(b"GET /health HT").unwrap();
        let mut flood: Vec<_> = (0..100).map(|_| from_elsewhere(operated.pages)).collect();
        // The first of the flood is the first that makes room, once there is none.
        assert_closed_unanswered(&mut flood[0]);
        flood
    };
    // On a busy machine its two seconds may be over by then.
    wait_until(
        "the scraper is answered",
        || {
            let mut scraper = begin();
            let flood = end_of_flood(&mut scraper);
            drop(scraper.write_all(b"TP/1.1\r\n\r\n"));
            let mut answer = String::new();
            drop(scraper.read_to_string(&mut answer));
            drop(flood);
            answer
        },
        |answer| answer.starts_with("HTTP/1.1 200 OK"),
    );
}

/// A connection whose other end has another address of the loopback.
fn from_elsewhere(to: SocketAddr) -> TcpStream {
    let SocketAddr::V4(to) = to else {
        panic!("{to} is no IPv4 address");
    };
    let kind = (
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
    );
    let socket = socket::socket(kind.0, kind.1, kind.2, None).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 2, 0)).unwrap();
    socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    TcpStream::from(socket)
}
