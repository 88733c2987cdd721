//! A handshake lab: real DTLS programs across a network broken on purpose.
//!
//! ```text
//! lab/scenarios/*.toml
//!      │
//!  scenario ── schedule ── run ─┬─ netns     three network namespaces, two veth pairs
//!                               ├─ netem     the kernel's links in place of the wire's
//!                               ├─ relay     the wire between them: engine, sockets, clock
//!                               │    └─ wire   rules and seed: a fate for each datagram
//!                               ├─ endpoint  the programs under test, as their adapters start them
//!                               │
//!                            observe         what happened on the wire, in order
//!                               │
//!                            verdict         against what the scenario expects
//!                               │
//!                            report          table, JSON, JUnit, page
//! ```
//!
//! Threads: the main thread plans and prints; `--jobs` threads play one run at a time each; every
//! run has a relay thread and two reader threads per endpoint. All waits have deadlines.
//!
//! The lab links nothing of what it judges: it starts programs and reads the wire with a record
//! parser of its own.
#![deny(unsafe_code)]

pub mod cli;
pub mod scenario;
pub mod refusal;
pub mod schedule;
pub mod run;
pub mod sim;
pub mod explore;
pub mod oracle;
pub mod compare;
pub mod netns;
pub mod netem;
pub mod relay;
pub mod wire;
pub mod packet;
pub mod record;
pub mod icmp;
pub mod rules;
pub mod adapter;
pub mod expectations;
pub mod endpoint;
pub mod role;
pub mod observe;
pub mod verdict;
pub mod report;
pub mod clock;
