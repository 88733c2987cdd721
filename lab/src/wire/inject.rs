//! What an attacker sends: forged ICMP errors and forged datagrams, when and to whom.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;

use super::rng::Draws;
use super::selector::Selector;
use super::{Delivery, Origin};
use crate::icmp;
use crate::packet::{Datagram, Direction, Path};
use crate::scenario::Family;

/// One thing an attacker does in every flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inject {
    /// What sets it off.
    pub trigger: Trigger,
    /// To which end it goes; it claims to come from the other.
    pub to: Direction,
    /// What is sent.
    pub payload: Payload,
    /// How long after the trigger's own delivery.
    pub delay: Duration,
    /// How many times over it is sent, each time it is set off.
    pub repeat: u32,
    /// Time between the frames, where there is more than one.
    pub spacing: Duration,
    /// How often in one flow.
    pub times: u32,
}

/// What sets an attacker off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// Application data has flowed both ways.
    Established,
    /// An offered datagram, delivered or not.
    After(Selector),
}

/// What an attacker sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// ICMP errors about datagrams of the end they go to.
    Icmp(Icmp),
    /// A datagram from the other end's address and port.
    Datagram(Forgery),
}

/// Kinds of ICMP error; of each flow's IP version, all of these are sent in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icmp {
    /// The kinds, of both families.
    pub kinds: Vec<&'static icmp::Kind>,
    /// What a packet-too-big announces.
    pub mtu: u32,
}

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
    /// A ClientHello without a cookie, as anybody can write one.
    ClientHello,
    /// A copy of the newest datagram of this flight that was seen.
    Replay {
        /// 1 to 6.
        flight: u8,
    },
}

impl Inject {
    /// The frames for the flow whose client sends along `path`, the first one at `from` plus the
    /// delay; `seen` holds the newest datagram of each flight.
    pub(super) fn forge(
        &self,
        from: Duration,
        path: &Path,
        seen: &[Vec<u8>; 6],
        source: &Source,
    ) -> Vec<Delivery> {
        // Along the path of the datagrams that go to the victim.
        let to_victim = match self.to {
            Direction::ToServer => *path,
            Direction::ToClient => path.reversed(),
        };
        let frames: Vec<(String, Vec<u8>)> = match &self.payload {
            Payload::Icmp(icmp) => {
                let family = Family::of(path.source.ip());
                let kinds = icmp.kinds.iter().filter(|kind| kind.family == family);
                kinds
                    .map(|kind| {
                        let claimed = to_victim.source.ip();
                        let frame = icmp::forge(kind, claimed, &to_victim.reversed(), icmp.mtu);
                        (format!("icmp {}", kind.name), frame)
                    })
                    .collect()
            }
            Payload::Datagram(forgery) => {
                let draws = Draws {
                    seed: source.seed,
                    flow: source.flow,
                    direction: self.to,
                    ordinal: 0,
                };
                let mut draw = draws.inject(source.inject);
                let frame = |payload: &[u8]| {
                    let path = to_victim;
                    Datagram { path, payload }.to_frame()
                };
                let frame = match forgery {
                    // Nothing to copy yet.
                    Forgery::Replay { flight } if seen[usize::from(*flight) - 1].is_empty() => None,
                    Forgery::Replay { flight } => Some(frame(&seen[usize::from(*flight) - 1])),
                    forgery => Some(frame(&forgery.bytes(&mut draw))),
                };
                let name = forgery.name().to_owned();
                frame
                    .into_iter()
                    .map(|frame| (name.clone(), frame))
                    .collect()
            }
        };
        let times = (0..self.repeat).flat_map(|_| &frames);
        let moments = (0..).map(|number| from + self.delay + self.spacing * number);
        moments
            .zip(times)
            .map(|(at, (what, frame))| Delivery {
                at,
                direction: self.to,
                frame: frame.clone(),
                origin: Origin::Forged {
                    flow: source.flow,
                    inject: source.inject,
                    what: what.clone(),
                },
            })
            .collect()
    }
}

/// Whose forgery: what its chances and its name in a report depend on.
pub(super) struct Source {
    pub(super) seed: u64,
    pub(super) flow: u32,
    /// Index in the scenario.
    pub(super) inject: usize,
}

impl Forgery {
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
            Self::ClientHello => "client-hello",
            Self::Replay { .. } => "replay",
        }
    }

    /// The bytes; those of garbage and of a hello's random are drawn, those of a replay are not here.
    pub fn bytes(self, draw: &mut ChaCha20Rng) -> Vec<u8> {
        match self {
            Self::Empty | Self::Replay { .. } => Vec::new(),
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
            Self::ClientHello => {
                let hello = client_hello(draw.random());
                let length = u16::try_from(hello.len()).expect("a hello of ours is short");
                record(22, 0, length, &hello)
            }
        }
    }
}

/// A DTLS 1.2 record of this type and epoch that announces `length` and carries `body`.
fn record(content_type: u8, epoch: u16, length: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![content_type, 0xfe, 0xfd];
    bytes.extend(epoch.to_be_bytes());
    bytes.extend(&FORGED_SEQ.to_be_bytes()[2..]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A whole ClientHello (RFC 5246 §7.4.1.2, RFC 6347 §4.2.1) that a server of today would take:
/// message_seq 0, no session, no cookie, ECDHE with AES-GCM, P-256 and X25519.
fn client_hello(random: [u8; 32]) -> Vec<u8> {
    const EXTENSIONS: [u8; 32] = [
        0, 10, 0, 6, 0, 4, 0, 29, 0, 23, // supported_groups
        0, 11, 0, 2, 1, 0, // ec_point_formats
        0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1, // signature_algorithms
        0, 23, 0, 0, // extended_master_secret
    ];
    let mut body = vec![0xfe, 0xfd];
    body.extend(random);
    body.extend([0, 0]);
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]);
    body.extend([1, 0]);
    body.extend([0, 32]);
    body.extend(EXTENSIONS);
    let length = u8::try_from(body.len()).expect("a hello of ours is short");
    let mut message = vec![1, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, length];
    message.extend(body);
    message
}

/// Record number of forged records: not yet used early in an epoch, and near enough that
/// accepting one does not push the genuine ones out of a replay window of 64 (RFC 6347
/// §4.1.2.6), so that the scenario shows the record itself and not a poisoned window.
const FORGED_SEQ: u64 = 40;
