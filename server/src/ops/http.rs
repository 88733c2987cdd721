//! As much HTTP/1.1 as a scraper and a probe need: GET and HEAD of a few pages, one request a
//! connection. Operations threads.
//!
//! Whoever can reach the port can waste a thread's time, so everything is bounded: the request in
//! bytes, and the whole exchange in time.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::complaint::Complaint;

/// A request head longer than this is no scraper's.
const LONGEST_REQUEST: usize = 8 * 1024;

const MOST_HEADERS: usize = 64;

/// How long a request may take to arrive, and its answer to leave.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// Answers one request after the other, for ever. `page` knows the pages.
pub(super) fn serve(listener: &TcpListener, page: impl Fn(&str) -> Option<Answer>) {
    static COMPLAINT: Complaint = Complaint::new();
    loop {
        match listener.accept() {
            // A reader that goes away or dawdles is its own loss.
            Ok((stream, _)) => drop(exchange(stream, &page)),
            Err(error) => {
                COMPLAINT.make(&format_args!("cannot answer on --metrics: {error}"));
                std::thread::park_timeout(BACK_OFF);
            }
        }
    }
}

fn exchange(mut stream: TcpStream, page: impl Fn(&str) -> Option<Answer>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    let (answer, with_body) = answer(&head, page);
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
    stream.write_all(response.as_bytes())
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

/// Reads up to the empty line that ends a request without a body.
#[expect(
    clippy::disallowed_methods,
    reason = "a request that comes in drops must end in time"
)]
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < LONGEST_REQUEST {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            length => head.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> &'static str {
        let page = |path: &str| (path == "/x").then(|| Answer::ok(TEXT, "x".to_owned()));
        answer(request.as_bytes(), page).0.status
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
