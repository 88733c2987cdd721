//! What `/proc` says of a process under test. Run's thread.

/// Whether a UDP socket in the process's namespace is bound to this port.
pub(super) fn is_bound(pid: u32, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    ["udp", "udp6"].into_iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"));
        // `sl local_address rem_address …`
        text.unwrap_or_default().lines().any(|line| {
            let local = line.split_whitespace().nth(1);
            local.is_some_and(|local| local.ends_with(&wanted))
        })
    })
}

/// Datagrams for which the sockets in a process's namespace had no room.
pub(super) fn lost_for_want_of_room(pid: u32) -> Option<u64> {
    let v4 = std::fs::read_to_string(format!("/proc/{pid}/net/snmp")).ok()?;
    // A line of names and a line of numbers.
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut columns = names.split_whitespace().zip(numbers.split_whitespace());
    let (_, v4) = columns.find(|(name, _)| *name == "RcvbufErrors")?;
    let v6 = std::fs::read_to_string(format!("/proc/{pid}/net/snmp6")).unwrap_or_default();
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    let v6: u64 = v6.map_or(Some(0), |number| number.trim().parse().ok())?;
    Some(v4.parse::<u64>().ok()? + v6)
}

/// KiB of a process in memory; `None` when it is gone.
pub(super) fn resident_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many threads of a process are workers, by the names they gave themselves; `None` when it is gone.
pub(super) fn worker_threads(pid: u32) -> Option<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let names = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    Some(names.filter(|name| name.starts_with(WORKER)).count() as u64)
}

/// What the names of our server's worker threads begin with.
const WORKER: &str = "worker";
