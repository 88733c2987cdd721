//! What a run leaves behind, besides the programs' own logs. Run's thread.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use crate::observe::pcap::write_capture;
use crate::verdict::Observation;

/// Writes everything a person needs to see what happened.
pub(super) fn write_evidence(
    folder: &Path,
    started: SystemTime,
    seen: &Observation,
) -> std::io::Result<()> {
    write_json_lines(&folder.join("events.jsonl"), &seen.trace.events)?;
    write_json_lines(&folder.join("decisions.jsonl"), seen.trace.decisions())?;
    write_capture(&folder.join("wire.pcapng"), started, &seen.trace.frames)
        .map_err(std::io::Error::other)
}

fn write_json_lines<T: Serialize>(
    path: &Path,
    values: impl IntoIterator<Item = T>,
) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for value in values {
        serde_json::to_writer(&mut file, &value)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
