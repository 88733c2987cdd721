//! Stage 1 of the lab's path: a TOML file becomes a checked [`Scenario`].
//!
//! Pure: whoever reads the files hands their text over. These types hold only sensible values:
//! what is impossible is refused by `parse` with file, line and key, so no later stage checks
//! again. The main thread calls it before any run begins.

mod parse;
mod raw;
mod shape;

pub use shape::Shape;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtls_certs::Profile;
use serde::{Deserialize, Serialize};

use crate::adapter::{Adapter, Adapters};
use crate::refusal::{self, Refusal};
use crate::role::Role;
use crate::rules::{BugId, RuleId};

pub use crate::packet::Family;
pub use crate::wire::change::{Blackhole, Rebind, Rebound};
pub use crate::wire::forgery::Forgery;
pub use crate::wire::inject::{Icmp, Inject, Payload, Trigger};
pub use crate::wire::link::{Chance, GeModel, Link, Mtu, Rate};
pub use crate::wire::rule::{Action, Rule};
pub use crate::wire::selector::{Position, Selector};

/// One case of the lab: what is claimed, who plays, what is done to the wire, what must be seen.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
pub struct Scenario {
    /// `subject-fault-place`; equal to the name of its file.
    pub name: String,
    /// One sentence that a run can refute.
    pub claim: String,
    /// Where the claim comes from: an RFC section, a bug, a source file.
    pub reference: Option<String>,
    /// Who does this to the wire; `None` for a plain fault of the network.
    pub attacker: Option<Attacker>,
    /// The IP versions it runs over, each a run of its own.
    pub families: Vec<Family>,
    /// The scenario without the fault, which must pass first; `None` only for one that has none.
    pub control: Option<String>,
    /// How many clients there are, many of them at once; above 1 through the client's load mode.
    pub clients: u32,
    /// Whether they come one after another, and how each but the last leaves; `None`: all at once.
    pub in_turn: Option<Leave>,
    /// Whether all of them have the same port, as a program has that binds one.
    pub same_port: bool,
    /// Whether each after the first offers the session of the one before.
    pub resume: bool,
    /// Which certificate of the test PKI the server shows.
    pub certificate: Profile,
    /// How long nothing is said between the first data and that which must come through.
    pub quiet: Duration,
    /// Bytes of each line that is said.
    pub line: usize,
    /// Whether the ends are told how long a packet the link carries.
    pub ends_know_mtu: bool,
    /// Ids of the rules this scenario shows.
    pub shows: Vec<RuleId>,
    /// Ids of the known bugs it would find.
    pub finds: Vec<BugId>,
    /// The kind of handshake; other than `full` only the simulator plays it.
    pub handshake: Shape,
    /// Whether the client has another pre-shared key than the server.
    pub wrong_key: bool,
    /// When the lab gives up waiting for the endpoints.
    pub deadline: Duration,
    /// Who plays, each a run of its own.
    pub plays: Vec<Play>,
    /// The link towards the server.
    pub to_server: Link,
    /// The link towards the clients.
    pub to_client: Link,
    /// What happens to which datagram; the first rule that takes a datagram decides.
    pub rules: Vec<Rule>,
    /// What an attacker adds.
    pub injects: Vec<Inject>,
    /// When nothing comes through.
    pub blackholes: Vec<Blackhole>,
    /// When a NAT gives the clients other places.
    pub rebinds: Vec<Rebind>,
    /// What must be seen.
    pub expect: Expect,
}

/// What an attacker can do (RFC 3552 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attacker {
    /// Sends from anywhere and knows nothing.
    OffPathBlind,
    /// Sends from anywhere and knows both addresses and ports.
    #[serde(rename = "off-path-4-tuple")]
    OffPath4Tuple,
    /// Sees every datagram and sends copies or its own, but cannot stop any.
    OnPathObserver,
    /// Sees, stops and changes every datagram.
    OnPathFull,
}

/// How a client leaves before the next one comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leave {
    /// It says so: its input ends, and it closes the connection.
    Closed,
    /// Without a word, as a machine that loses its power.
    Killed,
}

/// Bytes of a line where the scenario says nothing else.
pub const SHORT_LINE: usize = 16;

/// A server and a client that meet, and what is known about the meeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Play {
    /// Who serves.
    pub server: Arc<Adapter>,
    /// Who connects.
    pub client: Arc<Adapter>,
    /// Arguments the server gets besides those every run needs.
    pub server_args: Vec<String>,
    /// Arguments the client gets besides those every run needs.
    pub client_args: Vec<String>,
    /// Why this play cannot meet the expectation, where that is the very point; the run is red if
    /// it meets it all the same. `None`: it must meet it.
    pub fails_because: Option<String>,
    /// Whether it may meet it nevertheless, at times.
    pub may_pass: bool,
    /// Why these ends cannot play it at all.
    pub impossible: Option<String>,
    /// Rules that an end is known to break, whatever the scenario; the others still hold.
    pub waived: BTreeMap<RuleId, Waiver>,
}

/// Why a rule is not held against the ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    /// Who breaks it, and how.
    pub reason: String,
    /// Whether not every run shows it.
    pub sometimes: bool,
}

impl Play {
    /// Both ends as they are, without anything known about them.
    #[must_use]
    pub fn between(server: &Arc<Adapter>, client: &Arc<Adapter>) -> Self {
        Self {
            server: Arc::clone(server),
            client: Arc::clone(client),
            server_args: Vec::new(),
            client_args: Vec::new(),
            fails_because: None,
            may_pass: false,
            impossible: None,
            waived: BTreeMap::new(),
        }
    }

    /// Who plays this role.
    #[must_use]
    pub fn end(&self, role: Role) -> &Arc<Adapter> {
        match role {
            Role::Server => &self.server,
            Role::Client => &self.client,
        }
    }
}

/// What must be seen on the wire and at the ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// How it must end.
    pub outcome: Outcome,
    /// Shortest time a handshake may take, from the first hello to the last flight.
    pub handshake_min: Duration,
    /// Longest time a handshake may take.
    pub handshake_max: Option<Duration>,
    /// Fewest transmissions beyond the first, all flights of a connection together.
    pub resent_min: u32,
    /// Most of them.
    pub resent_max: Option<u32>,
    /// Bounds on the counters our server prints when it ends; other servers have none.
    pub server_counters: BTreeMap<String, Bound>,
    /// Worker threads our server still has when it is told to end.
    pub threads_left: Option<Bound>,
    /// IP fragments that the endpoints send.
    pub fragments: Option<Bound>,
    /// Fewest bytes of the longest IP packet of the handshake, in either direction.
    pub longest_min: Option<usize>,
    /// Most bytes of it.
    pub longest_max: Option<usize>,
    /// Bytes of the longest IP packet with a datagram after the last forgery, by direction.
    pub longest_after: [Option<Bound>; 2],
    /// Datagrams with a heartbeat, by direction.
    pub heartbeats: [Option<Bound>; 2],
    /// KiB of memory by which the server may grow while attackers are at work.
    pub server_growth: Option<Bound>,
    /// Datagrams that both ends send, all in all.
    pub datagrams: Option<Bound>,
    /// When flights are sent again.
    pub repeats: Vec<Repeats>,
}

/// When a flight is sent again that nobody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeats {
    /// The flight.
    pub flight: u8,
    /// The time of each repetition, counted from the first transmission; what comes after the last of
    /// these is not looked at.
    pub after: Vec<Duration>,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every client completes its handshake, and application data flows both ways after every
    /// fault.
    Echo,
    /// The client is killed once data has flowed, and the server ends the connection by itself.
    ClientGone,
    /// Once data has flowed the network gives the client another place: what it sends from there is
    /// answered by nothing of the old connection, and the server ends that by itself.
    CutOff,
    /// No client completes its handshake, and both ends give up by their own deadline and say so.
    HandshakeTimeout,
}

/// A bound on a number, such as `>=1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// How the number is compared with the limit.
    pub comparison: Comparison,
    /// The limit.
    pub limit: u64,
}

/// How a number is compared with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
}

impl Bound {
    /// Whether the number keeps the bound.
    #[must_use]
    pub fn holds(self, number: u64) -> bool {
        match self.comparison {
            Comparison::Equal => number == self.limit,
            Comparison::AtLeast => number >= self.limit,
            Comparison::AtMost => number <= self.limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.comparison {
            Comparison::Equal => "==",
            Comparison::AtLeast => ">=",
            Comparison::AtMost => "<=",
        };
        write!(f, "{sign}{}", self.limit)
    }
}

impl Scenario {
    /// The scenario a file holds; `file` is the name used in errors, and its stem must be the
    /// scenario's name.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with line and column.
    pub fn parse(file: impl Into<PathBuf>, text: &str) -> Result<Self, Refusal> {
        parse::scenario(&file.into(), text, &Adapters::built_in())
    }

    /// Whether something happens as soon as application data has flowed.
    #[must_use]
    pub fn awaits_data(&self) -> bool {
        self.triggers()
            .any(|trigger| matches!(trigger, Trigger::Established))
    }

    fn triggers(&self) -> impl Iterator<Item = &Trigger> {
        let injects = self.injects.iter().map(|one| &one.trigger);
        let holes = self.blackholes.iter().map(|one| &one.trigger);
        let rebinds = self.rebinds.iter().map(|one| &one.trigger);
        injects.chain(holes).chain(rebinds)
    }

    /// How long at most nothing comes through after something set a blackhole off.
    #[must_use]
    pub fn longest_outage(&self) -> Duration {
        let holes = self.blackholes.iter();
        holes.map(Blackhole::over_after).max().unwrap_or_default()
    }

    /// The link in one direction.
    #[must_use]
    pub fn link(&self, direction: crate::packet::Direction) -> &Link {
        match direction {
            crate::packet::Direction::ToServer => &self.to_server,
            crate::packet::Direction::ToClient => &self.to_client,
        }
    }
}

/// All scenarios of a folder, by name; every control is among them.
#[derive(Debug, Clone)]
pub struct Catalogue {
    scenarios: BTreeMap<String, Scenario>,
}

impl Catalogue {
    /// The scenarios of these files, given as name and text.
    ///
    /// # Errors
    ///
    /// The first file that is wrong, or a control that no file holds.
    pub fn parse<P, T>(files: impl IntoIterator<Item = (P, T)>) -> Result<Self, Refusal>
    where
        P: Into<PathBuf>,
        T: AsRef<str>,
    {
        Self::parse_with(files, &Adapters::built_in())
    }

    /// The same, with these to play.
    ///
    /// # Errors
    ///
    /// As for [`Catalogue::parse`].
    pub fn parse_with<P, T>(
        files: impl IntoIterator<Item = (P, T)>,
        adapters: &Adapters,
    ) -> Result<Self, Refusal>
    where
        P: Into<PathBuf>,
        T: AsRef<str>,
    {
        let files: Vec<_> = files
            .into_iter()
            .map(|(file, text)| (file.into(), text))
            .collect();
        let scenarios = parse::catalogue(&files, adapters)?;
        Ok(Self { scenarios })
    }

    /// The scenario of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Scenario> {
        self.scenarios.get(name)
    }

    /// The name most like this one, for an error message.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        refusal::nearest(name, self.scenarios.keys().map(String::as_str))
    }

    /// All of them, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Scenario> {
        self.scenarios.values()
    }
}
