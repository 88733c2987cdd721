//! One connection from its first hello to its close. Runs on its worker's thread.

use std::sync::atomic::Ordering;
use std::time::Instant;

use dtls::{ConnectError, Counter, DtlsStream, SendError};

use crate::clock::now;

use super::exchange::{Broken, Exchange};
use super::outcome::{Failure, Outcome, Stage};
use super::worker::Worker;

impl Worker<'_> {
    /// Makes connection `number`, sends its messages, holds it, closes it.
    pub(crate) fn attempt(&mut self, number: u32) -> Outcome {
        let before = self.counters();
        let started = now();
        let connected = self.connect();
        let ended = now();
        let [resumed, retransmissions, datagrams, icmp] =
            std::array::from_fn(|i| self.counters()[i] - before[i]);
        self.run.tally(self.slot).retransmissions += retransmissions;
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                // Whatever was wrong, the next one shall not depend on the old session.
                self.session = None;
                return Outcome::of(&error, datagrams == 0, icmp > 0);
            }
        };
        self.run.shaken.fetch_add(1, Ordering::Relaxed);
        {
            let mut tally = self.run.tally(self.slot);
            tally.handshakes += 1;
            tally.resumed += resumed;
            let latency = if resumed > 0 {
                &mut tally.resumed_handshake
            } else {
                &mut tally.full_handshake
            };
            latency.record(ended - started);
        }
        if self.run.plan.resume {
            self.session = stream.session().or(self.session.take());
        }
        self.converse(number, stream, ended)
    }

    fn connect(&self) -> Result<DtlsStream, ConnectError> {
        let run = self.run;
        let session = self.session.as_ref();
        let outgoing = self.connector.prepare(run.name, run.peer, session)?;
        run.interrupt.watch(self.slot as usize, &outgoing.handle());
        outgoing.connect()
    }

    /// The connection's life after its handshake, which ended at `at`.
    fn converse(&mut self, number: u32, stream: DtlsStream, at: Instant) -> Outcome {
        let (run, slot) = (self.run, self.slot);
        let mut exchange = Exchange::new(stream, number, run.plan.timeout, &mut self.buffers);
        let mut record = |latency| run.tally(slot).message.record(latency);
        let mut stage = Stage::Exchange;
        let mut done = exchange.exchange(run.plan.messages, at, &mut record);
        if let (Ok(at), false) = (&done, run.plan.hold.is_zero()) {
            stage = Stage::Hold;
            done = exchange.hold(run.plan.hold, *at, &mut record);
        }
        run.tally(slot).messages.add(exchange.finish());
        let error = match done {
            Ok(_) => return Outcome::Completed,
            Err(Broken::Stopped) => return Outcome::Interrupted,
            Err(Broken::Closed) => "the server closed the connection (close_notify)".to_owned(),
            Err(Broken::Recv(error)) => error.to_string(),
            Err(Broken::Send(error @ SendError::TooLong { .. })) => {
                format!("{error}; lower --size or raise --link-mtu")
            }
            Err(Broken::Send(error)) => error.to_string(),
        };
        Outcome::Failed(Failure { stage, error })
    }

    /// Resumed handshakes, retransmissions, datagrams received, ICMP errors: so far, of this worker.
    fn counters(&self) -> [u64; 4] {
        let stats = self.connector.stats();
        [
            stats.get(Counter::HandshakesResumed),
            stats.get(Counter::Retransmissions),
            stats.get(Counter::DatagramsReceived),
            stats.get(Counter::IcmpOnReceive) + stats.get(Counter::IcmpOnSend),
        ]
    }
}
