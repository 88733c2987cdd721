//! Cipher suites: which are offered, for certificates and for pre-shared keys. Constant tables and
//! the choice between them.
//!
//! AEAD only: a forged record is fatal to OpenSSL's CBC suites with encrypt-then-MAC.

use openssl::ssl::SslContextBuilder;

use super::openssl;
use crate::error::ConfigError;
use crate::sys;

/// Which cipher suites are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Suites {
    /// The AEAD suites of RFC 9325 §4.2: AES-GCM and ChaCha20-Poly1305.
    #[default]
    Recommended,
    /// These, and the AES-CCM suites that constrained devices have (RFC 7925 §4.2, §4.4). Some have
    /// tags of 8 bytes; everything else keeps OpenSSL's security level.
    Iot,
}

/// How the ends prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proofs {
    pub(crate) certificate: bool,
    pub(crate) psk: bool,
}

/// Ephemeral keys, certificates. AES-128 first: its SHA-256 costs a handshake less than the SHA-384
/// of AES-256 where the processor has SHA instructions.
const CERTIFICATE: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
const CERTIFICATE_IOT: [&str; 2] = ["ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES128-CCM8"];

/// The only suite with forward secrecy first: OpenSSL has no ECDHE-PSK with AES-GCM (RFC 8442).
const PSK: [&str; 4] = [
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-GCM-SHA384",
    "PSK-CHACHA20-POLY1305",
];
const PSK_IOT: [&str; 2] = ["PSK-AES128-CCM", "PSK-AES128-CCM8"];

impl Suites {
    /// Offers those that serve `proofs`; of these only `chosen` ones, if there are any.
    pub(crate) fn install(
        self,
        proofs: Proofs,
        chosen: &[String],
        context: &mut SslContextBuilder,
    ) -> Result<(), ConfigError> {
        let iot = self == Self::Iot;
        // Who has been given a key means to use it.
        let lists: [(&[&str], bool); 4] = [
            (&PSK, proofs.psk),
            (&PSK_IOT, proofs.psk && iot),
            (&CERTIFICATE, proofs.certificate),
            (&CERTIFICATE_IOT, proofs.certificate && iot),
        ];
        let mut names: Vec<&str> = lists
            .into_iter()
            .filter(|&(_, wanted)| wanted)
            .flat_map(|(list, _)| list.iter().copied())
            .collect();
        if !chosen.is_empty() {
            if let Some(other) = chosen.iter().find(|name| !names.contains(&name.as_str())) {
                return Err(ConfigError::OutOfRange {
                    name: "a cipher suite",
                    value: format!("\"{other}\""),
                    must: "OpenSSL's name of an AEAD suite that fits the proof of identity, such as \
                           ECDHE-ECDSA-AES128-GCM-SHA256 for certificates",
                });
            }
            names = chosen.iter().map(String::as_str).collect();
        }
        context
            .set_cipher_list(&names.join(":"))
            .map_err(openssl("the cipher list"))?;
        if iot {
            sys::callbacks::permit_ccm8(context);
        }
        Ok(())
    }
}
