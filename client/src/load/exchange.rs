//! Messages over one connection: which is due, which is answered, which is lost. Runs on the
//! worker's thread; time is an argument, and nothing here sends or receives.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::measure::Messages;
use super::message;

/// Between two messages on a connection that is held.
pub(crate) const HOLD_INTERVAL: Duration = Duration::from_secs(1);

/// The messages of one connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    seed: u64,
    connection: u32,
    timeout: Duration,
    /// The next message's number; also how many have been sent.
    next: u32,
    /// How many to send.
    wanted: u32,
    /// Between two messages; without, the next goes out when the last is answered or lost.
    interval: Option<Duration>,
    /// When the next is meant to go out.
    next_at: Option<Instant>,
    /// Sent and unanswered, in order: number, and when it was meant to go out.
    waiting: VecDeque<(u32, Instant)>,
    /// Numbers of messages counted as lost whose answer may still come.
    missing: BTreeSet<u32>,
    /// The highest number answered.
    highest: Option<u32>,
    counts: Messages,
}

impl Exchange {
    /// Nothing to send yet.
    pub(crate) fn new(seed: u64, connection: u32, timeout: Duration) -> Self {
        Self {
            seed,
            connection,
            timeout,
            next: 0,
            wanted: 0,
            interval: None,
            next_at: None,
            waiting: VecDeque::new(),
            missing: BTreeSet::new(),
            highest: None,
            counts: Messages::default(),
        }
    }

    /// So many more, the first one meant to go out at `first`.
    pub(crate) fn want(&mut self, count: u32, first: Instant, interval: Option<Duration>) {
        self.wanted = self.next.saturating_add(count);
        self.interval = interval;
        self.next_at = Some(first);
    }

    /// Whether nothing is left to send or to wait for.
    pub(crate) fn is_done(&self) -> bool {
        self.next >= self.wanted && self.waiting.is_empty()
    }

    /// When to look again, if ever: a message to send, or one to give up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let lost = self.waiting.front().map(|&(_, at)| at + self.timeout);
        [self.next_due(), lost].into_iter().flatten().min()
    }

    fn next_due(&self) -> Option<Instant> {
        let may = self.next < self.wanted && (self.interval.is_some() || self.waiting.is_empty());
        self.next_at.filter(|_| may)
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(number, at)) = self.waiting.front()
            && at + self.timeout <= now
        {
            self.waiting.pop_front();
            self.lose(number);
            self.go_on(now);
        }
    }

    /// Writes the next message into `buffer` if it is due, and counts it as sent.
    pub(crate) fn next_message(&mut self, now: Instant, buffer: &mut [u8]) -> bool {
        let Some(at) = self.next_due().filter(|&at| at <= now) else {
            return false;
        };
        message::write(buffer, self.seed, self.connection, self.next);
        self.waiting.push_back((self.next, at));
        self.next += 1;
        self.counts.sent += 1;
        self.next_at = self.interval.map(|interval| at + interval);
        true
    }

    /// Sorts an answer; gives the latency of the message that it answers in time. `scratch` is as
    /// long as a message.
    pub(crate) fn answer(
        &mut self,
        answer: &[u8],
        now: Instant,
        scratch: &mut [u8],
    ) -> Option<Duration> {
        let Some(number) = message::read(answer, self.seed, self.connection, scratch) else {
            self.counts.corrupted += 1;
            return None;
        };
        let Some(place) = self.waiting.iter().position(|&(sent, _)| sent == number) else {
            if self.missing.remove(&number) {
                self.counts.late += 1;
            } else if number < self.next {
                self.counts.duplicated += 1;
            } else {
                self.counts.corrupted += 1;
            }
            return None;
        };
        let (_, at) = self.waiting.remove(place)?;
        let latency = now.saturating_duration_since(at);
        if latency > self.timeout {
            self.lose(number);
            self.missing.remove(&number);
            self.counts.late += 1;
            self.go_on(now);
            return None;
        }
        self.counts.received += 1;
        if self.highest.is_some_and(|highest| number < highest) {
            self.counts.reordered += 1;
        }
        self.highest = self.highest.max(Some(number));
        self.go_on(now);
        Some(latency)
    }

    /// Counts everything that waits as lost: no answer can come any more.
    pub(crate) fn give_up(&mut self) {
        while let Some((number, _)) = self.waiting.pop_front() {
            self.lose(number);
        }
        self.wanted = self.next;
    }

    /// What became of the messages so far.
    pub(crate) fn counts(&self) -> Messages {
        self.counts
    }

    fn lose(&mut self, number: u32) {
        self.counts.lost += 1;
        self.missing.insert(number);
    }

    /// The end of one is the beginning of the next, where one waits for the other.
    fn go_on(&mut self, now: Instant) {
        if self.interval.is_none() {
            self.next_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(
        clippy::disallowed_methods,
        reason = "a start for the made-up time of a test"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    /// The message that is due, if one is.
    fn send(exchange: &mut Exchange, now: Instant) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 32];
        exchange.next_message(now, &mut buffer).then_some(buffer)
    }

    #[test]
    fn paced_messages_go_out_in_time_and_count_from_then_whether_or_not_answers_come() {
        let at = start();
        let mut exchange = Exchange::new(1, 1, 10 * SECOND);
        exchange.want(3, at, Some(SECOND));
        let first = send(&mut exchange, at).unwrap();
        assert_eq!(send(&mut exchange, at), None);
        assert_eq!(exchange.deadline(), Some(at + SECOND));
        // The thread is late: both go out, and both are measured from when they were due.
        let late = at + 5 * SECOND;
        let second = send(&mut exchange, late).unwrap();
        let third = send(&mut exchange, late).unwrap();
        let mut scratch = [0; 32];
        let mut answer = |message: &[u8]| exchange.answer(message, late, &mut scratch);
        assert_eq!(answer(&third), Some(3 * SECOND));
        assert_eq!(answer(&second), Some(4 * SECOND));
        assert_eq!(answer(&first), Some(5 * SECOND));
        assert_eq!(answer(&first), None);
        let counts = exchange.counts();
        assert_eq!(
            (counts.received, counts.reordered, counts.duplicated),
            (3, 2, 1)
        );
        assert!(exchange.is_done());
    }

    #[test]
    fn one_at_a_time_the_next_is_due_when_the_last_is_answered_or_lost() {
        let at = start();
        let mut exchange = Exchange::new(1, 1, SECOND);
        exchange.want(2, at, None);
        let first = send(&mut exchange, at).unwrap();
        assert_eq!(send(&mut exchange, at), None);
        assert_eq!(exchange.deadline(), Some(at + SECOND));
        exchange.expire(at + SECOND);
        let second = send(&mut exchange, at + SECOND).unwrap();
        let mut scratch = [0; 32];
        let mut answer = |message: &[u8], now| exchange.answer(message, now, &mut scratch);
        assert_eq!(answer(&first, at + SECOND), None);
        assert_eq!(answer(&second, at + SECOND + SECOND / 2), Some(SECOND / 2));
        let counts = exchange.counts();
        assert_eq!(
            (counts.sent, counts.received, counts.lost, counts.late),
            (2, 1, 1, 1)
        );
        assert!(exchange.is_done() && exchange.deadline().is_none());
    }

    #[test]
    fn an_answer_beyond_the_timeout_is_late_even_if_nobody_looked_in_between() {
        let at = start();
        let mut exchange = Exchange::new(1, 1, SECOND);
        exchange.want(1, at, None);
        let first = send(&mut exchange, at).unwrap();
        assert_eq!(exchange.answer(&first, at + 2 * SECOND, &mut [0; 32]), None);
        let counts = exchange.counts();
        assert_eq!((counts.received, counts.lost, counts.late), (0, 1, 1));
    }

    #[test]
    fn when_no_answer_can_come_what_waits_is_lost_and_what_was_not_sent_is_not() {
        let at = start();
        let mut exchange = Exchange::new(1, 1, SECOND);
        exchange.want(5, at, Some(SECOND));
        assert!(send(&mut exchange, at).is_some());
        exchange.give_up();
        assert!(exchange.is_done());
        assert_eq!((exchange.counts().sent, exchange.counts().lost), (1, 1));
    }
}
