//! A client's configuration. Made on the caller's thread, shared by all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslMethod, SslRef, SslVerifyMode};

use super::{Identity, KeyLog, Settings, TrustAnchors, base_context, openssl};
use crate::error::ConfigError;
use crate::sys::ssl::RetransmissionTimer;

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

    /// Offers heartbeats to the server (RFC 6520); if it agrees: each end may then ask the
    /// other for a sign of life, see [`DtlsStream::probe`](crate::DtlsStream::probe). Default: no.
    #[must_use]
    pub fn heartbeat(mut self, offer: bool) -> Self {
        self.settings.heartbeat = offer;
        self
    }

    /// Before a connection counts as idle, asks the server for a sign of life and waits this long for
    /// it; an ICMP error that calls the server unreachable makes it ask too. Implies
    /// [`Self::heartbeat`]; without effect where the server does not agree to that. Default: no.
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

    /// Checks everything.
    ///
    /// # Errors
    /// A value out of range, or a certificate that OpenSSL refuses.
    pub fn build(self) -> Result<ClientConfig, ConfigError> {
        self.settings.check()?;
        let mut context = base_context(SslMethod::dtls_client(), self.key_log)?;
        self.settings.install(&mut context)?;
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
