//! The flags about a server that all verbs share: how each side proves who it is, what is offered
//! to it, how long to wait. Main thread.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use dtls::{Fingerprint, Suites};
use serde::{Deserialize, Serialize};

use super::duration;

/// How each side proves who it is, what is offered, how long to wait.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Trust the certificates in this PEM file; by default the system's CAs. Of several among --ca,
    /// --pin and --known-peers, one that takes the certificate is enough
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,

    /// Refuse certificates that a list in this PEM file revokes; it must hold a current list of
    /// every authority in the chain, the root's included
    #[arg(long, value_name = "FILE", requires = "ca")]
    pub(crate) crl: Option<PathBuf>,

    /// Trust the certificate with this SHA-256 fingerprint, whatever else it says; may be repeated.
    /// `openssl x509 -noout -fingerprint -sha256 -in server.pem` prints it
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "insecure")]
    pub(crate) pin: Vec<Fingerprint>,

    /// Trust what a server shows first and note it in this file; refuse anything else from then on
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) known_peers: Option<PathBuf>,

    /// Accept any certificate: whoever answers can read along
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Prove each other's identity by a pre-shared key with this name. Certificates are then
    /// refused, unless --ca, --pin, --known-peers or --insecure is given too
    #[arg(long, value_name = "ID", requires = "psk_key_file")]
    pub(crate) psk_identity: Option<String>,

    /// The file with that key in hexadecimal, 16 to 64 random bytes: `openssl rand -hex 32` makes
    /// one. A file, because everybody can read a command line
    #[arg(long, value_name = "FILE", requires = "psk_identity")]
    pub(crate) psk_key_file: Option<PathBuf>,

    /// Show this certificate chain (PEM, leaf first) if the server asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// The private key of --cert (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// The name to ask for, which the server's certificate must carry; by default HOST
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,

    /// Offer these application protocols (ALPN), the preferred one first, such as coap
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) alpn: Vec<String>,

    /// The cipher suites to offer: `recommended` (AES-GCM and ChaCha20-Poly1305, RFC 9325), `iot` (these
    /// and AES-CCM, RFC 7925), or some of these by OpenSSL's names, the preferred one first, such as
    /// ECDHE-ECDSA-CHACHA20-POLY1305
    #[arg(long, value_name = "SET|NAME,…", default_value_t = SuiteChoice::Recommended)]
    pub(crate) suites: SuiteChoice,

    /// The groups to offer for the key exchange, the preferred one first, such as P-256; the curve of
    /// the server's certificate must be among them [default: X25519,P-256,P-384]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) groups: Vec<String>,

    /// Agree with the server on heartbeats (RFC 6520), so that each end can ask for a sign of life
    #[arg(long)]
    pub(crate) heartbeat: bool,

    /// Give up a handshake after this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) handshake_timeout: Duration,

    /// Send a flight of the handshake again after this long without an answer, then after twice as
    /// long each time; at least 20ms. Less than 1s suits networks that are known to be near
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) retransmit_initial: Duration,

    /// The longest wait between two repetitions of a flight
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) retransmit_max: Duration,

    /// Build datagrams for links of this many bytes, IP header included, 304 to 16384
    #[arg(long, value_name = "N", default_value_t = 1400)]
    pub(crate) link_mtu: u16,

    /// Append the session secrets to this file, for a network analyser; keep it to yourself
    #[arg(long, value_name = "FILE")]
    pub(crate) keylog: Option<PathBuf>,
}

/// Which cipher suites to offer. Shown as it is typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum SuiteChoice {
    /// AES-GCM and ChaCha20-Poly1305 (RFC 9325)
    Recommended,
    /// These and AES-CCM, as constrained devices have it (RFC 7925)
    Iot,
    /// These alone, by OpenSSL's names.
    Named(Vec<String>),
}

impl SuiteChoice {
    /// The set they are of.
    pub(crate) const fn set(&self) -> Suites {
        match self {
            Self::Recommended => Suites::Recommended,
            Self::Iot | Self::Named(_) => Suites::Iot,
        }
    }

    /// Those chosen of the set; none: all.
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::Named(names) => names,
            _ => &[],
        }
    }
}

impl FromStr for SuiteChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "recommended" => Ok(Self::Recommended),
            "iot" => Ok(Self::Iot),
            // All have one; it tells a mistyped set from a name.
            names if names.split(',').all(|name| name.contains('-')) => {
                Ok(Self::Named(names.split(',').map(str::to_owned).collect()))
            }
            _ => Err(
                "write recommended, iot, or OpenSSL's names of suites, such as \
                      ECDHE-ECDSA-AES128-GCM-SHA256"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for SuiteChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recommended => f.write_str("recommended"),
            Self::Iot => f.write_str("iot"),
            Self::Named(names) => f.write_str(&names.join(",")),
        }
    }
}

impl From<SuiteChoice> for String {
    fn from(choice: SuiteChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for SuiteChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
