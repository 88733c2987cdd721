//! What the process takes of the system. Operations thread.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// The process as it is.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Memory in use.
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) open_descriptors: u64,
    pub(crate) max_descriptors: u64,
    /// Of user and system together.
    pub(crate) cpu_seconds: f64,
}

/// What cannot be read is 0.
pub(crate) fn now() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpu = getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| usage.user_time() + usage.system_time())
        .map_or(0, |time| time.num_microseconds());
    Process {
        resident_bytes: field(&status, "VmRSS:") * 1024,
        threads: field(&status, "Threads:"),
        open_descriptors: fs::read_dir("/proc/self/fd")
            .map_or(0, |listing| listing.count().try_into().unwrap_or(0)),
        max_descriptors: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        cpu_seconds: std::time::Duration::from_micros(cpu.try_into().unwrap_or(0)).as_secs_f64(),
    }
}

/// The number on the line that begins with `name`, see `proc_pid_status(5)`.
fn field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_threads_descriptors_and_has_worked() {
        let now = super::now();
        assert!(now.resident_bytes > 100_000, "{now:?}");
        assert!(now.threads >= 1 && now.open_descriptors >= 3, "{now:?}");
        assert!(now.max_descriptors >= now.open_descriptors, "{now:?}");
        assert!(now.cpu_seconds > 0.0, "{now:?}");
    }
}
