//! Forged datagrams, byte by byte. Pure; the bytes that are random follow from the seed.

use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;

use crate::packet::{self, Datagram};

/// A forged datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forgery {
    /// No payload at all: an end of file to a careless reader.
    Empty,
    /// So many random bytes.
    Garbage {
        /// How many.
        length: u16,
    },
    /// An epoch-1 application data record with a body of so many bytes, which no key made; one
    /// shorter than the AEAD's overhead kills an OpenSSL that sees it.
    #[serde(rename = "epoch-1-runt")]
    Epoch1Runt {
        /// How many bytes follow the record header, 1 to 23.
        length: u16,
    },
    /// An alert in the clear.
    PlaintextAlert {
        /// 1 warning, 2 fatal.
        level: u8,
        /// RFC 5246 §7.2, for example 40 for `handshake_failure`.
        description: u8,
    },
    /// A ChangeCipherSpec in the clear with a body that is not 1.
    BadChangeCipherSpec,
    /// Application data in the clear.
    PlaintextData,
    /// A record header that announces more than follows.
    TruncatedRecord,
    /// An epoch-1 application data record of a legal length, which no key made.
    BadMac {
        /// How many bytes follow the record header, 24 at least.
        length: u16,
        /// The record's number.
        number: u64,
    },
    /// A `HelloRequest` in the clear, by which a server would ask for a new handshake.
    HelloRequest,
    /// A ClientHello without a cookie, as if the client had begun anew.
    ClientHello,
    /// A ClientHello with a made-up cookie.
    ClientHelloWithCookie,
}

impl Forgery {
    /// All that no end may obey, whatever its state: one of each kind.
    pub const ONE_OF_EACH: [Self; 10] = [
        Self::Empty,
        Self::Garbage { length: 99 },
        Self::Epoch1Runt { length: 8 },
        Self::PlaintextAlert {
            level: 2,
            description: 40,
        },
        Self::BadChangeCipherSpec,
        Self::PlaintextData,
        Self::TruncatedRecord,
        Self::BadMac {
            length: 64,
            number: FORGED_SEQ,
        },
        Self::ClientHello,
        Self::ClientHelloWithCookie,
    ];

    /// The name scenarios use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Garbage { .. } => "garbage",
            Self::Epoch1Runt { .. } => "epoch-1-runt",
            Self::PlaintextAlert { .. } => "plaintext-alert",
            Self::BadChangeCipherSpec => "bad-change-cipher-spec",
            Self::PlaintextData => "plaintext-data",
            Self::TruncatedRecord => "truncated-record",
            Self::BadMac { .. } => "bad-mac",
            Self::HelloRequest => "hello-request",
            Self::ClientHello => "client-hello",
            Self::ClientHelloWithCookie => "client-hello-with-cookie",
        }
    }

    /// The bytes; those of garbage are drawn.
    pub fn bytes(self, draw: &mut ChaCha20Rng) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Garbage { length } => {
                let mut bytes = vec![0; length.into()];
                draw.fill(&mut bytes[..]);
                bytes
            }
            Self::Epoch1Runt { length } => record(23, 1, length, &vec![0xa5; length.into()]),
            Self::PlaintextAlert { level, description } => record(21, 0, 2, &[level, description]),
            Self::BadChangeCipherSpec => record(20, 0, 1, &[2]),
            Self::PlaintextData => record(23, 0, 4, b"data"),
            Self::TruncatedRecord => record(22, 0, 200, &[1, 0, 0]),
            Self::BadMac { length, number } => {
                let mut body = vec![0; length.into()];
                draw.fill(&mut body[..]);
                numbered(23, 1, number, length, &body)
            }
            Self::HelloRequest => record(22, 0, 12, &[0; 12]),
            Self::ClientHello => client_hello(0, draw),
            Self::ClientHelloWithCookie => client_hello(20, draw),
        }
    }
}

/// Flips a bit of the cookie in a frame with a hello that has one.
pub(super) fn flip_cookie(frame: &mut [u8]) {
    let cookie = Datagram::from_frame(frame).and_then(|datagram| {
        let session_id = usize::from(*datagram.payload.get(SESSION_ID)?);
        let cookie = SESSION_ID + 1 + session_id;
        (*datagram.payload.get(cookie)? > 0).then_some(cookie + 1)
    });
    if let Some(byte) = cookie {
        packet::flip_bits(frame, &[byte as u64 * 8]);
    }
}

/// Where a hello says how long its session id is: behind the headers, version and random.
const SESSION_ID: usize = 13 + 12 + 34;

/// A ClientHello that a server would take up, with a random and a cookie of its own.
fn client_hello(cookie: u8, draw: &mut ChaCha20Rng) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    let mut random = [0; 32];
    draw.fill(&mut random[..]);
    body.extend(random);
    body.push(0);
    body.push(cookie);
    let mut token = vec![0; cookie.into()];
    draw.fill(&mut token[..]);
    body.extend(token);
    // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
    body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    // supported_groups with secp256r1, signature_algorithms with ecdsa_secp256r1_sha256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    body.extend([0, 16]);
    body.extend(extensions);
    let length = u16::try_from(body.len()).expect("a hello of a few hundred bytes");
    // With a cookie it is the client's second message (RFC 6347 §4.2.2).
    let message_seq = u16::from(cookie > 0);
    let mut message = vec![1, 0];
    message.extend(length.to_be_bytes());
    message.extend(message_seq.to_be_bytes());
    message.extend([0, 0, 0, 0]);
    message.extend(length.to_be_bytes());
    message.extend(body);
    record(22, 0, length + 12, &message)
}

/// A DTLS 1.2 record of this type and epoch that announces `length` and carries `body`.
fn record(content_type: u8, epoch: u16, length: u16, body: &[u8]) -> Vec<u8> {
    numbered(content_type, epoch, FORGED_SEQ, length, body)
}

fn numbered(content_type: u8, epoch: u16, number: u64, length: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![content_type, 0xfe, 0xfd];
    bytes.extend(epoch.to_be_bytes());
    bytes.extend(&number.to_be_bytes()[2..]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Record number of forged records: not yet used early in an epoch, and near enough that
/// accepting one does not push the genuine ones out of a replay window of 64 (RFC 6347
/// §4.1.2.6), so that the scenario shows the record itself and not a poisoned window.
pub const FORGED_SEQ: u64 = 40;
