//! Messages over one connection, one at a time, each waiting for its echo. Runs on its worker's
//! thread. A message costs one look at the clock: the end of one is the start of the next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dtls::{DtlsStream, Recv, RecvError, SendError};

use crate::clock::now;

use super::message;
use super::tally::Messages;

/// Between two messages on a connection that is held.
const HOLD_INTERVAL: Duration = Duration::from_secs(1);

/// Room for messages; a worker's, used for one connection after another.
#[derive(Debug)]
pub(crate) struct Buffers {
    sent: Vec<u8>,
    scratch: Vec<u8>,
    answer: Vec<u8>,
}

impl Buffers {
    /// For messages of `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            sent: vec![0; size],
            scratch: vec![0; size],
            // The largest record's data: the rest of a longer answer would look like another answer.
            answer: vec![0; 1 << 14],
        }
    }
}

/// Why an exchange cannot go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// By a close_notify.
    Closed,
    /// By a signal.
    Stopped,
    /// The connection ended out of order.
    Recv(RecvError),
    /// The connection ended out of order, or the message is too long.
    Send(SendError),
}

/// The messages of one connection.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    stream: DtlsStream,
    connection: u32,
    /// The next message's.
    number: u32,
    timeout: Duration,
    /// Numbers of messages counted as lost whose answer may still come.
    missing: BTreeSet<u32>,
    messages: Messages,
    buffers: &'a mut Buffers,
}

impl<'a> Exchange<'a> {
    /// No message sent yet.
    pub(crate) fn new(
        stream: DtlsStream,
        connection: u32,
        timeout: Duration,
        buffers: &'a mut Buffers,
    ) -> Self {
        Self {
            stream,
            connection,
            number: 0,
            timeout,
            missing: BTreeSet::new(),
            messages: Messages::default(),
            buffers,
        }
    }

    /// Sends `count` messages from `at` on and gives the time at the end.
    pub(crate) fn exchange(
        &mut self,
        count: u32,
        mut at: Instant,
        record: &mut impl FnMut(Duration),
    ) -> Result<Instant, Broken> {
        for _ in 0..count {
            at = self.round_trip(at, record)?;
        }
        Ok(at)
    }

    /// Stays for `duration` from `at` on, with a message a second, and gives the time at the end.
    pub(crate) fn hold(
        &mut self,
        duration: Duration,
        at: Instant,
        record: &mut impl FnMut(Duration),
    ) -> Result<Instant, Broken> {
        let end = at + duration;
        let mut next = at + HOLD_INTERVAL;
        while next <= end {
            let at = self.listen_until(next)?;
            self.round_trip(at, record)?;
            next += HOLD_INTERVAL;
        }
        self.listen_until(end)
    }

    /// Closes the connection and gives the counts.
    pub(crate) fn finish(mut self) -> Messages {
        self.stream.close();
        self.messages
    }

    /// Sends one message at `at` and waits for its answer; gives the time at the end.
    fn round_trip(
        &mut self,
        at: Instant,
        record: &mut impl FnMut(Duration),
    ) -> Result<Instant, Broken> {
        let number = self.number;
        self.number += 1;
        message::write(&mut self.buffers.sent, self.connection, number);
        self.stream.send(&self.buffers.sent).map_err(Broken::Send)?;
        self.messages.sent += 1;
        self.stream.set_recv_timeout(Some(self.timeout));
        loop {
            let end = match self.stream.recv(&mut self.buffers.answer) {
                Ok(Recv::Data(length)) => {
                    let end = now();
                    if self.buffers.answer[..length] == self.buffers.sent {
                        self.messages.received += 1;
                        record(end - at);
                        return Ok(end);
                    }
                    self.sort(length);
                    let left = (at + self.timeout).saturating_duration_since(end);
                    if !left.is_zero() {
                        self.stream.set_recv_timeout(Some(left));
                        continue;
                    }
                    end
                }
                Ok(Recv::TimedOut | Recv::Idle) => now(),
                Ok(Recv::Stopped) => return Err(Broken::Stopped),
                Ok(Recv::Closed | Recv::Reconnected) => {
                    self.messages.lost += 1;
                    return Err(Broken::Closed);
                }
                Err(error) => {
                    self.messages.lost += 1;
                    return Err(Broken::Recv(error));
                }
            };
            self.messages.lost += 1;
            self.missing.insert(number);
            return Ok(end);
        }
    }

    /// Waits for `until` to come; answers are counted.
    fn listen_until(&mut self, until: Instant) -> Result<Instant, Broken> {
        loop {
            let at = now();
            if at >= until {
                return Ok(at);
            }
            self.stream.set_recv_timeout(Some(until - at));
            match self.stream.recv(&mut self.buffers.answer) {
                Ok(Recv::Data(length)) => self.sort(length),
                Ok(Recv::TimedOut | Recv::Idle) => {}
                Ok(Recv::Stopped) => return Err(Broken::Stopped),
                Ok(Recv::Closed | Recv::Reconnected) => return Err(Broken::Closed),
                Err(error) => return Err(Broken::Recv(error)),
            }
        }
    }

    /// Counts an answer that is not the one waited for.
    fn sort(&mut self, length: usize) {
        let Buffers {
            scratch, answer, ..
        } = &mut *self.buffers;
        match message::read(&answer[..length], self.connection, scratch) {
            Some(number) if self.missing.remove(&number) => self.messages.late += 1,
            Some(number) if number < self.number => self.messages.duplicated += 1,
            _ => self.messages.corrupted += 1,
        }
    }
}
