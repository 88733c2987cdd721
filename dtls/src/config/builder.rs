//! The settings that both ends have. Made on the caller's thread.

use std::fmt;
use std::time::Duration;

use super::alpn::Protocols;
use super::{KeyLog, Offer, Settings, Suites};
use crate::sys::ssl::RetransmissionTimer;

/// Collects one end's settings: a [`ServerConfigBuilder`](crate::ServerConfigBuilder) or a
/// [`ClientConfigBuilder`](crate::ClientConfigBuilder).
pub struct ConfigBuilder<E> {
    /// What the other end does not have.
    pub(super) end: E,
    pub(super) protocols: Protocols,
    pub(super) offer: Offer,
    pub(super) key_log: Option<KeyLog>,
    pub(super) settings: Settings,
}

impl<E: fmt::Debug> fmt::Debug for ConfigBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder")
            .field("end", &self.end)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<E> ConfigBuilder<E> {
    pub(super) fn of(end: E) -> Self {
        Self {
            end,
            protocols: Protocols::default(),
            offer: Offer::default(),
            key_log: None,
            settings: Settings::new(),
        }
    }

    /// Chooses the cipher suites to offer or accept.
    #[must_use]
    pub fn suites(mut self, suites: Suites) -> Self {
        self.offer.suites = suites;
        self
    }

    /// Gives up a handshake after this long. Default 30 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// Reports [`Recv::Idle`](crate::Recv::Idle) after this long without data from the
    /// peer. Default: never.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// Agrees on heartbeats (RFC 6520) with a peer that wants them too: each end may then ask the
    /// other for a sign of life, see [`DtlsStream::probe`](crate::DtlsStream::probe). Default: no.
    #[must_use]
    pub fn heartbeat(mut self, offer: bool) -> Self {
        self.settings.heartbeat = offer;
        self
    }

    /// Before a connection counts as idle, asks the peer for a sign of life and waits this long for
    /// it, 1 h at most; an ICMP error that calls the peer unreachable makes it ask too. Implies
    /// [`Self::heartbeat`]; without effect where the peer does not agree to that. Default: no.
    #[must_use]
    pub fn probe_when_idle(mut self, timeout: Option<Duration>) -> Self {
        self.settings.probe_when_idle = timeout;
        self
    }

    /// Builds datagrams for links of this many bytes, IP header included; 304 at least. Default
    /// 1400, which leaves room for a tunnel on the way.
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
}
