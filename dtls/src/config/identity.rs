//! Certificates and keys: what an end shows, and what it trusts. Read and checked while a
//! configuration is made, on the caller's thread.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslContextBuilder;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Ref};

use super::openssl;
use crate::error::ConfigError;

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
        let key = PKey::private_key_from_pem(key).map_err(|source| ConfigError::NotPem {
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

    pub(super) fn check_validity(&self) -> Result<(), ConfigError> {
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

    pub(super) fn install(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let (leaf, rest) = self.chain.split_first().ok_or_else(ErrorStack::get)?;
        context.set_certificate(leaf)?;
        for certificate in rest {
            context.add_extra_chain_cert(certificate.clone())?;
        }
        context.set_private_key(&self.key)
    }
}

pub(crate) fn fingerprint(certificate: &X509Ref) -> Result<String, ErrorStack> {
    let digest = certificate.digest(openssl::hash::MessageDigest::sha256())?;
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(hex.join(":"))
}

/// Certificates that a peer's chain may end in.
#[derive(Debug, Clone)]
pub struct TrustAnchors(pub(super) Vec<X509>);

impl TrustAnchors {
    /// Reads certificates from a PEM file.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = read("CA certificates", path)?;
        parse_certificates(&text, &path.display().to_string()).map(Self)
    }

    /// Takes certificates from PEM text.
    ///
    /// # Errors
    /// Text without a certificate.
    pub fn from_pem(text: &[u8]) -> Result<Self, ConfigError> {
        parse_certificates(text, "the given text").map(Self)
    }

    pub(super) fn install(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for certificate in &self.0 {
            store.add_cert(certificate.clone())?;
        }
        context.set_cert_store(store.build());
        Ok(())
    }
}

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
