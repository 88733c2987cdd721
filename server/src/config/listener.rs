//! A listener's options made its configuration: every file is read, every value checked. Main
//! thread.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dtls::{Identity, KeyLog, ServerConfig, ServerConfigBuilder};

use super::Adjust;
use super::allow::AllowFileError;
use super::clients::{Clients, Keys};
use super::options::ListenerOptions;
use super::psk_file::PskFileError;
use super::shared_keys::{SharedKeys, SharedKeysError};
use super::values::{ClientAuth, NamedIdentity};
use crate::stats::Stats;
use crate::throwaway;

/// A listener's settings that need no file any more.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) dtls: ServerConfig,
    /// Whether clients must show a certificate.
    pub(crate) client_auth: ClientAuth,
    /// How many pre-shared keys there are, if they are taken at all.
    pub(crate) psk: Option<usize>,
    /// The certificate if it is a throw-away one.
    pub(crate) throwaway: Option<Throwaway>,
}

/// A certificate that nobody gave.
#[derive(Debug, Clone)]
pub(crate) struct Throwaway {
    identity: Identity,
    pub(crate) fingerprint: String,
}

/// What a listener's settings do not say.
pub(super) struct Surroundings<'a> {
    pub(super) key_log: Option<KeyLog>,
    pub(super) adjust: &'a Adjust,
    /// Where refusals are counted.
    pub(super) stats: &'a Arc<Stats>,
    /// What the new settings take the place of.
    pub(super) before: Option<&'a Ready>,
}

/// What is wrong with a listener's options, and with which of them.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// The option; empty if it is none in particular.
    pub(crate) key: &'static str,
    pub(crate) problem: Problem,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// Nowhere to listen.
    #[error("the address to listen on is missing, such as --listen '[::]:4433'; see --help")]
    NoAddress,
    /// Half an address.
    #[error("{ip} lacks a port; add one, such as {}, or choose a --preset", SocketAddr::new(*ip, 4433))]
    NoPort {
        /// The address.
        ip: IpAddr,
    },
    /// Two listeners in each other's way.
    #[error("{address} is in the way of the listener at {other}; give each a port of its own")]
    SamePort {
        /// The second one.
        address: SocketAddr,
        /// The first one.
        other: SocketAddr,
    },
    /// A running listener stays where it is.
    #[error("the listener cannot move to {0} while it runs; start the server anew")]
    Moved(SocketAddr),
    /// A preset's clients must know whom they talk to.
    #[error(
        "its clients would not know a throw-away certificate; give --cert and --key, or --psk-file"
    )]
    NoIdentity,
    /// One of the pair is missing.
    #[error(
        "the certificate {} needs --key with the file of its private key; leave both out for a \
         throw-away certificate",
        .0.display()
    )]
    CertWithoutKey(PathBuf),
    /// One of the pair is missing.
    #[error(
        "the private key {} needs --cert with the file of its certificate; leave both out for a \
         throw-away certificate",
        .0.display()
    )]
    KeyWithoutCert(PathBuf),
    /// Clients without a name have no certificate to see.
    #[error(
        "without --cert and --key, clients that ask for no name or another one would see no \
         certificate; give them"
    )]
    NameWithoutCert,
    /// A certificate, a key, an authority or a revocation list is of no use.
    #[error("{source}; {remedy}")]
    File {
        /// The library's reason, which names the file.
        source: dtls::ConfigError,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Any other setting.
    #[error(transparent)]
    Setting(dtls::ConfigError),
    /// The pre-shared keys are of no use.
    #[error(transparent)]
    Psk(PskFileError),
    /// Certificates are asked for and none would be good.
    #[error(
        "no client certificate would be good: name the authorities with --client-ca or the \
         certificates with --client-pin"
    )]
    TrustInNobody,
    /// Certificates are judged and none is asked for.
    #[error("it has no effect with --client-auth off; leave one of them out")]
    TrustUnused,
    /// Revocation lists without an authority.
    #[error("revocation lists need the authorities that issued them; add --client-ca")]
    CrlWithoutCa,
    /// Nobody could be on the list.
    #[error(
        "an allow list is for clients that prove who they are; add --client-ca, --client-pin or \
         --psk-file"
    )]
    AllowWithoutProof,
    /// A stranger need not be on the list.
    #[error("with an allow list, a client must not go without proof; leave --client-auth out")]
    AllowOptional,
    /// The allow list is of no use.
    #[error(transparent)]
    Allow(AllowFileError),
    /// The shared keys are of no use.
    #[error(transparent)]
    SharedKeys(SharedKeysError),
    /// A hint for nobody.
    #[error("a hint helps to choose among pre-shared keys; add --psk-file, or leave it out")]
    HintWithoutPsk,
    /// Forward to where?
    #[error("forward needs --backend HOST:PORT, the plain UDP service behind it")]
    NoBackend,
    /// A backend that nobody asks.
    #[error("it has no effect without --service forward; add that, or leave it out")]
    NotForward,
    /// The backend has no address.
    #[error("cannot look up {name}: {source}; give HOST:PORT, such as 127.0.0.1:5683")]
    Backend {
        /// As it was typed.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A port that only root may bind, for each connection.
    #[error(
        "port {port} is for the privileged (net.ipv4.ip_unprivileged_port_start is {start}), and every \
         connection would bind it again after --user; add --transport shared, or choose a higher port"
    )]
    PrivilegedPort {
        /// The listener's port.
        port: u16,
        /// The lowest port for everybody.
        start: u16,
    },
    /// No throw-away certificate.
    #[error("failed to make a throw-away certificate: {0}; give one with --cert and --key")]
    Throwaway(rcgen::Error),
}

impl Problem {
    pub(super) fn of(self, key: &'static str) -> Mistake {
        Mistake { key, problem: self }
    }
}

/// Reads and checks everything.
///
/// # Errors
/// The first mistake.
pub(super) fn ready(
    options: &ListenerOptions,
    surroundings: Surroundings<'_>,
) -> Result<Ready, Mistake> {
    let Surroundings {
        key_log,
        adjust,
        stats,
        before,
    } = surroundings;
    let clients = Clients::read(options, stats)?;
    let psk = clients.keys.as_deref().map(Keys::len);
    let (builder, throwaway) = identified(options, clients.keys, before)?;
    let mut builder = builder
        .client_auth(clients.trust)
        .session_scope(clients.session_scope);
    if let Some(path) = &options.shared_keys {
        let keys =
            SharedKeys::read(path).map_err(|error| Problem::SharedKeys(error).of("shared-keys"))?;
        builder = builder.shared_secrets(&keys.current, keys.other.as_ref());
    }
    if let Some(before) = before {
        builder = builder.keys_of(&before.dtls);
    }
    if let Some(time) = options.idle_timeout {
        builder = builder.idle_timeout(time.0);
    }
    if let Some(time) = options.handshake_timeout {
        builder = builder.handshake_timeout(time.0);
    }
    if let (Some(initial), Some(longest)) = (options.retransmit_initial, options.retransmit_max) {
        builder = builder.retransmission_timer(initial.0, longest.0);
    }
    if let Some(suites) = options.suites {
        builder = builder.suites(suites.into());
    }
    if let Some(names) = &options.alpn {
        builder = builder.alpn(names.iter().map(String::as_str));
    }
    if let Some(heartbeat) = options.heartbeat {
        builder = builder.heartbeat(heartbeat);
    }
    if let Some(time) = options.probe_when_idle {
        builder = builder.probe_when_idle(time.0);
    }
    if let Some(bytes) = options.link_mtu {
        builder = builder.link_mtu(bytes);
    }
    if let Some(sharing) = options.port_sharing {
        builder = builder.port_sharing(sharing.into());
    }
    if let Some(transport) = options.transport {
        builder = builder.transport(transport.into());
    }
    builder = builder
        .max_half_open(options.max_half_open.map(NonZeroUsize::get))
        .max_per_prefix(options.max_per_prefix.map(NonZeroUsize::get))
        .hello_rate(options.hello_rate.map(NonZeroU32::get));
    if let Some(log) = key_log {
        builder = builder.key_log(log);
    }
    let dtls = adjust(builder)
        .build()
        .map_err(|error| blame(error, options))?;
    Ok(Ready {
        dtls,
        client_auth: clients.auth,
        psk,
        throwaway,
    })
}

/// A builder with what the server shows and knows of itself, and the certificate if nobody gave one.
fn identified(
    options: &ListenerOptions,
    psk: Option<Arc<Keys>>,
    before: Option<&Ready>,
) -> Result<(ServerConfigBuilder, Option<Throwaway>), Mistake> {
    let named = options.sni.as_deref().unwrap_or_default();
    let identity = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => Some(read_identity(cert, key, Names::MAIN)?),
        (Some(cert), None) => return Err(Problem::CertWithoutKey(cert.clone()).of("cert")),
        (None, Some(key)) => return Err(Problem::KeyWithoutCert(key.clone()).of("key")),
        (None, None) if named.is_empty() => None,
        (None, None) => return Err(Problem::NameWithoutCert.of("sni")),
    };
    let mut throwaway = None;
    let mut builder = match (identity, psk) {
        (Some(identity), None) => ServerConfig::builder(identity),
        (Some(identity), Some(keys)) => {
            ServerConfig::builder(identity).psk(move |identity| keys.find(identity))
        }
        (None, Some(keys)) => ServerConfig::psk_builder(move |identity| keys.find(identity)),
        (None, None) if options.preset.is_some() => return Err(Problem::NoIdentity.of("preset")),
        (None, None) => {
            // People may have noted its fingerprint.
            let kept = before.and_then(|before| before.throwaway.clone());
            let made = kept.map_or_else(make_throwaway, Ok);
            let made = throwaway.insert(made.map_err(|problem| problem.of(""))?);
            ServerConfig::builder(made.identity.clone())
        }
    };
    if let Some(hint) = &options.psk_hint {
        builder = builder.psk_hint(hint);
    }
    for NamedIdentity { name, cert, key } in named {
        builder = builder.identity_for(name, read_identity(cert, key, Names::NAMED)?);
    }
    Ok((builder, throwaway))
}

fn make_throwaway() -> Result<Throwaway, Problem> {
    let (cert, key) = throwaway::make().map_err(Problem::Throwaway)?;
    let identity = Identity::from_pem(cert.as_bytes(), key.as_bytes()).map_err(Problem::Setting)?;
    let fingerprint = identity.fingerprint().map_err(Problem::Setting)?;
    Ok(Throwaway {
        identity,
        fingerprint,
    })
}

/// Which options name an identity's files.
#[derive(Clone, Copy)]
struct Names {
    cert: &'static str,
    key: &'static str,
}

impl Names {
    const MAIN: Self = Self {
        cert: "cert",
        key: "key",
    };
    const NAMED: Self = Self {
        cert: "sni",
        key: "sni",
    };
}

fn read_identity(cert: &Path, key: &Path, keys: Names) -> Result<Identity, Mistake> {
    Identity::from_files(cert, key).map_err(|source| file_mistake(source, keys))
}

/// Adds to the library's reason which option it is about and what to do.
fn file_mistake(source: dtls::ConfigError, keys: Names) -> Mistake {
    use dtls::ConfigError as Library;
    let (key, remedy) = match &source {
        Library::Read { what, .. } | Library::NotPem { what, .. } if what.contains("key") => {
            (keys.key, "give the private key's PEM file")
        }
        Library::Read { .. } | Library::NotPem { .. } => {
            (keys.cert, "give the certificate chain's PEM file")
        }
        Library::KeyMismatch { .. } => (keys.key, "give the pair that was issued together"),
        Library::EncryptedKey { .. } => return Problem::Setting(source).of(keys.key),
        Library::NotValidNow { .. } => (keys.cert, "renew it, or correct this machine's clock"),
        _ => return Problem::Setting(source).of(keys.cert),
    };
    Problem::File { source, remedy }.of(key)
}

/// Which option the library's last check is about.
fn blame(source: dtls::ConfigError, options: &ListenerOptions) -> Mistake {
    use dtls::ConfigError as Library;
    match &source {
        Library::OutOfRange { name, .. } => {
            let key = SETTINGS.iter().find(|(setting, _)| setting == name);
            let key = key.map_or("", |(_, key)| key);
            Problem::Setting(source).of(key)
        }
        Library::NotValidNow { certificate, .. } | Library::UnusableKey { certificate, .. } => {
            let main = options.cert.as_ref();
            let keys = if main.is_some_and(|cert| cert.display().to_string() == *certificate) {
                Names::MAIN
            } else {
                Names::NAMED
            };
            file_mistake(source, keys)
        }
        _ => Problem::Setting(source).of(""),
    }
}

/// The library's settings and our options.
const SETTINGS: [(&str, &str); 8] = [
    ("the handshake timeout", "handshake-timeout"),
    ("the idle timeout", "idle-timeout"),
    (
        "the time to wait for an answer to a probe",
        "probe-when-idle",
    ),
    ("the link MTU", "link-mtu"),
    ("the retransmission timer", "retransmit-initial"),
    ("the server name", "sni"),
    ("an application protocol's name", "alpn"),
    ("the PSK identity hint", "psk-hint"),
];
