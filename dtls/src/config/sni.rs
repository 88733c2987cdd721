//! One server, several names: the ClientHello's server_name chooses the certificate, and sessions
//! belong to one name. Runs in the ClientHello callback, on the worker's thread.

use std::collections::HashMap;

use openssl::sha::Sha256;
use openssl::ssl::{ClientHelloResponse, SslContextBuilder};

use crate::error::ConfigError;
use crate::sys;

use super::Identity;

/// Values by the name that a client asks for (server_name, RFC 6066): a host name, or
/// `*.example.org` for any one label in place of the star. A name of its own wins over a star.
#[derive(Debug, Clone)]
pub struct ByName<T>(HashMap<String, T>);

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> ByName<T> {
    /// Adds one.
    ///
    /// # Errors
    /// The name is none, or is there already.
    pub fn insert(&mut self, name: &str, value: T) -> Result<(), ConfigError> {
        let key = normal(name);
        let refused = |must| {
            Err(ConfigError::OutOfRange {
                name: "the server name",
                value: format!("\"{name}\""),
                must,
            })
        };
        if !is_pattern(&key) {
            return refused("a host name, or *.example.org for one label in place of the star");
        }
        match self.0.insert(key, value) {
            None => Ok(()),
            Some(_) => refused("given once only"),
        }
    }

    /// What there is for a name, upper and lower case being the same.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&T> {
        self.find_normal(&normal(name))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find_normal(&self, name: &str) -> Option<&T> {
        self.0.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.0.get(&format!("*.{parent}"))
        })
    }
}

impl ByName<Identity> {
    /// Makes a context choose by name. `policy` is what a session must have been made under to be
    /// resumed, besides the name.
    pub(super) fn install(self, policy: [u8; 32], context: &mut SslContextBuilder) {
        context.set_client_hello_callback(move |ssl, _| {
            let name = sys::ssl::client_hello_server_name(ssl)
                .and_then(host_name)
                .map(normal)
                .unwrap_or_default();
            // RFC 6066 §3: a session must not be resumed under another name. Between servers that
            // share ticket keys, nor under another policy: what one asks of clients, a session made
            // at the other has not shown.
            sys::ssl::set_session_id_context(ssl, &session_context(&policy, &name))?;
            if let Some(identity) = self.find_normal(&name) {
                identity.install_on(ssl)?;
            }
            Ok(ClientHelloResponse::SUCCESS)
        });
        // Says yes to the extension, so that the name becomes part of the session.
        context.set_servername_callback(|_, _| Ok(()));
    }
}

fn session_context(policy: &[u8; 32], name: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(policy);
    digest.update(name.as_bytes());
    digest.finish()
}

/// RFC 6066 §3: a list of which only the first entry, a host name, has a meaning.
fn host_name(extension: &[u8]) -> Option<&str> {
    let (list_length, list) = extension.split_first_chunk::<2>()?;
    let (&[HOST_NAME], rest) = list.split_first_chunk::<1>()? else {
        return None;
    };
    let (name_length, name) = rest.split_first_chunk::<2>()?;
    let fits = usize::from(u16::from_be_bytes(*list_length)) == list.len()
        && usize::from(u16::from_be_bytes(*name_length)) == name.len();
    std::str::from_utf8(name).ok().filter(|_| fits)
}

const HOST_NAME: u8 = 0;

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_pattern(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let host = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253 && host.split('.').all(label) && host.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_names_with_at_most_one_leading_wildcard() {
        for good in [
            "example.org",
            "localhost",
            "*.example.org",
            "xn--a_b.c",
            "1",
        ] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "a..b",
            ".a",
            "a.*.b",
            "*.*.b",
            "a*.b",
            "127.0.0.1",
            "::1",
            "ü.de",
            "a b",
            &"a".repeat(64),
        ] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_of_its_own_wins_over_a_star_and_case_and_a_last_dot_do_not_count() {
        let mut values = ByName::default();
        for (name, value) in [("*.example.org", 1), ("A.example.org", 2), ("b", 3)] {
            values.insert(name, value).unwrap();
        }
        for (name, found) in [
            ("a.example.org", Some(2)),
            ("A.EXAMPLE.ORG.", Some(2)),
            ("c.example.org", Some(1)),
            ("example.org", None),
            ("c.d.example.org", None),
            ("b", Some(3)),
            ("", None),
        ] {
            assert_eq!(values.find(name).copied(), found, "{name}");
        }
        assert!(values.insert("B.", 4).is_err(), "twice");
        assert!(values.insert("10.0.0.1", 4).is_err(), "an address");
    }

    #[test]
    fn only_a_well_formed_extension_has_a_name() {
        let extension = [0, 6, 0, 0, 3, b'a', b'.', b'b'];
        assert_eq!(host_name(&extension), Some("a.b"));
        for end in 0..extension.len() {
            assert_eq!(host_name(&extension[..end]), None);
        }
        for at in [0, 1, 2, 3, 4] {
            let mut changed = extension;
            changed[at] ^= 1;
            assert_eq!(host_name(&changed), None, "{at}");
        }
    }

    #[test]
    fn sessions_belong_to_one_name_and_one_policy() {
        let contexts = [
            session_context(&[0; 32], "a"),
            session_context(&[0; 32], "b"),
            session_context(&[1; 32], "a"),
        ];
        assert!(contexts[0] != contexts[1] && contexts[0] != contexts[2]);
    }

    proptest! {
        #[test]
        fn no_extension_makes_the_parser_panic(bytes: Vec<u8>) {
            host_name(&bytes);
        }
    }
}
