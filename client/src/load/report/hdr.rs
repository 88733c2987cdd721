//! The latencies as an HDR histogram log, which common viewers read: a line for each phase, tagged
//! with its name. Main thread.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::Report;

/// Writes it.
pub(crate) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let failed = |error: &dyn std::fmt::Debug| io::Error::other(format!("{error:?}"));
    let started = humantime::parse_rfc3339(&report.started_at).unwrap_or(UNIX_EPOCH);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("dtls-client load: latencies in nanoseconds, a line for each phase")
        .with_start_time(started)
        .begin_log_with(out, &mut serializer)?;
    let length = Duration::from_secs_f64(report.seconds);
    for (phase, latency) in &report.histograms {
        let tag = Tag::new(phase.name());
        log.write_histogram(latency.histogram(), Duration::ZERO, length, tag)
            .map_err(|error| failed(&error))?;
    }
    Ok(())
}
