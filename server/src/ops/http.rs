//! As much HTTP/1.1 as a scraper and a probe need: GET and HEAD of a few pages, one request a
//! connection. Operations thread.
//!
//! Whoever can reach the port can open connections and say nothing, so everything is bounded: the
//! request in bytes, the whole exchange in time, the connections in number. Nobody waits for a slow
//! one: the thread waits for all at once, and where there are too many the oldest of the host that has
//! most of them makes room.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::complaint::Complaint;

/// A request head longer than this is no scraper's.
const LONGEST_REQUEST: usize = 8 * 1024;

const MOST_HEADERS: usize = 64;

/// How long an exchange may take, from the first byte to the last.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections at once.
const MOST_EXCHANGES: usize = 64;

/// After a failed accept, as when no descriptor is left, the next try waits for this long.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The content type of a line for people.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// The content type of an object for programs.
pub(super) const JSON: &str = "application/json";

/// A page.
pub(super) struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Answer {
    /// The page asked for.
    pub(super) fn ok(content_type: &'static str, body: String) -> Self {
        Self {
            status: "200 OK",
            content_type,
            body,
        }
    }

    /// The service asked about is not there at present.
    pub(super) fn unavailable(body: &str) -> Self {
        Self::error("503 Service Unavailable", body)
    }

    fn error(status: &'static str, body: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: body.to_owned(),
        }
    }
}

/// Answers requests for ever. `page` knows the pages.
pub(super) fn serve(listener: &TcpListener, page: impl Fn(&str) -> Option<Answer>) {
    static COMPLAINT: Complaint = Complaint::new();
    let mut exchanges = VecDeque::new();
    loop {
        let (some_come, ready) = match wait(listener, &exchanges) {
            Ok(ready) => ready,
            Err(error) => {
                COMPLAINT.make(&format_args!("cannot answer on --metrics: {error}"));
                std::thread::park_timeout(BACK_OFF);
                continue;
            }
        };
        let now = clock();
        let mut ready = ready.into_iter();
        // A reader that goes away or dawdles is its own loss.
        exchanges.retain_mut(|exchange: &mut Exchange| {
            let ready = ready.next().unwrap_or(false);
            now < exchange.deadline && (!ready || exchange.go_on(&page).unwrap_or(false))
        });
        if some_come {
            match listener
                .accept()
                .and_then(|(stream, reader)| Exchange::new(stream, host(reader.ip()), now))
            {
                Ok(exchange) => {
                    if exchanges.len() == MOST_EXCHANGES {
                        let hosts: Vec<_> = exchanges.iter().map(|one| one.host).collect();
                        exchanges.remove(who_makes_room(&hosts, exchange.host));
                    }
                    exchanges.push_back(exchange);
                }
                // Gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    COMPLAINT.make(&format_args!("cannot answer on --metrics: {error}"));
                    std::thread::park_timeout(BACK_OFF);
                }
            }
        }
    }
}

/// Waits until a connection comes, one goes on, or the oldest has had its time; says which.
fn wait(listener: &TcpListener, exchanges: &VecDeque<Exchange>) -> io::Result<(bool, Vec<bool>)> {
    let mut waiting = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    waiting.extend(exchanges.iter().map(|exchange| {
        let flags = match exchange.turn {
            Turn::Request(_) => PollFlags::POLLIN,
            Turn::Answer { .. } => PollFlags::POLLOUT,
        };
        PollFd::new(exchange.stream.as_fd(), flags)
    }));
    let left = exchanges.front().map(|oldest| {
        let left = oldest.deadline.saturating_duration_since(clock());
        // Rounded up: not to wake before there is something to do.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut waiting, left.unwrap_or(PollTimeout::NONE)) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut ready = waiting
        .iter()
        .map(|descriptor| descriptor.any() != Some(false));
    let some_come = ready.next().unwrap_or(false);
    Ok((some_come, ready.collect()))
}

/// What one host has of the addresses there are: one of IPv4, a subnet of 64 bits of IPv6.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whose exchange ends for that of a newcomer: the oldest of a host that has most of them, so that
/// nobody loses his by what another host does. The oldest comes first.
fn who_makes_room(hosts: &[IpAddr], newcomer: IpAddr) -> usize {
    let all = || hosts.iter().chain([&newcomer]);
    let has = |host: &IpAddr| all().filter(|other| *other == host).count();
    let most = all().map(has).max();
    hosts
        .iter()
        .position(|host| Some(has(host)) == most)
        .unwrap_or_default()
}

/// One request and its answer.
struct Exchange {
    /// Does not block.
    stream: TcpStream,
    host: IpAddr,
    deadline: Instant,
    turn: Turn,
}

/// Whose turn it is.
enum Turn {
    /// The reader's: what has come of its request.
    Request(Vec<u8>),
    /// Ours.
    Answer { bytes: Vec<u8>, sent: usize },
}

impl Exchange {
    fn new(stream: TcpStream, host: IpAddr, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            host,
            deadline: now + PATIENCE,
            turn: Turn::Request(Vec::new()),
        })
    }

    /// Does what can be done without waiting; `false` at the end.
    fn go_on(&mut self, page: impl Fn(&str) -> Option<Answer>) -> io::Result<bool> {
        if let Turn::Request(head) = &mut self.turn {
            let mut buffer = [0; 1024];
            let ended = match self.stream.read(&mut buffer) {
                Ok(length) => {
                    head.extend_from_slice(&buffer[..length]);
                    length == 0
                }
                Err(error) if is_later(&error) => return Ok(true),
                Err(error) => return Err(error),
            };
            if !ended && !is_complete(head) && head.len() < LONGEST_REQUEST {
                return Ok(true);
            }
            let bytes = respond(head, page);
            self.turn = Turn::Answer { bytes, sent: 0 };
        }
        if let Turn::Answer { bytes, sent } = &mut self.turn {
            match self.stream.write(&bytes[*sent..]) {
                Ok(length) => *sent += length,
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(error),
            }
            return Ok(*sent < bytes.len());
        }
        Ok(true)
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Whether the empty line has come that ends a request without a body.
fn is_complete(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n")
}

/// The bytes of the answer to a request.
fn respond(head: &[u8], page: impl Fn(&str) -> Option<Answer>) -> Vec<u8> {
    let (answer, with_body) = answer(head, page);
    let Answer {
        status,
        content_type,
        body,
    } = answer;
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if with_body {
        response.push_str(&body);
    }
    response.into_bytes()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an exchange must end in real time"
)]
fn clock() -> Instant {
    Instant::now()
}

/// The answer to a request, and whether its body is wanted.
fn answer(head: &[u8], page: impl Fn(&str) -> Option<Answer>) -> (Answer, bool) {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let complete = request.parse(head).is_ok_and(|parsed| parsed.is_complete());
    let (Some(method), Some(target), true) = (request.method, request.path, complete) else {
        return (
            Answer::error("400 Bad Request", "this is no HTTP request\n"),
            true,
        );
    };
    let path = target.split('?').next().unwrap_or_default();
    match (method, page(path)) {
        ("GET", Some(page)) => (page, true),
        ("HEAD", Some(page)) => (page, false),
        (_, Some(_)) => (
            Answer::error("405 Method Not Allowed", "only GET and HEAD\n"),
            true,
        ),
        (_, None) => (
            Answer::error(
                "404 Not Found",
                "there are /metrics, /health, /ready and /status\n",
            ),
            true,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> &'static str {
        let page = |path: &str| (path == "/x").then(|| Answer::ok(TEXT, "x".to_owned()));
        answer(request.as_bytes(), page).0.status
    }

    #[test]
    fn the_oldest_exchange_of_the_busiest_host_makes_room() {
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "2001:db8::"].map(|text| text.parse().unwrap());
        for (hosts, newcomer, place) in [
            (&[a, b, b][..], c, 1),
            (&[a, b, b], a, 0),
            (&[a, b, c], b, 1),
            (&[a, b, c], c, 2),
            (&[b, a, c, a], c, 1),
            // All are alike: the oldest of all.
            (&[a, b], c, 0),
        ] {
            let found = who_makes_room(hosts, newcomer);
            assert_eq!(found, place, "{hosts:?} {newcomer}");
        }
        let subnet = |text: &str| host(text.parse().unwrap());
        assert_eq!(subnet("2001:db8::1"), subnet("2001:db8::ffff:0:0:1"));
        assert_ne!(subnet("2001:db8:0:1::1"), subnet("2001:db8::1"));
        assert_eq!(subnet("::ffff:192.0.2.1"), a);
    }

    #[test]
    fn each_request_has_its_answer() {
        for (request, expected) in [
            ("GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
            ("HEAD /x HTTP/1.0\r\n\r\n", "200"),
            ("GET /x?a=b HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
            ("POST /x HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
            ("GET /y HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
            ("GET /x HTTP/1.1\r\nHost: a\r\n", "400"),
            ("hello\r\n\r\n", "400"),
            ("", "400"),
        ] {
            assert!(status(request).starts_with(expected), "{request:?}");
        }
    }
}
