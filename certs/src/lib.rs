//! A public-key infrastructure for tests of DTLS: a root, an intermediate, good leaves for server
//! and client, and leaves that are each wrong in exactly one way. Made afresh every time; no key
//! is ever committed. Nothing here has a thread or a socket.
//!
//! ```text
//!  ca.pem ─┬─ intermediate.pem ─┬─ server, client, server-ed25519, server-rsa
//!          │                    └─ server-expired, -not-yet-valid, -wrong-name, -revoked (crl.pem)
//!          └─ long chain CA 1 … 9 ── server-long-chain
//!  other-ca.pem ── other intermediate ── server-other-ca
//! ```
//!
//! In memory or on disk:
//!
//! ```
//! use dtls_certs::{Profile, TestPki};
//!
//! let pki = TestPki::new()?;
//! let server = pki.issue(Profile::SERVER)?;
//! assert!(server.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
//!
//! let dir = tempfile::tempdir()?;
//! let files = TestPki::generate(dir.path())?;
//! assert!(files.chain(Profile::SERVER_EXPIRED).ends_with("server-expired.pem"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod profile;
mod name;
mod authority;
mod leaf;
mod layout;
mod error;

use rcgen::SerialNumber;
use time::OffsetDateTime;

use authority::{Authority, random_serial};

pub use error::{IssueError, WriteError};
pub use layout::{Existing, File, PkiFiles};
pub use leaf::Credentials;
pub use name::{HostName, NameError};
pub use profile::{Chain, Flaw, KeyKind, LONG_CHAIN_AUTHORITIES, Profile, Role};

/// The authorities of one PKI, in memory. Their keys are never written: what they issue is all
/// that is ever issued.
#[derive(Debug)]
pub struct TestPki {
    root: Authority,
    intermediate: Authority,
    long_chain: Vec<Authority>,
    other_root: Authority,
    other_intermediate: Authority,
    revoked_serial: SerialNumber,
    extra_names: Vec<HostName>,
    now: OffsetDateTime,
}

impl TestPki {
    /// Makes the authorities.
    ///
    /// # Errors
    ///
    /// When the system has no random bytes to give.
    pub fn new() -> Result<Self, IssueError> {
        Self::with_server_names(Vec::new())
    }

    /// Makes the authorities; the server's certificates will carry `extra_names` too, all but the
    /// one that is wrong in its name.
    ///
    /// # Errors
    ///
    /// When the system has no random bytes to give.
    pub fn with_server_names(extra_names: Vec<HostName>) -> Result<Self, IssueError> {
        let now = OffsetDateTime::now_utc();
        let root = Authority::root("DTLS test root", now)?;
        let intermediate = root.subordinate("DTLS test intermediate", 0, now)?;
        let other_root = Authority::root("DTLS test other root", now)?;
        let other_intermediate = other_root.subordinate("DTLS test other intermediate", 0, now)?;
        let mut long_chain: Vec<Authority> = Vec::new();
        for below in (0..LONG_CHAIN_AUTHORITIES).rev() {
            let name = format!("DTLS test long chain {}", LONG_CHAIN_AUTHORITIES - below);
            let above = long_chain.last().unwrap_or(&root);
            let authority = above.subordinate(&name, below, now)?;
            long_chain.push(authority);
        }
        Ok(Self {
            root,
            intermediate,
            long_chain,
            other_root,
            other_intermediate,
            revoked_serial: random_serial()?,
            extra_names,
            now,
        })
    }

    /// Makes a leaf: a new key and a new certificate with every call. Every revoked one has the
    /// serial number that the revocation list names.
    ///
    /// # Errors
    ///
    /// When the system has no random bytes to give.
    pub fn issue(&self, profile: Profile) -> Result<Credentials, IssueError> {
        let authorities: Vec<&Authority> = match (profile.flaw, profile.chain) {
            (Some(Flaw::OtherAuthority), _) => vec![&self.other_intermediate],
            (_, Chain::Intermediate) => vec![&self.intermediate],
            (_, Chain::Long) => self.long_chain.iter().collect(),
        };
        let serial = match profile.flaw {
            Some(Flaw::Revoked) => self.revoked_serial.clone(),
            _ => random_serial()?,
        };
        leaf::issue(profile, &authorities, serial, &self.extra_names, self.now)
    }

    /// The root certificate, the one to trust.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.root.pem()
    }

    /// The certificate of the authority under the root.
    #[must_use]
    pub fn intermediate_pem(&self) -> String {
        self.intermediate.pem()
    }

    /// The root certificate of the authority nobody should trust.
    #[must_use]
    pub fn other_ca_pem(&self) -> String {
        self.other_root.pem()
    }

    /// The revocation lists of every authority under `ca.pem`, for verifiers that check each
    /// certificate of a chain and not only its leaf.
    ///
    /// # Errors
    ///
    /// When a list cannot be signed.
    pub fn crl_pem(&self) -> Result<String, IssueError> {
        let revoked = std::slice::from_ref(&self.revoked_serial);
        let mut pem = self.intermediate.crl_pem(revoked, self.now)?;
        for authority in std::iter::once(&self.root).chain(&self.long_chain) {
            pem.push_str(&authority.crl_pem(&[], self.now)?);
        }
        Ok(pem)
    }
}
