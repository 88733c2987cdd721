//! Certificates and keys: what an end shows, and what it trusts. Read and checked while a
//! configuration is made, on the caller's thread.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslRef};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Crl, X509Ref};

use super::openssl;
use crate::error::ConfigError;
use crate::sys;

/// A certificate chain, leaf first, and the leaf's private key.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<X509>,
    key: PKey<Private>,
    origin: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the chain and the key, both PEM.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, and a key of another certificate.
    pub fn from_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, ConfigError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let chain = read("certificate", certificate)?;
        let secret = read("private key", key)?;
        Self::parse(
            &chain,
            &secret,
            certificate.display().to_string(),
            &key.display().to_string(),
        )
    }

    /// Takes the chain and the key from PEM text.
    ///
    /// # Errors
    /// Text that cannot be parsed, and a key of another certificate.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, ConfigError> {
        Self::parse(
            certificate,
            key,
            "the given text".to_owned(),
            "the given text",
        )
    }

    fn parse(
        certificate: &[u8],
        key: &[u8],
        origin: String,
        key_origin: &str,
    ) -> Result<Self, ConfigError> {
        let chain = parse_certificates(certificate, &origin)?;
        // Without the callback OpenSSL would ask the terminal for the pass phrase.
        let mut encrypted = false;
        let parsed = PKey::private_key_from_pem_callback(key, |_| {
            encrypted = true;
            Err(ErrorStack::get())
        });
        if encrypted {
            return Err(ConfigError::EncryptedKey {
                key: key_origin.to_owned(),
            });
        }
        let key = parsed.map_err(|source| ConfigError::NotPem {
            what: "private key",
            from: key_origin.to_owned(),
            source,
        })?;
        let leaf_key = chain[0]
            .public_key()
            .map_err(openssl("the certificate's key"))?;
        if !leaf_key.public_eq(&key) {
            return Err(ConfigError::KeyMismatch {
                certificate: origin,
                key: key_origin.to_owned(),
            });
        }
        Ok(Self { chain, key, origin })
    }

    /// The leaf certificate's SHA-256 fingerprint, as colon-separated hexadecimal.
    ///
    /// # Errors
    /// OpenSSL lacks SHA-256.
    pub fn fingerprint(&self) -> Result<String, ConfigError> {
        fingerprint(&self.chain[0]).map_err(openssl("SHA-256"))
    }

    /// Whether a server can show it at all: what would fail in every handshake fails here.
    pub(super) fn check_for_server(&self) -> Result<(), ConfigError> {
        self.check_validity()?;
        let unusable = |kind| ConfigError::UnusableKey {
            certificate: self.origin.clone(),
            kind,
        };
        let curve = self.key.ec_key().ok().map(|key| key.group().curve_name());
        match (self.key.id(), curve) {
            (Id::RSA, _) | (Id::EC, Some(Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1))) => Ok(()),
            (_, Some(Some(curve))) => Err(unusable(curve.short_name().unwrap_or("unknown"))),
            // OpenSSL's server takes EdDSA in TLS 1.2 but not in DTLS 1.2, whose version number it
            // does not compare right.
            (Id::ED25519, _) => Err(unusable("Ed25519")),
            (Id::ED448, _) => Err(unusable("Ed448")),
            _ => Err(unusable("neither ECDSA nor RSA")),
        }
    }

    fn check_validity(&self) -> Result<(), ConfigError> {
        let now = Asn1Time::days_from_now(0).map_err(openssl("the time"))?;
        let leaf = &self.chain[0];
        let problem = if leaf.not_after() < now {
            format!("expired on {}", leaf.not_after())
        } else if leaf.not_before() > now {
            format!("is not valid before {}", leaf.not_before())
        } else {
            return Ok(());
        };
        Err(ConfigError::NotValidNow {
            certificate: self.origin.clone(),
            problem,
        })
    }

    /// Finds out early what a handshake would find out late.
    pub(super) fn check_acceptable(&self) -> Result<(), ConfigError> {
        SslContext::builder(SslMethod::dtls_server())
            .and_then(|mut context| self.install(&mut context))
            .map_err(openssl("the certificate of a name"))
    }

    pub(super) fn install(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let (leaf, rest) = self.chain.split_first().ok_or_else(ErrorStack::get)?;
        context.set_certificate(leaf)?;
        for certificate in rest {
            context.add_extra_chain_cert(certificate.clone())?;
        }
        context.set_private_key(&self.key)
    }

    /// Shows this certificate on one connection, instead of the context's.
    pub(super) fn install_on(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        sys::ssl::certs_clear(ssl);
        let (leaf, rest) = self.chain.split_first().ok_or_else(ErrorStack::get)?;
        ssl.set_certificate(leaf)?;
        for certificate in rest {
            ssl.add_chain_cert(certificate.clone())?;
        }
        ssl.set_private_key(&self.key)
    }
}

pub(crate) fn fingerprint(certificate: &X509Ref) -> Result<String, ErrorStack> {
    let digest = certificate.digest(openssl::hash::MessageDigest::sha256())?;
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(hex.join(":"))
}

/// Certificates that a peer's chain may end in, and what has been revoked under them.
#[derive(Clone)]
pub struct TrustAnchors {
    certificates: Vec<X509>,
    crls: Vec<Arc<X509Crl>>,
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchors")
            .field("certificates", &self.certificates)
            .field("crls", &self.crls.len())
            .finish()
    }
}

impl TrustAnchors {
    /// Reads certificates from a PEM file.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = read("CA certificates", path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Takes certificates from PEM text.
    ///
    /// # Errors
    /// Text without a certificate.
    pub fn from_pem(text: &[u8]) -> Result<Self, ConfigError> {
        Self::parse(text, "the given text")
    }

    fn parse(text: &[u8], origin: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            certificates: parse_certificates(text, origin)?,
            crls: Vec::new(),
        })
    }

    /// Adds revocation lists from a PEM file, see [`Self::crl_pem`].
    ///
    /// # Errors
    /// A file that cannot be read or holds no revocation list.
    pub fn crl_file(self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = read("revocation lists", path)?;
        self.add_crls(&text, &path.display().to_string())
    }

    /// Adds revocation lists from PEM text. With the first one, every certificate of a chain is
    /// looked up, not the leaf alone: an authority that has lost its key is revoked by the one
    /// above it, and its leaves must fall with it. So there must be a current list of every
    /// authority in the chain, the root's included; where one is missing or out of date, the chain
    /// is refused.
    ///
    /// Lists are read once. When new ones are due, build the configuration anew.
    ///
    /// # Errors
    /// Text without a revocation list.
    pub fn crl_pem(self, text: &[u8]) -> Result<Self, ConfigError> {
        self.add_crls(text, "the given text")
    }

    fn add_crls(mut self, text: &[u8], origin: &str) -> Result<Self, ConfigError> {
        let not_pem = |source| ConfigError::NotPem {
            what: "revocation list",
            from: origin.to_owned(),
            source,
        };
        let text = String::from_utf8_lossy(text);
        let mut found = false;
        // OpenSSL's reader stops after the first.
        for block in text.split_inclusive(CRL_END) {
            if block.ends_with(CRL_END) {
                let crl = X509Crl::from_pem(block.as_bytes()).map_err(not_pem)?;
                self.crls.push(Arc::new(crl));
                found = true;
            }
        }
        if found {
            Ok(self)
        } else {
            Err(not_pem(ErrorStack::get()))
        }
    }

    pub(super) fn certificates(&self) -> &[X509] {
        &self.certificates
    }

    /// Everything in them, in DER.
    pub(crate) fn to_ders(&self) -> Result<Vec<Vec<u8>>, ErrorStack> {
        let certificates = self
            .certificates
            .iter()
            .map(|certificate| certificate.to_der());
        let crls = self.crls.iter().map(|crl| crl.to_der());
        certificates.chain(crls).collect()
    }

    /// Makes a context end chains in these, and in the system's if asked.
    pub(crate) fn install(
        all: &[&Self],
        system: bool,
        context: &mut SslContextBuilder,
    ) -> Result<(), ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for anchors in all {
            for certificate in &anchors.certificates {
                store.add_cert(certificate.clone())?;
            }
            for crl in &anchors.crls {
                sys::ssl::add_crl(&mut store, crl)?;
            }
            if !anchors.crls.is_empty() {
                store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)?;
            }
        }
        if system {
            store.set_default_paths()?;
        }
        context.set_cert_store(store.build());
        Ok(())
    }
}

const CRL_END: &str = "-----END X509 CRL-----";

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let path: PathBuf = path.into();
    std::fs::read(&path).map_err(|source: io::Error| ConfigError::Read { what, path, source })
}

fn parse_certificates(text: &[u8], origin: &str) -> Result<Vec<X509>, ConfigError> {
    let not_pem = |source| ConfigError::NotPem {
        what: "certificate",
        from: origin.to_owned(),
        source,
    };
    let chain = X509::stack_from_pem(text).map_err(not_pem)?;
    if chain.is_empty() {
        Err(not_pem(ErrorStack::get()))
    } else {
        Ok(chain)
    }
}
