//! The limits of the process and the host, looked at before they are hit. Main thread.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::plan::Mode;
use super::plan::Plan;
use super::system;

/// The environment does not allow that many connections at once.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    #[error(
        "{flag} {wanted} needs {needed} descriptors, the limit is {limit}; raise it (ulimit -Hn \
         {needed}, or LimitNOFILE={needed} in a systemd unit) or ask for {} at most",
        limit.saturating_sub(needed - u64::from(*wanted))
    )]
    Descriptors {
        flag: &'static str,
        wanted: u32,
        needed: u64,
        limit: u64,
    },
    #[error(
        "--connections {wanted} at once to one server need as many ports, {sources} have {ports}: \
         lower it, send from more with --source, or widen net.ipv4.ip_local_port_range"
    )]
    Ports {
        wanted: u32,
        sources: String,
        ports: u64,
    },
    #[error("cannot read or raise the limit on descriptors: {0}")]
    System(#[from] Errno),
}

/// Beside the connections' sockets: standard streams, key log, signal pipe, resolver, reports, and a
/// few for each thread.
const OTHERS: u64 = 32;

/// Raises the soft limit on descriptors as far as the plan needs it, and gives the number of
/// connections that there is room for.
pub(crate) fn make_room(plan: &Plan, targets: usize) -> Result<u32, LimitError> {
    let others = OTHERS + 2 * u64::from(plan.threads);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let asked = match (plan.mode, plan.concurrency, plan.connections) {
        (Mode::Hold, _, Some(connections)) => Some(("--connections", connections)),
        (_, Some(at_once), _) => Some(("--concurrency", at_once)),
        _ => None,
    };
    let Some((flag, wanted)) = asked else {
        // An open loop takes what it can get: how many will be open at once nobody knows.
        let most = hard.min(MOST_OPEN);
        if soft < most {
            setrlimit(Resource::RLIMIT_NOFILE, most, hard)?;
        }
        return Ok(u32::try_from(most.saturating_sub(others)).unwrap_or(u32::MAX));
    };
    let needed = u64::from(wanted) + others;
    if soft < needed {
        // A privileged process may raise the hard limit, too.
        let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed));
        if raised.is_err() {
            return Err(LimitError::Descriptors {
                flag,
                wanted,
                needed,
                limit: hard,
            });
        }
    }
    let sources = u64::from(plan.sources.max(1));
    let ports = system::ephemeral_ports().map(|ports| u64::from(ports) * sources);
    let each = u64::from(wanted).div_ceil(targets as u64);
    if plan.mode == Mode::Hold
        && let Some(ports) = ports.filter(|&ports| ports < each)
    {
        let plural = if sources == 1 { "" } else { "es" };
        let sources = format!("{sources} address{plural}");
        return Err(LimitError::Ports {
            wanted,
            sources,
            ports,
        });
    }
    Ok(wanted)
}

/// What an open loop has room for at most: more connections than that are a run that has gone wrong.
const MOST_OPEN: u64 = 65_536;
