//! A server's configuration. Made on the caller's thread, shared by all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::{SslContext, SslMethod, SslVerifyMode};

#[cfg(feature = "testing")]
use super::Safeguard;
use super::{
    Identity, KeyLog, PortSharing, Settings, TrustAnchors, base_context, openssl, unix_now,
};
use crate::core::CookieJar;
use crate::core::hello::install_cookie_callbacks;
use crate::error::ConfigError;
use crate::sys::ssl::RetransmissionTimer;

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

    /// Agrees with the client on heartbeats (RFC 6520), if it offers them: each end may then ask the
    /// other for a sign of life, see [`DtlsStream::probe`](crate::DtlsStream::probe). Default: no.
    #[must_use]
    pub fn heartbeat(mut self, offer: bool) -> Self {
        self.settings.heartbeat = offer;
        self
    }

    /// Before a connection counts as idle, asks the client for a sign of life and waits this long for
    /// it; an ICMP error that calls the client unreachable makes it ask too. Implies
    /// [`Self::heartbeat`]; without effect where the client does not agree to that. Default: no.
    #[must_use]
    pub fn probe_when_idle(mut self, timeout: Option<Duration>) -> Self {
        self.settings.probe_when_idle = timeout;
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

    /// Sends a flight again after `initial`, then after twice as long each time, up to `longest`.
    /// Default 1 s and 60 s (RFC 6347 §4.2.4.1); less than 1 s suits networks that are known to be
    /// near.
    #[must_use]
    pub fn retransmission_timer(mut self, initial: Duration, longest: Duration) -> Self {
        self.settings.retransmission = RetransmissionTimer { initial, longest };
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
        self.settings.install(&mut context)?;
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
