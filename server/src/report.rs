//! The counters at the end, for people or for programs. Main thread.

use std::io::{self, Write};

use dtls::Stats;
use serde::{Serialize, Serializer};

use crate::cli::Format;

/// Prints the counters.
///
/// # Errors
/// Nobody reads them.
pub(crate) fn write(out: &mut impl Write, stats: &Stats, format: Format) -> io::Result<()> {
    match format {
        Format::Text => write_text(out, stats)?,
        Format::Json => {
            let counters = Counters(stats);
            serde_json::to_writer(&mut *out, &Report { counters })?;
            writeln!(out)?;
        }
    }
    out.flush()
}

/// An aligned table of what is not zero.
fn write_text(out: &mut impl Write, stats: &Stats) -> io::Result<()> {
    let rows: Vec<(&str, u64)> = stats
        .iter()
        .filter(|&(_, value)| value > 0)
        .map(|(counter, value)| (counter.name(), value))
        .collect();
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

/// A map from name to value, in declaration order.
struct Counters<'a>(&'a Stats);

impl Serialize for Counters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .iter()
                .map(|(counter, value)| (counter.name(), value)),
        )
    }
}

#[cfg(test)]
mod tests {
    use dtls::Counter;

    use super::*;

    fn printed(stats: &Stats, format: Format) -> String {
        let mut out = Vec::new();
        write(&mut out, stats, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_aligns_what_is_not_zero() {
        let stats = Stats::default();
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
        let stats = Stats::default();
        stats.add(Counter::HellosRefused, 7);
        let text = printed(&stats, Format::Json);
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let counters = value["counters"].as_object().unwrap();
        assert_eq!(counters.len(), stats.iter().count());
        assert_eq!(counters["hellos_refused"], 7);
        assert_eq!(counters["datagrams_sent"], 0);
    }
}
