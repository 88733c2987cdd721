//! A scenario file as TOML holds it. Unknown keys and impossible single values are refused here,
//! so that serde's error carries their place.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IntoDeserializer, SeqAccess, Visitor};
use toml::Spanned;

use super::{
    Action, Attacker, Bound, Chance, Comparison, Family, Forgery, Implementation, Outcome, Position,
};
use crate::packet::Direction;
use crate::record::{ContentType, MessageType};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: Spanned<String>,
    pub(super) claim: Spanned<String>,
    pub(super) reference: Option<String>,
    pub(super) attacker: Option<Attacker>,
    pub(super) families: Option<Spanned<Vec<Family>>>,
    pub(super) control: Option<Spanned<String>>,
    #[serde(default = "one")]
    pub(super) clients: NonZeroU32,
    #[serde(default = "usual_deadline")]
    pub(super) deadline: Time,
    pub(super) certificate: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) quiet: Time,
    #[serde(default)]
    pub(super) restart: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) play: Vec<Spanned<RawPlay>>,
    #[serde(default)]
    pub(super) link: RawLinks,
    #[serde(default)]
    pub(super) rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    pub(super) inject: Vec<Spanned<RawInject>>,
    #[serde(default = "nothing_special")]
    pub(super) expect: Spanned<RawExpect>,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// Thirty seconds see a handshake through four lost transmissions of a flight (1 + 2 + 4 + 8 s).
fn usual_deadline() -> Time {
    Time(Duration::from_secs(30))
}

fn everything() -> Spanned<RawSelector> {
    Spanned::new(0..0, RawSelector::default())
}

fn nothing_special() -> Spanned<RawExpect> {
    Spanned::new(0..0, RawExpect::default())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlay {
    pub(super) server: Implementation,
    pub(super) client: Implementation,
    #[serde(default)]
    pub(super) server_args: Vec<String>,
    #[serde(default)]
    pub(super) client_args: Vec<String>,
    pub(super) fails_because: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLinks {
    pub(super) both: Option<Spanned<RawLink>>,
    pub(super) to_server: Option<Spanned<RawLink>>,
    pub(super) to_client: Option<Spanned<RawLink>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLink {
    pub(super) delay: Time,
    pub(super) jitter: Time,
    pub(super) loss: Percent,
    pub(super) duplicate: Percent,
    pub(super) corrupt: Percent,
    pub(super) reorder: Percent,
    pub(super) slot: Time,
    pub(super) mtu: Option<NonZeroU16>,
    pub(super) too_big: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    #[serde(default = "everything")]
    pub(super) select: Spanned<RawSelector>,
    pub(super) action: RawAction,
    pub(super) times: Option<NonZeroU32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSelector {
    pub(super) direction: Option<Direction>,
    pub(super) flight: Option<OneOrMore<Flight>>,
    pub(super) transmission: Option<OneOrMore<NonZeroU32>>,
    pub(super) datagram: Option<RawPosition>,
    pub(super) ordinal: Option<NonZeroU64>,
    pub(super) every: Option<NonZeroU32>,
    pub(super) message: Option<Message>,
    pub(super) epoch: Option<Epoch>,
    pub(super) content_type: Option<RawContentType>,
    pub(super) chance: Option<Percent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawAction {
    Pass,
    Drop,
    Delay(Time),
    Duplicate(u32),
    Reorder(u32),
    Corrupt(u32),
}

impl From<RawAction> for Action {
    fn from(raw: RawAction) -> Self {
        match raw {
            RawAction::Pass => Self::Pass,
            RawAction::Drop => Self::Drop,
            RawAction::Delay(by) => Self::Delay(by.0),
            RawAction::Duplicate(copies) => Self::Duplicate(copies),
            RawAction::Reorder(passes) => Self::Reorder(passes),
            RawAction::Corrupt(bits) => Self::Corrupt(bits),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInject {
    pub(super) when: Option<When>,
    pub(super) after: Option<Spanned<RawSelector>>,
    pub(super) to: End,
    pub(super) icmp: Option<Spanned<String>>,
    pub(super) mtu: Option<NonZeroU16>,
    pub(super) datagram: Option<RawForgery>,
    #[serde(default)]
    pub(super) delay: Time,
    #[serde(default = "one")]
    pub(super) repeat: NonZeroU32,
    #[serde(default = "usual_spacing")]
    pub(super) spacing: Time,
    #[serde(default = "one")]
    pub(super) times: NonZeroU32,
}

/// Far enough apart that each ICMP error is reported on its own: the kernel keeps only the
/// latest until the socket's next call.
fn usual_spacing() -> Time {
    Time(Duration::from_millis(20))
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum When {
    Established,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    Server,
    Client,
}

impl From<End> for Direction {
    fn from(end: End) -> Self {
        match end {
            End::Server => Self::ToServer,
            End::Client => Self::ToClient,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum RawForgery {
    Empty,
    Garbage {
        length: NonZeroU16,
    },
    #[serde(rename = "epoch-1-runt")]
    Epoch1Runt {
        length: RuntLength,
    },
    PlaintextAlert {
        level: u8,
        description: u8,
    },
    BadChangeCipherSpec,
    PlaintextData,
    TruncatedRecord,
    ClientHello,
    Replay {
        flight: Flight,
    },
}

impl From<RawForgery> for Forgery {
    fn from(raw: RawForgery) -> Self {
        match raw {
            RawForgery::Empty => Self::Empty,
            RawForgery::Garbage { length } => Self::Garbage {
                length: length.into(),
            },
            RawForgery::Epoch1Runt { length } => Self::Epoch1Runt { length: length.0 },
            RawForgery::PlaintextAlert { level, description } => {
                Self::PlaintextAlert { level, description }
            }
            RawForgery::BadChangeCipherSpec => Self::BadChangeCipherSpec,
            RawForgery::PlaintextData => Self::PlaintextData,
            RawForgery::TruncatedRecord => Self::TruncatedRecord,
            RawForgery::ClientHello => Self::ClientHello,
            RawForgery::Replay { flight } => Self::Replay { flight: flight.0 },
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExpect {
    pub(super) outcome: Option<Outcome>,
    pub(super) handshake_min: Option<Time>,
    pub(super) handshake_max: Option<Time>,
    pub(super) longest_min: Option<u16>,
    pub(super) longest_max: Option<u16>,
    #[serde(default)]
    pub(super) resent_min: u32,
    pub(super) resent_max: Option<u32>,
    #[serde(default)]
    pub(super) server: BTreeMap<String, Bound>,
    pub(super) threads_left: Option<Bound>,
}

/// A length of time such as `500ms` or `1s 500ms`.
#[derive(Default)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            D::Error::custom(format!(
                "`{text}` is no length of time ({error}); write e.g. \"500ms\""
            ))
        })
    }
}

/// A chance such as `12.5%`.
#[derive(Default)]
pub(super) struct Percent(pub(super) Chance);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        per_million(&text)
            .and_then(Chance::per_million)
            .map(Self)
            .ok_or_else(|| {
                D::Error::custom(format!("`{text}` is no chance; write \"0%\" to \"100%\""))
            })
    }
}

/// `12.5%` is 125,000 in a million; four decimals at most, no rounding.
fn per_million(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 4 {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<4}").parse().ok()?;
    whole
        .parse::<u32>()
        .ok()?
        .checked_mul(10_000)?
        .checked_add(fraction)
}

/// The number of a flight.
pub(super) struct Flight(pub(super) u8);

impl<'de> Deserialize<'de> for Flight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            flight @ 1..=6 => Ok(Self(flight)),
            other => Err(D::Error::custom(format!(
                "there is no flight {other}; write 1 to 6"
            ))),
        }
    }
}

/// The epoch of a record: without renegotiation DTLS 1.2 knows two.
pub(super) struct Epoch(pub(super) u8);

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            epoch @ 0..=1 => Ok(Self(epoch)),
            other => Err(D::Error::custom(format!(
                "there is no epoch {other}; write 0 or 1"
            ))),
        }
    }
}

/// Body length of a record shorter than any AEAD's overhead allows.
pub(super) struct RuntLength(u16);

impl<'de> Deserialize<'de> for RuntLength {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            length @ 1..=23 => Ok(Self(length)),
            other => Err(D::Error::custom(format!(
                "a record of {other} bytes is no runt; write 1 to 23"
            ))),
        }
    }
}

/// The name of a handshake message.
pub(super) struct Message(pub(super) MessageType);

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse()
            .map(Self)
            .map_err(|()| D::Error::unknown_variant(&name, MESSAGE_NAMES))
    }
}

const MESSAGE_NAMES: &[&str] = &[
    "HelloRequest",
    "ClientHello",
    "ServerHello",
    "HelloVerifyRequest",
    "NewSessionTicket",
    "Certificate",
    "ServerKeyExchange",
    "CertificateRequest",
    "ServerHelloDone",
    "CertificateVerify",
    "ClientKeyExchange",
    "Finished",
    "CertificateStatus",
];

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawContentType {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
}

impl From<RawContentType> for ContentType {
    fn from(raw: RawContentType) -> Self {
        match raw {
            RawContentType::ChangeCipherSpec => Self::ChangeCipherSpec,
            RawContentType::Alert => Self::Alert,
            RawContentType::Handshake => Self::Handshake,
            RawContentType::ApplicationData => Self::ApplicationData,
        }
    }
}

/// `3` or `"last"`.
pub(super) struct RawPosition(pub(super) Position);

impl<'de> Deserialize<'de> for RawPosition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = RawPosition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a position from 1, or \"last\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<RawPosition, E> {
                NonZeroU32::deserialize(number.into_deserializer())
                    .map(|number| RawPosition(Position::Nth(number.into())))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<RawPosition, E> {
                match word {
                    "last" => Ok(RawPosition(Position::Last)),
                    other => Err(E::unknown_variant(other, &["last"])),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `>=1`, `==0`, `<=3`; a bare number means equality.
impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Bound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a bound such as \">=1\", \"==0\", \"<=3\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Bound, E> {
                u64::deserialize(number.into_deserializer()).map(|limit| Bound {
                    comparison: Comparison::Equal,
                    limit,
                })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bound, E> {
                let comparisons = [
                    (">=", Comparison::AtLeast),
                    ("<=", Comparison::AtMost),
                    ("==", Comparison::Equal),
                ];
                comparisons
                    .into_iter()
                    .find_map(|(sign, comparison)| {
                        let limit = text.strip_prefix(sign)?.trim().parse().ok()?;
                        Some(Bound { comparison, limit })
                    })
                    .ok_or_else(|| {
                        E::custom(format!(
                            "`{text}` is no bound; write e.g. \">=1\" or \"==0\""
                        ))
                    })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One value, or several in an array.
pub(super) struct OneOrMore<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or an array of numbers")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<OneOrMore<T>, E> {
                T::deserialize(number.into_deserializer()).map(|one| OneOrMore(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMore<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                if all.is_empty() {
                    return Err(A::Error::custom(
                        "an empty array selects nothing; leave the key out",
                    ));
                }
                Ok(OneOrMore(all))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}
