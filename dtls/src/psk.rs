//! Pre-shared keys (RFC 4279): the key itself, and the callbacks of both ends. They run on the
//! connection's thread, in the middle of its handshake.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::SslContextBuilder;
use zeroize::Zeroizing;

use crate::config::openssl;
use crate::error::ConfigError;
use crate::sys;

/// A pre-shared key of 16 to 64 bytes.
///
/// It must be random: with a key that people can remember, who records one handshake can try all
/// of them at leisure, except with ECDHE-PSK, where that takes one active attempt.
#[derive(Clone)]
pub struct PskKey(Zeroizing<Vec<u8>>);

impl fmt::Debug for PskKey {
    /// Leaves the key out, so that no log ever holds one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PskKey").finish_non_exhaustive()
    }
}

/// RFC 9257 §6: at least 128 bits of entropy.
const SHORTEST: usize = 16;

/// RFC 4279 §5.3: every implementation takes keys up to 64 bytes.
const LONGEST: usize = 64;

/// RFC 4279 §5.3: every implementation takes identities up to 128 bytes.
const LONGEST_IDENTITY: usize = 128;

impl PskKey {
    /// Takes the key's bytes.
    ///
    /// # Errors
    /// Fewer than 16 or more than 64 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let bytes = Zeroizing::new(bytes.into());
        if (SHORTEST..=LONGEST).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(ConfigError::OutOfRange {
                name: "the pre-shared key's length",
                value: format!("{} bytes", bytes.len()),
                must: "16 to 64 random bytes; \"openssl rand -hex 32\" makes some",
            })
        }
    }

    /// Takes the key in hexadecimal.
    ///
    /// ```
    /// let key = dtls::PskKey::from_hex("000102030405060708090a0b0c0d0e0f")?;
    /// # Ok::<(), dtls::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Not hexadecimal, or too short or too long a key.
    pub fn from_hex(text: &str) -> Result<Self, ConfigError> {
        let bytes = hexadecimal(text).ok_or_else(|| ConfigError::OutOfRange {
            name: "the pre-shared key",
            // Not the text itself: it may be all but one digit of the key.
            value: "something else".to_owned(),
            must: "an even number of hexadecimal digits",
        })?;
        Self::new(&**bytes)
    }

    /// Copies the key to where OpenSSL wants it.
    fn copy_into(&self, room: &mut [u8]) -> Result<usize, ErrorStack> {
        let room = room.get_mut(..self.0.len()).ok_or_else(ErrorStack::get)?;
        room.copy_from_slice(&self.0);
        Ok(self.0.len())
    }
}

/// The bytes that pairs of hexadecimal digits stand for.
pub(crate) fn hexadecimal(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    // Not grown, so that no copy is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.as_bytes().chunks_exact(2) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let byte = digit(pair[0])? << 4 | digit(pair[1])?;
        bytes.push(u8::try_from(byte).ok()?);
    }
    Some(bytes)
}

/// Finds the key of an identity.
pub(crate) type PskLookup = Arc<dyn Fn(&[u8]) -> Option<PskKey> + Send + Sync>;

/// A server's keys.
#[derive(Clone)]
pub(crate) struct ServerPsk {
    pub(crate) lookup: PskLookup,
    pub(crate) hint: Option<String>,
}

impl ServerPsk {
    pub(crate) fn install(self, context: &mut SslContextBuilder) -> Result<(), ConfigError> {
        if let Some(hint) = self.hint {
            let text = check_text("the PSK identity hint", hint.into_bytes())?;
            sys::ssl::use_psk_identity_hint(context, &text).map_err(openssl("the PSK hint"))?;
        }
        let lookup = self.lookup;
        context.set_psk_server_callback(move |_, identity, room| {
            let found = identity.and_then(|identity| {
                sys::callbacks::guard(|| lookup(identity)).unwrap_or_else(|| {
                    log::error!("the PSK identity callback panicked; the identity is refused");
                    None
                })
            });
            // An unknown identity goes on with a key that nobody has: it fails where a wrong key
            // does, and in the same way (RFC 4279 §2). OpenSSL's own answer, the alert
            // "unknown_psk_identity", would tell strangers which identities exist.
            let mut nobodys = [0; 32];
            openssl::rand::rand_bytes(&mut nobodys)?;
            found
                .unwrap_or_else(|| PskKey(nobodys.to_vec().into()))
                .copy_into(room)
        });
        Ok(())
    }
}

/// A client's identity and key.
#[derive(Clone)]
pub(crate) struct ClientPsk {
    pub(crate) identity: Vec<u8>,
    pub(crate) key: PskKey,
}

impl ClientPsk {
    pub(crate) fn install(self, context: &mut SslContextBuilder) -> Result<(), ConfigError> {
        let identity = check_text("the PSK identity", self.identity)?;
        let key = self.key;
        context.set_psk_client_callback(move |_, _hint, identity_room, key_room| {
            let identity = identity.as_bytes_with_nul();
            let room = identity_room
                .get_mut(..identity.len())
                .ok_or_else(ErrorStack::get)?;
            room.copy_from_slice(identity);
            key.copy_into(key_room)
        });
        Ok(())
    }
}

/// What OpenSSL handles as a C string.
fn check_text(name: &'static str, text: Vec<u8>) -> Result<CString, ConfigError> {
    let refused = |value| ConfigError::OutOfRange {
        name,
        value,
        must: "1 to 128 bytes without a zero byte",
    };
    if text.is_empty() || text.len() > LONGEST_IDENTITY {
        return Err(refused(format!("{} bytes long", text.len())));
    }
    CString::new(text)
        .map_err(|error| refused(format!("{:?}", error.into_vec().escape_ascii().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_16_to_64_bytes() {
        for (length, good) in [(0, false), (15, false), (16, true), (64, true), (65, false)] {
            assert_eq!(PskKey::new(vec![7; length]).is_ok(), good, "{length}");
            assert_eq!(PskKey::from_hex(&"07".repeat(length)).is_ok(), good);
        }
    }

    #[test]
    fn hexadecimal_is_read_and_nothing_else_and_no_error_shows_the_key() {
        let key = PskKey::from_hex("00ff0A0b000102030405060708090a0b").unwrap();
        assert_eq!(key.0[..4], [0, 255, 10, 11]);
        let secret = "0123456789abcdef0123456789abcde";
        for bad in [
            secret.to_owned(),
            format!("{secret}g"),
            format!("{secret}é"),
        ] {
            let error = PskKey::from_hex(&bad).unwrap_err().to_string();
            assert!(!error.contains("0123"), "{error}");
        }
        assert_eq!(format!("{key:?}"), "PskKey { .. }");
    }

    #[test]
    fn identities_have_1_to_128_bytes_and_no_zero() {
        for (identity, good) in [
            (&b""[..], false),
            (b"a", true),
            (&[b'a'; 128], true),
            (&[b'a'; 129], false),
            (b"a\0b", false),
        ] {
            assert_eq!(check_text("it", identity.to_vec()).is_ok(), good);
        }
    }
}
