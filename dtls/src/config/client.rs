//! A client's configuration. Made on the caller's thread, shared by all.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslMethod, SslRef, SslVerifyMode};

use super::{ConfigBuilder, Identity, Proofs, Settings, base_context, next_id, openssl};
use crate::error::ConfigError;
use crate::psk::{ClientPsk, PskKey};
use crate::session::Session;
use crate::verify::{Trust, introduce};

/// What a client trusts.
pub type ServerTrust = Trust;

/// A client's configuration.
#[derive(Clone)]
pub struct ClientConfig {
    context: SslContext,
    settings: Arc<Settings>,
    check_name: bool,
    id: u64,
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
    pub fn builder(trust: Trust) -> ClientConfigBuilder {
        ConfigBuilder::of(ClientEnd {
            trust: Some(trust),
            psk: None,
            identity: None,
        })
    }

    /// Starts from a pre-shared key and offers nothing else: a server that does not have it is
    /// refused, whatever certificate it has.
    ///
    /// A server never says that the identity or the key is wrong, so the handshake then ends at
    /// its timeout.
    ///
    /// ```
    /// use dtls::{ClientConfig, PskKey};
    ///
    /// let key = PskKey::from_hex("6f1ed002ab5595859014ebf0951522d9")?;
    /// let config = ClientConfig::psk_builder("sensor-17", key).build()?;
    /// # Ok::<(), dtls::ConfigError>(())
    /// ```
    #[must_use]
    pub fn psk_builder(identity: impl Into<Vec<u8>>, key: PskKey) -> ClientConfigBuilder {
        let mut builder = Self::builder(Trust::Anyone).psk(identity, key);
        builder.end.trust = None;
        builder
    }

    pub(crate) fn context(&self) -> &SslContext {
        &self.context
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Makes `ssl` ask for and insist on `name`, a host name or an IP address, and offer the
    /// session if it is one of this configuration and name.
    pub(crate) fn prepare(
        &self,
        ssl: &mut SslRef,
        name: &str,
        server: SocketAddr,
        session: Option<&Session>,
    ) -> Result<(), ErrorStack> {
        if name.contains('\0') {
            // rust-openssl would panic.
            return Err(ErrorStack::get());
        }
        match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) if self.check_name => ssl.param_mut().set_ip(ip)?,
            // RFC 6066 §3: no literal addresses in server_name.
            Ok(_) => {}
            Err(_) => {
                ssl.set_hostname(name)?;
                if self.check_name {
                    ssl.param_mut().set_host(name)?;
                }
            }
        }
        introduce(ssl, self.id, Some(name), server)?;
        // A resumed handshake verifies nothing: what made the session must have been as strict.
        match session {
            Some(session) if session.is_of(self.id, name) => session.offer(ssl),
            _ => Ok(()),
        }
    }
}

/// Collects a client's settings.
pub type ClientConfigBuilder = ConfigBuilder<ClientEnd>;

/// What only a client's configuration has.
pub struct ClientEnd {
    /// `None` where only a pre-shared key will do.
    trust: Option<Trust>,
    psk: Option<ClientPsk>,
    identity: Option<Identity>,
}

impl fmt::Debug for ClientEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientEnd")
            .field("trust", &self.trust)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl ClientConfigBuilder {
    /// Shows this certificate when the server asks for one.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.end.identity = Some(identity);
        self
    }

    /// Offers a pre-shared key besides certificates; the server chooses.
    #[must_use]
    pub fn psk(mut self, identity: impl Into<Vec<u8>>, key: PskKey) -> Self {
        self.end.psk = Some(ClientPsk {
            identity: identity.into(),
            key,
        });
        self
    }

    /// Offers application protocols (ALPN), the preferred one first. What the server chose, if
    /// anything, is in [`HandshakeInfo::alpn`](crate::HandshakeInfo::alpn).
    #[must_use]
    pub fn alpn<N: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = N>) -> Self {
        self.protocols = protocols.into_iter().collect();
        self
    }

    /// Offers only these of the chosen [`Suites`](crate::Suites), by OpenSSL's names, the preferred
    /// one first; the server chooses. Default: all.
    #[must_use]
    pub fn cipher_suites<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.offer.chosen = names.into_iter().map(Into::into).collect();
        self
    }

    /// Offers these groups for the key exchange, by OpenSSL's names, the preferred one first. Default
    /// X25519, P-256, P-384.
    ///
    /// In DTLS 1.2 the list governs certificates too: to a client that offers X25519 alone a server
    /// whose key is on P-256 can show nothing.
    #[must_use]
    pub fn groups<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.offer.groups = names.into_iter().map(Into::into).collect();
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// A value out of range, or a certificate that OpenSSL refuses.
    pub fn build(self) -> Result<ClientConfig, ConfigError> {
        self.settings.check()?;
        let proofs = Proofs {
            certificate: self.end.trust.is_some(),
            psk: self.end.psk.is_some(),
        };
        let mut context =
            base_context(SslMethod::dtls_client(), &self.offer, proofs, self.key_log)?;
        self.settings.install(&mut context)?;
        if let Some(identity) = &self.end.identity {
            identity
                .install(&mut context)
                .map_err(openssl("the certificate"))?;
        }
        if let Some(trust) = &self.end.trust {
            trust.install(&mut context)?;
            context.set_verify(SslVerifyMode::PEER);
        }
        if let Some(psk) = self.end.psk {
            psk.install(&mut context)?;
        }
        self.protocols.install_at_client(&mut context)?;
        Ok(ClientConfig {
            context: context.build(),
            settings: Arc::new(self.settings),
            check_name: self.end.trust.is_some_and(|trust| trust.checks_name()),
            id: next_id(),
        })
    }
}
