//! The lab's own reader of DTLS 1.2 on the wire: records, handshake fragments, flights.
//!
//! An oracle must not share code with what it judges, so this parser is no one's but the lab's.
//! It sees what anybody on the path sees: headers, plaintext messages, and that an epoch-1
//! handshake record must be a Finished. Pure; it never panics, whatever the bytes.

mod flight;
mod parse;
#[cfg(test)]
pub(crate) mod sample;

pub use flight::{FlightTracker, Place};
pub use parse::parse;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// One record of a datagram (RFC 6347 §4.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The first byte of the header.
    pub content_type: ContentType,
    /// The version of the record layer, 0xfefd for DTLS 1.2.
    pub version: u16,
    /// 0 before ChangeCipherSpec, 1 after.
    pub epoch: u16,
    /// The record number within the epoch, 48 bits.
    pub seq: u64,
    /// The length the header announces, without the header.
    pub length: u16,
    /// What the record carries, as far as it can be read without keys.
    pub content: Content,
}

/// The type of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentType {
    /// 20.
    ChangeCipherSpec,
    /// 21.
    Alert,
    /// 22.
    Handshake,
    /// 23.
    ApplicationData,
    /// 24 (RFC 6520).
    Heartbeat,
    /// Any other byte.
    Other(u8),
}

/// What a record carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Plaintext handshake messages or parts of them.
    Handshake(Vec<Fragment>),
    /// A plaintext ChangeCipherSpec of the one legal value.
    ChangeCipherSpec,
    /// A plaintext alert.
    Alert {
        /// 1 warning, 2 fatal.
        level: u8,
        /// As in RFC 5246 §7.2, for example 0 for `close_notify`.
        description: u8,
    },
    /// An encrypted record (epoch above 0); its type is all that can be told.
    Encrypted,
    /// Not what its type promises, or cut short.
    Malformed,
}

/// A handshake message or a part of one (RFC 6347 §4.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fragment {
    /// Which message.
    pub message: MessageType,
    /// The message's number within the handshake.
    pub message_seq: u16,
    /// Length of the whole message.
    pub length: u32,
    /// Where this part begins.
    pub offset: u32,
    /// Length of this part.
    pub fragment_length: u32,
    /// What a first part of a ClientHello says besides.
    pub hello: Option<ClientHello>,
    /// The bytes of this part.
    #[serde(skip)]
    pub body: Vec<u8>,
}

impl Fragment {
    /// Whether the message ends with this part.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.offset + self.fragment_length == self.length
    }

    /// The cookie a whole HelloVerifyRequest asks for (RFC 6347 §4.2.1: version, length, cookie).
    #[must_use]
    pub fn cookie_asked_for(&self) -> Option<&[u8]> {
        let whole = self.message == MessageType::HelloVerifyRequest && self.offset == 0;
        let (length, rest) = self.body.get(2..).filter(|_| whole)?.split_first()?;
        rest.get(..usize::from(*length))
    }
}

/// What tells one ClientHello from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientHello {
    /// The client's 32 random bytes: equal in every hello of one handshake.
    pub random: [u8; 32],
    /// The cookie of a HelloVerifyRequest, or nothing.
    pub cookie: Vec<u8>,
}

impl ClientHello {
    /// Whether it carries a cookie.
    #[must_use]
    pub fn has_cookie(&self) -> bool {
        !self.cookie.is_empty()
    }
}

/// The handshake messages (RFC 5246 §7.4, RFC 6347 §4.3.2, RFC 5077, RFC 6066).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum MessageType {
    /// 0.
    HelloRequest,
    /// 1.
    ClientHello,
    /// 2.
    ServerHello,
    /// 3.
    HelloVerifyRequest,
    /// 4.
    NewSessionTicket,
    /// 11.
    Certificate,
    /// 12.
    ServerKeyExchange,
    /// 13.
    CertificateRequest,
    /// 14.
    ServerHelloDone,
    /// 15.
    CertificateVerify,
    /// 16.
    ClientKeyExchange,
    /// 20; also every encrypted handshake record, for it is the only encrypted message of a
    /// handshake.
    Finished,
    /// 22.
    CertificateStatus,
    /// Any other byte.
    Other(u8),
}

impl MessageType {
    /// Every message that has a name.
    pub const NAMED: [Self; 13] = [
        Self::HelloRequest,
        Self::ClientHello,
        Self::ServerHello,
        Self::HelloVerifyRequest,
        Self::NewSessionTicket,
        Self::Certificate,
        Self::ServerKeyExchange,
        Self::CertificateRequest,
        Self::ServerHelloDone,
        Self::CertificateVerify,
        Self::ClientKeyExchange,
        Self::Finished,
        Self::CertificateStatus,
    ];

    /// Whether a plaintext message is the last of its flight; Finished, the other one, is encrypted.
    #[must_use]
    pub fn ends_flight(self) -> bool {
        matches!(
            self,
            Self::ClientHello | Self::HelloVerifyRequest | Self::ServerHelloDone
        )
    }
}

impl From<u8> for MessageType {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::HelloRequest,
            1 => Self::ClientHello,
            2 => Self::ServerHello,
            3 => Self::HelloVerifyRequest,
            4 => Self::NewSessionTicket,
            11 => Self::Certificate,
            12 => Self::ServerKeyExchange,
            13 => Self::CertificateRequest,
            14 => Self::ServerHelloDone,
            15 => Self::CertificateVerify,
            16 => Self::ClientKeyExchange,
            20 => Self::Finished,
            22 => Self::CertificateStatus,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(byte) => write!(f, "message type {byte}"),
            named => write!(f, "{named:?}"),
        }
    }
}

impl FromStr for MessageType {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::NAMED
            .into_iter()
            .find(|message| message.to_string() == name)
            .ok_or(())
    }
}

impl From<u8> for ContentType {
    fn from(byte: u8) -> Self {
        match byte {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            24 => Self::Heartbeat,
            other => Self::Other(other),
        }
    }
}

/// The readable handshake fragments of a datagram, in its order.
pub(crate) fn fragments(records: &[Record]) -> impl Iterator<Item = &Fragment> {
    records
        .iter()
        .filter_map(|record| match &record.content {
            Content::Handshake(fragments) => Some(fragments),
            _ => None,
        })
        .flatten()
}

/// What a datagram carries in a few words, such as `ServerHello Certificate ServerHelloDone`;
/// names of messages in order, each once.
#[must_use]
pub fn describe(records: &[Record]) -> String {
    if records.is_empty() {
        return "empty".to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut add = |word: String| {
        if words.last() != Some(&word) {
            words.push(word);
        }
    };
    for record in records {
        match (&record.content, record.content_type) {
            (Content::Handshake(fragments), _) => {
                for fragment in fragments {
                    let cookie = fragment.hello.as_ref().is_some_and(ClientHello::has_cookie);
                    let mut word = fragment.message.to_string();
                    if cookie {
                        word.push_str("+cookie");
                    }
                    add(word);
                }
            }
            (Content::ChangeCipherSpec, _) => add("ChangeCipherSpec".to_owned()),
            (Content::Alert { level, description }, _) => {
                add(format!("alert({level},{description})"));
            }
            (Content::Encrypted, ContentType::Handshake) => add("Finished".to_owned()),
            (Content::Encrypted, ContentType::ApplicationData) => {
                add("application data".to_owned());
            }
            (Content::Encrypted, ContentType::Alert) => add("encrypted alert".to_owned()),
            (Content::Encrypted, ContentType::Heartbeat) => add("heartbeat".to_owned()),
            (Content::Encrypted, _) => add("encrypted record".to_owned()),
            (Content::Malformed, _) => add("malformed".to_owned()),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests;
