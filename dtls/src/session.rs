//! Facts about a connection, and the session that lets the next one be shorter.
//!
//! Plain values: any thread may hold them.

use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{SslRef, SslSession};
use openssl::x509::X509VerifyResult;

use crate::core::Connection;
use crate::sys;

/// OpenSSL's resumable secret, kept by a client to abbreviate its next handshake with the same
/// server (RFC 5077). Only for connections of the same [`ClientConfig`](crate::ClientConfig).
#[derive(Clone)]
pub struct Session(SslSession);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn of(ssl: &SslRef) -> Option<Self> {
        ssl.session().map(|session| Self(session.to_owned()))
    }

    pub(crate) fn offer(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        sys::ssl::set_session(ssl, &self.0)
    }
}

/// What a completed handshake agreed on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HandshakeInfo {
    /// Such as `DTLSv1.2`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// OpenSSL's name of the key-exchange group, if it reports one.
    pub group: Option<&'static str>,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// From the first hello (client) or the verified hello (server) to the end.
    pub time: Duration,
    /// Flights this end sent again.
    pub retransmissions: u32,
    /// The peer's certificates, leaf first; empty if it showed none or resumed.
    pub peer_chain: Vec<CertificateInfo>,
    /// OpenSSL's verdict on them: `ok`, or why not.
    pub verification: &'static str,
    /// Whether the verdict was `ok`.
    pub verified: bool,
}

/// A certificate for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// Distinguished name, such as `CN=localhost`.
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// In OpenSSL's words.
    pub not_after: String,
    /// SHA-256, colon-separated hexadecimal.
    pub fingerprint: String,
}

impl HandshakeInfo {
    pub(crate) fn of(connection: &Connection) -> Self {
        let ssl = connection.ssl();
        let verdict = ssl.verify_result();
        // The server's own chain lacks the client's leaf, the client's includes the server's.
        let leaf = ssl.peer_certificate();
        let chain = ssl.peer_cert_chain();
        let mut peer_chain: Vec<CertificateInfo> = chain
            .into_iter()
            .flatten()
            .map(CertificateInfo::of)
            .collect();
        if let Some(leaf) = leaf.as_deref().map(CertificateInfo::of)
            && peer_chain.first() != Some(&leaf)
        {
            peer_chain.insert(0, leaf);
        }
        Self {
            version: ssl.version_str(),
            cipher: ssl
                .current_cipher()
                .map_or("none", openssl::ssl::SslCipherRef::name),
            group: sys::ssl::negotiated_group(ssl),
            resumed: ssl.session_reused(),
            time: connection.handshake_time().unwrap_or_default(),
            retransmissions: connection.retransmissions(),
            peer_chain,
            verification: verdict.error_string(),
            verified: verdict == X509VerifyResult::OK,
        }
    }
}

impl CertificateInfo {
    fn of(certificate: &openssl::x509::X509Ref) -> Self {
        Self {
            subject: name(certificate.subject_name()),
            issuer: name(certificate.issuer_name()),
            not_after: certificate.not_after().to_string(),
            fingerprint: crate::config::fingerprint(certificate).unwrap_or_default(),
        }
    }
}

fn name(name: &openssl::x509::X509NameRef) -> String {
    let parts: Vec<String> = name
        .entries()
        .map(|entry| {
            let key = entry.object().nid().short_name().unwrap_or("?");
            let value = entry.data().to_string().unwrap_or_default();
            format!("{key}={value}")
        })
        .collect();
    parts.join(", ")
}
