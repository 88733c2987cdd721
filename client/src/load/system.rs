//! What the kernel says about processes and dropped datagrams. Main thread, before, during and after
//! a run.

use std::time::Duration;

use procfs::process::Process;
use procfs::{ProcError, WithCurrentSystemInfo as _};

/// A process's resources at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all its threads so far, those that have ended included.
    pub(crate) processor: Duration,
    /// Resident memory in bytes.
    pub(crate) memory: u64,
}

/// The server's process cannot be observed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error(
        "--server-pid: no process {pid} on this host; the option is for servers on the same one"
    )]
    None { pid: i32 },
    #[error("--server-pid: cannot read /proc/{pid}: {source}")]
    Read { pid: i32, source: ProcError },
}

/// Of this process.
pub(crate) fn own_usage() -> Option<Usage> {
    Process::myself().and_then(|process| usage(&process)).ok()
}

/// Of another process.
pub(crate) fn usage_of(pid: i32) -> Result<Usage, ProcessError> {
    let read = Process::new(pid).and_then(|process| usage(&process));
    read.map_err(|source| match source {
        ProcError::NotFound(_) => ProcessError::None { pid },
        source => ProcessError::Read { pid, source },
    })
}

fn usage(process: &Process) -> Result<Usage, ProcError> {
    let stat = process.stat()?;
    let ticks = (stat.utime + stat.stime) * 1_000_000 / procfs::ticks_per_second();
    Ok(Usage {
        processor: Duration::from_micros(ticks),
        memory: stat.rss_bytes().get(),
    })
}

/// Datagrams that this host has dropped for want of room in a socket's buffer, in this network
/// namespace, since it started; `None` where the kernel does not say.
pub(crate) fn dropped_datagrams() -> Option<u64> {
    let snmp = procfs::net::snmp().ok()?;
    // Without IPv6 there is no such file.
    let v6 = std::fs::read_to_string("/proc/net/snmp6").unwrap_or_default();
    Some(snmp.udp_rcvbuf_errors + snmp.udp_sndbuf_errors + dropped_v6(&v6))
}

/// The same of IPv6: a name and a number a line.
fn dropped_v6(snmp6: &str) -> u64 {
    let lines = snmp6
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    lines
        .filter(|(name, _)| matches!(*name, "Udp6RcvbufErrors" | "Udp6SndbufErrors"))
        .filter_map(|(_, number)| number.trim().parse::<u64>().ok())
        .sum()
}

/// Ports that a socket gets when it asks for none in particular.
pub(crate) fn ephemeral_ports() -> Option<u32> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = range.split_whitespace().map(str::parse::<u32>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    Some(last.checked_sub(first)? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_ipv6_are_found_among_the_other_numbers() {
        let snmp6 = "Udp6InErrors                    \t9\nUdp6RcvbufErrors                \t494\n\
                     Udp6SndbufErrors                \t6\nUdpLite6RcvbufErrors\t7\n";
        assert_eq!(dropped_v6(snmp6), 500);
        assert_eq!(dropped_v6(""), 0);
    }
}
