//! A server's configuration. Made on the caller's thread, shared by all.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use openssl::error::ErrorStack;
use openssl::sha::Sha256;
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslVerifyMode};

#[cfg(feature = "testing")]
use super::Safeguard;
use super::sni::ByName;
use super::{
    ConfigBuilder, Identity, PortSharing, Proofs, Settings, Transport, TrustAnchors, base_context,
    next_id, openssl, unix_now,
};
use crate::core::CookieJar;
use crate::core::hello::install_cookie_callbacks;
use crate::core::limits::{Limits, PrefixLengths};
use crate::error::ConfigError;
use crate::psk::{PskKey, PskLookup, ServerPsk};
use crate::shared::{self, SharedSecret};
use crate::tickets::TicketKeys;
use crate::verify::Trust;

/// Whether clients show certificates.
#[derive(Debug, Clone, Default)]
pub enum ClientAuth {
    /// None is asked for.
    #[default]
    Off,
    /// One is asked for. A client without one is let in, see
    /// [`HandshakeInfo::verified`](crate::HandshakeInfo::verified); one with a bad one is not.
    Optional(Trust),
    /// One is demanded, except from a client with a pre-shared key: that is proof enough.
    Required(Trust),
}

impl ClientAuth {
    fn trust(&self) -> Option<&Trust> {
        match self {
            Self::Off => None,
            Self::Optional(trust) | Self::Required(trust) => Some(trust),
        }
    }

    fn install(&self, context: &mut SslContextBuilder) -> Result<(), ConfigError> {
        let Some(trust) = self.trust() else {
            return Ok(());
        };
        if trust.is_for_clients() {
            return Err(ConfigError::OutOfRange {
                name: "the trust in clients",
                value: "a known-peers file".to_owned(),
                must: "something that does not go by the peer's name, such as pins",
            });
        }
        trust.install(context)?;
        context.set_verify(match self {
            Self::Required(_) => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
            Self::Off | Self::Optional(_) => SslVerifyMode::PEER,
        });
        let mut anchors = Vec::new();
        trust.anchors(&mut anchors);
        for certificate in anchors.iter().flat_map(|anchors| anchors.certificates()) {
            context
                .add_client_ca(certificate)
                .map_err(openssl("the client CA"))?;
        }
        Ok(())
    }
}

/// A server's configuration.
#[derive(Clone)]
pub struct ServerConfig {
    context: SslContext,
    settings: Arc<Settings>,
    port_sharing: PortSharing,
    transport: Transport,
    limits: Limits,
    id: u64,
    tickets: TicketKeys,
    cookies: Arc<CookieJar>,
    /// Belongs to the listener, so that a configuration and its successor do not keep each other.
    successor: Weak<Successor>,
}

/// The configuration that a listener has been given since it was bound.
#[derive(Debug, Default)]
pub(crate) struct Successor(RwLock<Option<Arc<ServerConfig>>>);

impl Successor {
    /// Makes everyone go on with `next`.
    pub(crate) fn set(self: &Arc<Self>, mut next: ServerConfig) {
        next.successor = Arc::downgrade(self);
        let mut config = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *config = Some(Arc::new(next));
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("settings", &self.settings)
            .field("port_sharing", &self.port_sharing)
            .field("transport", &self.transport)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl ServerConfig {
    /// Starts from an identity; every other setting has a default.
    #[must_use]
    pub fn builder(identity: Identity) -> ServerConfigBuilder {
        ServerConfigBuilder::new(Some(identity), None)
    }

    /// Starts from pre-shared keys, without any certificate; see [`ServerConfigBuilder::psk`].
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use dtls::{PskKey, ServerConfig};
    ///
    /// let key = PskKey::from_hex("6f1ed002ab5595859014ebf0951522d9")?;
    /// let keys = HashMap::from([(b"sensor-17".to_vec(), key)]);
    /// let config = ServerConfig::psk_builder(move |identity| keys.get(identity).cloned()).build()?;
    /// # Ok::<(), dtls::ConfigError>(())
    /// ```
    #[must_use]
    pub fn psk_builder(
        lookup: impl Fn(&[u8]) -> Option<PskKey> + Send + Sync + 'static,
    ) -> ServerConfigBuilder {
        ServerConfigBuilder::new(None, Some(Arc::new(lookup)))
    }

    /// The same, followed by whatever `successor` is given.
    pub(crate) fn succeeded_by(mut self, successor: &Arc<Successor>) -> Self {
        self.successor = Arc::downgrade(successor);
        self
    }

    /// What new connections are to use: this, or what has taken its place.
    pub(crate) fn latest(self: &Arc<Self>) -> Arc<Self> {
        let latest = self.successor.upgrade().and_then(|successor| {
            let config = successor.0.read().unwrap_or_else(PoisonError::into_inner);
            config.clone()
        });
        latest.unwrap_or_else(|| Arc::clone(self))
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

    /// How connections receive and send.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

/// Collects a server's settings.
pub type ServerConfigBuilder = ConfigBuilder<ServerEnd>;

/// What only a server's configuration has.
pub struct ServerEnd {
    identity: Option<Identity>,
    names: Vec<(String, Identity)>,
    client_auth: ClientAuth,
    psk: Option<PskLookup>,
    psk_hint: Option<String>,
    ticket_keys: Option<TicketKeys>,
    cookies: Option<Arc<CookieJar>>,
    session_scope: Vec<u8>,
    port_sharing: PortSharing,
    transport: Transport,
    limits: Limits,
}

impl fmt::Debug for ServerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerEnd")
            .field("identity", &self.identity)
            .field("client_auth", &self.client_auth)
            .finish_non_exhaustive()
    }
}

impl ServerConfigBuilder {
    fn new(identity: Option<Identity>, psk: Option<PskLookup>) -> Self {
        Self::of(ServerEnd {
            identity,
            names: Vec::new(),
            client_auth: ClientAuth::default(),
            psk,
            psk_hint: None,
            ticket_keys: None,
            cookies: None,
            session_scope: Vec::new(),
            port_sharing: PortSharing::default(),
            transport: Transport::default(),
            limits: Limits::default(),
        })
    }

    /// Requires every client to show a certificate that ends in one of these.
    #[must_use]
    pub fn client_ca(self, anchors: TrustAnchors) -> Self {
        self.client_auth(ClientAuth::Required(Trust::Anchors(anchors)))
    }

    /// Chooses whether clients show certificates, and which are good. Default: off.
    #[must_use]
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.end.client_auth = auth;
        self
    }

    /// Shows another identity to clients that ask for `name` (server_name, RFC 6066): a host name,
    /// or `*.example.org` for any one label in place of the star. A name of its own wins over a
    /// star; a client that asks for none of the names gets the server's first identity.
    #[must_use]
    pub fn identity_for(mut self, name: impl Into<String>, identity: Identity) -> Self {
        self.end.names.push((name.into(), identity));
        self
    }

    /// Takes clients with a pre-shared key too. `lookup` finds the key of an identity; it runs on
    /// the connection's thread.
    ///
    /// A client with a wrong key and one with an unknown identity see the same: silence, until
    /// its or the server's handshake timeout. OpenSSL would tell the second by the alert
    /// `unknown_psk_identity`; here strangers cannot find out which identities exist (so long as
    /// `lookup` takes the same time for both). An identity ends at its first zero byte.
    ///
    /// A session made with a key that `lookup` no longer finds can be resumed until its ticket
    /// expires, after two hours.
    #[must_use]
    pub fn psk(mut self, lookup: impl Fn(&[u8]) -> Option<PskKey> + Send + Sync + 'static) -> Self {
        self.end.psk = Some(Arc::new(lookup));
        self
    }

    /// Helps clients that have several identities to choose one (RFC 4279 §2), in clear text.
    #[must_use]
    pub fn psk_hint(mut self, hint: impl Into<String>) -> Self {
        self.end.psk_hint = Some(hint.into());
        self
    }

    /// Speaks these application protocols (ALPN), the preferred one first. A client that offers
    /// none of them is refused with the alert `no_application_protocol`; one that offers nothing
    /// at all is not. Default: whatever clients offer is ignored.
    #[must_use]
    pub fn alpn<N: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = N>) -> Self {
        self.protocols = protocols.into_iter().collect();
        self
    }

    /// Seals session tickets with these keys, which other servers may have too. Default: random
    /// ones that change every 12 hours.
    ///
    /// A ticket made by a server with another policy for clients, or under another name, is not
    /// resumed but leads to a full handshake.
    #[must_use]
    pub fn ticket_keys(mut self, keys: &TicketKeys) -> Self {
        self.end.ticket_keys = Some(keys.clone());
        self
    }

    /// Takes the keys of cookies and session tickets from secrets that other servers have too: each
    /// completes a handshake that another began, and resumes a session that another made. It issues
    /// with `current` and takes what either made, so change secrets in two steps: first give every
    /// server the new one as `other`, then as `current`. Clocks may differ by a minute. The servers
    /// may have different addresses, as behind a load balancer that rewrites the destination; the
    /// client's must be the same at each.
    #[must_use]
    pub fn shared_secrets(mut self, current: &SharedSecret, other: Option<&SharedSecret>) -> Self {
        let (cookies, tickets) = shared::keys(current, other);
        self.end.cookies = Some(Arc::new(cookies));
        self.end.ticket_keys = Some(tickets);
        self
    }

    /// Goes on with the keys of `other` for cookies and tickets, unless some are given: for a
    /// configuration that takes its place, see
    /// [`ListenerHandle::replace_config`](crate::ListenerHandle::replace_config).
    ///
    /// Only keys that `other` made for itself and changes by itself. Keys that it was given, by
    /// [`Self::ticket_keys`] or [`Self::shared_secrets`], would never change again here: give them
    /// to this configuration too.
    #[must_use]
    pub fn keys_of(mut self, other: &ServerConfig) -> Self {
        if self.end.ticket_keys.is_none() && other.tickets.rotate_themselves() {
            self.end.ticket_keys = Some(other.tickets.clone());
        }
        if self.end.cookies.is_none() && !other.cookies.is_shared() {
            self.end.cookies = Some(Arc::clone(&other.cookies));
        }
        self
    }

    /// Resumes only sessions that were made under the same scope: any bytes, such as a digest of
    /// what decides elsewhere who may connect. Default: none.
    #[must_use]
    pub fn session_scope(mut self, scope: impl Into<Vec<u8>>) -> Self {
        self.end.session_scope = scope.into();
        self
    }

    /// Chooses how connections receive and send.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.end.transport = transport;
        self
    }

    /// Leaves hellos unanswered while this many handshakes are in progress. Default: no limit.
    ///
    /// Like the limits below it is the listener's from [`DtlsListener::bind`](crate::DtlsListener::bind)
    /// on, concerns only peers that have no connection yet, and is counted when it bites.
    #[must_use]
    pub fn max_half_open(mut self, most: Option<usize>) -> Self {
        self.end.limits.half_open = most;
        self
    }

    /// Leaves the hellos of a source prefix unanswered while it has this many connections,
    /// handshakes included. Default: no limit.
    #[must_use]
    pub fn max_per_prefix(mut self, most: Option<usize>) -> Self {
        self.end.limits.per_prefix = most;
        self
    }

    /// Asks the clients of one source prefix for their cookie this often a second at most, at once or
    /// over the second. Default: no limit.
    ///
    /// Anyone who can forge a source can use up the answers of its prefix; a client that holds a
    /// cookie needs none. Sources share a table of a fixed size: when a flood has many sources, less than 10 a
    /// second may refuse others too.
    #[must_use]
    pub fn hello_rate(mut self, per_second: Option<u32>) -> Self {
        self.end.limits.hello_rate = per_second;
        self
    }

    /// Chooses how many leading bits of an address make its source prefix. Default: 32 of IPv4, one
    /// address; 64 of IPv6, one subnet.
    #[must_use]
    pub fn source_prefix(mut self, v4: u8, v6: u8) -> Self {
        self.end.limits.lengths = PrefixLengths { v4, v6 };
        self
    }

    /// Chooses how sockets share the port; without effect where there is only one, see
    /// [`Transport::Shared`].
    #[must_use]
    pub fn port_sharing(mut self, sharing: PortSharing) -> Self {
        self.end.port_sharing = sharing;
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
        check_limits(&self.end.limits)?;
        let policy = self.policy().map_err(openssl("the client CA"))?;
        let proofs = Proofs {
            certificate: self.end.identity.is_some(),
            psk: self.end.psk.is_some(),
        };
        let mut context =
            base_context(SslMethod::dtls_server(), &self.offer, proofs, self.key_log)?;
        self.settings.install(&mut context)?;
        let mut names = ByName::default();
        match self.end.identity {
            Some(identity) => {
                identity.check_for_server()?;
                for (name, identity) in self.end.names {
                    identity.check_for_server()?;
                    identity.check_acceptable()?;
                    names.insert(&name, identity)?;
                }
                identity
                    .install(&mut context)
                    .map_err(openssl("the certificate"))?;
            }
            None if self.end.names.is_empty() => {}
            None => {
                return Err(ConfigError::OutOfRange {
                    name: "the identity of unnamed clients",
                    value: "missing".to_owned(),
                    must: "given where others have names",
                });
            }
        }
        names.install(policy, &mut context);
        self.end.client_auth.install(&mut context)?;
        if let Some(lookup) = self.end.psk {
            let hint = self.end.psk_hint;
            ServerPsk { lookup, hint }.install(&mut context)?;
        }
        self.protocols.install_at_server(&mut context)?;
        let tickets = match self.end.ticket_keys {
            Some(keys) => keys,
            None => TicketKeys::own(unix_now())?,
        };
        tickets.install(&mut context)?;
        let cookies = match self.end.cookies {
            Some(jar) => jar,
            None => Arc::new(CookieJar::new(unix_now()).map_err(openssl("randomness"))?),
        };
        install_cookie_callbacks(&mut context, Arc::clone(&cookies));
        Ok(ServerConfig {
            context: context.build(),
            settings: Arc::new(self.settings),
            port_sharing: self.end.port_sharing,
            transport: self.end.transport,
            limits: self.end.limits,
            id: next_id(),
            tickets,
            cookies,
            successor: Weak::new(),
        })
    }

    /// A digest of what clients have to prove: a session made under less must not be resumed.
    fn policy(&self) -> Result<[u8; 32], ErrorStack> {
        let mut digest = Sha256::new();
        digest.update(&[
            1,
            match &self.end.client_auth {
                ClientAuth::Off => 0,
                ClientAuth::Optional(_) => 1,
                ClientAuth::Required(_) => 2,
            },
            u8::from(self.end.psk.is_some()),
        ]);
        digest.update(&(self.end.session_scope.len() as u64).to_be_bytes());
        digest.update(&self.end.session_scope);
        if let Some(trust) = self.end.client_auth.trust() {
            trust.describe(&mut digest)?;
        }
        Ok(digest.finish())
    }
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let PrefixLengths { v4, v6 } = limits.lengths;
    if !(1..=32).contains(&v4) || !(1..=128).contains(&v6) {
        return Err(ConfigError::OutOfRange {
            name: "the source prefix",
            value: format!("{v4} bits of IPv4, {v6} of IPv6"),
            must: "1 to 32 and 1 to 128",
        });
    }
    for (name, limit) in [
        ("the limit on half-open connections", limits.half_open),
        ("the limit per source prefix", limits.per_prefix),
        (
            "the hello rate",
            limits.hello_rate.map(|rate| rate as usize),
        ),
    ] {
        if limit == Some(0) {
            return Err(ConfigError::OutOfRange {
                name,
                value: "0".to_owned(),
                must: "at least 1",
            });
        }
    }
    Ok(())
}
