//! Blocking sockets around the core.
//!
//! ```text
//! kernel ─► socket ─► reception ─► handoff ─► transport ─► stream ─► the application
//!                        ▲  │ datagrams of a    ▲  │
//!                        │  └─ peer, in its inbox  │ other peers' datagrams, hellos at the end
//!                        └──────── mailbox ────────┘
//! ```
//!
//! The listener's thread runs `socket`, `reception` and `handoff`; from there on everything runs on
//! the connection's own thread.

pub(crate) mod socket;
pub(crate) mod icmp;
pub(crate) mod bad_calls;
pub(crate) mod mailbox;
pub(crate) mod reception;
pub(crate) mod listener;
pub(crate) mod handoff;
pub(crate) mod transport;
pub(crate) mod backlog;
pub(crate) mod stream;
pub(crate) mod connector;
