//! What a run leaves behind, besides the programs' own logs. Run's thread.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use crate::observe::pcap::write_capture;
use crate::verdict::Observation;

/// Writes everything a person needs to see what happened.
pub(crate) fn write_evidence(
    folder: &Path,
    started: SystemTime,
    seen: &Observation,
) -> io::Result<()> {
    write_json_lines(&folder.join("events.jsonl"), &seen.trace.events)?;
    write_json_lines(&folder.join("decisions.jsonl"), seen.trace.decisions())?;
    let secrets = secrets(folder)?;
    write_capture(
        &folder.join("wire.pcapng"),
        started,
        &secrets,
        &seen.trace.frames,
    )
    .map_err(io::Error::other)
}

/// The secrets that the endpoints have logged (`*.keylog`), each once: both ends know the same.
fn secrets(folder: &Path) -> io::Result<String> {
    let mut lines = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "keylog")
        {
            continue;
        }
        let mut text = Vec::new();
        File::open(&path)?
            .take(LONGEST_KEYLOG)
            .read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        lines.extend(text.lines().filter(is_secret).map(str::to_owned));
    }
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

/// Whether a line is whole: label, 32 random bytes of the client, secret. A program that was killed may
/// have left half of one.
fn is_secret(line: &&str) -> bool {
    let is_hex = |word: &&str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words: Vec<&str> = line.split(' ').collect();
    matches!(words[..], [label, random, secret]
        if !label.starts_with('#') && random.len() == 64 && is_hex(&random)
            && secret.len() >= 64 && secret.len().is_multiple_of(2) && is_hex(&secret))
}

/// Bytes: a hundred thousand handshakes. A program that writes more has gone wild.
const LONGEST_KEYLOG: u64 = 20 << 20;

fn write_json_lines<T: Serialize>(
    path: &Path,
    values: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for value in values {
        serde_json::to_writer(&mut file, &value)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// A report, and the backends of which no later one tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// Its `report.json`.
    pub path: PathBuf,
    /// Those backends.
    pub backends: BTreeSet<String>,
}

/// The newest reports below `out`, as many as it takes for each backend; none where nothing was run. A planted
/// defect says nothing of what we have, so reports of such are left out.
///
/// # Errors
///
/// The folder cannot be read. A report that is damaged is left out, with a warning.
pub fn newest_reports(out: &Path) -> io::Result<Vec<Newest>> {
    #[derive(serde::Deserialize)]
    struct Head {
        defect: Option<String>,
        runs: Vec<Run>,
    }
    #[derive(serde::Deserialize)]
    struct Run {
        backend: String,
    }
    let entries = match fs::read_dir(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Not the link to the latest.
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    // Their names begin with the time.
    folders.sort();
    let mut known = BTreeSet::new();
    let mut newest = Vec::new();
    for folder in folders.into_iter().rev() {
        let path = folder.join("report.json");
        // A run that was broken off has left none.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let head: Head = match serde_json::from_str(&text) {
            Ok(head) => head,
            Err(error) => {
                log::warn!("{} is left out: {error}", path.display());
                continue;
            }
        };
        if head.defect.is_some() {
            continue;
        }
        let mut backends: BTreeSet<String> = head.runs.into_iter().map(|it| it.backend).collect();
        backends.retain(|backend| known.insert(backend.clone()));
        if !backends.is_empty() {
            newest.push(Newest { path, backends });
        }
    }
    Ok(newest)
}

/// A folder for this run's evidence below `out`, new and named by time and seed.
///
/// The oldest folders of earlier runs are removed, so that the disk does not fill up.
///
/// # Errors
///
/// What the file system says.
pub fn evidence_folder(out: &Path, seed: u64) -> io::Result<PathBuf> {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let time = time
        .replace([':', '-'], "")
        .replace('T', "-")
        .replace('Z', "");
    fs::create_dir_all(out)?;
    remove_oldest(out)?;
    for attempt in 0..MOST_TWINS {
        let twin = if attempt == 0 {
            String::new()
        } else {
            format!("-{attempt}")
        };
        let folder = out.join(format!("{time}-{seed:x}{twin}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many runs in one second"))
}

/// Runs of the same seed in the same second.
const MOST_TWINS: u32 = 100;

/// Keeps room for one more among [`KEPT_RUNS`]; touches nothing that has not the name of a run.
fn remove_oldest(out: &Path) -> io::Result<()> {
    let mut runs: Vec<PathBuf> = fs::read_dir(out)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink() && has_name_of_run(path))
        .collect();
    // The names begin with the time.
    runs.sort();
    for old in runs.iter().rev().skip(KEPT_RUNS - 1) {
        // Somebody else's, perhaps; that is no reason not to run.
        if let Err(error) = fs::remove_dir_all(old) {
            log::warn!("cannot remove {}: {error}", old.display());
        }
    }
    Ok(())
}

/// Whether this is `20261123-164606-7c1e`: date, time, seed.
fn has_name_of_run(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let mut parts = name.splitn(3, '-');
    let mut digits = |length| {
        parts.next().is_some_and(|part| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    digits(8) && digits(6) && path.join("pki").is_dir()
}

/// Runs whose evidence is kept: a full one takes some 40 MB.
const KEPT_RUNS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_both_ends_are_merged_and_torn_lines_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let line = |byte: &str| format!("CLIENT_RANDOM {} {}", byte.repeat(32), byte.repeat(48));
        let write = |name: &str, text: String| {
            fs::write(folder.path().join(name), text).expect("the folder is ours");
        };
        let (first, second) = (line("aa"), line("bb"));
        write("server.keylog", format!("# made by\n{first}\n{second}\n"));
        write("client.keylog", format!("{first}\n{}", &line("cc")[..90]));
        write("client.log", line("dd"));
        let merged = secrets(folder.path()).expect("the folder is readable");
        assert_eq!(merged, format!("{first}\n{second}\n"));
    }

    #[test]
    fn newest_report_of_each_backend_counts_unless_damaged_or_of_a_defect() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let report = |name: &str, text: &str| {
            let folder = out.path().join(name);
            fs::create_dir(&folder).expect("the folder is ours");
            let path = folder.join("report.json");
            fs::write(&path, text).expect("the folder is ours");
            path
        };
        report(
            "20261101-1",
            r#"{"runs": [{"backend": "netem"}, {"backend": "sim"}]}"#,
        );
        let both = r#"{"defect": null, "runs": [{"backend": "sim"}, {"backend": "wire"}]}"#;
        let netem = out.path().join("20261101-1/report.json");
        let both = report("20261102-1", both);
        report(
            "20261103-1",
            r#"{"defect": "mute", "runs": [{"backend": "sim"}]}"#,
        );
        report("20261104-1", r#"{"runs": [{"backe"#);
        let newest = newest_reports(out.path()).expect("the folder is readable");
        let expected = [(both, &["sim", "wire"][..]), (netem, &["netem"])];
        let expected = expected.map(|(path, backends)| Newest {
            path,
            backends: backends.iter().map(|it| (*it).to_owned()).collect(),
        });
        assert_eq!(newest, expected);
    }
}
