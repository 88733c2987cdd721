//! From flags and files to a checked client configuration. Main thread; the key log is written by
//! whichever thread shakes hands.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dtls::{ClientConfig, ConfigError, Identity, KeyLog, ServerTrust, TrustAnchors};

use crate::cli::ServerArgs;

/// Why there is no configuration. Caused by the flags or the files they name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("{flag}: {source}")]
    Flag {
        flag: &'static str,
        source: ConfigError,
    },
    #[error("--keylog: cannot write {}: {source}", path.display())]
    KeyLog { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads every file that the flags name.
pub(crate) fn client_config(args: &ServerArgs) -> Result<ClientConfig, SetupError> {
    let mut builder = ClientConfig::builder(trust(args)?)
        .handshake_timeout(args.handshake_timeout)
        .link_mtu(args.link_mtu);
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        let identity = Identity::from_files(cert, key).map_err(|source| SetupError::Flag {
            flag: "--cert and --key",
            source,
        })?;
        builder = builder.identity(identity);
    }
    if let Some(path) = &args.keylog {
        builder = builder.key_log(key_log(path)?);
    }
    Ok(builder.build()?)
}

/// The name that the certificate must carry.
pub(crate) fn server_name(args: &ServerArgs) -> &str {
    // A zone is no part of an address in a certificate.
    let host = args.target.host.split('%').next();
    args.server_name.as_deref().or(host).unwrap_or_default()
}

fn trust(args: &ServerArgs) -> Result<ServerTrust, SetupError> {
    if args.insecure {
        return Ok(ServerTrust::Anyone);
    }
    if let Some(path) = &args.ca {
        return TrustAnchors::from_file(path)
            .map(ServerTrust::Anchors)
            .map_err(|source| SetupError::Flag {
                flag: "--ca",
                source,
            });
    }
    // A vendored OpenSSL would look where nobody installed anything.
    match openssl_probe::probe().cert_file {
        Some(path) => TrustAnchors::from_file(path)
            .map(ServerTrust::Anchors)
            .map_err(|source| SetupError::Flag {
                flag: "the system's CAs (give others with --ca FILE)",
                source,
            }),
        None => Ok(ServerTrust::System),
    }
}

fn key_log(path: &Path) -> Result<KeyLog, SetupError> {
    let failed = |source| SetupError::KeyLog {
        path: path.to_owned(),
        source,
    };
    // Whoever reads it can read the connections.
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let log = Mutex::new((file, path.to_owned()));
    Ok(Arc::new(move |line| {
        let (file, path): &mut (File, PathBuf) =
            &mut log.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line: other processes may append to the same file.
        if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
            log::warn!("--keylog: cannot write {}: {error}", path.display());
        }
    }))
}
