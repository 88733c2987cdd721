//! What would be started, for people and for programs: each setting and who said so. Main thread.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde::Serialize;
use serde_json::Value;

use super::{Config, ListenerConfig};
use crate::cli::Format;
use crate::privilege::User;

/// A setting that holds.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    /// Its name in the file; its flag has two dashes more.
    pub(super) key: String,
    /// Its value, as the file would have it.
    pub(super) value: Value,
    /// A flag, a place in the file, a preset, or nobody.
    pub(super) from: String,
}

/// Prints every listener with its settings.
///
/// # Errors
/// Nobody reads them.
pub(crate) fn print(out: &mut impl Write, config: &Config) -> io::Result<()> {
    match config.format {
        Format::Text => {
            writeln!(out, "good; this would be started:\n")?;
            let report = Report::of(config);
            writeln!(out, "drain-timeout  {}", report.drain_timeout)?;
            if let Some(address) = report.metrics {
                writeln!(out, "metrics        {address}")?;
            }
            if let Some(user) = report.user {
                writeln!(out, "user           {user}")?;
            }
            for listener in &config.listeners {
                print_listener(out, listener)?;
            }
        }
        Format::Json => {
            serde_json::to_writer(&mut *out, &Report::of(config))?;
            writeln!(out)?;
        }
    }
    out.flush()
}

fn print_listener(out: &mut impl Write, listener: &ListenerConfig) -> io::Result<()> {
    writeln!(out, "\nlistener {}", listener.listen)?;
    let rows: Vec<(&str, String, &str)> = listener
        .settings
        .iter()
        .filter(|setting| setting.key != "listen")
        .map(|setting| {
            (
                setting.key.as_str(),
                plain(&setting.value),
                setting.from.as_str(),
            )
        })
        .collect();
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let keys = width(&mut rows.iter().map(|(key, ..)| key.len()));
    let values = width(&mut rows.iter().map(|(_, value, _)| value.chars().count()));
    for (key, value, from) in rows {
        writeln!(out, "  {key:<keys$}  {value:<values$}  {from}")?;
    }
    if let Some(keys) = listener.ready.psk {
        writeln!(out, "  {keys} pre-shared keys")?;
    }
    if listener.ready.throwaway.is_some() {
        writeln!(out, "  a throw-away certificate, made anew at each start")?;
    }
    Ok(())
}

/// A value without the quotation marks of a text.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(named) => {
            let part = |key| named.get(key).map(plain);
            let parts = ["cert", "key", "backend"].into_iter().filter_map(part);
            let parts: Vec<_> = parts.collect();
            format!("{}={}", part("name").unwrap_or_default(), parts.join(","))
        }
        other => other.to_string(),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    user: Option<&'a str>,
    metrics: Option<SocketAddr>,
    drain_timeout: String,
    listeners: Vec<ListenerReport<'a>>,
}

impl<'a> Report<'a> {
    fn of(config: &'a Config) -> Self {
        let listeners = config.listeners.iter();
        Self {
            user: config.user.as_ref().map(User::name),
            metrics: config.metrics,
            drain_timeout: humantime::format_duration(config.drain_timeout).to_string(),
            listeners: listeners
                .map(|listener| ListenerReport {
                    listen: listener.listen.to_string(),
                    pre_shared_keys: listener.ready.psk,
                    throwaway_certificate: listener.ready.throwaway.is_some(),
                    settings: &listener.settings,
                })
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct ListenerReport<'a> {
    listen: String,
    pre_shared_keys: Option<usize>,
    throwaway_certificate: bool,
    settings: &'a [Setting],
}
