//! What the arguments mean, checked: every file is read and every limit known before the port is
//! bound. Main thread.
//!
//! ```text
//! flags ─► options ─► listener ─► Config
//!          (may be     (files read,
//!          missing)    values checked)
//! ```

mod options;
mod values;
mod psk_file;
mod listener;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtls::{ServerConfig, ServerConfigBuilder};

use crate::cli::{Args, Format};
use crate::error::{ConfigError, Failure, StartError};
use crate::service::Service;
use crate::stats::Stats;
use crate::{keylog, limits};

pub(crate) use listener::Problem;
pub(crate) use options::ListenerOptions;
pub(crate) use values::ClientAuth;

/// Everything the server needs to start.
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) dtls: ServerConfig,
    pub(crate) service: Service,
    /// What the server counts beside the library.
    pub(crate) stats: Arc<Stats>,
    pub(crate) max_connections: usize,
    pub(crate) drain_timeout: Duration,
    pub(crate) format: Format,
    /// Whether clients must show a certificate.
    pub(crate) client_auth: ClientAuth,
    /// How many pre-shared keys there are, if they are taken at all.
    pub(crate) psk: Option<usize>,
    /// The fingerprint of the certificate if it is a throw-away one.
    pub(crate) throwaway: Option<String>,
}

impl Config {
    /// Checks the arguments; `adjust` has the last word on the library's settings.
    ///
    /// # Errors
    /// A file or value that is wrong, or a limit that is too low for what is asked.
    pub(crate) fn check(
        args: Args,
        adjust: impl FnOnce(ServerConfigBuilder) -> ServerConfigBuilder,
    ) -> Result<Self, Failure> {
        let options = args.listener;
        let listen = options.listen.ok_or(ConfigError::NoAddress)?;
        let key_log = match args.keylog {
            Some(path) => {
                Some(keylog::append(&path).map_err(|source| ConfigError::KeyLog { path, source })?)
            }
            None => None,
        };
        let blame = |mistake: listener::Mistake| ConfigError::Listener {
            place: place(mistake.key),
            problem: mistake.problem,
        };
        let stats = Arc::new(Stats::default());
        let service = service::ready(&options, &stats).map_err(blame)?;
        let ready = listener::ready(&options, key_log, adjust).map_err(blame)?;
        let max_connections = limits::max_connections(args.max_connections, service.needs())
            .map_err(StartError::Limit)?;
        Ok(Self {
            listen,
            dtls: ready.dtls,
            service,
            stats,
            max_connections,
            drain_timeout: args.drain_timeout,
            format: args.format,
            client_auth: ready.client_auth,
            psk: ready.psk,
            throwaway: ready.throwaway,
        })
    }
}

/// Where an option was given, to begin a message with.
fn place(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("--{key}: ")
    }
}
