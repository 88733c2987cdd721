//! Facts about a connection, and the session that lets the next one be shorter.
//!
//! Plain values: any thread may hold them.

use std::net::IpAddr;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{NameType, SslRef, SslSession};
use openssl::x509::{X509Ref, X509VerifyResult};

use crate::core::Connection;
use crate::{sys, verify};

/// OpenSSL's resumable secret, kept by a client to abbreviate its next handshake with the same
/// server (RFC 5077).
///
/// It is offered only by the [`ClientConfig`](crate::ClientConfig) and for the server name that it
/// was made with, since a resumed handshake verifies nothing anew; otherwise the handshake is a
/// full one.
#[derive(Clone)]
pub struct Session {
    session: SslSession,
    config: u64,
    name: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn of(ssl: &SslRef) -> Option<Self> {
        let counterpart = verify::counterpart(ssl)?;
        Some(Self {
            session: ssl.session()?.to_owned(),
            config: counterpart.config,
            name: counterpart.name.clone()?,
        })
    }

    pub(crate) fn is_of(&self, config: u64, name: &str) -> bool {
        self.config == config && self.name == name
    }

    pub(crate) fn offer(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        sys::ssl::set_session(ssl, &self.session)
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
    /// The peer's certificates as it sent them, leaf first; empty if it showed none. After a
    /// resumption it is the leaf of the first handshake, if that is still known.
    pub peer_chain: Vec<CertificateInfo>,
    /// The verdict on them: `ok`, or why not.
    pub verification: &'static str,
    /// Whether the peer has proved who it is: by a certificate that the configured trust takes, or
    /// by a pre-shared key.
    pub verified: bool,
    /// The identity of the pre-shared key, where one was used.
    pub psk_identity: Option<Vec<u8>>,
    /// The name that the client asked for (server_name), if it did.
    pub server_name: Option<String>,
    /// The application protocol agreed on (ALPN), if any.
    pub alpn: Option<Vec<u8>>,
    /// Whether this handshake put the peer's certificate into the known-peers file.
    pub first_use: bool,
    /// What it took on the wire.
    pub cost: HandshakeCost,
}

/// What a handshake takes on the wire, so far or in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HandshakeCost {
    /// At a client: from its first hello to the server's cookie, lost hellos included. `None` while
    /// none has come; a server that asks for none never sends one.
    pub cookie_round_trip: Option<Duration>,
    /// Flights this end sent again.
    pub retransmissions: u32,
    /// Datagrams handed to the network.
    pub datagrams_sent: u32,
    /// Datagrams taken from it, noise included.
    pub datagrams_received: u32,
    /// UDP payload of the datagrams sent.
    pub bytes_sent: u64,
    /// UDP payload of the datagrams received.
    pub bytes_received: u64,
}

impl HandshakeCost {
    /// Adds a datagram sent.
    pub(crate) fn sent(&mut self, length: usize) {
        self.datagrams_sent += 1;
        self.bytes_sent += length as u64;
    }

    /// Adds a datagram received.
    pub(crate) fn received(&mut self, length: usize) {
        self.datagrams_received += 1;
        self.bytes_received += length as u64;
    }
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
    /// Host names, addresses, mail addresses and URIs it is for (subjectAltName).
    pub names: Vec<String>,
    /// The certificate itself.
    pub der: Vec<u8>,
}

/// Why no keying material was exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The peer lacks the extended master secret (RFC 7627), without which somebody in between can
    /// make two connections export the same. Caused by the peer.
    #[error(
        "export keying material: the peer's DTLS library lacks the extended master secret \
         (RFC 7627), without which the material is not unique to the connection"
    )]
    NoExtendedMasterSecret,
    /// OpenSSL refused: a reserved label, or a handshake that is not complete. Caused by the
    /// caller.
    #[error("export keying material: {0}")]
    OpenSsl(#[from] ErrorStack),
}

/// RFC 5705.
pub(crate) fn export(
    ssl: &SslRef,
    label: &str,
    context: Option<&[u8]>,
    material: &mut [u8],
) -> Result<(), ExportError> {
    sys::ssl::clear_errors();
    if ssl.is_init_finished() && !sys::ssl::has_extended_master_secret(ssl) {
        return Err(ExportError::NoExtendedMasterSecret);
    }
    Ok(ssl.export_keying_material(material, label, context)?)
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
        let psk_identity = ssl.psk_identity().map(<[u8]>::to_vec);
        let certified = !peer_chain.is_empty() && verdict == X509VerifyResult::OK;
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
            verified: certified || psk_identity.is_some(),
            psk_identity,
            server_name: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
            alpn: ssl.selected_alpn_protocol().map(<[u8]>::to_vec),
            first_use: verify::is_first_use(ssl),
            cost: connection.handshake_cost(),
        }
    }
}

impl CertificateInfo {
    pub(crate) fn of(certificate: &X509Ref) -> Self {
        Self {
            subject: name(certificate.subject_name()),
            issuer: name(certificate.issuer_name()),
            not_after: certificate.not_after().to_string(),
            fingerprint: crate::config::fingerprint(certificate).unwrap_or_default(),
            names: names(certificate),
            der: certificate.to_der().unwrap_or_default(),
        }
    }
}

fn names(certificate: &X509Ref) -> Vec<String> {
    let alternatives = certificate.subject_alt_names();
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    alternatives
        .iter()
        .flatten()
        .filter_map(|name| {
            let text = name
                .dnsname()
                .or_else(|| name.email())
                .or_else(|| name.uri());
            text.map(str::to_owned)
                .or_else(|| Some(address(name.ipaddress()?)?.to_string()))
        })
        .collect()
}

fn name(name: &openssl::x509::X509NameRef) -> String {
    let parts: Vec<String> = name
        .entries()
        .map(|entry| {
            let key = entry.object().nid().short_name().unwrap_or("?");
            let value = entry.data().to_string().unwrap_or_default();
            format!("{key}={}", escaped(&value))
        })
        .collect();
    parts.join(", ")
}

/// A value in which nothing can be taken for another attribute, or for a line of its own (RFC 4514
/// §2.4).
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                text.push_str(&format!("\\{byte:02X}"));
            }
        } else {
            if matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') {
                text.push('\\');
            }
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_cannot_pretend_to_be_two_or_to_end_a_line() {
        assert_eq!(escaped("sensor 17"), "sensor 17");
        assert_eq!(escaped("x, O=Admin"), "x\\, O\\=Admin");
        assert_eq!(
            escaped("x\n[INFO] CN=admin\x1b[2J"),
            "x\\0A[INFO] CN\\=admin\\1B[2J"
        );
        assert_eq!(escaped("a\u{85}b\\"), "a\\C2\\85b\\\\");
    }
}
