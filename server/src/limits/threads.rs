//! How many threads the system lets this process have: each connection takes one. Main thread, at the
//! start.

use std::fmt;
use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::getuid;

/// One of the limits on threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of a user (`setrlimit(2)`).
    Nproc,
    /// Of a control group (`cgroups(7)`).
    PidsMax,
    /// Of the host (`proc_sys_kernel(5)`).
    ThreadsMax,
    /// Of the host, too: each thread has a number of its own.
    PidMax,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nproc => "the limit on processes of a user (RLIMIT_NPROC)",
            Self::PidsMax => "the control group (pids.max)",
            Self::ThreadsMax => "kernel.threads-max",
            Self::PidMax => "kernel.pid_max",
        })
    }
}

/// A limit as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadLimit {
    pub(crate) kind: Kind,
    pub(crate) limit: u64,
    /// Threads that count against it and are not ours.
    pub(crate) others: u64,
}

impl ThreadLimit {
    /// How many threads this process may have.
    pub(crate) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.others)
    }

    /// What makes room for so many of ours.
    pub(crate) fn remedy(&self, needed: u64) -> String {
        let limit = needed.saturating_add(self.others);
        match self.kind {
            Kind::Nproc => {
                format!("ulimit -Hu {limit}, or LimitNPROC={limit} in a systemd unit")
            }
            Kind::PidsMax => {
                format!("TasksMax={limit} in a systemd unit, --pids-limit {limit} of a container")
            }
            Kind::ThreadsMax => format!("sysctl kernel.threads-max={limit}"),
            Kind::PidMax => format!("sysctl kernel.pid_max={limit}"),
        }
    }
}

/// The limits of this process. Those that cannot be read limit nothing that we know of.
pub(crate) fn limits(becomes_another_user: bool) -> Vec<ThreadLimit> {
    let ours = number_in("/proc/self/status", |text| {
        text.lines().find_map(|line| line.strip_prefix("Threads:"))
    });
    let ours = ours.unwrap_or(1);
    // "0.00 0.01 0.05 RUNNING/ALL LAST", see proc_loadavg(5).
    let all = number_in("/proc/loadavg", |text| text.split([' ', '/']).nth(4));
    let others = all.unwrap_or(0).saturating_sub(ours);
    let of_host = |kind, file| {
        let limit = number_in(file, |text| Some(text))?;
        Some(ThreadLimit {
            kind,
            limit,
            others,
        })
    };
    let nproc = (becomes_another_user || !is_exempt()).then(nproc).flatten();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    [
        nproc,
        of_group(Path::new("/sys/fs/cgroup"), &groups, ours),
        of_host(Kind::ThreadsMax, "/proc/sys/kernel/threads-max"),
        of_host(Kind::PidMax, "/proc/sys/kernel/pid_max"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Raises the soft limit to the hard one. Others' threads are not counted: only root sees them all.
fn nproc() -> Option<ThreadLimit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).ok()?;
    let limit = match setrlimit(Resource::RLIMIT_NPROC, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    Some(ThreadLimit {
        kind: Kind::Nproc,
        limit,
        others: 0,
    })
}

/// Whether the limit of a user does not hold for this process: root's, and those with
/// `CAP_SYS_RESOURCE` or `CAP_SYS_ADMIN`, not in a user namespace (`setrlimit(2)`).
fn is_exempt() -> bool {
    let has_all_users = fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let has = |bit: u32| capabilities.unwrap_or(0) >> bit & 1 == 1;
    has_all_users && (getuid().is_root() || has(CAP_SYS_RESOURCE) || has(CAP_SYS_ADMIN))
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// The control group that leaves the least, of the process's own and those that it is in. `groups`
/// is `/proc/self/cgroup`, `ours` the threads that are counted in each of them.
fn of_group(mount: &Path, groups: &str, ours: u64) -> Option<ThreadLimit> {
    let folders = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let folder = match controllers {
            "" => mount.to_owned(),
            _ if controllers
                .split(',')
                .any(|controller| controller == "pids") =>
            {
                mount.join("pids")
            }
            _ => return None,
        };
        Some((folder, path.trim_start_matches('/').to_owned()))
    });
    // In a container the path may be that of the host, of which only the mount's top is there.
    let all = folders.flat_map(|(top, path)| {
        let parents: Vec<_> = Path::new(&path)
            .ancestors()
            .map(|path| top.join(path))
            .collect();
        parents
    });
    let limits = all.filter_map(|folder| {
        let read = |name: &str| number_in(folder.join(name), |text| Some(text));
        // "max" is no limit and no number.
        let (limit, current) = (read("pids.max")?, read("pids.current")?);
        Some(ThreadLimit {
            kind: Kind::PidsMax,
            limit,
            others: current.saturating_sub(ours),
        })
    });
    limits.min_by_key(ThreadLimit::left)
}

/// A number in a file.
fn number_in(file: impl AsRef<Path>, find: impl Fn(&str) -> Option<&str>) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    find(&text)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_limits_and_threads() {
        let limits = limits(true);
        for kind in [Kind::Nproc, Kind::ThreadsMax, Kind::PidMax] {
            let found = limits.iter().find(|limit| limit.kind == kind);
            assert!(found.is_some_and(|limit| limit.left() > 0), "{limits:?}");
        }
    }

    #[test]
    fn the_group_that_leaves_the_least_counts() {
        let mount = tempfile::tempdir().unwrap();
        let make = |folder: &str, max: &str, current: &str| {
            let folder = mount.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("pids.max"), max).unwrap();
            fs::write(folder.join("pids.current"), current).unwrap();
        };
        let found = |groups: &str| {
            let found = of_group(mount.path(), groups, 3)?;
            Some((found.limit, found.others))
        };
        // Version 2: the unit has no limit, its slice has one.
        make("a.slice/b.service", "max\n", "5\n");
        make("a.slice", "100\n", "45\n");
        assert_eq!(found("0::/a.slice/b.service\n"), Some((100, 42)));
        assert_eq!(found("0::/\n"), None);
        // Version 1, with the host's path in a container.
        make("pids", "30\n", "10\n");
        assert_eq!(
            found("9:cpu,pids:/docker/1234\n1:cpu:/a.slice\n"),
            Some((30, 7))
        );
        assert_eq!(found(""), None);
    }
}
