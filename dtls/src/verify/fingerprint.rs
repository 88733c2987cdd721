//! SHA-256 fingerprints of certificates, as people copy them. Pure.

use std::fmt;
use std::str::FromStr;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::x509::X509Ref;

/// The SHA-256 digest of a certificate.
///
/// Written `SHA256:5E:0A:…`; read with or without the prefix and the colons, in either case, so
/// that what `openssl x509 -fingerprint -sha256` or this library prints can be pasted.
///
/// ```
/// let hex = "ab".repeat(32);
/// let fingerprint: dtls::Fingerprint = hex.parse()?;
/// assert!(fingerprint.to_string().starts_with("SHA256:AB:AB:"));
/// # Ok::<(), dtls::FingerprintError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no SHA-256 fingerprint: 64 hexadecimal digits are needed, colons between pairs are \
     optional"
)]
pub struct FingerprintError(String);

impl Fingerprint {
    pub(crate) fn of(certificate: &X509Ref) -> Result<Self, ErrorStack> {
        let digest = certificate.digest(MessageDigest::sha256())?;
        <[u8; 32]>::try_from(&*digest)
            .map(Self)
            .map_err(|_| ErrorStack::get())
    }

    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SHA256")?;
        self.0.iter().try_for_each(|byte| write!(f, ":{byte:02X}"))
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        parse(text).map(Self).ok_or_else(|| {
            // What was pasted may be anything: enough of it to recognise.
            FingerprintError(text.chars().take(100).collect())
        })
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let hex = match text.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => text,
    };
    let step = match hex.len() {
        64 => 2,
        95 => 3,
        _ => return None,
    };
    let hex = hex.as_bytes();
    let mut digest = [0; 32];
    for (pair, byte) in hex.chunks(step).zip(&mut digest) {
        let &[high, low, ref colon @ ..] = pair else {
            return None;
        };
        if !matches!(colon, [] | [b':']) {
            return None;
        }
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(digest)
}

fn nibble(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

const PREFIX: &str = "SHA256:";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_64_digits_in_pairs_is_refused() {
        let good = Fingerprint([0xab; 32]).to_string();
        for bad in [
            "",
            "SHA256:",
            &good[..good.len() - 1],
            &format!("{good}:00"),
            &good.replace("AB", "GB"),
            &good.replacen(":AB:AB", ":ABA:B", 1),
            &good.replace("SHA256", "SHA512"),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_way_to_write_it_reads_the_same(digest: [u8; 32]) {
            let fingerprint = Fingerprint(digest);
            let text = fingerprint.to_string();
            for text in [
                text.clone(),
                text.to_lowercase(),
                text[7..].to_owned(),
                text[7..].replace(':', ""),
                format!("sha256:{}", text[7..].replace(':', "")),
            ] {
                prop_assert_eq!(text.parse(), Ok(fingerprint));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            prop_assert!(text.parse::<Fingerprint>().is_err());
        }
    }
}
