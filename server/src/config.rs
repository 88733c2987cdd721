//! What the arguments mean, checked: every file is read and every limit known before the port is
//! bound. Main thread.

use std::net::SocketAddr;
use std::time::Duration;

use dtls::{Identity, PortSharing, ServerConfig, ServerConfigBuilder, TrustAnchors};

use crate::cli::{self, Args, Format};
use crate::error::{ConfigError, Failure, StartError};
use crate::service::Service;
use crate::{keylog, limits, throwaway};

/// Everything the server needs to start.
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) dtls: ServerConfig,
    pub(crate) service: Service,
    pub(crate) max_connections: usize,
    pub(crate) drain_timeout: Duration,
    pub(crate) format: Format,
    /// Whether clients must show a certificate.
    pub(crate) client_ca: bool,
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
        let (identity, throwaway) = identity(&args)?;
        let mut builder = ServerConfig::builder(identity)
            .handshake_timeout(args.handshake_timeout)
            .idle_timeout(args.idle_timeout.0)
            .link_mtu(args.link_mtu)
            .port_sharing(match args.port_sharing {
                cli::PortSharing::Reuseport => PortSharing::ReusePort,
                cli::PortSharing::Reuseaddr => PortSharing::ReuseAddr,
            });
        if let Some(file) = &args.client_ca {
            builder =
                builder.client_ca(TrustAnchors::from_file(file).map_err(ConfigError::ClientCa)?);
        }
        if let Some(path) = args.keylog {
            builder = builder.key_log(
                keylog::append(&path).map_err(|source| ConfigError::KeyLog { path, source })?,
            );
        }
        let dtls = adjust(builder).build().map_err(setting)?;
        let max_connections =
            limits::max_connections(args.max_connections).map_err(StartError::Limit)?;
        Ok(Self {
            listen: args.listen,
            dtls,
            service: args.service,
            max_connections,
            drain_timeout: args.drain_timeout,
            format: args.format,
            client_ca: args.client_ca.is_some(),
            throwaway,
        })
    }
}

/// The server's certificate and key, with the fingerprint if they were just made.
fn identity(args: &Args) -> Result<(Identity, Option<String>), Failure> {
    match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let identity = Identity::from_files(cert, key).map_err(setting)?;
            Ok((identity, None))
        }
        (Some(cert), None) => Err(ConfigError::CertWithoutKey(cert.clone()).into()),
        (None, Some(key)) => Err(ConfigError::KeyWithoutCert(key.clone()).into()),
        (None, None) => {
            let (cert, key) = throwaway::make().map_err(StartError::Throwaway)?;
            let identity = Identity::from_pem(cert.as_bytes(), key.as_bytes()).map_err(setting)?;
            let fingerprint = identity.fingerprint().map_err(setting)?;
            Ok((identity, Some(fingerprint)))
        }
    }
}

/// Adds what to do about it.
fn setting(source: dtls::ConfigError) -> ConfigError {
    use dtls::ConfigError as Library;
    let remedy = match &source {
        Library::Read { .. } | Library::NotPem { .. } => "check --cert and --key",
        Library::KeyMismatch { .. } => "give the pair that was issued together",
        Library::NotValidNow { .. } => "renew it, or correct this machine's clock",
        _ => return ConfigError::Setting(source),
    };
    ConfigError::Identity { source, remedy }
}
