//! What the arguments and the configuration file mean, checked: every file is read and every limit
//! known before a port is bound. Main thread.
//!
//! ```text
//! flags ──────────────┐
//! file ─► [[listener]]├─► layers ─► listener ─► Config ─► effective (--check)
//! presets, defaults ──┘   (who      (files read,
//!                         said it)  values checked)
//! ```

mod options;
mod values;
mod preset;
mod file;
mod layers;
mod psk_file;
mod secrets;
mod shared_keys;
mod allow;
mod clients;
mod listener;
mod service;
mod effective;
mod stamps;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtls::{DtlsListener, KeyLog, ServerConfigBuilder};
use nix::unistd::geteuid;
use serde_json::{Map, Value};

use crate::cli::{Args, Format};
use crate::error::{ConfigError, Failure, StartError};
use crate::privilege::{self, User};
use crate::service::{Needs, Service};
use crate::stats::Stats;
use crate::{keylog, limits};

use file::ConfigFile;
use layers::Layers;
use listener::{Ready, Surroundings};
use secrets::Exposed;

pub(crate) use effective::print;
pub(crate) use file::FileError;
pub(crate) use listener::Problem;
pub(crate) use options::{ListenerOptions, ServerOptions};
pub(crate) use stamps::Stamps;
pub(crate) use values::{ClientAuth, TcpAddress};

/// Has the last word on the library's settings.
pub type Adjust = Arc<dyn Fn(ServerConfigBuilder) -> ServerConfigBuilder + Send + Sync>;

/// Everything the server needs to start.
pub(crate) struct Config {
    /// In the order of the file; at least one.
    pub(crate) listeners: Vec<ListenerConfig>,
    /// Whom to become once root is not needed any more.
    pub(crate) user: Option<User>,
    /// Where the operations pages are, if anywhere.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) drain_timeout: Duration,
    pub(crate) format: Format,
    key_log: Option<(PathBuf, KeyLog)>,
    /// Secrets that others can read, and of which a warning has been given.
    exposed: Exposed,
    /// Every file that was read.
    pub(crate) files: Stamps,
}

/// Everything a listener needs to start.
pub(crate) struct ListenerConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) service: Service,
    /// What the server counts beside the library.
    pub(crate) stats: Arc<Stats>,
    pub(crate) max_connections: usize,
    pub(crate) ready: Ready,
    /// What its configuration says of that which cannot change while it runs.
    fixed: Map<String, Value>,
    /// How many connections a start with this configuration would allow.
    max_connections_then: usize,
    /// How many where the configuration does not say, if that has been found out. The system's limits
    /// depend on what others have of them at the moment, so nobody asks again while nothing changes.
    default_connections: Option<usize>,
    /// What each setting is, and who said so.
    settings: Vec<effective::Setting>,
}

/// Settings of a listener that do not change while it runs: those that make its service...
const SERVICE: [&str; 6] = [
    "service",
    "backend",
    "sni-backend",
    "proxy-protocol",
    "syslog-frames",
    "idle-counts",
];

/// ...and those of its socket. The connections at once are another.
const SOCKET: [&str; 5] = [
    "port-sharing",
    "transport",
    "max-half-open",
    "max-per-prefix",
    "hello-rate",
];

impl ListenerConfig {
    /// Binds its port.
    ///
    /// # Errors
    /// The system refuses it.
    pub(crate) fn bind(&self) -> Result<DtlsListener, StartError> {
        DtlsListener::bind(self.listen, self.ready.dtls.clone()).map_err(StartError::Bind)
    }
}

/// How long connections may take to close.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

impl Config {
    /// Checks the arguments and the file they name. What takes the place of a configuration that is
    /// in use goes on with its keys and counters.
    ///
    /// # Errors
    /// A file or value that is wrong, or a limit that is too low for what is asked.
    pub(crate) fn check(
        args: &Args,
        adjust: &Adjust,
        before: Option<&Self>,
    ) -> Result<Self, Failure> {
        let mut files = Stamps::default();
        let file = match &args.config {
            Some(path) => {
                files.note(path);
                Some(ConfigFile::read(path).map_err(ConfigError::File)?)
            }
            None => None,
        };
        let of_file = file.as_ref().map(|file| &file.options);
        let key_log = key_log(args, file.as_ref(), before)?;
        let user = user(args, file.as_ref())?;
        let layers = Layers::of(args.listener.clone(), file.as_ref())?;
        for file in layers.iter().flat_map(|layers| layers.merged.files()) {
            files.note(&file);
        }
        let mut listeners: Vec<ListenerConfig> = Vec::new();
        for (layers, service) in layers
            .iter()
            .zip(services(&layers, user.is_some(), before)?)
        {
            let listen = layers.address()?;
            if let Some(other) = listeners.iter().find(|other| overlap(other.listen, listen)) {
                let (address, other) = (listen, other.listen);
                return Err(layers.refuse(Problem::SamePort { address, other }.of("listen")));
            }
            let before = before.and_then(|before| before.listeners.get(listeners.len()));
            if before.is_some_and(|before| before.listen != listen) {
                return Err(layers.refuse(Problem::Moved(listen).of("listen")));
            }
            let surroundings = Surroundings {
                key_log: key_log.as_ref().map(|(_, log)| log.clone()),
                adjust,
                stats: &service.stats,
                before: before.map(|before| &before.ready),
            };
            let ready = listener::ready(&layers.merged, surroundings)
                .map_err(|mistake| layers.refuse(mistake))?;
            if user.is_some()
                && privilege::needs_root(listen)
                && ready.dtls.transport() == dtls::Transport::Connected
            {
                let (port, start) = (listen.port(), privilege::unprivileged_port_start());
                return Err(layers.refuse(Problem::PrivilegedPort { port, start }.of("transport")));
            }
            listeners.push(ListenerConfig {
                listen,
                fixed: layers.holding(&[&SERVICE[..], &SOCKET].concat()),
                default_connections: service.default_connections,
                max_connections_then: service.max_connections_then,
                settings: layers.settings(listen, service.max_connections, ready.client_auth),
                service: service.service,
                stats: service.stats,
                max_connections: service.max_connections,
                ready,
            });
        }
        let merged = layers.iter().map(|layers| &layers.merged);
        let exposed = secrets::warn_of_readers(
            merged,
            key_log.as_ref().map(|(path, _)| path.as_path()),
            user.as_ref().map_or_else(geteuid, User::uid),
            before.map(|before| &before.exposed),
        );
        let metrics = args
            .server
            .metrics
            .or_else(|| of_file.and_then(|options| options.metrics));
        let drain_timeout = args
            .server
            .drain_timeout
            .or_else(|| of_file.and_then(|options| options.drain_timeout));
        Ok(Self {
            listeners,
            metrics: metrics.map(|address| address.0),
            user,
            drain_timeout: drain_timeout.map_or(DRAIN_TIMEOUT, |time| time.0),
            format: args.format,
            key_log,
            exposed,
            files,
        })
    }

    /// What cannot change while the server runs, by the name it is told by.
    pub(crate) fn fixed(&self) -> BTreeMap<String, Value> {
        let mut fixed = BTreeMap::new();
        let time = humantime::format_duration(self.drain_timeout).to_string();
        fixed.insert("drain-timeout".to_owned(), time.into());
        fixed.insert("user".to_owned(), self.user.as_ref().map(User::name).into());
        let metrics = self.metrics.map(|address| address.to_string());
        fixed.insert("metrics".to_owned(), metrics.into());
        for (number, listener) in self.listeners.iter().enumerate() {
            let address = listener.listen;
            // Those on any free port have one address in common.
            let others = self.listeners.iter().filter(|one| one.listen == address);
            let place = if others.count() > 1 {
                format!("listener {} at {address}", number + 1)
            } else {
                format!("the listener at {address}")
            };
            let most = ("max-connections", listener.max_connections_then.into());
            let settings = listener.fixed.iter();
            let settings = settings.map(|(key, value)| (key.as_str(), value.clone()));
            for (key, value) in settings.chain([most]) {
                fixed.insert(format!("{key} of {place}"), value);
            }
        }
        fixed
    }
}

/// A listener's service, and what it counts in.
struct Serving {
    service: Service,
    stats: Arc<Stats>,
    max_connections: usize,
    /// See [`ListenerConfig`].
    max_connections_then: usize,
    default_connections: Option<usize>,
}

/// Looks up what is behind each listener. A running server goes on with what is there, and only
/// looks whether the next start will find no fault with what has changed.
fn services(
    layers: &[Layers<'_>],
    becomes_another_user: bool,
    before: Option<&Config>,
) -> Result<Vec<Serving>, Failure> {
    if let Some(before) = before {
        if before.listeners.len() != layers.len() {
            return Err(ConfigError::OtherListeners {
                now: layers.len(),
                before: before.listeners.len(),
            }
            .into());
        }
        let both = || layers.iter().zip(&before.listeners);
        let then = if both().any(|(layers, before)| {
            let mut fixed = before.fixed.clone();
            fixed.retain(|key, _| SERVICE.contains(&key.as_str()));
            layers.holding(&SERVICE) != fixed
        }) {
            let fresh = fresh_services(layers, becomes_another_user)?.into_iter();
            fresh
                .map(|one| (one.max_connections_then, one.default_connections))
                .collect()
        } else {
            connections_then(layers, becomes_another_user, before)?
        };
        let serving = |(listener, (then, default)): (&ListenerConfig, _)| Serving {
            service: listener.service.clone(),
            stats: Arc::clone(&listener.stats),
            max_connections: listener.max_connections,
            max_connections_then: then,
            default_connections: default,
        };
        return Ok(before.listeners.iter().zip(then).map(serving).collect());
    }
    fresh_services(layers, becomes_another_user)
}

/// How many connections a start would allow each listener, whose services are what they were, and how
/// many where the configuration does not say.
fn connections_then(
    layers: &[Layers<'_>],
    becomes_another_user: bool,
    before: &Config,
) -> Result<Vec<(usize, Option<usize>)>, Failure> {
    let known: Vec<_> = layers
        .iter()
        .zip(&before.listeners)
        .map(|(layers, before)| match layers.merged.max_connections {
            None => before.default_connections,
            Some(asked) => [before.max_connections, before.max_connections_then]
                .contains(&asked.get())
                .then_some(asked.get()),
        })
        .collect();
    let fresh = if known.contains(&None) {
        share_connections(layers, becomes_another_user)?
    } else {
        vec![0; known.len()]
    };
    let each = layers.iter().zip(&before.listeners).zip(known).zip(fresh);
    Ok(each
        .map(|(((layers, before), known), fresh)| {
            let then = known.unwrap_or(fresh);
            let unsaid = layers.merged.max_connections.is_none().then_some(then);
            (then, unsaid.or(before.default_connections))
        })
        .collect())
}

fn fresh_services(
    layers: &[Layers<'_>],
    becomes_another_user: bool,
) -> Result<Vec<Serving>, Failure> {
    let mut services = Vec::new();
    for layers in layers {
        let stats = Arc::new(Stats::default());
        let service =
            service::ready(&layers.merged, &stats).map_err(|mistake| layers.refuse(mistake))?;
        services.push((service, stats));
    }
    let most = share_connections(layers, becomes_another_user)?;
    Ok(services
        .into_iter()
        .zip(most)
        .zip(layers)
        .map(|(((service, stats), max_connections), layers)| Serving {
            service,
            stats,
            max_connections,
            max_connections_then: max_connections,
            default_connections: layers
                .merged
                .max_connections
                .is_none()
                .then_some(max_connections),
        })
        .collect())
}

/// Whom to become, if anybody.
fn user(args: &Args, file: Option<&ConfigFile>) -> Result<Option<User>, ConfigError> {
    let of_file = file.and_then(|file| Some((file, file.options.user.as_ref()?)));
    let (name, place) = match (&args.server.user, of_file) {
        (Some(name), _) => (name, "--user: ".to_owned()),
        (None, Some((file, name))) => (name, file.place(None, "user") + "user: "),
        (None, None) => return Ok(None),
    };
    let found = User::find(name);
    found
        .map(Some)
        .map_err(|problem| ConfigError::User { place, problem })
}

/// The key log, if there is to be one.
fn key_log(
    args: &Args,
    file: Option<&ConfigFile>,
    before: Option<&Config>,
) -> Result<Option<(PathBuf, KeyLog)>, ConfigError> {
    let (path, place) = match (&args.server.keylog, file) {
        (Some(path), _) => (path, "--keylog: ".to_owned()),
        (None, Some(file)) => match &file.options.keylog {
            Some(path) => (path, file.place(None, "keylog")),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    // One that is open stays so: who runs the server may not be allowed to open it any more.
    let open = before.and_then(|before| before.key_log.as_ref());
    if let Some(same) = open.filter(|(open, _)| open == path) {
        return Ok(Some(same.clone()));
    }
    let log = open_key_log(path.clone(), place, args.check)?;
    Ok(log.map(|log| (path.clone(), log)))
}

/// Opens the key log; `only_check` leaves no new file behind.
fn open_key_log(
    path: PathBuf,
    place: String,
    only_check: bool,
) -> Result<Option<KeyLog>, ConfigError> {
    let opened = if only_check && !path.exists() {
        // Its folder must be there.
        path.parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .map_or(Ok(()), |folder| folder.metadata().map(drop))
            .map(|()| None)
    } else {
        keylog::append(&path).map(Some)
    };
    opened.map_err(|source| ConfigError::KeyLog {
        place,
        path,
        source,
    })
}

/// How many connections each listener may have. Those that do not say share what the system carries.
fn share_connections(
    layers: &[Layers<'_>],
    becomes_another_user: bool,
) -> Result<Vec<usize>, Failure> {
    let needs = || layers.iter().map(|one| service::name(&one.merged).needs());
    // As if all connections were of the neediest.
    let descriptors = needs().map(|needs| needs.descriptors).max();
    let needs = Needs {
        descriptors: descriptors.unwrap_or(0),
        local_ports: needs().any(|needs| needs.local_ports),
    };
    let threads = layers.iter().map(|layers| threads(&layers.merged)).sum();
    let asked = |layers: &Layers<'_>| layers.merged.max_connections;
    // One of those who ask for more than there is; the message has the number.
    let place = || {
        let asking = layers.iter().find(|layers| asked(layers).is_some());
        let place = asking.and_then(|layers| layers.place_in_file("max-connections"));
        place.unwrap_or_default()
    };
    let limit = |asked| {
        limits::max_connections(asked, needs, threads, becomes_another_user).map_err(|source| {
            let place = place();
            StartError::Limit { place, source }
        })
    };
    if let [only] = layers {
        return Ok(vec![limit(asked(only))?]);
    }
    let share = (limit(None)? / layers.len().max(1)).max(1);
    let each: Vec<usize> = layers
        .iter()
        .map(|layers| asked(layers).map_or(share, usize::from))
        .collect();
    let all = each
        .iter()
        .fold(0, |all: usize, each| all.saturating_add(*each));
    limit(all.try_into().ok())?;
    Ok(each)
}

/// Threads of a listener beside those of its connections: the one that accepts, with the shared
/// transport one that reads, and one for each name that may have to be looked up.
fn threads(options: &ListenerOptions) -> u64 {
    let backends = options.sni_backend.as_ref().map_or(0, Vec::len) as u64;
    2 + u64::from(options.backend.is_some()) + backends
}

/// Whether two addresses cannot both be listened on.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // [::] takes IPv4 too.
    let takes_all =
        |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || takes_all(one, other) || takes_all(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_where_one_takes_the_others_datagrams() {
        for (one, other, overlapping) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "[::1]:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("0.0.0.0:1", "[::]:1", true),
            ("[::]:0", "[::]:0", false),
        ] {
            let (a, b) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(a, b), overlapping, "{one} {other}");
            assert_eq!(overlap(b, a), overlapping, "{other} {one}");
        }
    }
}
