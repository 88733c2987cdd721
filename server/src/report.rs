//! The counters, for people or for programs. Main thread at the end, the operations thread meanwhile.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::cli::Format;
use crate::listener::Counters;

/// Prints the counters of each listener and, of several, their sum.
///
/// # Errors
/// Nobody reads them.
pub(crate) fn write(
    out: &mut impl Write,
    listeners: &[Counters],
    format: Format,
) -> io::Result<()> {
    match format {
        Format::Text => write_text(out, listeners)?,
        Format::Json => {
            let counters = sum(listeners);
            let report = Report {
                counters,
                listeners,
            };
            serde_json::to_writer(&mut *out, &report)?;
            writeln!(out)?;
        }
    }
    out.flush()
}

/// An aligned table of what is not zero, a column for each listener if there are several.
fn write_text(out: &mut impl Write, listeners: &[Counters]) -> io::Result<()> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, total) in sum(listeners).0 {
        if total > 0 {
            let mut row = vec![name.to_owned(), total.to_string()];
            if listeners.len() > 1 {
                let each = |listener: &Counters| listener.get(name).to_string();
                row.extend(listeners.iter().map(each));
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return writeln!(out, "nothing was received");
    }
    if listeners.len() > 1 {
        let mut head = vec![String::new(), "total".to_owned()];
        head.extend(listeners.iter().map(|listener| listener.listener.clone()));
        rows.insert(0, head);
    }
    write_table(out, &rows)
}

/// Aligned columns, the first one to the left, all others to the right.
///
/// # Errors
/// Nobody reads them.
pub(crate) fn write_table(out: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            match column {
                0 => write!(out, "{cell:<width$}")?,
                _ => write!(out, "  {cell:>width$}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Report<'a> {
    counters: Values,
    listeners: &'a [Counters],
}

/// A map from name to value, in declaration order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Values(pub(crate) Vec<(&'static str, u64)>);

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// What all listeners have counted together. Each has the same counters in the same order.
pub(crate) fn sum(listeners: &[Counters]) -> Values {
    let mut all = listeners.iter().map(|listener| &listener.counters);
    let mut total = all.next().map_or_else(Vec::new, |first| first.0.clone());
    for more in all {
        for (sum, (_, value)) in total.iter_mut().zip(&more.0) {
            sum.1 += value;
        }
    }
    Values(total)
}

#[cfg(test)]
mod tests {
    use dtls::Counter;

    use super::*;
    use crate::stats::Stats;

    fn counters(listener: &str, counted: &[(Counter, u64)]) -> Counters {
        let dtls = dtls::Stats::default();
        for &(counter, value) in counted {
            dtls.add(counter, value);
        }
        Counters::of(listener, &dtls, &Stats::default())
    }

    fn printed(listeners: &[Counters], format: Format) -> String {
        let mut out = Vec::new();
        write(&mut out, listeners, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_aligns_what_is_not_zero() {
        let nothing = counters("[::]:1", &[]);
        assert_eq!(printed(&[nothing], Format::Text), "nothing was received\n");
        let one = counters(
            "[::]:1",
            &[
                (Counter::IdleTimeouts, 1),
                (Counter::DatagramsReceived, 1234),
            ],
        );
        assert_eq!(
            printed(&[one], Format::Text),
            "idle_timeouts          1\ndatagrams_received  1234\n"
        );
    }

    #[test]
    fn text_has_a_column_for_each_of_several_listeners() {
        let both = [
            counters("[::]:1", &[(Counter::IdleTimeouts, 1)]),
            counters("[::]:22", &[(Counter::IdleTimeouts, 4)]),
        ];
        assert_eq!(
            printed(&both, Format::Text),
            "               total  [::]:1  [::]:22\nidle_timeouts      5       1        4\n"
        );
    }

    #[test]
    fn json_is_one_object_with_every_counter() {
        let both = [
            counters("[::]:1", &[(Counter::HellosRefused, 7)]),
            counters("[::]:2", &[(Counter::HellosRefused, 1)]),
        ];
        let text = printed(&both, Format::Json);
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let counters = value["counters"].as_object().unwrap();
        // Also: no name stands for two.
        let count = dtls::Stats::default().iter().count() + Stats::default().iter().count();
        assert_eq!(counters.len(), count);
        assert_eq!(counters["hellos_refused"], 8);
        assert_eq!(counters["datagrams_sent"], 0);
        assert_eq!(value["listeners"][1]["listener"], "[::]:2");
        assert_eq!(value["listeners"][1]["counters"]["hellos_refused"], 1);
    }
}
