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
mod allow;
mod clients;
mod listener;
mod service;
mod effective;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtls::{KeyLog, ServerConfigBuilder};

use crate::cli::{Args, Format};
use crate::error::{ConfigError, Failure, StartError};
use crate::service::{Needs, Service};
use crate::stats::Stats;
use crate::{keylog, limits};

use file::ConfigFile;
use layers::Layers;
use listener::{Ready, Surroundings};

pub(crate) use effective::print;
pub(crate) use file::FileError;
pub(crate) use listener::Problem;
pub(crate) use options::{ListenerOptions, ServerOptions};
pub(crate) use values::{ClientAuth, TcpAddress};

/// Has the last word on the library's settings.
pub type Adjust = Arc<dyn Fn(ServerConfigBuilder) -> ServerConfigBuilder + Send + Sync>;

/// Everything the server needs to start.
pub(crate) struct Config {
    /// In the order of the file; at least one.
    pub(crate) listeners: Vec<ListenerConfig>,
    /// Where the operations pages are, if anywhere.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) drain_timeout: Duration,
    pub(crate) format: Format,
}

/// Everything a listener needs to start.
pub(crate) struct ListenerConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) service: Service,
    /// What the server counts beside the library.
    pub(crate) stats: Arc<Stats>,
    pub(crate) max_connections: usize,
    pub(crate) ready: Ready,
    /// What each setting is, and who said so.
    settings: Vec<effective::Setting>,
}

/// How long connections may take to close.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

impl Config {
    /// Checks the arguments and the file they name.
    ///
    /// # Errors
    /// A file or value that is wrong, or a limit that is too low for what is asked.
    pub(crate) fn check(args: Args, adjust: &Adjust) -> Result<Self, Failure> {
        let file = match &args.config {
            Some(path) => Some(ConfigFile::read(path).map_err(ConfigError::File)?),
            None => None,
        };
        let of_file = file.as_ref().map(|file| &file.options);
        let key_log = args
            .server
            .keylog
            .map(|path| (path, "--keylog: ".to_owned()));
        let key_log = key_log.or_else(|| {
            let file = file.as_ref()?;
            let path = file.options.keylog.clone()?;
            Some((path, file.place(None, "keylog")))
        });
        let key_log = key_log
            .map(|(path, place)| open_key_log(path, place, args.check))
            .transpose()?
            .flatten();
        let layers = Layers::of(args.listener, file.as_ref())?;
        let mut services = Vec::new();
        for layers in &layers {
            let stats = Arc::new(Stats::default());
            let service =
                service::ready(&layers.merged, &stats).map_err(|mistake| layers.refuse(mistake))?;
            services.push((service, stats));
        }
        let needs: Vec<_> = services
            .iter()
            .map(|(service, _)| service.needs())
            .collect();
        let most = share_connections(&layers, &needs)?;
        let mut listeners: Vec<ListenerConfig> = Vec::new();
        for ((layers, (service, stats)), max_connections) in layers.iter().zip(services).zip(most) {
            let listen = layers.address()?;
            if let Some(other) = listeners.iter().find(|other| overlap(other.listen, listen)) {
                let (address, other) = (listen, other.listen);
                return Err(layers.refuse(Problem::SamePort { address, other }.of("listen")));
            }
            let surroundings = Surroundings {
                key_log: key_log.clone(),
                adjust,
                stats: &stats,
                before: None,
            };
            let ready = listener::ready(&layers.merged, surroundings)
                .map_err(|mistake| layers.refuse(mistake))?;
            listeners.push(ListenerConfig {
                listen,
                service,
                stats,
                max_connections,
                settings: layers.settings(listen, max_connections, ready.client_auth),
                ready,
            });
        }
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
            drain_timeout: drain_timeout.map_or(DRAIN_TIMEOUT, |time| time.0),
            format: args.format,
        })
    }
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
fn share_connections(layers: &[Layers<'_>], needs: &[Needs]) -> Result<Vec<usize>, Failure> {
    // As if all connections were of the neediest.
    let descriptors = needs.iter().map(|needs| needs.descriptors).max();
    let needs = Needs {
        descriptors: descriptors.unwrap_or(0),
        local_ports: needs.iter().any(|needs| needs.local_ports),
    };
    let limit = |asked| limits::max_connections(asked, needs).map_err(StartError::Limit);
    let asked = |layers: &Layers<'_>| layers.merged.max_connections;
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
