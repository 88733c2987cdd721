//! Host names and addresses for certificates, checked as they are typed. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use rcgen::SanType;

/// A DNS name or an IP address that a certificate can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub(crate) SanType);

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(SanType::IpAddress(address)));
        }
        let error = || NameError {
            text: text.to_owned(),
        };
        if !is_dns_name(text) {
            return Err(error());
        }
        Ok(Self(SanType::DnsName(
            text.try_into().map_err(|_| error())?,
        )))
    }
}

/// RFC 1123 §2.1: letters, digits and inner hyphens; a wildcard may stand for the first label.
fn is_dns_name(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    text.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// The text is neither a DNS name nor an IP address; the caller's mistake.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is neither a DNS name nor an IP address; \
     write it without port or brackets, as in example.org or fd00::7"
)]
pub struct NameError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_dns_names_are_told_apart() {
        for (text, address) in [
            ("localhost", false),
            ("a.b-c.example", false),
            ("*.example.org", false),
            ("10.0.0.1", true),
            ("fd00::7", true),
        ] {
            let HostName(san) = text.parse().unwrap();
            assert_eq!(matches!(san, SanType::IpAddress(_)), address, "{text}");
        }
    }

    #[test]
    fn what_no_certificate_can_carry_is_refused_by_name() {
        for text in [
            "",
            "a b",
            "[::1]",
            "host:4433",
            "-a",
            "a-",
            "a..b",
            "a.*.b",
            "ü.example",
            "a_b",
        ] {
            let error = text.parse::<HostName>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` ")), "{error}");
        }
        assert!("a".repeat(63).parse::<HostName>().is_ok());
        assert!("a".repeat(64).parse::<HostName>().is_err());
    }
}
