//! HOST:PORT as typed, and the addresses it stands for. Main thread.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A server as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub(crate) host: String,
    /// Never 0.
    pub(crate) port: u16,
}

/// Why a text names no server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("write an IPv6 address in brackets and give a port: [{0}]:4433")]
    Bare(Ipv6Addr),
    #[error("no port: write HOST:PORT, for example localhost:4433")]
    NoPort,
    #[error("no host: write HOST:PORT, for example localhost:4433")]
    NoHost,
    #[error("`{0}` is no port: it must be a number from 1 to 65535")]
    Port(String),
    #[error("`{0}` is no IPv6 address")]
    Address(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Ok(bare) = text.parse() {
            return Err(TargetError::Bare(bare));
        }
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::NoPort)?;
        if text.ends_with(']') {
            return Err(TargetError::NoPort);
        }
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            // A zone, as in fe80::1%eth0, is the resolver's business.
            Some(inner) => match inner.split('%').next().map(Ipv6Addr::from_str) {
                Some(Ok(_)) => inner,
                _ => return Err(TargetError::Address(inner.to_owned())),
            },
            None if host.contains([':', '[', ']']) => {
                return Err(TargetError::Address(host.to_owned()));
            }
            None => host,
        };
        if host.is_empty() {
            return Err(TargetError::NoHost);
        }
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err(TargetError::Port(port.to_owned())),
            Ok(port) => port,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The name has no address here and now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("cannot resolve {host}: {source}; check the name, or give an address")]
    Failed { host: String, source: io::Error },
    #[error("{0} has no address; check the name, or give an address")]
    Nothing(String),
}

impl Target {
    /// All addresses, in the resolver's order of preference.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|source| ResolveError::Failed {
                host: self.host.clone(),
                source,
            })?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(ResolveError::Nothing(self.host.clone()));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, u16), TargetError> {
        text.parse::<Target>()
            .map(|target| (target.host, target.port))
    }

    #[test]
    fn names_and_addresses_of_both_families_are_taken_and_printed_alike() {
        for (text, host) in [
            ("localhost:4433", "localhost"),
            ("192.0.2.1:4433", "192.0.2.1"),
            ("[2001:db8::1]:4433", "2001:db8::1"),
            ("[fe80::1%eth0]:4433", "fe80::1%eth0"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, 4433));
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn what_names_no_server_is_refused_for_its_own_reason() {
        let loopback = Ipv6Addr::LOCALHOST;
        assert_eq!(parse("::1"), Err(TargetError::Bare(loopback)));
        assert_eq!(parse("localhost"), Err(TargetError::NoPort));
        assert_eq!(parse("[::1]"), Err(TargetError::NoPort));
        assert_eq!(parse(":4433"), Err(TargetError::NoHost));
        for port in ["", "0", "65536", "-1", "https"] {
            let refused = parse(&format!("localhost:{port}"));
            assert_eq!(refused, Err(TargetError::Port(port.to_owned())));
        }
        assert_eq!(parse("[x]:1"), Err(TargetError::Address("x".to_owned())));
        assert_eq!(parse("a:b:1"), Err(TargetError::Address("a:b".to_owned())));
    }

    #[test]
    fn an_address_resolves_to_itself_once() {
        let target: Target = "[::1]:7".parse().unwrap();
        assert_eq!(target.resolve().unwrap(), ["[::1]:7".parse().unwrap()]);
    }
}
