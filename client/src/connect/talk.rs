//! Lines to datagrams and datagrams to lines, until one side has had enough.
//!
//! The main thread waits with poll(2) for standard input and the connection at once. What the
//! connection has taken from its socket already is invisible to poll, so it is always read until
//! it has nothing left before the thread waits.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use dtls::{DtlsStream, Liveness, Recv, RecvError, SendError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::now;

use super::lines::{Line, Lines};
use super::output::Output;

/// Who ended a connection that ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The server sent close_notify.
    ByPeer,
    /// The input or the reader of the output came to an end, or a signal came.
    ByUs,
}

/// What ended it out of order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TalkError {
    #[error("the connection ended out of order: failed to {0}")]
    Recv(#[from] RecvError),
    #[error("the connection ended out of order: failed to {0}")]
    Send(SendError),
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    #[error("cannot print: {0}")]
    Output(io::Error),
    #[error("cannot wait: {0}")]
    Poll(Errno),
}

/// The largest record's data (RFC 5246 §6.2.1), and what is read of the input at once.
const BUFFER: usize = 1 << 14;

/// Datagrams taken before the input gets its turn: a server that never pauses must not silence us.
const ROUND: usize = 64;

/// Talks until the server closes, a signal comes, or `linger` after the end of the input.
pub(crate) fn talk(
    stream: &mut DtlsStream,
    input: &mut File,
    output: &mut Output,
    linger: Duration,
    probe_every: Option<Duration>,
) -> Result<Ended, TalkError> {
    let mut talk = Talk {
        lines: Lines::new(stream.max_payload()),
        line_number: 0,
        stream,
        output,
        probes: probe_every.map(|every| Probes {
            every,
            next: now() + every,
        }),
    };
    talk.stream.set_recv_timeout(Some(Duration::ZERO));
    let mut buffer = vec![0; BUFFER];
    let mut give_up: Option<Instant> = None;
    loop {
        let heard = talk.hear(&mut buffer)?;
        if let Heard::End(ended) = heard {
            return Ok(ended);
        }
        let left = give_up.map(|give_up| give_up.saturating_duration_since(now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Ended::ByUs);
        }
        let next_probe = talk.probe_if_due(now())?;
        let timeout = match heard {
            Heard::All => [left, next_probe].into_iter().flatten().min(),
            _ => Some(Duration::ZERO),
        };
        let watched = give_up.is_none().then_some(&*input);
        if wait(talk.stream, watched, timeout).map_err(TalkError::Poll)? {
            let length = match input.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TalkError::Input(error)),
            };
            talk.say(&buffer[..length])?;
            if length == 0 {
                give_up = Some(now() + linger);
            }
        }
    }
}

/// Waits for either and says whether the input has something.
fn wait(
    stream: &DtlsStream,
    input: Option<&File>,
    timeout: Option<Duration>,
) -> Result<bool, Errno> {
    let mut watched = vec![PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    watched.extend(input.map(|input| PollFd::new(input.as_fd(), PollFlags::POLLIN)));
    let timeout = match timeout {
        None => PollTimeout::NONE,
        // Rounded up, or the last fraction of a millisecond would be spent turning.
        Some(timeout) => {
            let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
            PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
        }
    };
    match poll(&mut watched, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error),
    }
    Ok(watched.get(1).and_then(PollFd::any).unwrap_or(false))
}

/// What a look at the connection gave.
enum Heard {
    /// All there was.
    All,
    /// A round full; there may be more.
    Some,
    /// The end.
    End(Ended),
}

struct Talk<'a> {
    lines: Lines,
    line_number: u64,
    stream: &'a mut DtlsStream,
    output: &'a mut Output,
    probes: Option<Probes>,
}

/// When to ask the server for a sign of life.
struct Probes {
    every: Duration,
    next: Instant,
}

impl Talk<'_> {
    /// Prints the datagrams that are there.
    fn hear(&mut self, buffer: &mut [u8]) -> Result<Heard, TalkError> {
        for _ in 0..ROUND {
            match self.stream.recv(buffer)? {
                Recv::Data(length) => match self.output.datagram(&buffer[..length]) {
                    Ok(()) => {}
                    // Such as `head`, which has had enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        return Ok(Heard::End(Ended::ByUs));
                    }
                    Err(error) => return Err(TalkError::Output(error)),
                },
                Recv::TimedOut => return Ok(Heard::All),
                Recv::Closed | Recv::Reconnected => return Ok(Heard::End(Ended::ByPeer)),
                Recv::Idle | Recv::Stopped => return Ok(Heard::End(Ended::ByUs)),
            }
        }
        Ok(Heard::Some)
    }

    /// Asks for a sign of life if it is time to, and gives the time until the next question. What
    /// comes meanwhile is found by the next [`Self::hear`].
    fn probe_if_due(&mut self, at: Instant) -> Result<Option<Duration>, TalkError> {
        let Some(probes) = &mut self.probes else {
            return Ok(None);
        };
        if at < probes.next {
            return Ok(Some(probes.next - at));
        }
        let every = probes.every;
        let found = self.stream.probe(every)?;
        // Silence before its time: the connection has ended, and the next look says how.
        if found != Liveness::Silent || now() >= at + every {
            self.output.probe(found, every).map_err(TalkError::Output)?;
        }
        if found == Liveness::NotNegotiated {
            self.probes = None;
        } else {
            probes.next = at + every;
        }
        // Data may have come with the answer.
        Ok(Some(Duration::ZERO))
    }

    /// Sends the lines that `bytes` complete; no bytes are the end of the input.
    fn say(&mut self, bytes: &[u8]) -> Result<(), TalkError> {
        let mut lines = self.lines.push(bytes);
        if bytes.is_empty() {
            lines.extend(self.lines.finish());
        }
        for line in lines {
            self.line_number += 1;
            match line {
                Line::Whole(text) if text.is_empty() => {
                    self.output.not_sent(
                        self.line_number,
                        "it is empty, and OpenSSL sends no empty record",
                    );
                }
                Line::Whole(text) => self.stream.send(&text).map_err(TalkError::Send)?,
                Line::TooLong(length) => {
                    let limit = self.stream.max_payload();
                    let reason = format!("{length} bytes, one datagram takes at most {limit}");
                    self.output.not_sent(self.line_number, &reason);
                }
            }
        }
        Ok(())
    }
}
