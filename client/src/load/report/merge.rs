//! Several reports as one. Pure.
//!
//! Runs that began together are one load from several machines: their rates add up, over time too.
//! Others are repetitions: counts and latencies add up, rates do not.

use std::time::Duration;

use super::{Consumption, Facts, Report};
use crate::load::doubts::{Doubt, Kind};
use crate::load::measure::{Messages, Phase, Tally, Window};
use crate::load::metrics::disagreements;
use crate::load::outcome::Failure;

/// Why reports do not add up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unlike {
    /// The settings in which a run differs from the first.
    #[error("another plan ({})", .0.join(", "))]
    Plan(Vec<String>),
    /// A report that is there already.
    #[error("the same run: its connections would count twice")]
    Same,
}

/// What may differ between machines and between repetitions.
const OWN: [&str; 4] = ["connections", "seed", "sources", "threads"];

/// What is added up where runs began together.
const SHARES: [&str; 2] = ["rate", "concurrency"];

impl Report {
    /// Adds reports up; `None` of none.
    ///
    /// # Errors
    /// The place of a report that cannot be added to the first, and why.
    pub(crate) fn merge(reports: Vec<Self>) -> Result<Option<Self>, (usize, Unlike)> {
        let together = began_together(&reports);
        for (at, report) in reports.iter().enumerate().skip(1) {
            let unlike = reports[0].unlike(report, together);
            if let Some(unlike) = unlike.or(reports[..at].contains(report).then_some(Unlike::Same))
            {
                return Err((at, unlike));
            }
        }
        let took = covered(&reports);
        let one_target = reports
            .windows(2)
            .all(|pair| pair[0].target == pair[1].target);
        let mut reports = reports.into_iter();
        let Some(first) = reports.next() else {
            return Ok(None);
        };
        let mut tally = first.to_tally();
        let mut facts = first.into_facts();
        for report in reports {
            let other = report.to_tally();
            if together && !same_stretches(&tally.windows, &other.windows) {
                facts.doubt(
                    Kind::MergedUnlike,
                    "the runs were divided into stretches of different lengths: rates over time are \
                     left out",
                );
                tally.windows.clear();
            }
            tally.add(&other);
            facts.add(report.into_facts(), together);
        }
        if !together {
            tally.windows.clear();
            facts.doubt(
                Kind::MergedApart,
                "the runs did not begin together: counts and latencies add up, the rate is the mean of \
                 theirs, and rates over time are left out; line runs up with --start-at",
            );
        }
        if !one_target {
            let text = format!(
                "not all runs were against the same servers: {}",
                facts.target
            );
            facts.doubt(Kind::MergedUnlike, &text);
        }
        facts.took = took;
        facts.settle(&tally);
        Ok(Some(Self::new(facts, &tally)))
    }

    /// Why another run cannot be added to this one.
    fn unlike(&self, other: &Self, together: bool) -> Option<Unlike> {
        let mut differences = self.plan.differences(&other.plan, &OWN);
        if together {
            let loops = (self.plan.rate.is_some(), other.plan.rate.is_some());
            let adds_up = match (&self.plan.rate, &other.plan.rate) {
                (Some(ours), Some(theirs)) => ours.plus(theirs).is_some(),
                _ => loops.0 == loops.1,
            };
            differences.retain(|name| !(adds_up && SHARES.contains(&name.as_str())));
        }
        (!differences.is_empty()).then_some(Unlike::Plan(differences))
    }

    /// When it began and ended, since the epoch.
    fn interval(&self) -> (Duration, Duration) {
        let began = humantime::parse_rfc3339(&self.started_at).ok();
        let began = began.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let began = began.unwrap_or_default();
        let took = Duration::try_from_secs_f64(self.seconds).unwrap_or_default();
        (began, began.saturating_add(took))
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
        tally.agreed.clone_from(&self.agreed);
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

/// Whether all began within one stretch of the report, so that their stretches can be added up.
fn began_together(reports: &[Report]) -> bool {
    let starts = || reports.iter().map(|report| report.interval().0);
    let apart = starts().max().zip(starts().min());
    let apart = apart.map_or(Duration::ZERO, |(last, first)| last - first);
    reports.iter().all(|report| {
        let stretch = report.windows.first().map(|window| &window.window);
        let length = stretch.map_or(report.seconds * 1e3 / 20.0, |it| it.to_ms - it.from_ms);
        apart.as_secs_f64() * 1e3 <= length
    })
}

/// The time in which at least one of them ran.
fn covered(reports: &[Report]) -> Duration {
    let mut intervals: Vec<(Duration, Duration)> = reports.iter().map(Report::interval).collect();
    intervals.sort_unstable();
    let (mut covered, mut until) = (Duration::ZERO, Duration::ZERO);
    for (began, ended) in intervals {
        covered += ended.saturating_sub(began.max(until));
        until = until.max(ended);
    }
    covered
}

/// Whether the stretches lie alike as far as both go.
fn same_stretches(ours: &[Window], theirs: &[Window]) -> bool {
    let same = |a: f64, b: f64| (a - b).abs() < 1e-3;
    let mut both = ours.iter().zip(theirs);
    both.all(|(a, b)| same(a.from_ms, b.from_ms) && same(a.to_ms, b.to_ms))
}

impl Facts {
    fn doubt(&mut self, kind: Kind, text: &str) {
        let text = text.to_owned();
        let doubt = Doubt { kind, text };
        if !self.doubts.contains(&doubt) {
            self.doubts.insert(0, doubt);
        }
    }

    fn add(&mut self, other: Self, together: bool) {
        let same_server = self.target == other.target;
        for (ours, theirs) in [
            (&mut self.target, other.target),
            (&mut self.peer, other.peer),
        ] {
            if *ours != theirs && !ours.split(' ').any(|part| part == theirs) {
                ours.push(' ');
                ours.push_str(&theirs);
            }
        }
        self.started_at = std::cmp::min(&self.started_at, &other.started_at).clone();
        self.begun += other.begun;
        self.stopped = self.stopped.or(other.stopped);
        for doubt in other.doubts {
            if !self.doubts.contains(&doubt) {
                self.doubts.push(doubt);
            }
        }
        let add = |ours: Option<u32>, theirs: Option<u32>| ours?.checked_add(theirs?);
        self.plan.connections = add(self.plan.connections, other.plan.connections);
        if together {
            self.plan.concurrency = add(self.plan.concurrency, other.plan.concurrency);
            let rates = self.plan.rate.as_ref().zip(other.plan.rate.as_ref());
            self.plan.rate = rates.and_then(|(ours, theirs)| ours.plus(theirs));
        }
        self.client = self.client.plus(&other.client, together);
        // Who observed the same server at the same time saw the same.
        let seen_twice = together && same_server;
        self.server = match (self.server.take(), other.server) {
            (Some(ours), Some(theirs)) if seen_twice => Some(ours.or_busier(theirs)),
            (Some(ours), Some(theirs)) => Some(ours.plus(&theirs, together)),
            (one, other) => one.or(other).filter(|_| seen_twice),
        };
        self.server_counters = match (self.server_counters.take(), other.server_counters) {
            (Some(mut ours), Some(theirs)) => {
                for (name, count) in theirs {
                    let ours = ours.entry(name).or_default();
                    *ours = if seen_twice {
                        count.max(*ours)
                    } else {
                        *ours + count
                    };
                }
                Some(ours)
            }
            (one, other) => one.or(other).filter(|_| seen_twice),
        };
    }

    /// What follows from the sums.
    fn settle(&mut self, tally: &Tally) {
        self.client.means(tally);
        if let Some(server) = &mut self.server {
            server.means(tally);
        }
        // Each run alone saw the others' connections in the server's counters.
        self.doubts
            .retain(|doubt| doubt.kind != Kind::ServerDisagrees);
        if let Some(counters) = &self.server_counters {
            let found = disagreements(tally, counters, counters);
            self.doubts.splice(..0, found);
        }
    }
}

impl Consumption {
    fn plus(&self, other: &Self, together: bool) -> Self {
        let memory = |ours: u64, theirs: u64| {
            if together {
                ours + theirs
            } else {
                ours.max(theirs)
            }
        };
        Self {
            processor_seconds: self.processor_seconds + other.processor_seconds,
            memory_before: memory(self.memory_before, other.memory_before),
            memory_most: memory(self.memory_most, other.memory_most),
            ..self.clone().in_all()
        }
    }

    fn or_busier(self, other: Self) -> Self {
        if other.processor_seconds > self.processor_seconds {
            other
        } else {
            self
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
    fn means(&mut self, tally: &Tally) {
        let microseconds = self.processor_seconds * 1e6;
        let per = |count: u64| (count > 0).then(|| microseconds / count as f64);
        self.per_handshake_us = per(tally.handshakes);
        self.per_message_us = per(tally.messages.received);
        self.memory_per_connection = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::metrics::Counters;
    use crate::load::plan::Plan;

    /// A run of 2 s that began so many milliseconds after a full minute.
    fn run(flags: &[&str], began_ms: u32) -> Report {
        let plan = Plan::of_flags(flags);
        let (count, width) = plan.windows();
        let mut tally = Tally::new(count, width);
        tally.handshakes = 20;
        tally.windows[0].begun = 20;
        let used = |seconds| Consumption {
            processor_seconds: seconds,
            per_handshake_us: None,
            per_message_us: None,
            memory_before: 0,
            memory_most: 100,
            memory_per_connection: None,
        };
        let (seconds, rest) = (began_ms / 1000, began_ms % 1000);
        let facts = Facts {
            target: "a:1".to_owned(),
            peer: "192.0.2.1:1".to_owned(),
            started_at: format!("2026-11-28T12:00:{seconds:02}.{rest:03}Z"),
            plan,
            doubts: Vec::new(),
            stopped: None,
            begun: 20,
            took: Duration::from_secs(2),
            client: used(0.5),
            server: Some(used(1.0)),
            server_counters: Some(Counters::from([(
                "x_handshakes_completed_total".to_owned(),
                40,
            )])),
        };
        Report::new(facts, &tally)
    }

    fn merge(reports: Vec<Report>) -> Report {
        Report::merge(reports).unwrap().unwrap()
    }

    fn has(report: &Report, kind: Kind) -> bool {
        report.doubts.iter().any(|doubt| doubt.kind == kind)
    }

    const STEPS: [&str; 2] = ["--rate", "10,20/1s"];

    #[test]
    fn runs_that_began_together_are_one_load_on_one_server() {
        let other = ["--rate", "30,40/1s", "--connections", "9", "--seed", "7"];
        let merged = merge(vec![run(&STEPS, 0), run(&other, 900)]);
        assert_eq!(merged.plan.rate.unwrap().to_string(), "40,60/1s");
        assert_eq!(
            (merged.windows[0].window.begun, merged.handshakes),
            (40, 40)
        );
        assert!((merged.seconds - 2.9).abs() < 1e-6, "{}", merged.seconds);
        // Both saw the whole of one server, and all of its handshakes.
        let server = merged.server.as_ref().unwrap();
        assert!((server.processor_seconds - 1.0).abs() < 1e-9);
        assert!((server.per_handshake_us.unwrap() - 25_000.0).abs() < 1e-6);
        assert_eq!(merged.client.memory_most, 200);
        assert!(merged.doubts.is_empty(), "{:?}", merged.doubts);
    }

    #[test]
    fn runs_apart_are_repetitions_of_the_same_plan() {
        // One overlaps the other, but not by stretches; one begins long after.
        for (began_ms, seconds) in [(1500, 3.5), (30_000, 4.0)] {
            let merged = merge(vec![run(&STEPS, 0), run(&STEPS, began_ms)]);
            assert!(has(&merged, Kind::MergedApart));
            assert!(merged.windows.is_empty() && merged.handshakes == 40);
            assert_eq!(merged.plan.rate.unwrap().to_string(), "10,20/1s");
            assert!(
                (merged.seconds - seconds).abs() < 1e-6,
                "{}",
                merged.seconds
            );
            assert!((merged.server.unwrap().processor_seconds - 2.0).abs() < 1e-9);
            assert_eq!(merged.client.memory_most, 100);
            // What was counted twice is no longer what our connections explain.
            assert_eq!(merged.server_counters.unwrap().values().sum::<u64>(), 80);
        }
        let faster = ["--rate", "20,40/1s"];
        let refused = Report::merge(vec![run(&STEPS, 0), run(&faster, 30_000)]);
        let rate = Unlike::Plan(vec!["rate".to_owned()]);
        assert_eq!(refused.unwrap_err(), (1, rate));
    }

    #[test]
    fn what_does_not_add_up_is_refused_by_place_and_setting() {
        let unlike = |flags: &[&str]| {
            let flags = [&STEPS, flags].concat();
            let reports = vec![run(&STEPS, 0), run(&STEPS, 100), run(&flags, 0)];
            Report::merge(reports).map(|_| ())
        };
        let plan = |settings: &[&str]| {
            let settings = settings.iter().map(|&setting| setting.to_owned());
            Err((2, Unlike::Plan(settings.collect())))
        };
        assert_eq!(unlike(&["--mode", "handshake"]), plan(&["mix", "mode"]));
        assert_eq!(unlike(&["--timeout", "9s"]), plan(&["timeout"]));
        assert_eq!(unlike(&["--groups", "P-256"]), plan(&["groups"]));
        assert_eq!(unlike(&[]), Err((2, Unlike::Same)));
        let ramp = Report::merge(vec![run(&STEPS, 0), run(&["--rate", "10..20/2s"], 0)]);
        let rate = Unlike::Plan(vec!["rate".to_owned()]);
        assert_eq!(ramp.unwrap_err(), (1, rate));
    }

    #[test]
    fn other_servers_are_a_doubt_and_their_processors_add_up() {
        let mut other = run(&STEPS, 0);
        other.target = "b:1".to_owned();
        let merged = merge(vec![run(&STEPS, 0), other]);
        assert!(has(&merged, Kind::MergedUnlike) && merged.target == "a:1 b:1");
        assert!((merged.server.unwrap().processor_seconds - 2.0).abs() < 1e-9);
        // 80 by the servers' count, 40 by ours.
        assert!(
            merged
                .doubts
                .iter()
                .any(|doubt| doubt.kind == Kind::ServerDisagrees)
        );
    }
}
