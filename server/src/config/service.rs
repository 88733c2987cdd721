//! A listener's service, with its backend looked up. Main thread, at the start.

use std::sync::Arc;

use super::listener::{Mistake, Problem};
use super::options::ListenerOptions;
use crate::service::{Backend, Forward, IdleCounts, ProxyProtocol, Service, ServiceName};
use crate::stats::Stats;

/// The service that the options ask for; it counts in `stats`.
///
/// # Errors
/// A forward without a backend, or a backend without a forward.
pub(super) fn ready(options: &ListenerOptions, stats: &Arc<Stats>) -> Result<Service, Mistake> {
    let simple = match options.service {
        None | Some(ServiceName::Echo) => Service::Echo,
        Some(ServiceName::Discard) => Service::Discard,
        Some(ServiceName::Chargen) => Service::Chargen,
        Some(ServiceName::Forward) => return forward(options, stats),
    };
    let given = [
        ("backend", options.backend.is_some()),
        ("proxy-protocol", options.proxy_protocol.is_some()),
        ("idle-counts", options.idle_counts.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(Problem::NotForward.of(key)),
        None => Ok(simple),
    }
}

fn forward(options: &ListenerOptions, stats: &Arc<Stats>) -> Result<Service, Mistake> {
    let Some(name) = options.backend.as_deref() else {
        return Err(Problem::NoBackend.of("service"));
    };
    let backend = Backend::resolve(name).map_err(|source| {
        let name = name.to_owned();
        Problem::Backend { name, source }.of("backend")
    })?;
    Ok(Service::Forward(Arc::new(Forward::new(
        backend,
        options.proxy_protocol.unwrap_or(ProxyProtocol::None),
        options.idle_counts.unwrap_or(IdleCounts::Both),
        Arc::clone(stats),
    ))))
}
