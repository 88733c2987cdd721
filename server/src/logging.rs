//! The log on standard error, as text for people or as JSON lines for programs. Any thread.
//!
//! What a line is about (`connection`, `peer`, `listener` and more) travels beside its message:
//! text shows the peer, JSON every field.

use std::io::{self, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use env_logger::fmt::Formatter;
use log::kv::{self, Key, Value};
use log::{Level, Record};
use serde_json::Map;

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line: time, level, target, message and the fields of what it is about
    Json,
}

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Starts logging: from warnings on, and more for each step of `verbosity`.
pub(crate) fn start(verbosity: u8, format: LogFormat) {
    let level = match verbosity {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    FORMAT.get_or_init(|| format);
    let filter = env_logger::Env::default().default_filter_or(level);
    env_logger::Builder::from_env(filter)
        .format(match format {
            LogFormat::Text => write_text,
            LogFormat::Json => write_json,
        })
        .init();
}

/// Writes a line for the person at the terminal, whatever the verbosity; programs see the level.
/// Nobody may be reading, which ends nothing.
pub(crate) fn say(level: Level, line: &str) {
    let mut stderr = io::stderr().lock();
    drop(match FORMAT.get() {
        Some(LogFormat::Json) => {
            let now = time::OffsetDateTime::now_utc();
            let rfc3339 = time::format_description::well_known::Rfc3339;
            let time = now.format(&rfc3339).unwrap_or_default();
            let object = object(&time, level, env!("CARGO_CRATE_NAME"), line);
            write_object(&mut stderr, &object)
        }
        _ => writeln!(stderr, "{line}"),
    });
}

fn write_text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let (time, level) = (out.timestamp(), record.level());
    let style = out.default_level_style(level);
    write!(
        out,
        "[{time} {style}{level:<5}{style:#} {}] ",
        record.target()
    )?;
    if let Some(peer) = record.key_values().get(Key::from("peer")) {
        write!(out, "{peer}: ")?;
    }
    for character in record.args().to_string().chars() {
        // A peer's words must not look like a line of ours.
        if character.is_control() {
            write!(out, "{}", character.escape_default())?;
        } else {
            write!(out, "{character}")?;
        }
    }
    writeln!(out)
}

fn write_json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = out.timestamp_millis().to_string();
    let message = record.args().to_string();
    let mut object = object(&time, record.level(), record.target(), &message);
    record
        .key_values()
        .visit(&mut Fields(&mut object))
        .map_err(io::Error::other)?;
    write_object(out, &object)
}

fn object(time: &str, level: Level, target: &str, message: &str) -> Map<String, serde_json::Value> {
    let level = level.as_str().to_ascii_lowercase();
    [
        ("time", time),
        ("level", &level),
        ("target", target),
        ("message", message),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.into()))
    .collect()
}

fn write_object(out: &mut impl Write, object: &Map<String, serde_json::Value>) -> io::Result<()> {
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    // In one write: lines of several threads stay apart.
    out.write_all(&line)
}

/// Adds a record's fields to an object: numbers and truths as such, all else as text.
struct Fields<'a>(&'a mut Map<String, serde_json::Value>);

impl<'kvs> kv::VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let json = if let Some(number) = value.to_u64() {
            number.into()
        } else if let Some(truth) = value.to_bool() {
            truth.into()
        } else if let Some(number) = value.to_f64() {
            number.into()
        } else {
            value.to_string().into()
        };
        self.0.insert(key.to_string(), json);
        Ok(())
    }
}
