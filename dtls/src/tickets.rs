//! Keys of session tickets (RFC 5077): made here or given, shared by servers, rotated.
//!
//! A ticket is a session that the client keeps, sealed by a key of the server: who has the key can
//! read every connection that a ticket of it resumed. So keys are short-lived. Shared by all
//! threads of a listener; asked on the connection's thread.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{SslContext, SslContextBuilder, SslRef};
use zeroize::Zeroizing;

use crate::config::{openssl, unix_now};
use crate::error::ConfigError;
use crate::sys::callbacks::{TicketKeeper, TicketLookup, TicketSecret, set_ticket_keeper};

/// One key, 80 bytes: name (16), HMAC-SHA256 key (32), AES-256 key (32).
///
/// The form is OpenSSL's and nginx's; `openssl rand 80 > ticket.key` makes one.
#[derive(Clone)]
pub struct TicketKey(TicketSecret);

impl fmt::Debug for TicketKey {
    /// Leaves the key out, so that no log ever holds one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

impl TicketKey {
    /// Takes a key's bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 80]) -> Self {
        let mut secret = TicketSecret {
            name: [0; 16],
            hmac: [0; 32].into(),
            aes: [0; 32].into(),
        };
        secret.name.copy_from_slice(&bytes[..16]);
        secret.hmac.copy_from_slice(&bytes[16..48]);
        secret.aes.copy_from_slice(&bytes[48..]);
        Self(secret)
    }

    /// Reads a key from a file of 80 bytes.
    ///
    /// # Errors
    /// A file that cannot be read or has another length.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let bytes =
            std::fs::read(path)
                .map(Zeroizing::new)
                .map_err(|source| ConfigError::Read {
                    what: "the ticket key",
                    path: path.to_owned(),
                    source,
                })?;
        let bytes = <&[u8; 80]>::try_from(&**bytes).map_err(|_| ConfigError::OutOfRange {
            name: "the ticket key's length",
            value: format!("{} bytes in {}", bytes.len(), path.display()),
            must: "80; \"openssl rand 80 > FILE\" makes one",
        })?;
        Ok(Self::new(bytes))
    }

    /// A new random key.
    ///
    /// # Errors
    /// OpenSSL has no randomness.
    pub fn random() -> Result<Self, ConfigError> {
        let mut bytes = Zeroizing::new([0; 80]);
        openssl::rand::rand_bytes(&mut *bytes).map_err(openssl("randomness"))?;
        Ok(Self::new(&bytes))
    }
}

/// The keys of session tickets of one or more servers; clones are the same keys.
///
/// A server makes its own unless it is given some, and changes them every 12 hours. Servers behind
/// one address should have the same, so that a client may resume at any of them:
///
/// ```no_run
/// use dtls::{Identity, ServerConfig, TicketKey, TicketKeys};
///
/// let identity = Identity::from_files("server.pem", "server.key")?;
/// let keys = TicketKeys::new(TicketKey::from_file("ticket.key")?);
/// let config = ServerConfig::builder(identity).ticket_keys(&keys).build()?;
/// // Later, at every server:
/// keys.rotate(TicketKey::from_file("ticket.key")?);
/// # Ok::<(), dtls::ConfigError>(())
/// ```
///
/// Rotate regularly (RFC 9325 §3.4), say once a day, but not twice within the two hours for which a
/// ticket is good. A server that has not yet rotated makes a full handshake with the bearer of a newer
/// ticket; nothing fails.
#[derive(Clone)]
pub struct TicketKeys(Arc<RwLock<Keys>>);

struct Keys {
    current: TicketKey,
    previous: Option<TicketKey>,
    /// Since when `current` is, in Unix seconds, if it is ours to change.
    born: Option<u64>,
}

impl Keys {
    /// Whether `current` is ours to change and has sealed for long enough. A clock that was ahead
    /// when it was made, and has stepped back, must not make it stay.
    fn are_due(&self, now: u64) -> bool {
        self.born.is_some_and(|born| now.abs_diff(born) >= ROTATION)
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

/// A key that is ours seals for this long, then opens for as long again.
const ROTATION: u64 = 12 * 3600;

impl TicketKeys {
    /// Seals tickets with this key.
    #[must_use]
    pub fn new(current: TicketKey) -> Self {
        Self::with(current, None)
    }

    /// Random keys that change by themselves.
    pub(crate) fn own(now: u64) -> Result<Self, ConfigError> {
        Ok(Self::with(TicketKey::random()?, Some(now)))
    }

    fn with(current: TicketKey, born: Option<u64>) -> Self {
        Self(Arc::new(RwLock::new(Keys {
            current,
            previous: None,
            born,
        })))
    }

    /// Seals new tickets with `next`. Tickets of the key before stay good and are replaced when
    /// used; those of the one before that no longer are.
    pub fn rotate(&self, next: TicketKey) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Reading the same file twice must not forget the previous key.
        if keys.current.0.name != next.0.name {
            keys.previous = Some(std::mem::replace(&mut keys.current, next));
        }
    }

    /// Whether they change without being told to.
    pub(crate) fn rotate_themselves(&self) -> bool {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.born.is_some()
    }

    /// Makes a context use them.
    pub(crate) fn install(&self, context: &mut SslContextBuilder) -> Result<(), ConfigError> {
        let index = index().map_err(openssl("the ticket keys"))?;
        context.set_ex_data(index, self.clone());
        set_ticket_keeper::<Keeper>(context);
        Ok(())
    }

    fn current(&self, now: u64) -> Option<TicketSecret> {
        {
            let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if !keys.are_due(now) {
                return Some(keys.current.0.clone());
            }
        }
        let next = TicketKey::random().ok()?;
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster.
        if keys.are_due(now) {
            keys.previous = Some(std::mem::replace(&mut keys.current, next));
            keys.born = Some(now);
        }
        Some(keys.current.0.clone())
    }

    fn find(&self, name: &[u8; 16]) -> TicketLookup {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match &keys.previous {
            _ if keys.current.0.name == *name => TicketLookup::Current(keys.current.0.clone()),
            Some(previous) if previous.0.name == *name => TicketLookup::Renew(previous.0.clone()),
            _ => TicketLookup::Unknown,
        }
    }
}

/// Asks the keys of the connection's configuration.
struct Keeper;

impl TicketKeeper for Keeper {
    fn current(ssl: &SslRef) -> Option<TicketSecret> {
        keys_of(ssl)?.current(unix_now())
    }

    fn find(ssl: &SslRef, name: &[u8; 16]) -> TicketLookup {
        keys_of(ssl).map_or(TicketLookup::Unknown, |keys| keys.find(name))
    }
}

fn keys_of(ssl: &SslRef) -> Option<&TicketKeys> {
    ssl.ssl_context().ex_data(index().ok()?)
}

fn index() -> Result<Index<SslContext, TicketKeys>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, TicketKeys>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = SslContext::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TicketKey {
        TicketKey::new(&[byte; 80])
    }

    fn knows(keys: &TicketKeys, byte: u8) -> Option<&'static str> {
        match keys.find(&[byte; 16]) {
            TicketLookup::Current(_) => Some("current"),
            TicketLookup::Renew(_) => Some("previous"),
            TicketLookup::Unknown => None,
        }
    }

    #[test]
    fn a_key_opens_through_one_rotation_but_not_two() {
        let keys = TicketKeys::new(key(1));
        assert_eq!(knows(&keys, 1), Some("current"));
        keys.clone().rotate(key(2));
        assert_eq!(
            (knows(&keys, 1), knows(&keys, 2)),
            (Some("previous"), Some("current"))
        );
        keys.rotate(key(2));
        assert_eq!(
            knows(&keys, 1),
            Some("previous"),
            "the same key is no rotation"
        );
        keys.rotate(key(3));
        assert_eq!(knows(&keys, 1), None);
    }

    #[test]
    fn given_keys_stay_and_own_ones_change_when_they_are_due() {
        let given = TicketKeys::new(key(1));
        assert_eq!(given.current(u64::MAX).unwrap().name, [1; 16]);
        let own = TicketKeys::own(1000).unwrap();
        let first = own.current(1000 + ROTATION - 1).unwrap().name;
        assert_eq!(own.current(1000).unwrap().name, first);
        let second = own.current(1000 + ROTATION).unwrap().name;
        assert_ne!(first, second);
        assert!(matches!(own.find(&first), TicketLookup::Renew(_)));
    }

    #[test]
    fn a_clock_that_steps_back_does_not_stop_rotation() {
        let ahead = 1_000_000;
        let keys = TicketKeys::own(ahead).unwrap();
        let first = keys.current(ahead).unwrap().name;
        let right = ahead - ROTATION;
        assert_eq!(keys.current(right + 1).unwrap().name, first);
        let second = keys.current(right).unwrap().name;
        assert_ne!(second, first);
        assert_eq!(keys.current(right + ROTATION - 1).unwrap().name, second);
        assert_ne!(keys.current(right + ROTATION).unwrap().name, second);
    }

    #[test]
    fn a_key_file_has_80_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket.key");
        for (length, good) in [(79, false), (80, true), (81, false)] {
            std::fs::write(&path, vec![7; length]).unwrap();
            assert_eq!(TicketKey::from_file(&path).is_ok(), good, "{length}");
        }
    }
}
