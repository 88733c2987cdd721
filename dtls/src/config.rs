//! What a listener and a connector need to know: certificates, trust, timeouts, sizes.
//!
//! A configuration is made once, checked while it is made, and shared by all threads.

mod identity;
mod suites;
mod alpn;
mod sni;
mod builder;
mod server;
mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::error::ErrorStack;
use openssl::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslVersion,
};

use crate::core::filter::MAX_MESSAGE;
use crate::core::heartbeat;
use crate::error::ConfigError;
use crate::sys;
use crate::sys::ssl::RetransmissionTimer;

pub use builder::ConfigBuilder;
pub use client::{ClientConfig, ClientConfigBuilder, ClientEnd, ServerTrust};
pub(crate) use identity::fingerprint;
pub use identity::{Identity, TrustAnchors};
pub(crate) use server::Successor;
pub use server::{ClientAuth, ServerConfig, ServerConfigBuilder, ServerEnd};
pub use sni::ByName;
pub(crate) use suites::Proofs;
pub use suites::Suites;

/// In DTLS 1.2 the list governs certificates too: X25519 alone would refuse P-256 certificates.
/// Keys are exchanged on the first one that both ends have.
const GROUPS: &str = "X25519:P-256:P-384";

const SECOND: Duration = Duration::from_secs(1);

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

/// How a server's connections receive and send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Each over a socket of its own, connected to its peer: the kernel sorts the datagrams. The
    /// cheapest way for established connections; the kernel's cost of a datagram from an unknown
    /// address grows with their number, beyond a thousand noticeably.
    #[default]
    Connected,
    /// All through the listening socket, whose datagrams the listener's thread sorts: every datagram
    /// costs the same, however many connections there are. No ICMP error reaches a connection.
    Shared,
}

/// Receives each line of the NSS key log format, without a line end. It is called from within
/// OpenSSL and must not panic.
pub type KeyLog = Arc<dyn Fn(&str) + Send + Sync>;

/// What both ends have in common.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) heartbeat: bool,
    pub(crate) probe_when_idle: Option<Duration>,
    pub(crate) link_mtu: u16,
    pub(crate) retransmission: RetransmissionTimer,
    #[cfg(feature = "testing")]
    pub(crate) without: Vec<Safeguard>,
}

impl Settings {
    fn new() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(30),
            idle_timeout: None,
            heartbeat: false,
            probe_when_idle: None,
            link_mtu: 1400,
            // RFC 6347 §4.2.4.1.
            retransmission: RetransmissionTimer {
                initial: Duration::from_secs(1),
                longest: Duration::from_secs(60),
            },
            #[cfg(feature = "testing")]
            without: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let timeout = self.handshake_timeout;
        if timeout.is_zero() || timeout > 60 * 60 * SECOND {
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
        if let Some(timeout) = self
            .probe_when_idle
            .filter(|timeout| timeout.is_zero() || *timeout > 60 * 60 * SECOND)
        {
            return Err(ConfigError::OutOfRange {
                name: "the time to wait for an answer to a probe",
                value: format!("{timeout:?}"),
                must: "more than 0 and at most 1 h",
            });
        }
        // OpenSSL cuts flights into no less than 256 bytes of UDP payload; 48 are IPv6 and UDP headers.
        if !(304..=16_384).contains(&self.link_mtu) {
            return Err(ConfigError::OutOfRange {
                name: "the link MTU",
                value: self.link_mtu.to_string(),
                must: "between 304 and 16384 bytes",
            });
        }
        let RetransmissionTimer { initial, longest } = self.retransmission;
        if initial < Duration::from_millis(20) || initial > longest || longest > 60 * 60 * SECOND {
            return Err(ConfigError::OutOfRange {
                name: "the retransmission timer",
                value: format!("{initial:?} to {longest:?}"),
                must: "at least 20 ms at first, not shorter later, and at most 1 h",
            });
        }
        Ok(())
    }

    /// Makes the hellos of a context say what these settings ask for.
    fn install(&self, context: &mut SslContextBuilder) -> Result<(), ConfigError> {
        if self.heartbeat || self.probe_when_idle.is_some() {
            heartbeat::extension::install(context).map_err(openssl("the heartbeat extension"))?;
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

/// What an end offers of the algorithms that there are.
#[derive(Debug, Clone, Default)]
struct Offer {
    suites: Suites,
    /// Of those only these, if there are any.
    chosen: Vec<String>,
    /// Instead of [`GROUPS`], if there are any.
    groups: Vec<String>,
}

fn base_context(
    method: SslMethod,
    offer: &Offer,
    proofs: Proofs,
    key_log: Option<KeyLog>,
) -> Result<SslContextBuilder, ConfigError> {
    let mut context = SslContext::builder(method).map_err(openssl("a context"))?;
    context
        .set_min_proto_version(Some(SslVersion::DTLS1_2))
        .and_then(|()| context.set_max_proto_version(Some(SslVersion::DTLS1_2)))
        .map_err(openssl("DTLS 1.2"))?;
    offer.suites.install(proofs, &offer.chosen, &mut context)?;
    if offer.groups.is_empty() {
        context
            .set_groups_list(GROUPS)
            .map_err(openssl("the group list"))?;
    }
    for at in 0..offer.groups.len() {
        // One more each time, so that it is known which of them OpenSSL refuses.
        let list = offer.groups[..=at].join(":");
        // Over a null byte rust-openssl would panic.
        if list.contains('\0') || context.set_groups_list(&list).is_err() {
            return Err(ConfigError::OutOfRange {
                name: "a group",
                value: format!("\"{}\"", offer.groups[at]),
                must: "one that OpenSSL has for DTLS 1.2, such as X25519 or P-256",
            });
        }
    }
    // NO_QUERY_MTU first: without it SSL_set_mtu is forgotten and flights go out in 256-byte
    // pieces, since the slot knows no MTU.
    context.set_options(SslOptions::NO_QUERY_MTU | SslOptions::NO_RENEGOTIATION);
    // Stateless resumption by tickets only: the cache is a lock and memory per handshake.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    // With the slot, a waiting thread is outside SSL_read and its buffers can go.
    context.set_mode(SslMode::RELEASE_BUFFERS);
    sys::ssl::set_max_cert_list(&mut context, u32::try_from(MAX_MESSAGE).unwrap_or(u32::MAX));
    if let Some(log) = key_log {
        context.set_keylog_callback(move |_, line| {
            if sys::callbacks::guard(|| log(line)).is_none() {
                log::error!("the key log panicked; a line is lost");
            }
        });
    }
    Ok(context)
}

/// A number that no other configuration of this process has.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn openssl(what: &'static str) -> impl Fn(ErrorStack) -> ConfigError {
    move |source| ConfigError::OpenSsl { what, source }
}

/// The clock of cookies and ticket keys.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
