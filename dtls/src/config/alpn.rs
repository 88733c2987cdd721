//! Application protocols (ALPN, RFC 7301): the wire's list of names, and the server's choice. Pure,
//! but for the callback, which runs on the worker's thread.

use openssl::ssl::{AlpnError, SslContextBuilder};

use super::openssl;
use crate::error::ConfigError;

/// Protocol names in order of preference.
#[derive(Debug, Clone, Default)]
pub(super) struct Protocols(Vec<Vec<u8>>);

impl<N: Into<Vec<u8>>> FromIterator<N> for Protocols {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }
}

impl Protocols {
    /// Makes a server choose; without any it ignores what clients offer.
    pub(super) fn install_at_server(
        self,
        context: &mut SslContextBuilder,
    ) -> Result<(), ConfigError> {
        if self.wire()?.is_empty() {
            return Ok(());
        }
        context.set_alpn_select_callback(move |_, offered| {
            // RFC 7301 §3.2: without a common protocol the handshake ends.
            self.choose(offered).ok_or(AlpnError::ALERT_FATAL)
        });
        Ok(())
    }

    /// Makes a client offer.
    pub(super) fn install_at_client(
        &self,
        context: &mut SslContextBuilder,
    ) -> Result<(), ConfigError> {
        let wire = self.wire()?;
        if wire.is_empty() {
            return Ok(());
        }
        context.set_alpn_protos(&wire).map_err(openssl("ALPN"))
    }

    /// The first of ours that is among the client's.
    fn choose<'a>(&self, offered: &'a [u8]) -> Option<&'a [u8]> {
        self.0
            .iter()
            .find_map(|ours| split(offered).find(|theirs| theirs == ours))
    }

    fn wire(&self) -> Result<Vec<u8>, ConfigError> {
        let mut wire = Vec::new();
        for name in &self.0 {
            let length = u8::try_from(name.len()).ok().filter(|&length| length > 0);
            let length = length.ok_or_else(|| ConfigError::OutOfRange {
                name: "an application protocol's name",
                value: format!("{} bytes long", name.len()),
                must: "1 to 255 bytes",
            })?;
            wire.push(length);
            wire.extend_from_slice(name);
        }
        Ok(wire)
    }
}

/// The names of a list on the wire, as far as it is one.
fn split(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = list.split_first()?;
        let (name, rest) = rest.split_at_checked(length.into())?;
        list = rest;
        Some(name)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_servers_preference_decides() {
        let ours: Protocols = ["coap", "x"].into_iter().collect();
        let offer = |names: &[&str]| names.iter().copied().collect::<Protocols>().wire().unwrap();
        assert_eq!(ours.choose(&offer(&["x", "coap"])), Some(&b"coap"[..]));
        assert_eq!(ours.choose(&offer(&["y", "x"])), Some(&b"x"[..]));
        assert_eq!(ours.choose(&offer(&["y", "coapx"])), None);
    }

    #[test]
    fn names_have_1_to_255_bytes() {
        for (length, good) in [(0, false), (1, true), (255, true), (256, false)] {
            let protocols: Protocols = [vec![b'a'; length]].into_iter().collect();
            assert_eq!(protocols.wire().is_ok(), good, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_list_makes_the_parser_panic(list: Vec<u8>) {
            let total: usize = split(&list).map(|name| name.len() + 1).sum();
            prop_assert!(total <= list.len());
        }
    }
}
