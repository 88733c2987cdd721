//! One leaf: its key, its certificate as the profile wants it, and the chain a peer must be sent.
//! In memory; runs on the caller's thread.

use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RsaKeySize, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::authority::{Authority, CLOCK_SKEW, subject};
use crate::error::IssueError;
use crate::name::HostName;
use crate::profile::{Flaw, KeyKind, Profile, Role};

/// What one end of a connection presents: a chain and the key of its first certificate.
#[derive(Clone)]
pub struct Credentials {
    /// The leaf and every authority up to, and without, the root.
    pub chain_pem: String,
    /// The leaf's private key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for Credentials {
    /// Leaves the key out, so that no log ever holds one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("chain_pem", &self.chain_pem)
            .finish_non_exhaustive()
    }
}

/// Makes a leaf under the last of `authorities`, which stand in order from below the root.
///
/// # Errors
///
/// When no random bytes can be had, or rcgen refuses.
pub(crate) fn issue(
    profile: Profile,
    authorities: &[&Authority],
    serial: SerialNumber,
    extra_names: &[HostName],
    now: OffsetDateTime,
) -> Result<Credentials, IssueError> {
    let issuer = authorities
        .last()
        .expect("every leaf has an authority between it and the root");
    let key = make_key(profile.key)?;
    let certificate = params(profile, serial, extra_names, now)?
        .signed_by(&key, issuer.issuer())
        .map_err(|source| IssueError::certificate(profile.name, source))?;
    let mut chain_pem = certificate.pem();
    for authority in authorities.iter().rev() {
        chain_pem.push_str(&authority.pem());
    }
    Ok(Credentials {
        chain_pem,
        key_pem: key.serialize_pem(),
    })
}

/// The profile in rcgen's terms.
///
/// # Errors
///
/// When a name of the profile is not ASCII.
fn params(
    profile: Profile,
    serial: SerialNumber,
    extra_names: &[HostName],
    now: OffsetDateTime,
) -> Result<CertificateParams, IssueError> {
    let names: Vec<String> = profile
        .names()
        .iter()
        .map(|&name| name.to_owned())
        .collect();
    let common_name = match profile.role {
        Role::Server => "DTLS test server",
        Role::Client => "DTLS test client",
    };
    let mut params = CertificateParams::new(names)
        .map_err(|source| IssueError::certificate(profile.name, source))?;
    if profile.role == Role::Server && profile.flaw != Some(Flaw::WrongName) {
        params
            .subject_alt_names
            .extend(extra_names.iter().map(|HostName(san)| san.clone()));
    }
    params.distinguished_name = subject(common_name);
    params.serial_number = Some(serial);
    (params.not_before, params.not_after) = validity(profile.flaw, now);
    // Writes an empty basicConstraints and the subject key identifier; plain `NoCa` omits both.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = match profile.key {
        KeyKind::EcdsaP256 | KeyKind::Ed25519 => vec![KeyUsagePurpose::DigitalSignature],
        // A peer may encrypt the premaster secret to an RSA key.
        KeyKind::Rsa2048 => {
            vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyEncipherment,
            ]
        }
    };
    params.extended_key_usages = match profile.role {
        Role::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn validity(flaw: Option<Flaw>, now: OffsetDateTime) -> (OffsetDateTime, OffsetDateTime) {
    const YEAR: Duration = Duration::days(365);
    match flaw {
        Some(Flaw::Expired) => (now - YEAR, now - CLOCK_SKEW),
        // Far ahead, so that files kept under `target/` stay as bad as they were.
        Some(Flaw::NotYetValid) => (now + YEAR * 10, now + YEAR * 15),
        _ => (now - CLOCK_SKEW, now + YEAR * 10),
    }
}

/// A new key, which OpenSSL too can read.
///
/// # Errors
///
/// When no random bytes can be had, or the library refuses.
fn make_key(kind: KeyKind) -> Result<KeyPair, IssueError> {
    let key_error = |source| IssueError::Key {
        kind: kind.label(),
        source,
    };
    match kind {
        KeyKind::EcdsaP256 => KeyPair::generate().map_err(key_error),
        KeyKind::Rsa2048 => {
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(key_error)
        }
        // rcgen would write version 2 of PKCS#8 (RFC 5958), which OpenSSL cannot read.
        KeyKind::Ed25519 => {
            let pkcs8 = Ed25519KeyPair::generate()
                .and_then(|key| key.to_pkcs8v1())
                .map_err(|source| IssueError::Random {
                    what: "Ed25519 key",
                    source,
                })?;
            KeyPair::try_from(pkcs8.as_ref()).map_err(key_error)
        }
    }
}
