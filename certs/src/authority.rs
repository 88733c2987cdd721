//! Certificate authorities: a root signs itself, a subordinate is signed by another, and each can
//! sign leaves and a revocation list. All have ECDSA P-256 keys. In memory; runs on the caller's
//! thread.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::error::IssueError;

/// An authority with its key, which never leaves memory.
#[derive(Debug)]
pub(crate) struct Authority {
    name: String,
    certified: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// An authority that vouches for itself.
    ///
    /// # Errors
    ///
    /// When no random bytes can be had, or rcgen refuses.
    pub(crate) fn root(name: &str, now: OffsetDateTime) -> Result<Self, IssueError> {
        let params = params(name, now, BasicConstraints::Unconstrained)?;
        KeyPair::generate()
            .and_then(|key| CertifiedIssuer::self_signed(params, key))
            .map(|certified| Self {
                name: name.to_owned(),
                certified,
            })
            .map_err(|source| IssueError::certificate(name, source))
    }

    /// An authority under this one, with at most `below` further authorities under it.
    ///
    /// # Errors
    ///
    /// When no random bytes can be had, or rcgen refuses.
    pub(crate) fn subordinate(
        &self,
        name: &str,
        below: u8,
        now: OffsetDateTime,
    ) -> Result<Self, IssueError> {
        let params = params(name, now, BasicConstraints::Constrained(below))?;
        KeyPair::generate()
            .and_then(|key| CertifiedIssuer::signed_by(params, key, self.issuer()))
            .map(|certified| Self {
                name: name.to_owned(),
                certified,
            })
            .map_err(|source| IssueError::certificate(name, source))
    }

    /// What signs a leaf.
    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.certified
    }

    /// The authority's certificate.
    pub(crate) fn pem(&self) -> String {
        self.certified.pem()
    }

    /// The authority's revocation list with these serial numbers on it.
    ///
    /// # Errors
    ///
    /// When rcgen refuses.
    pub(crate) fn crl_pem(
        &self,
        revoked: &[SerialNumber],
        now: OffsetDateTime,
    ) -> Result<String, IssueError> {
        CertificateRevocationListParams {
            this_update: now - CLOCK_SKEW,
            next_update: now + LIFETIME,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: serial.clone(),
                    revocation_time: now - CLOCK_SKEW,
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(self.issuer())
        .and_then(|crl| crl.pem())
        .map_err(|source| {
            IssueError::certificate(&format!("revocation list, {}", self.name), source)
        })
    }
}

/// What all authorities have in common.
///
/// # Errors
///
/// When no random bytes can be had.
fn params(
    name: &str,
    now: OffsetDateTime,
    constraints: BasicConstraints,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name);
    params.serial_number = Some(random_serial()?);
    // Older than every leaf, the expired one included.
    params.not_before = now - Duration::days(5 * 365);
    params.not_after = now + LIFETIME;
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The subject of an authority or a leaf.
pub(crate) fn subject(common_name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(
        DnType::OrganizationName,
        "DTLS test PKI, trust it nowhere else",
    );
    subject.push(DnType::CommonName, common_name);
    subject
}

/// Sixteen random bytes whose first is never zero and whose sign is never negative, so that every
/// serial number has the same length (RFC 5280 §4.1.2.2 allows twenty).
///
/// # Errors
///
/// When no random bytes can be had.
pub(crate) fn random_serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|source| IssueError::Random {
        what: "serial number",
        source,
    })?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A verifier's clock may be this far behind ours.
pub(crate) const CLOCK_SKEW: Duration = Duration::days(1);

/// How long authorities and their revocation lists last; a leaf never outlives them.
pub(crate) const LIFETIME: Duration = Duration::days(20 * 365);
