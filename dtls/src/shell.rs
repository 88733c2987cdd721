//! Blocking sockets around the core.
//!
//! ```text
//! kernel ─► socket ─► listener ─► handoff ─► transport ─► stream ─► the application
//!                        ▲  │ early datagrams   ▲  │
//!                        │  └────── mailbox ────┘  │ other peers' datagrams
//!                        └───────── mailbox ───────┘
//! ```
//!
//! The listener's thread runs `socket`, `listener` and `handoff`; from there on everything runs on
//! the connection's own thread.

pub(crate) mod socket;
pub(crate) mod icmp;
pub(crate) mod mailbox;
pub(crate) mod listener;
pub(crate) mod handoff;
pub(crate) mod transport;
pub(crate) mod backlog;
pub(crate) mod stream;
pub(crate) mod connector;
