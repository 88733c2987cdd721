//! From flags and files to a checked client configuration. Main thread; the key log is written by
//! whichever thread shakes hands.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dtls::{
    ClientConfig, ClientConfigBuilder, ConfigError, Identity, KeyLog, KnownPeers, PskKey,
    ServerTrust, TrustAnchors,
};
use zeroize::Zeroizing;

use crate::cli::ServerArgs;
use crate::target::Target;

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
    #[error("--psk-key-file: cannot read {}: {source}", path.display())]
    PskKey { path: PathBuf, source: io::Error },
}

/// Reads every file that the flags name. `heartbeat`: offer it whatever they say.
pub(crate) fn client_config(
    args: &ServerArgs,
    heartbeat: bool,
) -> Result<ClientConfig, SetupError> {
    let mut builder = builder(args)?
        .handshake_timeout(args.handshake_timeout)
        .retransmission_timer(args.retransmit_initial, args.retransmit_max)
        .link_mtu(args.link_mtu)
        .suites(args.suites.set())
        .cipher_suites(args.suites.names())
        .groups(&args.groups)
        .heartbeat(args.heartbeat || heartbeat)
        .alpn(args.alpn.iter().map(String::as_str));
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        builder =
            builder.identity(Identity::from_files(cert, key).map_err(of_flag("--cert and --key"))?);
    }
    if let Some(path) = &args.keylog {
        builder = builder.key_log(key_log(path)?);
    }
    builder.build().map_err(|source| SetupError::Flag {
        flag: culprit(&source),
        source,
    })
}

/// The name that the certificate must carry.
pub(crate) fn server_name<'a>(args: &'a ServerArgs, target: &'a Target) -> &'a str {
    // A zone is no part of an address in a certificate.
    let host = target.host.split('%').next();
    args.server_name.as_deref().or(host).unwrap_or_default()
}

fn of_flag(flag: &'static str) -> impl Fn(ConfigError) -> SetupError {
    move |source| SetupError::Flag { flag, source }
}

/// The flag whose value the library refused.
fn culprit(error: &ConfigError) -> &'static str {
    let ConfigError::OutOfRange { name, .. } = error else {
        return "the configuration";
    };
    match *name {
        "the link MTU" => "--link-mtu",
        "the retransmission timer" => "--retransmit-initial and --retransmit-max",
        "the PSK identity" => "--psk-identity",
        "an application protocol's name" => "--alpn",
        "a cipher suite" => "--suites",
        "a group" => "--groups",
        other => other,
    }
}

/// From what both ends prove.
fn builder(args: &ServerArgs) -> Result<ClientConfigBuilder, SetupError> {
    let Some((identity, path)) = args.psk_identity.as_ref().zip(args.psk_key_file.as_ref()) else {
        return Ok(ClientConfig::builder(match trust(args)? {
            Some(trust) => trust,
            None => system()?,
        }));
    };
    let key = psk_key(path)?;
    Ok(match trust(args)? {
        Some(trust) => ClientConfig::builder(trust).psk(identity.as_str(), key),
        None => ClientConfig::psk_builder(identity.as_str(), key),
    })
}

fn psk_key(path: &Path) -> Result<PskKey, SetupError> {
    let failed = |source| SetupError::PskKey {
        path: path.to_owned(),
        source,
    };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        log::warn!(
            "--psk-key-file: others can read {}; chmod 600 it",
            path.display()
        );
    }
    PskKey::from_hex(text.trim()).map_err(of_flag("--psk-key-file"))
}

/// Whom the flags trust; `None` where they name nobody.
fn trust(args: &ServerArgs) -> Result<Option<ServerTrust>, SetupError> {
    if args.insecure {
        return Ok(Some(ServerTrust::Anyone));
    }
    let mut trusted = Vec::new();
    if let Some(path) = &args.ca {
        let mut anchors = TrustAnchors::from_file(path).map_err(of_flag("--ca"))?;
        if let Some(crl) = &args.crl {
            anchors = anchors.crl_file(crl).map_err(of_flag("--crl"))?;
        }
        trusted.push(ServerTrust::Anchors(anchors));
    }
    if !args.pin.is_empty() {
        trusted.push(ServerTrust::Pins(args.pin.clone()));
    }
    // Last: it would take, and note, whatever the others refuse.
    if let Some(path) = &args.known_peers {
        let known = KnownPeers::open(path).map_err(of_flag("--known-peers"))?;
        trusted.push(ServerTrust::KnownPeers(known));
    }
    Ok(trusted.into_iter().reduce(ServerTrust::or))
}

fn system() -> Result<ServerTrust, SetupError> {
    // A vendored OpenSSL would look where nobody installed anything.
    match openssl_probe::probe().cert_file {
        Some(path) => TrustAnchors::from_file(path)
            .map(ServerTrust::Anchors)
            .map_err(of_flag("the system's CAs (give others with --ca FILE)")),
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
