//! The status page: everything at a glance as one JSON object, for `dtls-server status` and other
//! programs. The operations thread writes it, the command reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Ops;
use super::process::{self, Process};
use crate::service::port_usage;

/// The page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    /// Whether further clients are answered.
    pub(super) ready: bool,
    pub(super) uptime_seconds: f64,
    pub(super) process: Process,
    pub(super) local_ports: LocalPorts,
    pub(super) listeners: Vec<Listener>,
}

/// Local ports towards backends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LocalPorts {
    /// Taken by this server.
    pub(super) taken: u64,
    /// In the host's range.
    pub(super) range: u64,
}

/// One listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Listener {
    pub(super) listener: String,
    pub(super) service: String,
    pub(super) connections: usize,
    pub(super) max_connections: usize,
    pub(super) handshaking: usize,
    pub(super) counters: BTreeMap<String, u64>,
}

/// The server at present.
pub(super) fn of(ops: &Ops, ready: bool) -> String {
    let ports = port_usage();
    let counted = ops.counters();
    let listeners = ops
        .listeners
        .iter()
        .zip(counted)
        .map(|(listener, counted)| {
            let counters = counted.counters.0.into_iter();
            Listener {
                listener: counted.listener,
                service: listener.service.clone(),
                connections: listener.pool.connections(),
                max_connections: listener.pool.limit(),
                handshaking: listener.stats.handshaking(),
                counters: counters
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            }
        });
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready,
        uptime_seconds: ops.started.elapsed().as_secs_f64(),
        process: process::now(),
        local_ports: LocalPorts {
            taken: ports.taken,
            range: ports.range,
        },
        listeners: listeners.collect(),
    };
    let mut page = serde_json::to_string(&status).expect("all keys are text");
    page.push('\n');
    page
}
