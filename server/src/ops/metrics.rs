//! The metrics page: OpenMetrics text, which Prometheus reads. Operations thread.
//!
//! Names are `dtls_server_` and the counter's own; all `dropped_…` counters are one metric with a
//! `reason`, so that they can be added up.

use std::fmt;
use std::sync::atomic::Ordering;

use dtls::Counter as DtlsCounter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Ops, process};
use crate::listener::Watched;
use crate::service::port_usage;
use crate::stats::Counter;

/// OpenMetrics 1.0.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page.
pub(super) fn exposition(ops: &Ops) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot {
        listeners: ops.listeners.clone(),
        ready: !ops.draining.load(Ordering::SeqCst),
        uptime: ops.started.elapsed().as_secs_f64(),
    }));
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry)
        .expect("writing to a string does not fail");
    page
}

/// Reads all numbers when asked.
#[derive(Debug)]
struct Snapshot {
    listeners: Vec<Watched>,
    ready: bool,
    uptime: f64,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.counters(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.handshakes(&mut encoder)?;
        self.server(&mut encoder)
    }
}

/// What a label says of each sample.
type Labels<'a> = &'a [(&'a str, &'a str)];

impl Snapshot {
    fn counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sets: Vec<_> = self
            .listeners
            .iter()
            .map(|listener| (listener.address.to_string(), listener.counters()))
            .collect();
        let dtls = dtls::Stats::default();
        let library = dtls
            .iter()
            .map(|(counter, _): (DtlsCounter, u64)| (counter.name(), counter.help()));
        let own = Counter::all().map(|counter| (counter.name(), counter.help()));
        let all: Vec<_> = library.chain(own).collect();
        let value = |name| move |set: &crate::listener::Counters| set.get(name);

        for (name, help) in &all {
            if name.starts_with(DROPPED) {
                continue;
            }
            let name_here = format!("dtls_server_{name}");
            let mut family =
                encoder.encode_descriptor(&name_here, &plain(help), None, MetricType::Counter)?;
            for (listener, set) in &sets {
                let labels: Labels<'_> = &[("listener", listener)];
                let sample = family.encode_family(&labels)?;
                ConstCounter::new(value(name)(set)).encode(sample)?;
            }
        }
        let help = "Records and datagrams dropped, by reason.";
        let mut family =
            encoder.encode_descriptor("dtls_server_dropped", help, None, MetricType::Counter)?;
        for (name, _) in &all {
            let Some(reason) = name.strip_prefix(DROPPED) else {
                continue;
            };
            for (listener, set) in &sets {
                let labels: Labels<'_> = &[("listener", listener), ("reason", reason)];
                let sample = family.encode_family(&labels)?;
                ConstCounter::new(value(name)(set)).encode(sample)?;
            }
        }
        Ok(())
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = fn(&Watched) -> usize;
        let gauges: [(&str, &str, Read); 3] = [
            (
                "dtls_server_connections",
                "Connections at present, handshakes included.",
                |listener| listener.pool.connections(),
            ),
            (
                "dtls_server_connections_limit",
                "Connections allowed at once.",
                |listener| listener.pool.limit(),
            ),
            (
                "dtls_server_handshakes_in_progress",
                "Connections whose handshake is not complete.",
                |listener| listener.stats.handshaking(),
            ),
        ];
        for (name, help, read) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for listener in &self.listeners {
                let address = listener.address.to_string();
                let labels: Labels<'_> = &[("listener", &address)];
                let sample = family.encode_family(&labels)?;
                ConstGauge::new(count(read(listener))).encode(sample)?;
            }
        }
        Ok(())
    }

    fn handshakes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "dtls_server_handshake_duration",
            "From the verified hello to the end of the handshake.",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for listener in &self.listeners {
            let address = listener.address.to_string();
            for (kind, times) in [
                ("full", &listener.stats.full_handshakes),
                ("resumed", &listener.stats.resumed_handshakes),
            ] {
                let labels: Labels<'_> = &[("listener", &address), ("kind", kind)];
                times.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn server(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (process, ports) = (process::now(), port_usage());
        let gauges = [
            (
                "dtls_server_ready",
                "1 while new clients are answered, 0 while the server drains.",
                None,
                f64::from(u8::from(self.ready)),
            ),
            (
                "dtls_server_uptime",
                "Time since the start.",
                Some(Unit::Seconds),
                self.uptime,
            ),
            (
                "dtls_server_backend_ports",
                "Local ports taken by connections to backends.",
                None,
                float(ports.taken),
            ),
            (
                "dtls_server_local_ports",
                "Local ports that the host gives out by itself.",
                None,
                float(ports.range),
            ),
            (
                "process_resident_memory",
                "Memory in use.",
                Some(Unit::Bytes),
                float(process.resident_bytes),
            ),
            ("process_threads", "Threads.", None, float(process.threads)),
            (
                "process_open_fds",
                "Open descriptors.",
                None,
                float(process.open_descriptors),
            ),
            (
                "process_max_fds",
                "Descriptors allowed.",
                None,
                float(process.max_descriptors),
            ),
        ];
        for (name, help, unit, value) in gauges {
            let sample = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            ConstGauge::new(value).encode(sample)?;
        }
        let sample = encoder.encode_descriptor(
            "process_cpu",
            "Processor time of user and system.",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        ConstCounter::new(process.cpu_seconds).encode(sample)
    }
}

/// What the names of drop counters begin with; the rest is the reason.
const DROPPED: &str = "dropped_";

/// A comment of the source as one line of help.
fn plain(comment: &str) -> String {
    comment
        .replace('`', "")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are floating point numbers, exact up to 2^53"
)]
fn float(n: u64) -> f64 {
    n as f64
}
