//! What must hold at the end, and the table of it. Main thread; nothing here has a socket.

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use crate::clients::Report;
use crate::options::Options;
use crate::server::Status;
use crate::{connections, now};

/// How far memory may move in the second half.
const FLAT: f64 = 0.02;

/// How many of those who mean it must get through.
const MADE: f64 = 0.99;

/// The server at a moment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    /// Of each server.
    pub(crate) resident_bytes: Vec<u64>,
    pub(crate) connections: u64,
    pub(crate) cpu_seconds: f64,
}

impl Sample {
    pub(crate) fn of(status: &[Status], began: Instant) -> Self {
        let processes = || status.iter().map(|status| &status.process);
        Self {
            seconds: (now() - began).as_secs_f64(),
            resident_bytes: processes().map(|process| process.resident_bytes).collect(),
            connections: connections(status),
            cpu_seconds: processes().map(|process| process.cpu_seconds).sum(),
        }
    }
}

/// Datagrams that did not arrive, and where.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Lost {
    pub(crate) to_server: u64,
    pub(crate) to_server_lost: u64,
    pub(crate) to_client: u64,
    pub(crate) to_client_lost: u64,
    pub(crate) unsent: u64,
    /// On the whole host.
    pub(crate) by_kernel: u64,
}

/// All that was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Evidence<'a> {
    pub(crate) options: &'a Options,
    pub(crate) samples: Vec<Sample>,
    /// Connections open when those that stay were ended.
    pub(crate) held: u64,
    pub(crate) reloads: u64,
    pub(crate) stay: Report,
    pub(crate) come_and_go: Report,
    pub(crate) floods: Vec<Report>,
    pub(crate) quiet_descriptors: u64,
    pub(crate) left_connections: u64,
    pub(crate) left_descriptors: u64,
    /// Of each server.
    pub(crate) counters: Vec<Value>,
    pub(crate) backend_received: u64,
    pub(crate) backend_sent: u64,
    pub(crate) lost: Lost,
}

/// One thing that must hold.
#[derive(Debug, Clone, Serialize)]
struct Check {
    what: &'static str,
    good: bool,
    /// With the figures.
    says: String,
}

/// The outcome.
#[derive(Debug)]
pub(crate) struct Verdict {
    title: String,
    checks: Vec<Check>,
    evidence: Value,
}

impl Verdict {
    /// Judges.
    pub(crate) fn of(evidence: &Evidence<'_>) -> Self {
        let options = evidence.options;
        let servers = match evidence.counters.len() {
            1 => String::new(),
            several => format!(" of {several} servers"),
        };
        let title = format!(
            "{} connections through forward{servers} for {}, {} % lost each way, {} come and go and {} \
             strangers' hellos a second, transport {}",
            options.connections,
            humantime::format_duration(options.time),
            options.loss * 100.0,
            options.comings,
            options.flood,
            options.transport,
        );
        let checks = vec![
            evidence.memory(),
            evidence.connections(),
            evidence.handshakes(),
            evidence.handshakes_agree(),
            evidence.messages_agree(),
            evidence.flood(),
            evidence.reloads(),
            evidence.network(),
            evidence.given_back(),
        ];
        let evidence = serde_json::to_value(evidence).unwrap_or(Value::Null);
        Self {
            title,
            checks,
            evidence,
        }
    }

    /// What does not hold, if anything.
    pub(crate) fn reason(&self) -> Option<String> {
        let bad = self.checks.iter().filter(|check| !check.good);
        let reasons: Vec<_> = bad
            .map(|check| format!("{}: {}", check.what, check.says))
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "good": self.reason().is_none(),
            "checks": self.checks,
            "evidence": self.evidence,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for check in &self.checks {
            let good = if check.good { "good" } else { "BAD" };
            writeln!(f, "  {:<12} {good:<5} {}", check.what, check.says)?;
        }
        Ok(())
    }
}

/// Where a server's memory was, in MiB.
#[derive(Debug, Clone, Copy, Default)]
struct Range {
    first: f64,
    last: f64,
    least: f64,
    most: f64,
}

impl Range {
    fn of(bytes: impl Iterator<Item = u64>) -> Self {
        let all: Vec<f64> = bytes.map(mib).collect();
        Self {
            first: all.first().copied().unwrap_or_default(),
            last: all.last().copied().unwrap_or_default(),
            least: all.iter().copied().fold(f64::MAX, f64::min),
            most: all.iter().copied().fold(0.0, f64::max),
        }
    }

    /// By what share.
    fn moved(&self) -> f64 {
        self.most / self.least - 1.0
    }
}

impl Evidence<'_> {
    fn counter(&self, name: &str) -> u64 {
        // A counter that is not there must not look like one that is 0.
        let of = |counters: &Value| counters[name].as_u64().unwrap_or(u64::MAX / 64);
        self.counters.iter().map(of).sum()
    }

    /// The most and the least of the second half, moments included, of the server that moved most.
    fn memory(&self) -> Check {
        let half = self.options.time.as_secs_f64() / 2.0;
        let samples = self.samples.iter();
        let second: Vec<_> = samples.filter(|sample| sample.seconds >= half).collect();
        let of =
            |server: usize| Range::of(second.iter().map(|sample| sample.resident_bytes[server]));
        let ranges: Vec<_> = (0..self.counters.len()).map(of).collect();
        let all: f64 = ranges.iter().map(|range| range.last).sum();
        let worst = ranges.iter().max_by(|a, b| a.moved().total_cmp(&b.moved()));
        let Range {
            first,
            last,
            least,
            most,
        } = worst.copied().unwrap_or_default();
        let moved = worst.map_or(f64::INFINITY, Range::moved);
        let which = match ranges.len() {
            1 => String::new(),
            several => format!(" in that of {several} that moved most"),
        };
        Check {
            what: "memory",
            good: second.len() >= 3 && moved <= FLAT,
            says: format!(
                "{first:.1} MiB at half time{which}, {last:.1} at the end, between {least:.1} and \
                 {most:.1}: {:.2} % apart (bound {:.0} %); {:.1} KiB for each that stays",
                moved * 100.0,
                FLAT * 100.0,
                all * 1024.0 / f64::from(self.options.connections),
            ),
        }
    }

    fn connections(&self) -> Check {
        let (stay, others) = (&self.stay, &self.come_and_go);
        let dropped = stay.dropped() + others.dropped();
        let made = stay.begun - stay.unmade();
        let why = [stay, others]
            .into_iter()
            .flat_map(|report| &report.failures)
            .find(|failures| failures.is_after_handshake())
            .map_or(String::new(), |failures| format!(": {}", failures.error));
        Check {
            what: "connections",
            good: dropped == 0
                && made > 0
                && stay.begun == u64::from(self.options.connections)
                && stay.interrupted == made
                && self.held >= made,
            says: format!(
                "{} of {made} that stay were there at the end, {} at the server; {dropped} of all were \
                 dropped{why}",
                stay.interrupted, self.held
            ),
        }
    }

    fn handshakes(&self) -> Check {
        let begun = self.stay.begun + self.come_and_go.begun;
        let unmade = self.stay.unmade() + self.come_and_go.unmade();
        let made = 1.0 - ratio(unmade, begun);
        let why = [&self.stay, &self.come_and_go]
            .into_iter()
            .flat_map(|report| &report.failures)
            .find(|failures| !failures.is_after_handshake())
            .map_or(String::new(), |failures| format!(" ({})", failures.error));
        Check {
            what: "handshakes",
            good: begun > 0 && made >= MADE,
            says: format!(
                "{} of {begun} clients got through: {:.3} % (bound {:.0} %){why}",
                begun - unmade,
                made * 100.0,
                MADE * 100.0
            ),
        }
    }

    /// Either end may take a handshake for complete whose last flight the other never got.
    fn handshakes_agree(&self) -> Check {
        let theirs = self.stay.handshakes + self.come_and_go.handshakes;
        let theirs_resumed = self.stay.resumed + self.come_and_go.resumed;
        let ours = self.counter("handshakes_completed");
        let ours_resumed = self.counter("handshakes_resumed");
        let unfinished = self.counter("handshakes_timed_out")
            + self.counter("handshakes_failed")
            + self.stay.unmade()
            + self.come_and_go.unmade();
        let apart = ours
            .abs_diff(theirs)
            .max(ours_resumed.abs_diff(theirs_resumed));
        Check {
            what: "agreement",
            good: theirs_resumed > 0 && apart <= unfinished,
            says: format!(
                "server completed {ours} handshakes, {ours_resumed} resumed; clients {theirs}, \
                 {theirs_resumed}; {unfinished} remained unfinished at one end"
            ),
        }
    }

    /// Each datagram of the application is accounted for at each of the four steps.
    fn messages_agree(&self) -> Check {
        let (stay, others) = (&self.stay, &self.come_and_go);
        let sum = |of: fn(&Report) -> u64| of(stay) + of(others);
        let sent = sum(|report| report.sent);
        let answered = sum(|report| report.received + report.late + report.duplicated);
        // Whose answers a client did not wait for: those that stay were ended amid some, those that go
        // do not wait for what they take for lost.
        let unawaited = stay.sent - stay.received - stay.lost + others.sent - others.received;
        let (to_backend, from_backend) = (
            self.counter("datagrams_to_backend"),
            self.counter("datagrams_from_backend"),
        );
        let (lost, kernel) = (&self.lost, self.lost.by_kernel);
        let steps = [
            (
                "client to server",
                sent,
                to_backend,
                lost.to_server_lost + lost.unsent + kernel,
            ),
            (
                "server to backend",
                to_backend,
                self.backend_received,
                kernel,
            ),
            (
                "backend to server",
                self.backend_sent,
                from_backend,
                kernel + unawaited,
            ),
            (
                "server to client",
                from_backend,
                answered,
                lost.to_client_lost
                    + lost.unsent
                    + self.counter("datagrams_unsent")
                    + kernel
                    + unawaited,
            ),
        ];
        let wrong = steps
            .iter()
            .find(|(_, before, after, missing)| after > before || before - after > *missing);
        let wrong = wrong.map_or(String::new(), |(step, before, after, missing)| {
            format!(
                "; from {step} {before} became {after}, of which the network lost {missing} at most"
            )
        });
        let corrupted = sum(|report| report.corrupted);
        Check {
            what: "messages",
            good: sent > 0 && wrong.is_empty() && corrupted == 0,
            says: format!(
                "{sent} sent, {to_backend} reached the backend, {from_backend} came back from it, \
                 {answered} reached their clients, {corrupted} corrupted{wrong}"
            ),
        }
    }

    /// Queues may overflow; but a flood that the server did not notice would have been none.
    fn flood(&self) -> Check {
        let asked = self.floods.iter().map(|flood| flood.begun).sum();
        let answered = self.floods.iter().map(|flood| flood.cookies).sum();
        let clients = self.stay.begun + self.come_and_go.begun;
        let sent = self.counter("hello_verify_requests");
        Check {
            what: "flood",
            good: ratio(answered, asked) >= 0.5 && sent >= answered && sent >= clients * 9 / 10,
            says: format!(
                "{answered} of {asked} strangers' hellos were answered; server sent {sent} cookies"
            ),
        }
    }

    fn reloads(&self) -> Check {
        let (taken, refused) = (self.counter("reloads"), self.counter("reloads_refused"));
        Check {
            what: "certificates",
            good: self.reloads > 0
                && taken >= self.reloads * self.counters.len() as u64
                && refused == 0,
            says: format!(
                "replaced {} times; {taken} reloads, {refused} refused",
                self.reloads
            ),
        }
    }

    /// Whether the network was as bad as it was meant to be.
    fn network(&self) -> Check {
        let lost = &self.lost;
        let shares = [
            ratio(lost.to_server_lost, lost.to_server),
            ratio(lost.to_client_lost, lost.to_client),
        ];
        let wanted = self.options.loss;
        Check {
            what: "network",
            // Thousands of datagrams: chance alone stays well within.
            good: shares
                .iter()
                .all(|share| (share - wanted).abs() <= wanted * 0.3),
            says: format!(
                "lost {:.2} % of {} datagrams to the server, {:.2} % of {} to clients; queues of this \
                 host {}",
                shares[0] * 100.0,
                lost.to_server,
                shares[1] * 100.0,
                lost.to_client,
                lost.by_kernel,
            ),
        }
    }

    fn given_back(&self) -> Check {
        let cpu = self.samples.last().map_or(0.0, |last| last.cpu_seconds);
        Check {
            what: "afterwards",
            good: self.left_connections == 0 && self.left_descriptors <= self.quiet_descriptors,
            says: format!(
                "{} connections, {} descriptors (before: {}); {cpu:.0} s of processor time",
                self.left_connections, self.left_descriptors, self.quiet_descriptors,
            ),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
