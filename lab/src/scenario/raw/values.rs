//! The single values of a scenario file, each with the sentence that refuses a wrong one.

use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IntoDeserializer, SeqAccess, Visitor};

use super::super::{Bound, Chance, Comparison, Position, Rate};
use crate::record::{ContentType, MessageType};

/// A length of time such as `500ms` or `1s 500ms`.
#[derive(Default)]
pub(in crate::scenario) struct Time(pub(in crate::scenario) Duration);

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
pub(in crate::scenario) struct Percent(pub(in crate::scenario) Chance);

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

/// A rate such as `64kbit`, as tc(8) writes it.
pub(in crate::scenario) struct BitRate(pub(in crate::scenario) Rate);

impl<'de> Deserialize<'de> for BitRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        bits_per_second(&text)
            .map(|bits| Self(Rate(bits)))
            .ok_or_else(|| {
                D::Error::custom(format!(
                    "`{text}` is no rate; write a whole number of bit, kbit, mbit or gbit, e.g. \"64kbit\""
                ))
            })
    }
}

fn bits_per_second(text: &str) -> Option<NonZeroU64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "bit" => 1,
        "kbit" => 1_000,
        "mbit" => 1_000_000,
        "gbit" => 1_000_000_000,
        _ => return None,
    };
    NonZeroU64::new(digits.parse::<u64>().ok()?.checked_mul(unit)?)
}

/// The number of a flight.
pub(in crate::scenario) struct Flight(pub(in crate::scenario) u8);

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
pub(in crate::scenario) struct Epoch(pub(in crate::scenario) u8);

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
pub(in crate::scenario) struct RuntLength(pub(super) u16);

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

/// Body length of a record that could have been sealed by any AEAD.
pub(in crate::scenario) struct SealedLength(pub(super) u16);

impl<'de> Deserialize<'de> for SealedLength {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            length @ 24..=1400 => Ok(Self(length)),
            other => Err(D::Error::custom(format!(
                "no cipher makes a record of {other} bytes that fits a datagram; write 24 to 1400"
            ))),
        }
    }
}

/// The name of a handshake message.
pub(in crate::scenario) struct Message(pub(in crate::scenario) MessageType);

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
pub(in crate::scenario) enum RawContentType {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
    Heartbeat,
}

impl From<RawContentType> for ContentType {
    fn from(raw: RawContentType) -> Self {
        match raw {
            RawContentType::ChangeCipherSpec => Self::ChangeCipherSpec,
            RawContentType::Alert => Self::Alert,
            RawContentType::Handshake => Self::Handshake,
            RawContentType::ApplicationData => Self::ApplicationData,
            RawContentType::Heartbeat => Self::Heartbeat,
        }
    }
}

/// `3` or `"last"`.
pub(in crate::scenario) struct RawPosition(pub(in crate::scenario) Position);

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
pub(in crate::scenario) struct OneOrMore<T>(pub(in crate::scenario) Vec<T>);

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
