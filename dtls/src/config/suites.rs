//! Cipher suites: which are offered, for certificates and for pre-shared keys. Constant tables and
//! the choice between them.
//!
//! AEAD only: a forged record is fatal to OpenSSL's CBC suites with encrypt-then-MAC.

use openssl::error::ErrorStack;
use openssl::ssl::SslContextBuilder;

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
const CERTIFICATE: &str = "ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20";
const CERTIFICATE_IOT: &str = "ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-CCM8";

/// The only suite with forward secrecy first: OpenSSL has no ECDHE-PSK with AES-GCM (RFC 8442).
const PSK: &str = "ECDHE-PSK-CHACHA20-POLY1305:PSK-AES128-GCM-SHA256:PSK-AES256-GCM-SHA384:\
                   PSK-CHACHA20-POLY1305";
const PSK_IOT: &str = "PSK-AES128-CCM:PSK-AES128-CCM8";

impl Suites {
    pub(crate) fn install(
        self,
        proofs: Proofs,
        context: &mut SslContextBuilder,
    ) -> Result<(), ErrorStack> {
        // Who has been given a key means to use it.
        let lists = [
            (PSK, proofs.psk),
            (PSK_IOT, proofs.psk && self == Self::Iot),
            (CERTIFICATE, proofs.certificate),
            (CERTIFICATE_IOT, proofs.certificate && self == Self::Iot),
        ];
        let lists: Vec<&str> = lists
            .into_iter()
            .filter_map(|(list, wanted)| wanted.then_some(list))
            .collect();
        context.set_cipher_list(&lists.join(":"))?;
        if self == Self::Iot {
            sys::callbacks::permit_ccm8(context);
        }
        Ok(())
    }
}
