//! Where a scenario is played. Main thread; values only.

use crate::netem;
use crate::scenario::Scenario;

/// Where runs are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Real programs in network namespaces, and our own wire between them.
    Wire,
    /// The same with the kernel's netem as the wire's links.
    Netem,
    /// Both ends in this process, on a virtual clock.
    Sim,
}

impl Backend {
    /// How it is made, in a few words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Wire => "wire (namespaces, veth, AF_PACKET)",
            Self::Netem => "netem (namespaces, veth, the kernel's sch_netem)",
            Self::Sim => "sim (one process, virtual clock)",
        }
    }

    /// The word in tables, and after `--backend`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Netem => "netem",
            Self::Sim => "sim",
        }
    }
}

/// Which backend plays which scenario.
#[derive(Debug, Clone)]
pub enum Choice {
    /// This one all.
    Only(Backend),
    /// Netem all, on a machine that has none, for this reason.
    NoNetem(netem::Missing),
    /// Netem those whose faults are links that it can make, the wire the others.
    NetemWhereItSuffices,
}

impl Choice {
    /// How it is made, in a few words.
    #[must_use]
    pub const fn describe(&self) -> &'static str {
        match self {
            Self::Only(backend) => backend.describe(),
            Self::NoNetem(_) => Backend::Netem.describe(),
            Self::NetemWhereItSuffices => {
                "netem (the kernel's sch_netem) where it suffices, else wire (namespaces, veth, AF_PACKET)"
            }
        }
    }

    /// The backend for this scenario.
    #[must_use]
    pub fn of(&self, scenario: &Scenario) -> Backend {
        match self {
            Self::Only(backend) => *backend,
            Self::NoNetem(_) => Backend::Netem,
            Self::NetemWhereItSuffices => {
                let fits = netem::has_links(scenario) && netem::suffices_for(scenario).is_ok();
                if fits { Backend::Netem } else { Backend::Wire }
            }
        }
    }
}
