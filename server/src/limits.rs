//! How many connections the system's limits carry. Main thread, at the start.

mod threads;

use std::io;
use std::num::NonZeroUsize;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::service::{Needs, port_range};

use threads::ThreadLimit;

/// Without a number asked for, not more than this.
const DEFAULT_MAX: usize = 10_000;

/// Descriptors beside those of connections: standard streams, one listening socket per local
/// address, key log, the libraries' own.
const RESERVED_DESCRIPTORS: u64 = 128;

/// A connection has one descriptor, its service perhaps more, and a second one until its handshake is complete. Descriptors
/// are set aside for this many handshakes at once; beyond them a hand-off fails, is counted, and
/// the client tries again.
const HANDSHAKES_AT_ONCE: u64 = 1024;

/// Memory mappings beside those of threads; a thread has two, its stack and the guard page.
const RESERVED_MAPPINGS: u64 = 1024;

/// Threads for the whole process, of which there is a handful, and for other processes of the same user,
/// which cannot all be seen.
const RESERVED_THREADS: u64 = 64;

/// A limit that cannot carry the connections asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    /// Too few descriptors.
    #[error(
        "--max-connections {asked} needs {needed} descriptors, the limit is {limit}; raise it \
         (ulimit -Hn {needed}, or LimitNOFILE={needed} in a systemd unit){}",
        or_fewer(*most)
    )]
    Descriptors {
        /// How many connections the limit carries.
        most: u64,
        /// Connections asked for.
        asked: usize,
        /// Descriptors they need.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// Too few threads.
    #[error(
        "--max-connections {asked} needs {needed} threads, {} leaves {} of {}; raise it ({}){}",
        limit.kind, limit.left(), limit.limit, limit.remedy(*needed),
        or_fewer(*most)
    )]
    Threads {
        /// Connections that it carries.
        most: u64,
        /// Connections asked for.
        asked: usize,
        /// Threads they need.
        needed: u64,
        /// The tightest limit.
        limit: ThreadLimit,
    },
    /// Too few memory mappings.
    #[error(
        "--max-connections {asked} needs {needed} memory mappings, the limit is {limit}; raise it \
         (sysctl vm.max_map_count={needed}){}",
        or_fewer(connections_within_mappings(*limit))
    )]
    Mappings {
        /// Connections asked for.
        asked: usize,
        /// Mappings they need.
        needed: u64,
        /// `vm.max_map_count`.
        limit: u64,
    },
    /// Too few local ports.
    #[error(
        "--max-connections {asked} needs as many local ports towards the backend, the host has \
         {limit}; widen the range (sysctl net.ipv4.ip_local_port_range=\"15000 65000\"){}",
        or_fewer(*limit)
    )]
    Ports {
        /// Connections asked for.
        asked: usize,
        /// Ports of the host's range.
        limit: u64,
    },
    /// The limit cannot be asked for.
    #[error("cannot read or raise the limit on descriptors: {0}")]
    Unknown(io::Error),
}

/// The other remedy, where a limit carries a connection at all.
fn or_fewer(most: u64) -> String {
    if most == 0 {
        return String::new();
    }
    format!(" or ask for {most} at most")
}

/// Raises the soft limits on descriptors and threads to the hard ones, and says how many connections
/// to allow. `other_threads` are those of listeners and backends; the limit on a user's threads holds
/// for whom the process is to become.
///
/// # Errors
/// More were asked for than a limit carries.
pub(crate) fn max_connections(
    asked: Option<NonZeroUsize>,
    needs: Needs,
    other_threads: u64,
    becomes_another_user: bool,
) -> Result<usize, LimitError> {
    let descriptors = raise_descriptors().map_err(|errno| LimitError::Unknown(errno.into()))?;
    let limits = Limits {
        descriptors,
        mappings: mappings(),
        ports: port_range(),
        threads: threads::limits(becomes_another_user)
            .into_iter()
            .min_by_key(ThreadLimit::left),
        reserved_threads: RESERVED_THREADS + other_threads,
    };
    decide(asked, limits, needs)
}

/// What the system gives.
#[derive(Debug, Clone, Copy)]
struct Limits {
    descriptors: u64,
    mappings: u64,
    ports: u64,
    /// The tightest of those on threads.
    threads: Option<ThreadLimit>,
    /// Those that are not for connections.
    reserved_threads: u64,
}

fn decide(asked: Option<NonZeroUsize>, limits: Limits, needs: Needs) -> Result<usize, LimitError> {
    let each = 1 + needs.descriptors;
    let ports = if needs.local_ports {
        limits.ports
    } else {
        u64::MAX
    };
    let most = connections_within_descriptors(limits.descriptors, each);
    let threads = limits.threads.map_or(u64::MAX, |limit| limit.left());
    let Some(asked) = asked.map(NonZeroUsize::get) else {
        let carried = most
            .min(threads.saturating_sub(limits.reserved_threads))
            .min(connections_within_mappings(limits.mappings))
            .min(ports);
        return Ok(usize::try_from(carried)
            .unwrap_or(DEFAULT_MAX)
            .clamp(1, DEFAULT_MAX));
    };
    let wanted = u64::try_from(asked).unwrap_or(u64::MAX);
    let needed = wanted
        .saturating_mul(each)
        .saturating_add(wanted.min(HANDSHAKES_AT_ONCE))
        .saturating_add(RESERVED_DESCRIPTORS);
    if needed > limits.descriptors {
        return Err(LimitError::Descriptors {
            most,
            asked,
            needed,
            limit: limits.descriptors,
        });
    }
    let needed = wanted.saturating_add(limits.reserved_threads);
    if let Some(limit) = limits.threads.filter(|limit| needed > limit.left()) {
        return Err(LimitError::Threads {
            most: limit.left().saturating_sub(limits.reserved_threads),
            asked,
            needed,
            limit,
        });
    }
    let needed = wanted.saturating_mul(2).saturating_add(RESERVED_MAPPINGS);
    if needed > limits.mappings {
        return Err(LimitError::Mappings {
            asked,
            needed,
            limit: limits.mappings,
        });
    }
    if wanted > ports {
        return Err(LimitError::Ports {
            asked,
            limit: ports,
        });
    }
    Ok(asked)
}

/// How many connections with `each` descriptors, and one more in their handshake, a limit carries.
fn connections_within_descriptors(limit: u64, each: u64) -> u64 {
    let usable = limit.saturating_sub(RESERVED_DESCRIPTORS);
    if usable >= (each + 1) * HANDSHAKES_AT_ONCE {
        (usable - HANDSHAKES_AT_ONCE) / each
    } else {
        usable / (each + 1)
    }
}

fn connections_within_mappings(limit: u64) -> u64 {
    limit.saturating_sub(RESERVED_MAPPINGS) / 2
}

fn raise_descriptors() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// `vm.max_map_count`, see `sysctl/vm.rst` of the kernel's documentation; where there is no such
/// thing, nothing is limited by it.
fn mappings() -> u64 {
    std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::threads::Kind;
    use super::*;

    fn asked(n: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(n)
    }

    fn limits(descriptors: u64, mappings: u64) -> Limits {
        Limits {
            descriptors,
            mappings,
            ports: 28_232,
            threads: None,
            reserved_threads: 64,
        }
    }

    const ECHO: Needs = Needs {
        descriptors: 0,
        local_ports: false,
    };

    const FORWARD: Needs = Needs {
        descriptors: 1,
        local_ports: true,
    };

    #[test]
    fn the_default_is_what_the_limits_carry_and_at_most_10000() {
        let most = |descriptors, mappings, needs| {
            decide(None, limits(descriptors, mappings), needs).unwrap()
        };
        assert_eq!(most(1 << 20, 1 << 20, ECHO), 10_000);
        assert_eq!(most(1024, 1 << 20, ECHO), 448);
        assert_eq!(most(1024, 1 << 20, FORWARD), 298);
        assert_eq!(most(1 << 20, 4096, ECHO), 1536);
        assert_eq!(most(0, 0, ECHO), 1);
    }

    #[test]
    fn each_default_is_accepted_when_asked_for_and_one_more_is_not() {
        for needs in [ECHO, FORWARD] {
            for limit in [256, 1024, 2176, 3200, 4096, 9000] {
                let limits = limits(limit, u64::MAX);
                let most = decide(None, limits, needs).unwrap();
                assert_eq!(decide(asked(most), limits, needs).unwrap(), most);
                let refused = decide(asked(most + 1), limits, needs).unwrap_err();
                assert!(
                    refused.to_string().contains(&format!("{most} at most")),
                    "{refused}"
                );
            }
        }
        assert!(matches!(
            decide(asked(513), limits(u64::MAX, 2049), ECHO),
            Err(LimitError::Mappings { .. })
        ));
    }

    #[test]
    fn none_at_all_is_no_remedy() {
        let threads = Some(ThreadLimit {
            kind: Kind::PidsMax,
            limit: 64,
            others: 0,
        });
        let wide = limits(u64::MAX, u64::MAX);
        for (none, remedy) in [
            (limits(0, u64::MAX), "ulimit -Hn 131"),
            (limits(u64::MAX, 1024), "vm.max_map_count=1026"),
            (Limits { threads, ..wide }, "TasksMax=65"),
            (Limits { ports: 0, ..wide }, "ip_local_port_range"),
        ] {
            let refused = decide(asked(1), none, FORWARD).unwrap_err().to_string();
            assert!(refused.contains(remedy), "{refused}");
            assert!(!refused.contains("at most"), "{refused}");
        }
    }

    #[test]
    fn a_limit_on_threads_is_named_with_what_would_raise_it() {
        for (kind, words) in [
            (Kind::Nproc, ["RLIMIT_NPROC", "ulimit -Hu 10164"]),
            (Kind::PidsMax, ["pids.max", "TasksMax=10164"]),
            (
                Kind::ThreadsMax,
                ["kernel.threads-max", "sysctl kernel.threads-max=10164"],
            ),
            (
                Kind::PidMax,
                ["kernel.pid_max", "sysctl kernel.pid_max=10164"],
            ),
        ] {
            let few = Limits {
                threads: Some(ThreadLimit {
                    kind,
                    limit: 5000,
                    others: 100,
                }),
                ..limits(u64::MAX, u64::MAX)
            };
            assert_eq!(decide(None, few, ECHO).unwrap(), 4836);
            assert_eq!(decide(asked(4836), few, ECHO).unwrap(), 4836);
            let refused = decide(asked(10_000), few, ECHO).unwrap_err().to_string();
            for word in [words[0], words[1], "leaves 4900 of 5000", "4836 at most"] {
                assert!(refused.contains(word), "{word}: {refused}");
            }
        }
    }

    #[test]
    fn a_forward_has_no_more_connections_than_the_host_has_local_ports() {
        let few = Limits {
            ports: 500,
            ..limits(u64::MAX, u64::MAX)
        };
        assert_eq!(decide(None, few, FORWARD).unwrap(), 500);
        let refused = decide(asked(501), few, FORWARD).unwrap_err();
        assert!(refused.to_string().contains("500 at most"), "{refused}");
        assert_eq!(decide(asked(501), few, ECHO).unwrap(), 501);
    }
}
