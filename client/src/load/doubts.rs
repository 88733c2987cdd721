//! Reasons not to trust a run's numbers, found after it. Pure: from what was measured to sentences.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::measure::{Phase, Tally};
use super::plan::Plan;

/// A reason, with its name for programs and its sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Doubt {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// What is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    GeneratorSaturated,
    PacerLate,
    NoRoom,
    FewSamples,
    LocalDrops,
    Unsent,
    ClockTrouble,
    PortReuse,
    SharedMachine,
    ServerUnobserved,
    ServerDisagrees,
    MergedUnlike,
    MergedApart,
}

/// What was seen beside the tally.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Circumstances {
    /// Datagrams that this host dropped during the run.
    pub(crate) dropped: Option<u64>,
    /// By how much the two clocks of the system disagree about the run's length.
    pub(crate) clock_skew: Duration,
    /// Whether the open loop had no room for connections at times.
    pub(crate) was_full: bool,
    pub(crate) room: u32,
    /// Whether a server is on this host.
    pub(crate) shared: bool,
    /// Whether the server's process was to be observed and ended before the run did.
    pub(crate) server_gone: bool,
}

/// A worker busier than this makes its connections wait for each other.
const SATURATED: f64 = 0.9;

/// Later than this by the 99th percentile, and the arrivals were not those that were asked for.
const LATE: Duration = Duration::from_millis(5);

/// A 99th percentile of fewer is one of the few largest values.
const FEW: u64 = 100;

const SKEW: Duration = Duration::from_millis(50);

/// All there are, the gravest first.
pub(crate) fn find(plan: &Plan, tally: &Tally, seen: &Circumstances) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let mut doubt = |kind, text: String| doubts.push(Doubt { kind, text });
    if tally.busiest > SATURATED {
        doubt(
            Kind::GeneratorSaturated,
            format!(
                "a thread of this generator was busy for {:.0} % of the time, so latencies hold its own \
                 queue: lower the rate, or use more --threads, processors or machines",
                tally.busiest.min(1.0) * 100.0
            ),
        );
    }
    let late = tally[Phase::StartDelay]
        .quantile_ms(0.99)
        .unwrap_or_default();
    if plan.rate.is_some() && late > LATE.as_secs_f64() * 1e3 {
        doubt(
            Kind::PacerLate,
            format!(
                "1 % of the connections began {late:.0} ms or more after they should: latencies hold \
                 that delay, and the load came in heaps"
            ),
        );
    }
    if seen.was_full {
        doubt(
            Kind::NoRoom,
            format!(
                "at times {} connections were open and no more had room: later ones had to wait; raise \
                 the limit on descriptors (ulimit -Hn)",
                seen.room
            ),
        );
    }
    for phase in [
        Phase::FullHandshake,
        Phase::ResumedHandshake,
        Phase::Reconnect,
        Phase::Message,
    ] {
        let count = tally[phase].count();
        if (1..FEW).contains(&count) {
            let words = phase.words();
            doubt(
                Kind::FewSamples,
                format!("{words}: {count} measured, too few for a 99th percentile"),
            );
        }
    }
    if tally.dropped > 0 {
        doubt(
            Kind::LocalDrops,
            format!(
                "{} answers came and were dropped, since this generator's sockets were full: so many \
                 losses and retransmissions are its own",
                tally.dropped
            ),
        );
    }
    // The host's count has ours in it.
    let others = seen.dropped.map(|host| host.saturating_sub(tally.dropped));
    if let Some(dropped) = others.filter(|&dropped| dropped > 0) {
        doubt(
            Kind::LocalDrops,
            format!(
                "this host dropped {dropped} datagrams for want of room in other sockets (of any \
                 program, such as the server): losses and retransmissions may be its own"
            ),
        );
    }
    if tally.unsent > 0 {
        doubt(
            Kind::Unsent,
            format!(
                "the kernel would not take {} datagrams; they count as lost",
                tally.unsent
            ),
        );
    }
    if seen.clock_skew > SKEW {
        doubt(
            Kind::ClockTrouble,
            format!(
                "the clock was set, or the machine stood still, by {:.1} s during the run",
                seen.clock_skew.as_secs_f64()
            ),
        );
    }
    if tally.ports_reused > 0 {
        doubt(
            Kind::PortReuse,
            format!(
                "{} connections came from a port that an earlier one had: a server may take them for \
                 the old client; send from more addresses with --source",
                tally.ports_reused
            ),
        );
    }
    if seen.server_gone {
        doubt(
            Kind::ServerUnobserved,
            "the server's process ended before the run did".to_owned(),
        );
    }
    if seen.shared {
        doubt(
            Kind::SharedMachine,
            "server and generator share this machine's processors: read the processor time of the \
             server, not the rate"
                .to_owned(),
        );
    }
    doubts
}
