//! How many connections the system's limits carry. Main thread, at the start.

use std::io;
use std::num::NonZeroUsize;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Without a number asked for, not more than this.
const DEFAULT_MAX: usize = 10_000;

/// Descriptors beside those of connections: standard streams, one listening socket per local
/// address, key log, the libraries' own.
const RESERVED_DESCRIPTORS: u64 = 128;

/// A connection has one descriptor, and a second one until its handshake is complete. Descriptors
/// are set aside for this many handshakes at once; beyond them a hand-off fails, is counted, and
/// the client tries again.
const HANDSHAKES_AT_ONCE: u64 = 1024;

/// Memory mappings beside those of threads; a thread has two, its stack and the guard page.
const RESERVED_MAPPINGS: u64 = 1024;

/// A limit that cannot carry the connections asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    /// Too few descriptors.
    #[error(
        "--max-connections {asked} needs {needed} descriptors, the limit is {limit}; raise it \
         (ulimit -Hn {needed}, or LimitNOFILE={needed} in a systemd unit) or ask for {} at most",
        connections_within_descriptors(*limit)
    )]
    Descriptors {
        /// Connections asked for.
        asked: usize,
        /// Descriptors they need.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// Too few memory mappings.
    #[error(
        "--max-connections {asked} needs {needed} memory mappings, the limit is {limit}; raise it \
         (sysctl vm.max_map_count={needed}) or ask for {} at most",
        connections_within_mappings(*limit)
    )]
    Mappings {
        /// Connections asked for.
        asked: usize,
        /// Mappings they need.
        needed: u64,
        /// `vm.max_map_count`.
        limit: u64,
    },
    /// The limit cannot be asked for.
    #[error("cannot read or raise the limit on descriptors: {0}")]
    Unknown(io::Error),
}

/// Raises the soft limit on descriptors to the hard one, and says how many connections to allow.
///
/// # Errors
/// More were asked for than a limit carries.
pub(crate) fn max_connections(asked: Option<NonZeroUsize>) -> Result<usize, LimitError> {
    let descriptors = raise_descriptors().map_err(|errno| LimitError::Unknown(errno.into()))?;
    decide(asked, descriptors, mappings())
}

fn decide(
    asked: Option<NonZeroUsize>,
    descriptors: u64,
    mappings: u64,
) -> Result<usize, LimitError> {
    let Some(asked) = asked.map(NonZeroUsize::get) else {
        let carried =
            connections_within_descriptors(descriptors).min(connections_within_mappings(mappings));
        return Ok(usize::try_from(carried)
            .unwrap_or(DEFAULT_MAX)
            .clamp(1, DEFAULT_MAX));
    };
    let wanted = u64::try_from(asked).unwrap_or(u64::MAX);
    let needed = wanted
        .saturating_add(wanted.min(HANDSHAKES_AT_ONCE))
        .saturating_add(RESERVED_DESCRIPTORS);
    if needed > descriptors {
        return Err(LimitError::Descriptors {
            asked,
            needed,
            limit: descriptors,
        });
    }
    let needed = wanted.saturating_mul(2).saturating_add(RESERVED_MAPPINGS);
    if needed > mappings {
        return Err(LimitError::Mappings {
            asked,
            needed,
            limit: mappings,
        });
    }
    Ok(asked)
}

fn connections_within_descriptors(limit: u64) -> u64 {
    let usable = limit.saturating_sub(RESERVED_DESCRIPTORS);
    if usable >= 2 * HANDSHAKES_AT_ONCE {
        usable - HANDSHAKES_AT_ONCE
    } else {
        usable / 2
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
    use super::*;

    fn asked(n: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(n)
    }

    #[test]
    fn the_default_is_what_the_limits_carry_and_at_most_10000() {
        assert_eq!(decide(None, 1 << 20, 1 << 20).unwrap(), 10_000);
        assert_eq!(decide(None, 1024, 1 << 20).unwrap(), 448);
        assert_eq!(decide(None, 1 << 20, 4096).unwrap(), 1536);
        assert_eq!(decide(None, 0, 0).unwrap(), 1);
    }

    #[test]
    fn each_default_is_accepted_when_asked_for_and_one_more_is_not() {
        for limit in [256, 1024, 2176, 4096, 9000] {
            let most = decide(None, limit, u64::MAX).unwrap();
            assert_eq!(decide(asked(most), limit, u64::MAX).unwrap(), most);
            let refused = decide(asked(most + 1), limit, u64::MAX).unwrap_err();
            assert!(
                refused.to_string().contains(&format!("{most} at most")),
                "{refused}"
            );
        }
        assert!(matches!(
            decide(asked(513), u64::MAX, 2049),
            Err(LimitError::Mappings { .. })
        ));
    }
}
