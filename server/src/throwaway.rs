//! A self-signed certificate for a first try without set-up. Main thread, at the start.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, string::Ia5String,
};
use time::{Duration, OffsetDateTime};

/// A certificate for this host under its usual local names, and its key, both in PEM form. Neither
/// is ever written to a file.
///
/// # Errors
/// The system has no random bytes to give.
pub(crate) fn make() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty() && Ia5String::try_from(name.as_str()).is_ok());
    names.extend(host);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "dtls-server throw-away");
    let now = OffsetDateTime::now_utc();
    // The clocks of two machines may differ.
    params.not_before = now - Duration::DAY;
    params.not_after = now + 90 * Duration::DAY;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
