//! What a listener and a connector need to know: certificates, trust, timeouts, sizes.
//!
//! A configuration is made once, checked while it is made, and shared by all threads.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslSessionCacheMode,
    SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Ref};

use crate::core::CookieJar;
use crate::core::filter::MAX_MESSAGE;
use crate::core::hello::install_cookie_callbacks;
use crate::error::ConfigError;
use crate::sys;

/// The AEAD suites with ephemeral keys of RFC 9325 §4.2. A forged record is fatal to CBC suites
/// with encrypt-then-MAC, so none are offered.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";

/// In DTLS 1.2 the list governs certificates too: X25519 alone would refuse P-256 certificates.
const GROUPS: &str = "X25519:P-256";

/// How listening and connected sockets share one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortSharing {
    /// SO_REUSEPORT with a socket filter that gives strangers to the listener (Linux): no strays,
    /// and no other user can join the port.
    #[default]
    ReusePort,
    /// SO_REUSEADDR, the portable pattern: until connect() takes effect the newest socket receives
    /// other peers' datagrams, which are passed back to the listener.
    ReuseAddr,
}

/// A certificate chain, leaf first, and the leaf's private key.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<X509>,
    key: PKey<Private>,
    origin: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the chain and the key, both PEM.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, and a key of another certificate.
    pub fn from_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, ConfigError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let chain = read("certificate", certificate)?;
        let secret = read("private key", key)?;
        Self::parse(
            &chain,
            &secret,
            certificate.display().to_string(),
            &key.display().to_string(),
        )
    }

    /// Takes the chain and the key from PEM text.
    ///
    /// # Errors
    /// Text that cannot be parsed, and a key of another certificate.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, ConfigError> {
        Self::parse(
            certificate,
            key,
            "the given text".to_owned(),
            "the given text",
        )
    }

    fn parse(
        certificate: &[u8],
        key: &[u8],
        origin: String,
        key_origin: &str,
    ) -> Result<Self, ConfigError> {
        let chain = parse_certificates(certificate, &origin)?;
        let key = PKey::private_key_from_pem(key).map_err(|source| ConfigError::NotPem {
            what: "private key",
            from: key_origin.to_owned(),
            source,
        })?;
        let leaf_key = chain[0]
            .public_key()
            .map_err(openssl("the certificate's key"))?;
        if !leaf_key.public_eq(&key) {
            return Err(ConfigError::KeyMismatch {
                certificate: origin,
                key: key_origin.to_owned(),
            });
        }
        Ok(Self { chain, key, origin })
    }

    /// The leaf certificate's SHA-256 fingerprint, as colon-separated hexadecimal.
    ///
    /// # Errors
    /// OpenSSL lacks SHA-256.
    pub fn fingerprint(&self) -> Result<String, ConfigError> {
        fingerprint(&self.chain[0]).map_err(openssl("SHA-256"))
    }

    fn check_validity(&self) -> Result<(), ConfigError> {
        let now = Asn1Time::days_from_now(0).map_err(openssl("the time"))?;
        let leaf = &self.chain[0];
        let problem = if leaf.not_after() < now {
            format!("expired on {}", leaf.not_after())
        } else if leaf.not_before() > now {
            format!("is not valid before {}", leaf.not_before())
        } else {
            return Ok(());
        };
        Err(ConfigError::NotValidNow {
            certificate: self.origin.clone(),
            problem,
        })
    }

    fn install(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let (leaf, rest) = self.chain.split_first().ok_or_else(ErrorStack::get)?;
        context.set_certificate(leaf)?;
        for certificate in rest {
            context.add_extra_chain_cert(certificate.clone())?;
        }
        context.set_private_key(&self.key)
    }
}

pub(crate) fn fingerprint(certificate: &X509Ref) -> Result<String, ErrorStack> {
    let digest = certificate.digest(openssl::hash::MessageDigest::sha256())?;
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(hex.join(":"))
}

/// Certificates that a peer's chain may end in.
#[derive(Debug, Clone)]
pub struct TrustAnchors(Vec<X509>);

impl TrustAnchors {
    /// Reads certificates from a PEM file.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = read("CA certificates", path)?;
        parse_certificates(&text, &path.display().to_string()).map(Self)
    }

    /// Takes certificates from PEM text.
    ///
    /// # Errors
    /// Text without a certificate.
    pub fn from_pem(text: &[u8]) -> Result<Self, ConfigError> {
        parse_certificates(text, "the given text").map(Self)
    }

    fn install(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for certificate in &self.0 {
            store.add_cert(certificate.clone())?;
        }
        context.set_cert_store(store.build());
        Ok(())
    }
}

/// Receives each line of the NSS key log format, without a line end.
pub type KeyLog = Arc<dyn Fn(&str) + Send + Sync>;

/// What both ends have in common.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) link_mtu: u16,
    #[cfg(feature = "testing")]
    pub(crate) without: Vec<Safeguard>,
}

impl Settings {
    fn new() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(30),
            idle_timeout: None,
            link_mtu: 1500,
            #[cfg(feature = "testing")]
            without: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let timeout = self.handshake_timeout;
        if timeout.is_zero() || timeout > Duration::from_secs(3600) {
            return Err(ConfigError::OutOfRange {
                name: "the handshake timeout",
                value: format!("{timeout:?}"),
                must: "more than 0 and at most 1 h",
            });
        }
        if self.idle_timeout.is_some_and(|idle| idle.is_zero()) {
            return Err(ConfigError::OutOfRange {
                name: "the idle timeout",
                value: "0s".to_owned(),
                must: "more than 0",
            });
        }
        if !(576..=16_384).contains(&self.link_mtu) {
            return Err(ConfigError::OutOfRange {
                name: "the link MTU",
                value: self.link_mtu.to_string(),
                must: "between 576 and 16384 bytes",
            });
        }
        Ok(())
    }

    /// Whether a safeguard is in force: always, except in builds made to prove that it matters.
    #[cfg(feature = "testing")]
    pub(crate) fn keeps(&self, safeguard: Safeguard) -> bool {
        !self.without.contains(&safeguard)
    }

    /// Whether a safeguard is in force: always.
    #[cfg(not(feature = "testing"))]
    #[expect(
        clippy::unused_self,
        reason = "the same call as in builds that can switch it off"
    )]
    pub(crate) fn keeps(&self, _: Safeguard) -> bool {
        true
    }
}

/// A safeguard that tests can switch off to prove that something depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "public with `testing`")
)]
pub enum Safeguard {
    /// The record filter.
    RecordFilter,
    /// ICMP errors are hints, not the end.
    IcmpPolicy,
    /// Outgoing plaintext records continue the ClientHello's numbers.
    Renumbering,
    /// Datagrams in the wrong queue reach the thread they are for.
    StrayForwarding,
    /// The source of every datagram is compared with the peer.
    SourceCheck,
}

/// A server's configuration.
#[derive(Clone)]
pub struct ServerConfig {
    context: SslContext,
    settings: Arc<Settings>,
    port_sharing: PortSharing,
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("settings", &self.settings)
            .field("port_sharing", &self.port_sharing)
            .finish_non_exhaustive()
    }
}

impl ServerConfig {
    /// Starts from an identity; every other setting has a default.
    #[must_use]
    pub fn builder(identity: Identity) -> ServerConfigBuilder {
        ServerConfigBuilder {
            identity,
            client_ca: None,
            key_log: None,
            settings: Settings::new(),
            port_sharing: PortSharing::default(),
        }
    }

    pub(crate) fn context(&self) -> &SslContext {
        &self.context
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(crate) fn port_sharing(&self) -> PortSharing {
        self.port_sharing
    }
}

/// Collects a server's settings.
pub struct ServerConfigBuilder {
    identity: Identity,
    client_ca: Option<TrustAnchors>,
    key_log: Option<KeyLog>,
    settings: Settings,
    port_sharing: PortSharing,
}

impl fmt::Debug for ServerConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfigBuilder")
            .field("identity", &self.identity)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ServerConfigBuilder {
    /// Requires every client to show a certificate that ends in one of these.
    #[must_use]
    pub fn client_ca(mut self, anchors: TrustAnchors) -> Self {
        self.client_ca = Some(anchors);
        self
    }

    /// Gives up a handshake after this long. Default 30 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// Reports [`Recv::TimedOut`](crate::Recv::TimedOut) after this long without a datagram from
    /// the peer. Default: never.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// Builds datagrams for links of this many bytes, IP header included. Default 1500.
    #[must_use]
    pub fn link_mtu(mut self, bytes: u16) -> Self {
        self.settings.link_mtu = bytes;
        self
    }

    /// Chooses how sockets share the port.
    #[must_use]
    pub fn port_sharing(mut self, sharing: PortSharing) -> Self {
        self.port_sharing = sharing;
        self
    }

    /// Hands out the session secrets, for a network analyser.
    #[must_use]
    pub fn key_log(mut self, log: KeyLog) -> Self {
        self.key_log = Some(log);
        self
    }

    /// Switches a safeguard off.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn without(mut self, safeguard: Safeguard) -> Self {
        self.settings.without.push(safeguard);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// A value out of range, a certificate that is not valid now, or one OpenSSL refuses.
    pub fn build(self) -> Result<ServerConfig, ConfigError> {
        self.settings.check()?;
        self.identity.check_validity()?;
        let mut context = base_context(SslMethod::dtls_server(), self.key_log)?;
        self.identity
            .install(&mut context)
            .map_err(openssl("the certificate"))?;
        if let Some(anchors) = &self.client_ca {
            anchors
                .install(&mut context)
                .map_err(openssl("the client CA"))?;
            context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
            for certificate in &anchors.0 {
                context
                    .add_client_ca(certificate)
                    .map_err(openssl("the client CA"))?;
            }
            // A resumed session carries the client's certificate only within the same context.
            context
                .set_session_id_context(b"dtls")
                .map_err(openssl("the session id context"))?;
        }
        let jar = CookieJar::new(unix_now()).map_err(openssl("randomness"))?;
        install_cookie_callbacks(&mut context, Arc::new(jar));
        Ok(ServerConfig {
            context: context.build(),
            settings: Arc::new(self.settings),
            port_sharing: self.port_sharing,
        })
    }
}

/// Which server certificates a client takes.
#[derive(Debug, Clone)]
pub enum ServerTrust {
    /// Those that end in one of these and carry the server's name.
    Anchors(TrustAnchors),
    /// Those that end in one of the system's (OpenSSL's default paths) and carry the server's name.
    System,
    /// Any: protects against eavesdroppers who only listen.
    Anyone,
}

/// A client's configuration.
#[derive(Clone)]
pub struct ClientConfig {
    context: SslContext,
    settings: Arc<Settings>,
    check_name: bool,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("settings", &self.settings)
            .field("check_name", &self.check_name)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// Starts from what the client trusts; every other setting has a default.
    #[must_use]
    pub fn builder(trust: ServerTrust) -> ClientConfigBuilder {
        ClientConfigBuilder {
            trust,
            identity: None,
            key_log: None,
            settings: Settings::new(),
        }
    }

    pub(crate) fn context(&self) -> &SslContext {
        &self.context
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Makes `ssl` ask for and insist on `name`, a host name or an IP address.
    pub(crate) fn expect_name(&self, ssl: &mut SslRef, name: &str) -> Result<(), ErrorStack> {
        let ip = name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .ok();
        match ip {
            Some(ip) if self.check_name => ssl.param_mut().set_ip(ip),
            // RFC 6066 §3: no literal addresses in server_name.
            Some(_) => Ok(()),
            None => {
                ssl.set_hostname(name)?;
                if self.check_name {
                    ssl.param_mut().set_host(name)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Collects a client's settings.
pub struct ClientConfigBuilder {
    trust: ServerTrust,
    identity: Option<Identity>,
    key_log: Option<KeyLog>,
    settings: Settings,
}

impl fmt::Debug for ClientConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfigBuilder")
            .field("trust", &self.trust)
            .field("identity", &self.identity)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ClientConfigBuilder {
    /// Shows this certificate when the server asks for one.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Gives up a handshake after this long. Default 30 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// Reports [`Recv::TimedOut`](crate::Recv::TimedOut) after this long without a datagram from
    /// the server. Default: never.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// Builds datagrams for links of this many bytes, IP header included. Default 1500.
    #[must_use]
    pub fn link_mtu(mut self, bytes: u16) -> Self {
        self.settings.link_mtu = bytes;
        self
    }

    /// Hands out the session secrets, for a network analyser.
    #[must_use]
    pub fn key_log(mut self, log: KeyLog) -> Self {
        self.key_log = Some(log);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// A value out of range, or a certificate that OpenSSL refuses.
    pub fn build(self) -> Result<ClientConfig, ConfigError> {
        self.settings.check()?;
        let mut context = base_context(SslMethod::dtls_client(), self.key_log)?;
        if let Some(identity) = &self.identity {
            identity
                .install(&mut context)
                .map_err(openssl("the certificate"))?;
        }
        let check_name = match &self.trust {
            ServerTrust::Anchors(anchors) => {
                anchors.install(&mut context).map_err(openssl("the CA"))?;
                true
            }
            ServerTrust::System => {
                context
                    .set_default_verify_paths()
                    .map_err(openssl("the system's CAs"))?;
                true
            }
            ServerTrust::Anyone => false,
        };
        context.set_verify(if check_name {
            SslVerifyMode::PEER
        } else {
            SslVerifyMode::NONE
        });
        Ok(ClientConfig {
            context: context.build(),
            settings: Arc::new(self.settings),
            check_name,
        })
    }
}

fn base_context(
    method: SslMethod,
    key_log: Option<KeyLog>,
) -> Result<SslContextBuilder, ConfigError> {
    let mut context = SslContext::builder(method).map_err(openssl("a context"))?;
    context
        .set_min_proto_version(Some(SslVersion::DTLS1_2))
        .and_then(|()| context.set_max_proto_version(Some(SslVersion::DTLS1_2)))
        .map_err(openssl("DTLS 1.2"))?;
    context
        .set_cipher_list(CIPHERS)
        .map_err(openssl("the cipher list"))?;
    context
        .set_groups_list(GROUPS)
        .map_err(openssl("the group list"))?;
    // NO_QUERY_MTU first: without it SSL_set_mtu is forgotten and flights go out in 256-byte
    // pieces, since the slot knows no MTU.
    context.set_options(SslOptions::NO_QUERY_MTU | SslOptions::NO_RENEGOTIATION);
    // Stateless resumption by tickets only: the cache is a lock and memory per handshake.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    // With the slot, a waiting thread is outside SSL_read and its buffers can go.
    context.set_mode(SslMode::RELEASE_BUFFERS);
    sys::ssl::set_max_cert_list(&mut context, u32::try_from(MAX_MESSAGE).unwrap_or(u32::MAX));
    if let Some(log) = key_log {
        context.set_keylog_callback(move |_, line| log(line));
    }
    Ok(context)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let path: PathBuf = path.into();
    std::fs::read(&path).map_err(|source: io::Error| ConfigError::Read { what, path, source })
}

fn parse_certificates(text: &[u8], origin: &str) -> Result<Vec<X509>, ConfigError> {
    let not_pem = |source| ConfigError::NotPem {
        what: "certificate",
        from: origin.to_owned(),
        source,
    };
    let chain = X509::stack_from_pem(text).map_err(not_pem)?;
    if chain.is_empty() {
        Err(not_pem(ErrorStack::get()))
    } else {
        Ok(chain)
    }
}

fn openssl(what: &'static str) -> impl Fn(ErrorStack) -> ConfigError {
    move |source| ConfigError::OpenSsl { what, source }
}

/// The clock of cookies.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
