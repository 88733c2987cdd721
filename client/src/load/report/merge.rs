//! Several reports as one. Pure.

use std::time::Duration;

use super::{Consumption, Facts, Report};
use crate::load::doubts::{Doubt, Kind};
use crate::load::measure::{Messages, Phase, Tally};
use crate::load::outcome::Failure;

impl Report {
    /// Adds reports up; `None` of none.
    pub(crate) fn merge(reports: Vec<Self>) -> Option<Self> {
        let mut reports = reports.into_iter();
        let first = reports.next()?;
        let mut tally = first.to_tally();
        let mut facts = first.into_facts();
        for report in reports {
            let alike = facts.plan.is_like(&report.plan);
            tally.add(&report.to_tally());
            let other = report.into_facts();
            if !alike {
                facts.doubts.push(Doubt {
                    kind: Kind::MergedUnlike,
                    text: format!("the run against {} had another plan", other.target),
                });
                // Stretches of different lengths cannot be added up.
                tally.windows.clear();
            }
            facts.add(other);
        }
        Some(Self::new(facts, &tally))
    }

    /// What it was made of.
    fn to_tally(&self) -> Tally {
        let mut tally = Tally::new(0, Duration::ZERO);
        tally.completed = self.completed;
        tally.failed = self.failed;
        tally.interrupted = self.interrupted;
        tally.handshakes = self.handshakes;
        tally.resumed = self.resumed;
        tally.retransmissions = self.retransmissions;
        tally.cookies = self.cookies;
        tally.icmp_errors = self.icmp_errors;
        tally.messages = Messages {
            sent: self.sent,
            received: self.received,
            lost: self.lost,
            late: self.late,
            reordered: self.reordered,
            duplicated: self.duplicated,
            corrupted: self.corrupted,
        };
        tally.full = self.wire.full;
        tally.abbreviated = self.wire.resumed;
        for (&phase, latency) in &self.histograms {
            tally[phase] = latency.clone();
        }
        tally.windows = self
            .windows
            .iter()
            .map(|window| window.window.clone())
            .collect();
        for failures in &self.failures {
            let failure = Failure {
                stage: failures.stage,
                error: failures.error.clone(),
            };
            *tally.failures.entry(failure).or_default() += failures.count;
        }
        tally
    }

    fn into_facts(self) -> Facts {
        Facts {
            took: Duration::try_from_secs_f64(self.seconds).unwrap_or_default(),
            target: self.target,
            peer: self.peer,
            started_at: self.started_at,
            plan: self.plan,
            doubts: self.doubts,
            stopped: self.stopped,
            begun: self.begun,
            client: self.client,
            server: self.server,
            server_counters: self.server_counters,
        }
    }
}

impl Facts {
    fn add(&mut self, other: Self) {
        for (ours, theirs) in [
            (&mut self.target, other.target),
            (&mut self.peer, other.peer),
        ] {
            if !ours.split(' ').any(|part| part == theirs) {
                ours.push(' ');
                ours.push_str(&theirs);
            }
        }
        self.started_at = std::cmp::min(&self.started_at, &other.started_at).clone();
        // They ran at the same time.
        self.took = self.took.max(other.took);
        self.begun += other.begun;
        self.stopped = self.stopped.or(other.stopped);
        for doubt in other.doubts {
            if !self.doubts.contains(&doubt) {
                self.doubts.push(doubt);
            }
        }
        let add = |ours: Option<u32>, theirs: Option<u32>| ours?.checked_add(theirs?);
        self.plan.connections = add(self.plan.connections, other.plan.connections);
        self.plan.concurrency = add(self.plan.concurrency, other.plan.concurrency);
        self.client.add(&other.client);
        // Two observers of one server saw the same.
        self.server = self.server.take().or(other.server);
        self.server_counters = self.server_counters.take().or(other.server_counters);
    }
}

impl Consumption {
    fn add(&mut self, other: &Self) {
        self.processor_seconds += other.processor_seconds;
        self.memory_before += other.memory_before;
        self.memory_most += other.memory_most;
        *self = self.clone().in_all();
    }
}

/// Phases in which two reports can be told apart.
pub(crate) const COMPARED: [Phase; 6] = [
    Phase::Cookie,
    Phase::FullHandshake,
    Phase::ResumedHandshake,
    Phase::Reconnect,
    Phase::FirstByte,
    Phase::Message,
];
