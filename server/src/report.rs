//! The counters at the end, for people or for programs. Main thread.

use std::io::{self, Write};

use dtls::Stats as DtlsStats;
use serde::{Serialize, Serializer};

use crate::cli::Format;
use crate::stats::Stats;

/// Prints the counters.
///
/// # Errors
/// Nobody reads them.
pub(crate) fn write(
    out: &mut impl Write,
    dtls: &DtlsStats,
    server: &Stats,
    format: Format,
) -> io::Result<()> {
    let counters = Counters { dtls, server };
    match format {
        Format::Text => write_text(out, counters)?,
        Format::Json => {
            serde_json::to_writer(&mut *out, &Report { counters })?;
            writeln!(out)?;
        }
    }
    out.flush()
}

/// An aligned table of what is not zero.
fn write_text(out: &mut impl Write, counters: Counters<'_>) -> io::Result<()> {
    let rows: Vec<(&str, u64)> = counters.iter().filter(|&(_, value)| value > 0).collect();
    if rows.is_empty() {
        return writeln!(out, "nothing was received");
    }
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let digits = rows
        .iter()
        .map(|(_, value)| value.to_string().len())
        .max()
        .unwrap_or(0);
    for (name, value) in rows {
        writeln!(out, "{name:<names$}  {value:>digits$}")?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Report<'a> {
    counters: Counters<'a>,
}

/// A map from name to value, in declaration order: the library's counters, then the server's.
#[derive(Clone, Copy)]
struct Counters<'a> {
    dtls: &'a DtlsStats,
    server: &'a Stats,
}

impl<'a> Counters<'a> {
    fn iter(self) -> impl Iterator<Item = (&'static str, u64)> + 'a {
        let dtls = self
            .dtls
            .iter()
            .map(|(counter, value)| (counter.name(), value));
        let server = self
            .server
            .iter()
            .map(|(counter, value)| (counter.name(), value));
        dtls.chain(server)
    }
}

impl Serialize for Counters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use dtls::Counter;

    use super::*;

    fn printed(stats: &DtlsStats, format: Format) -> String {
        let mut out = Vec::new();
        write(&mut out, stats, &Stats::default(), format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_aligns_what_is_not_zero() {
        let stats = DtlsStats::default();
        assert_eq!(printed(&stats, Format::Text), "nothing was received\n");
        stats.count(Counter::IdleTimeouts);
        stats.add(Counter::DatagramsReceived, 1234);
        assert_eq!(
            printed(&stats, Format::Text),
            "idle_timeouts          1\ndatagrams_received  1234\n"
        );
    }

    #[test]
    fn json_is_one_object_with_every_counter() {
        let stats = DtlsStats::default();
        stats.add(Counter::HellosRefused, 7);
        let text = printed(&stats, Format::Json);
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let counters = value["counters"].as_object().unwrap();
        // Also: no name stands for two.
        let count = stats.iter().count() + Stats::default().iter().count();
        assert_eq!(counters.len(), count);
        assert_eq!(counters["hellos_refused"], 7);
        assert_eq!(counters["datagrams_sent"], 0);
    }
}
