//! `dtls-server status`: what a running server does, for a person, once or again and again. Main
//! thread of a process of its own.

use std::io::{self, IsTerminal as _, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::cli::Format;
use crate::config::TcpAddress;
use crate::report::write_table;

use super::status::{Listener, Status};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// No page is as long as this.
const LONGEST: u64 = 4 << 20;

/// Show what a running server does; it must have been started with --metrics
#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    /// The address given to --metrics
    #[arg(value_name = "ADDR:PORT")]
    address: TcpAddress,

    /// Show it again and again, with rates
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = humantime::parse_duration)]
    watch: Option<Duration>,

    /// How to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopError {
    /// Nobody answers.
    #[error(
        "no answer from {address}: {source}; is a dtls-server running with --metrics {address}?"
    )]
    NoAnswer {
        /// Whom we asked.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody else answers.
    #[error("what answers at {address} is no dtls-server of this version: {problem}")]
    Stranger {
        /// Whom we asked.
        address: SocketAddr,
        /// What is wrong with the answer.
        problem: String,
    },
    /// Nobody reads.
    #[error("cannot print the status: {0}")]
    Print(io::Error),
}

impl Top {
    /// Shows the server, and with `--watch` goes on until interrupted.
    ///
    /// # Errors
    /// The server does not answer, or nobody reads.
    pub(crate) fn run(&self) -> Result<(), TopError> {
        let mut out = io::stdout().lock();
        let clear = self.watch.is_some() && io::stdout().is_terminal();
        let address = self.address.0;
        let mut before: Option<Status> = None;
        loop {
            let page = fetch(address)?;
            let status: Status = serde_json::from_str(&page).map_err(|error| {
                let problem = error.to_string();
                TopError::Stranger { address, problem }
            })?;
            let mut text = Vec::new();
            match self.format {
                Format::Json => text.extend_from_slice(page.as_bytes()),
                Format::Text => {
                    if clear {
                        // Cursor home, clear the screen.
                        text.extend_from_slice(b"\x1b[H\x1b[2J");
                    }
                    show(&mut text, &status, before.as_ref()).map_err(TopError::Print)?;
                    if self.watch.is_some() && !clear {
                        text.push(b'\n');
                    }
                }
            }
            out.write_all(&text)
                .and_then(|()| out.flush())
                .map_err(TopError::Print)?;
            let Some(interval) = self.watch else {
                return Ok(());
            };
            before = Some(status);
            std::thread::park_timeout(interval);
        }
    }
}

/// The server's status page.
fn fetch(address: SocketAddr) -> Result<String, TopError> {
    let stranger = |problem: &str| TopError::Stranger {
        address,
        problem: problem.to_owned(),
    };
    let answer = ask(address).map_err(|source| TopError::NoAnswer { address, source })?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(&answer) else {
        return Err(stranger("it does not speak HTTP"));
    };
    if response.code != Some(200) {
        return Err(stranger("it has no page /status"));
    }
    String::from_utf8(answer[head..].to_vec()).map_err(|_| stranger("its page is not text"))
}

fn ask(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Prints the server, with rates since `before`.
fn show(out: &mut impl Write, status: &Status, before: Option<&Status>) -> io::Result<()> {
    // Whole seconds: nobody reads more.
    let uptime = Duration::from_secs(
        Duration::try_from_secs_f64(status.uptime_seconds).map_or(0, |time| time.as_secs()),
    );
    let ready = if status.ready { "ready" } else { "draining" };
    writeln!(
        out,
        "dtls-server {}, {ready}, up {}",
        status.version,
        humantime::format_duration(uptime)
    )?;
    let process = status.process;
    writeln!(
        out,
        "{} MiB of memory, {} threads, {} of {} descriptors, {:.1} s of processor time",
        process.resident_bytes >> 20,
        process.threads,
        process.open_descriptors,
        process.max_descriptors,
        process.cpu_seconds
    )?;
    if status.local_ports.taken > 0 {
        let ports = &status.local_ports;
        writeln!(
            out,
            "{} of {} local ports towards backends",
            ports.taken, ports.range
        )?;
    }
    writeln!(out)?;
    let seconds = before.map(|before| status.uptime_seconds - before.uptime_seconds);
    let mut head = vec!["listener", "service", "connections", "of", "handshaking"];
    head.extend(TOTALS.iter().map(|(title, _)| *title));
    if seconds.is_some() {
        head.extend(RATES.iter().map(|(title, _)| *title));
    }
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for listener in &status.listeners {
        let mut row = vec![
            listener.listener.clone(),
            listener.service.clone(),
            listener.connections.to_string(),
            listener.max_connections.to_string(),
            listener.handshaking.to_string(),
        ];
        row.extend(
            TOTALS
                .iter()
                .map(|(_, names)| listener.sum(names).to_string()),
        );
        if let (Some(before), Some(seconds)) = (before, seconds) {
            let earlier = before
                .listeners
                .iter()
                .find(|earlier| earlier.listener == listener.listener);
            for (_, names) in RATES {
                let count = |listener: &Listener| listener.sum(names);
                let more = count(listener).saturating_sub(earlier.map_or(0, count));
                row.push(rate(more, seconds));
            }
        }
        rows.push(row);
    }
    write_table(out, &rows)
}

fn rate(more: u64, seconds: f64) -> String {
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    if seconds > 0.0 {
        format!("{:.1}", f64::from(more) / seconds)
    } else {
        "-".to_owned()
    }
}

/// Columns that count from the start, and the counters each adds up.
const TOTALS: [(&str, &[&str]); 4] = [
    ("completed", &["handshakes_completed"]),
    ("failed", &["handshakes_failed", "handshakes_timed_out"]),
    ("hellos refused", &["hellos_refused"]),
    ("noise", &["unknown_peer", "hellos_rejected", DROPPED]),
];

/// Columns per second.
const RATES: [(&str, &[&str]); 3] = [
    ("handshakes/s", &["handshakes_completed"]),
    ("datagrams in/s", &["datagrams_received"]),
    ("out/s", &["datagrams_sent"]),
];

/// Stands for all counters that begin with it.
const DROPPED: &str = "dropped_";

impl Listener {
    /// The sum of these counters. One that is missing counts 0: an older server lacks the newest.
    fn sum(&self, names: &[&str]) -> u64 {
        let wanted = |counter: &str| {
            names
                .iter()
                .any(|name| counter == *name || *name == DROPPED && counter.starts_with(DROPPED))
        };
        let counters = self.counters.iter();
        counters
            .filter(|(counter, _)| wanted(counter))
            .map(|(_, value)| value)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::process::Process;
    use super::super::status::LocalPorts;
    use super::*;

    fn status(uptime_seconds: f64, completed: u64) -> Status {
        let counters = [
            ("handshakes_completed", completed),
            ("handshakes_failed", 2),
            ("handshakes_timed_out", 1),
            ("dropped_runt", 3),
            ("dropped_early", 4),
            ("unknown_peer", 10),
        ];
        let counters: BTreeMap<_, _> = counters
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        Status {
            version: "0.1.0".to_owned(),
            ready: true,
            uptime_seconds,
            process: Process::default(),
            local_ports: LocalPorts {
                taken: 0,
                range: 28_232,
            },
            listeners: vec![Listener {
                listener: "[::]:4433".to_owned(),
                service: "echo".to_owned(),
                connections: 5,
                max_connections: 100,
                handshaking: 1,
                counters,
            }],
        }
    }

    fn lines(status: &Status, before: Option<&Status>) -> Vec<String> {
        let mut out = Vec::new();
        show(&mut out, status, before).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_listener_is_one_line_of_numbers_under_their_names() {
        let lines = lines(&status(75.9, 40), None);
        assert_eq!(lines[0], "dtls-server 0.1.0, ready, up 1m 15s");
        let row: Vec<_> = lines.last().unwrap().split_whitespace().collect();
        let expected = ["[::]:4433", "echo", "5", "100", "1", "40", "3", "0", "17"];
        assert_eq!(row, expected);
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let lines = lines(&status(12.0, 140), Some(&status(10.0, 40)));
        let row: Vec<_> = lines.last().unwrap().split_whitespace().collect();
        assert_eq!(row[row.len() - 3..], ["50.0", "0.0", "0.0"]);
    }
}
