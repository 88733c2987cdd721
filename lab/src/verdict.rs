//! Stage 4 of the lab's path: what was seen, against what the scenario expects.
//!
//! A verdict rests on the wire and on application data, never on an exit status: programs end with 0
//! after a failed handshake, and some end with 1 after a good one. Pure.

mod check;
mod repeats;

pub(crate) use repeats::transmissions;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::observe::Trace;
use crate::scenario::{Play, Scenario};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// Everything expected was seen.
    Pass,
    /// Something expected was not seen; what.
    Fail(String),
    /// The endpoint says that it cannot play this.
    Unsupported(String),
    /// It was not run.
    Skipped(Skip),
    /// The lab could not do its part, so nothing is known about the endpoints.
    Broken(String),
}

impl Verdict {
    /// The reason, where there is one.
    pub fn why(&self) -> &str {
        match self {
            Self::Pass => "",
            Self::Fail(why) | Self::Unsupported(why) | Self::Broken(why) => why,
            Self::Skipped(skip) => &skip.why,
        }
    }
}

/// Why a run was not tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skip {
    /// What was missing.
    pub need: Need,
    /// In words.
    pub why: String,
}

/// What a machine may lack; the words of `LAB_REQUIRE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// The programs of the adapter of this name.
    Adapter(String),
    /// IPv6 in the kernel.
    Ipv6,
    /// Another scenario's pass.
    Control,
    /// What only our own wire does, or real programs, sockets and threads, which the simulator has not.
    Wire,
    /// netem in the kernel, and `tc`.
    Netem,
    /// A virtual clock, or ends that no program plays.
    Sim,
}

impl Need {
    /// The word in `LAB_REQUIRE`.
    pub fn name(&self) -> &str {
        match self {
            Self::Adapter(name) => name,
            Self::Ipv6 => "ipv6",
            Self::Control => "control",
            Self::Wire => "wire",
            Self::Netem => "netem",
            Self::Sim => "sim",
        }
    }
}

/// Application data seen at the far end after every fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// A line written to the client was seen at the server.
    pub to_server: bool,
    /// A line written to the server, or sent back by it, was seen at the client.
    pub to_client: bool,
    /// A line that came out more often than it was put in.
    pub repeated: Option<String>,
    /// Why none was tried: the ends do not understand each other.
    pub not_tried: Option<String>,
}

impl Exchange {
    /// Whether data came through in both directions.
    pub const fn is_complete(&self) -> bool {
        self.to_server && self.to_client
    }
}

/// How an endpoint came to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// When it ended of its own accord, before it was asked to.
    pub by_itself: Option<Duration>,
    /// Its exit status was that of an endpoint that cannot play.
    pub unsupported: bool,
    /// It had to be killed, because it did not end when asked to.
    pub killed: bool,
    /// It printed more than the lab keeps.
    pub flooded: bool,
    /// The last line it printed.
    pub last_words: Option<String>,
}

/// All that was seen in a run.
#[derive(Debug, Default)]
pub struct Observation {
    /// The wire.
    pub trace: Trace,
    /// Data after the faults; `None` when it never came to that.
    pub exchange: Option<Exchange>,
    /// What the client's load mode counted, where it was used.
    pub load: Option<BTreeMap<String, u64>>,
    /// The server's counters, where it prints some.
    pub counters: Option<BTreeMap<String, u64>>,
    /// When the lab began to end the programs.
    pub over: Option<Duration>,
    /// When the client was killed, where that is the point.
    pub client_killed: Option<Duration>,
    /// KiB of the server's memory before and after what attackers did.
    pub server_memory: Option<[u64; 2]>,
    /// How many times as fast as ours the programs' clocks ran, where that was so.
    pub dilated: Option<u32>,
    /// Why it was not so, where it was asked for.
    pub not_dilated: Option<String>,
    /// Processes that the programs left behind, and the lab killed.
    pub left_behind: usize,
    /// Worker threads of the server just before it was asked to end.
    pub threads_left: Option<u64>,
    /// The server's end.
    pub server: Ending,
    /// The client's end.
    pub client: Ending,
}

impl Observation {
    /// Why no data was tried, where the ends do not understand each other.
    pub fn not_tried(&self) -> Option<&str> {
        self.exchange.as_ref()?.not_tried.as_deref()
    }
}

/// Judges a run.
pub fn judge(scenario: &Scenario, play: &Play, seen: &Observation) -> Verdict {
    if let Err(why) = check::lab_did_its_part(seen) {
        return Verdict::Broken(why);
    }
    for (ending, who) in [(&seen.server, "server"), (&seen.client, "client")] {
        if ending.unsupported {
            return Verdict::Unsupported(format!("the {who} says that it cannot play this"));
        }
    }
    if let Err(why) = check::endpoints(scenario, play, seen) {
        return Verdict::Fail(why);
    }
    // Last: an endpoint that dies early may never meet the rest of the faults.
    match check::faults_happened(scenario, seen) {
        Ok(()) => Verdict::Pass,
        Err(why) => Verdict::Broken(why),
    }
}

#[cfg(test)]
mod tests;
