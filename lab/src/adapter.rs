//! Who can play: a small TOML file for each implementation says how its programs are started and how
//! they talk.
//!
//! Pure: whoever reads the files hands their text over. Nothing else in the lab knows one program
//! from another. The main thread reads them before any run begins.

mod parse;
mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::endpoint::process::Stream;
use crate::refusal::Refusal;
use crate::role::Role;

pub use template::{Slot, Template};

/// One implementation of DTLS, as its file describes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Adapter {
    /// The name that scenarios, tables and flags use; equal to the name of its file.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// What to do where a program of it is missing.
    pub install: String,
    /// The command that prints its version.
    pub version: Option<Vec<String>>,
    /// Whether the lab refuses to run without it, instead of skipping its runs.
    pub required: bool,
    /// The folder of the file, where programs named by a relative path lie.
    pub folder: Option<PathBuf>,
    /// How its server is started, if it has one.
    pub server: Option<ServerSide>,
    /// How its client is started, if it has one.
    pub client: Option<ClientSide>,
}

/// What both sides of an implementation need.
#[derive(Debug, PartialEq, Eq)]
pub struct Side {
    /// The program and its arguments.
    pub command: Vec<Template>,
    /// What is added when the ends are told how long their datagrams may be; `None`: it cannot be told.
    pub mtu: Option<Vec<Template>>,
    /// Environment variables.
    pub environment: BTreeMap<String, Template>,
    /// How it exchanges application data.
    pub data: Data,
    /// Whether it reads `LAB_TASK` and exits with 127 for a task that it does not know.
    pub says_unsupported: bool,
}

/// How a server is started and known to be ready.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerSide {
    /// What a client has, too.
    pub side: Side,
    /// How it is known to listen.
    pub ready: Ready,
    /// Whether it ends when asked to, and prints its counters as JSON then.
    pub counters: bool,
}

/// How a client is started.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientSide {
    /// What a server has, too.
    pub side: Side,
    /// How one process plays many clients and counts for itself, if it can.
    pub many: Option<Many>,
    /// What is added to resume a session: for the first connection and for those after it.
    pub resume: Option<[Vec<Template>; 2]>,
}

/// One process that plays many clients.
#[derive(Debug, PartialEq, Eq)]
pub struct Many {
    /// The program and its arguments.
    pub command: Vec<Template>,
    /// What is added so that each after the first resumes the session before.
    pub resume: Option<Vec<Template>>,
}

/// How an end exchanges application data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// It prints what it receives and sends each line of its standard input.
    Lines,
    /// It sends back what it receives.
    Echo,
    /// It speaks a protocol of its own.
    Protocol {
        /// Its name; both ends must have the same.
        name: String,
        /// Of a client: what stands in each answer that it prints.
        answer: Option<String>,
    },
}

/// How a server is known to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// Its UDP port is bound, as the kernel says.
    Bound,
    /// It prints a line with this text.
    Says {
        /// On which stream.
        stream: Stream,
        /// The text.
        text: String,
        /// Whether it must be the whole line.
        whole: bool,
    },
}

/// The implementation that this project is about; the one that the simulator plays.
pub const OURS: &str = "ours";

impl Adapter {
    /// What one side needs, if the implementation has it.
    pub fn side(&self, role: Role) -> Option<&Side> {
        match role {
            Role::Server => self.server.as_ref().map(|server| &server.side),
            Role::Client => self.client.as_ref().map(|client| &client.side),
        }
    }

    /// Whether it is the implementation of this project that the simulator can play, too.
    pub fn is_ours(&self) -> bool {
        self.name == OURS
    }

    /// Whether its server prints counters when asked to end.
    pub fn has_counters(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.counters)
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// All implementations that can play, by name.
#[derive(Debug, Clone)]
pub struct Adapters {
    by_name: BTreeMap<String, Arc<Adapter>>,
}

impl Adapters {
    /// Those that the lab brings along.
    ///
    /// # Panics
    ///
    /// When one of the lab's own files is wrong; a test reads them all.
    #[must_use]
    pub fn built_in() -> Self {
        let mut adapters = Self {
            by_name: BTreeMap::new(),
        };
        for (file, text) in BUILT_IN {
            match parse::adapter(file.as_ref(), text, None) {
                Ok(adapter) => adapters.insert(adapter),
                Err(refusal) => panic!("{refusal}"),
            }
        }
        adapters
    }

    /// Adds the adapter of one file; one of the same name gives way to it.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it, with line and column.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<(), Refusal> {
        let folder = file.parent().map(PathBuf::from);
        self.insert(parse::adapter(file, text, folder)?);
        Ok(())
    }

    fn insert(&mut self, adapter: Adapter) {
        self.by_name.insert(adapter.name.clone(), Arc::new(adapter));
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Adapter>> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Adapter>> {
        self.by_name.values()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

/// The files of `lab/adapters`: name and text.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/adapters.rs"));

#[cfg(test)]
mod tests;
