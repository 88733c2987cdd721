//! The values that settings take, and how they are written. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use dtls::Fingerprint;
use serde::{Deserialize, Serialize, Serializer};

use super::allow::Entry;

/// Reads a value as it is typed, and writes it so again.
macro_rules! as_text {
    ($($value:ty),+) => {$(
        impl TryFrom<String> for $value {
            type Error = <Self as FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

as_text!(Listen, TcpAddress, Time, TimeOrNone, Pin, Entry);

/// Where to listen. A preset knows the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Listen {
    pub(crate) ip: IpAddr,
    pub(crate) port: Option<u16>,
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        // [::1] without a port, too.
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        bare.parse().map(|ip| Self { ip, port: None }).map_err(
            |_| "give an IP address and a port, such as 127.0.0.1:4433, [::1]:4433 or [::]:4433",
        )
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip(),
            port: Some(address.port()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// An address of the operations pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TcpAddress(pub(crate) SocketAddr);

impl FromStr for TcpAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| "give an IP address and a TCP port, such as 127.0.0.1:9464 or [::1]:9464")
    }
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fingerprint of a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pin(pub(crate) Fingerprint);

impl FromStr for Pin {
    type Err = dtls::FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A length of time, such as `90s` or `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Time(pub(crate) Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("{error}; give a time such as 500ms, 90s or 5m"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A length of time, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TimeOrNone(pub(crate) Option<Duration>);

impl FromStr for TimeOrNone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        humantime::parse_duration(text)
            .map(|time| Self(Some(time)))
            .map_err(|error| format!("{error}; give a time such as 90s or 5m, or `none`"))
    }
}

impl fmt::Display for TimeOrNone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => Time(time).fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// A certificate for those who ask for a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedIdentity {
    pub(crate) name: String,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl FromStr for NamedIdentity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(name, files)| {
            let (cert, key) = files.split_once(',')?;
            let complete = !(name.is_empty() || cert.is_empty() || key.is_empty());
            complete.then_some((name, cert, key))
        });
        let (name, cert, key) =
            parts.ok_or("give NAME=CERT,KEY, such as coap.example.org=coap.pem,coap.key")?;
        Ok(Self {
            name: name.to_owned(),
            cert: cert.into(),
            key: key.into(),
        })
    }
}

/// A backend for those who ask for a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedBackend {
    pub(crate) name: String,
    pub(crate) backend: String,
}

impl FromStr for NamedBackend {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=');
        let parts = parts.filter(|(name, backend)| !name.is_empty() && !backend.is_empty());
        let (name, backend) =
            parts.ok_or("give NAME=HOST:PORT, such as coap.example.org=127.0.0.1:5683")?;
        Ok(Self {
            name: name.to_owned(),
            backend: backend.to_owned(),
        })
    }
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientAuth {
    /// None is asked for
    Off,
    /// A client without one is let in, one with a bad one is not
    Optional,
    /// A client without a good one is refused
    Required,
}

/// Which cipher suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Suites {
    /// AES-GCM and ChaCha20-Poly1305 (RFC 9325)
    #[value(alias = "default")]
    Recommended,
    /// These, and the AES-CCM and CCM-8 suites of constrained devices (RFC 7925)
    Iot,
}

impl From<Suites> for dtls::Suites {
    fn from(suites: Suites) -> Self {
        match suites {
            Suites::Recommended => Self::Recommended,
            Suites::Iot => Self::Iot,
        }
    }
}

/// How the sockets of all connections share the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PortSharing {
    /// SO_REUSEPORT with a socket filter: nobody else can join the port (Linux)
    Reuseport,
    /// SO_REUSEADDR, the portable pattern: any local user can share the port
    Reuseaddr,
}

impl From<PortSharing> for dtls::PortSharing {
    fn from(sharing: PortSharing) -> Self {
        match sharing {
            PortSharing::Reuseport => Self::ReusePort,
            PortSharing::Reuseaddr => Self::ReuseAddr,
        }
    }
}

/// How connections receive and send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// A connected socket each: cheapest up to some thousand connections
    Connected,
    /// All through one socket: a datagram costs the same, however many connections there are
    Shared,
}

impl From<Transport> for dtls::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Connected => Self::Connected,
            Transport::Shared => Self::Shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_port() {
        for (text, port) in [
            ("[::]:4433", Some(4433)),
            ("127.0.0.1:0", Some(0)),
            ("::1", None),
            ("[::1]", None),
            ("192.0.2.9", None),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.port, port, "{text}");
            assert_eq!(listen.to_string().parse(), Ok(listen));
        }
        for bad in [
            "",
            "localhost",
            ":4433",
            "127.0.0.1:99999",
            "[::1",
            "::1]:1",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_named_identity_has_three_parts() {
        let parsed: NamedIdentity = "*.example.org=a.pem,b.key".parse().unwrap();
        assert_eq!(parsed.name, "*.example.org");
        assert_eq!((parsed.cert, parsed.key), ("a.pem".into(), "b.key".into()));
        for bad in ["", "a", "a=b", "=b,c", "a=,c", "a=b,"] {
            assert!(bad.parse::<NamedIdentity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_named_backend_has_two_parts() {
        let parsed: NamedBackend = "*.example.org=[::1]:5683".parse().unwrap();
        assert_eq!(parsed.name, "*.example.org");
        assert_eq!(parsed.backend, "[::1]:5683");
        for bad in ["", "a", "a=", "=b"] {
            assert!(bad.parse::<NamedBackend>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_printed_as_they_are_read() {
        for text in ["500ms", "1m 30s", "none"] {
            let time: TimeOrNone = text.parse().unwrap();
            assert_eq!(time.to_string(), text);
        }
        assert!("none".parse::<Time>().is_err());
        assert!("5".parse::<Time>().unwrap_err().contains("90s"));
    }
}
