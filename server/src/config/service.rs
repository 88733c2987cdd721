//! A listener's service, with its backend looked up. Main thread, at the start.

use std::sync::Arc;

use super::listener::{Mistake, Problem};
use super::options::ListenerOptions;
use super::values::NamedBackend;
use crate::service::{Backend, Backends, Forward, Service, ServiceName};
use crate::stats::Stats;

/// The service that the options ask for; it counts in `stats`.
///
/// # Errors
/// A forward without a backend, a backend without a forward, or a name that is none.
pub(super) fn ready(options: &ListenerOptions, stats: &Arc<Stats>) -> Result<Service, Mistake> {
    let simple = match name(options) {
        ServiceName::Echo => Service::Echo,
        ServiceName::Discard => Service::Discard,
        ServiceName::Chargen => Service::Chargen,
        ServiceName::Forward => return forward(options, stats),
    };
    let given = [
        ("backend", options.backend.is_some()),
        // An empty list says as much as none.
        (
            "sni-backend",
            options
                .sni_backend
                .as_ref()
                .is_some_and(|names| !names.is_empty()),
        ),
        ("proxy-protocol", options.proxy_protocol.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(Problem::NotForward.of(key)),
        None => Ok(simple),
    }
}

/// Which service: whoever names a backend means to forward to it.
pub(super) fn name(options: &ListenerOptions) -> ServiceName {
    match options.service {
        Some(name) => name,
        None if options.backend.is_some() => ServiceName::Forward,
        None => ServiceName::Echo,
    }
}

fn forward(options: &ListenerOptions, stats: &Arc<Stats>) -> Result<Service, Mistake> {
    let Some(name) = options.backend.as_deref() else {
        return Err(Problem::NoBackend.of("service"));
    };
    let mut backends = Backends::new(resolve(name, "backend")?);
    for NamedBackend { name, backend } in options.sni_backend.iter().flatten() {
        let key = "sni-backend";
        let added = backends.add(name, resolve(backend, key)?);
        added.map_err(|error| Problem::Setting(error).of(key))?;
    }
    Ok(Service::Forward(Arc::new(Forward::new(
        backends,
        options.proxy_protocol.unwrap_or_default(),
        options.syslog_frames.unwrap_or_default(),
        options.idle_counts.unwrap_or_default(),
        Arc::clone(stats),
    ))))
}

fn resolve(name: &str, key: &'static str) -> Result<Backend, Mistake> {
    Backend::resolve(name).map_err(|source| {
        let name = name.to_owned();
        Problem::Backend { name, source }.of(key)
    })
}
