//! The end of a program's log, as far as a page should show it. Main thread.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// What the page shows of a log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) words: String,
    pub(super) text: String,
}

impl Log {
    /// The last lines of `server.log` or `client.log` in a run's folder, if there are any.
    pub(super) fn tail(folder: &Path, name: &str) -> Option<Self> {
        let mut file = File::open(folder.join(name)).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST_READ)))
            .ok()?;
        let mut bytes = Vec::new();
        file.take(MOST_READ).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(LINES);
        let kept: Vec<String> = lines[skipped..]
            .iter()
            .map(|line| shortened(line))
            .collect();
        if kept.is_empty() {
            return None;
        }
        let words = if skipped > 0 || length > MOST_READ {
            format!("the last {} lines of {name}", kept.len())
        } else {
            name.to_owned()
        };
        Some(Self {
            words,
            text: kept.join("\n"),
        })
    }
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= WIDEST {
        return line.to_owned();
    }
    let kept: String = line.chars().take(WIDEST).collect();
    format!("{kept}…")
}

/// Bytes read from the end of a log: a program may have written without end.
const MOST_READ: u64 = 16 << 10;
const LINES: usize = 12;
const WIDEST: usize = 240;
