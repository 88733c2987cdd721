//! The flags about a server that all verbs share: how each side proves who it is, what is offered
//! to it, how long to wait. Main thread.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dtls::{Fingerprint, Suites};

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

    /// The cipher suites to offer
    #[arg(long, value_name = "SET", value_enum, default_value_t = SuiteChoice::Recommended)]
    pub(crate) suites: SuiteChoice,

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

/// A set of cipher suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteChoice {
    /// AES-GCM and ChaCha20-Poly1305 (RFC 9325)
    Recommended,
    /// These and AES-CCM, as constrained devices have it (RFC 7925)
    Iot,
}

impl From<SuiteChoice> for Suites {
    fn from(choice: SuiteChoice) -> Self {
        match choice {
            SuiteChoice::Recommended => Self::Recommended,
            SuiteChoice::Iot => Self::Iot,
        }
    }
}
