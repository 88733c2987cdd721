//! Secrets that several servers share, so that each of them completes a handshake that another began
//! and resumes a session that another made. Made with a configuration, on the caller's thread.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::core::CookieJar;
use crate::error::ConfigError;
use crate::psk::hexadecimal;
use crate::tickets::{TicketKey, TicketKeys};

/// A secret of servers behind one address, and the number that tells it from others.
///
/// The keys of cookies and of session tickets are derived from it.
#[derive(Clone)]
pub struct SharedSecret {
    id: u8,
    secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SharedSecret {
    /// Leaves the secret out, so that no log ever holds one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecret")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// As long as the keys that are derived are strong.
const SHORTEST: usize = 32;

impl SharedSecret {
    /// Takes the secret in hexadecimal, 32 random bytes at least.
    ///
    /// # Errors
    /// Not hexadecimal, or too short.
    pub fn from_hex(id: u8, text: &str) -> Result<Self, ConfigError> {
        let secret = hexadecimal(text).filter(|secret| secret.len() >= SHORTEST);
        let secret = secret.ok_or_else(|| ConfigError::OutOfRange {
            name: "the shared secret",
            // Not the text itself: it may be all but one digit of the secret.
            value: "something else".to_owned(),
            must: "64 hexadecimal digits or more; \"openssl rand -hex 32\" makes some",
        })?;
        Ok(Self { id, secret })
    }

    /// The number that tells it from others.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.id
    }

    /// 32 bytes that only those who have the secret can tell, other ones for each purpose.
    fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut mac: Hmac<Sha256> =
            Hmac::new_from_slice(&self.secret).expect("a key of any length");
        mac.update(purpose);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    fn cookie_key(&self) -> (u8, Zeroizing<[u8; 64]>) {
        let mut key = Zeroizing::new([0; 64]);
        key[..32].copy_from_slice(&*self.derive(b"dtls cookie 1"));
        key[32..].copy_from_slice(&*self.derive(b"dtls cookie 2"));
        (self.id, key)
    }

    fn ticket_key(&self) -> TicketKey {
        let mut key = Zeroizing::new([0; 80]);
        key[..16].copy_from_slice(&self.derive(b"dtls ticket name")[..16]);
        key[16..48].copy_from_slice(&*self.derive(b"dtls ticket hmac"));
        key[48..].copy_from_slice(&*self.derive(b"dtls ticket aes"));
        TicketKey::new(&key)
    }
}

/// Keys of cookies and tickets that issue with `current` and take what either made.
pub(crate) fn keys(
    current: &SharedSecret,
    other: Option<&SharedSecret>,
) -> (CookieJar, TicketKeys) {
    let cookie = current.cookie_key();
    let cookie_of_other = other.map(SharedSecret::cookie_key);
    let jar = CookieJar::shared(
        (cookie.0, &cookie.1),
        cookie_of_other.as_ref().map(|(id, key)| (*id, &**key)),
    );
    let tickets = TicketKeys::new(other.unwrap_or(current).ticket_key());
    tickets.rotate(current.ticket_key());
    (jar, tickets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_32_bytes_at_least_and_no_error_shows_it() {
        for (text, good) in [
            ("ab".repeat(31), false),
            ("ab".repeat(32), true),
            ("ab".repeat(100), true),
            (format!("{}g", "ab".repeat(32)), false),
        ] {
            match SharedSecret::from_hex(1, &text) {
                Ok(secret) => {
                    assert!(good, "{text}");
                    assert_eq!(format!("{secret:?}"), "SharedSecret { id: 1, .. }");
                }
                Err(error) => {
                    assert!(!good, "{text}");
                    assert!(!error.to_string().contains("abab"), "{error}");
                }
            }
        }
    }

    #[test]
    fn each_purpose_has_another_key() {
        let secret = SharedSecret::from_hex(1, &"ab".repeat(32)).unwrap();
        let (_, cookie) = secret.cookie_key();
        assert_ne!(cookie[..32], cookie[32..]);
        assert_ne!(
            *secret.derive(b"dtls ticket hmac"),
            *secret.derive(b"dtls ticket aes")
        );
    }
}
