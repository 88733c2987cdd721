//! A scenario file as TOML holds it. Unknown keys and impossible single values are refused here,
//! so that serde's error carries their place.

mod values;

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Action, Attacker, Bound, Family, Forgery, Leave, Outcome, Rebound};
use crate::packet::Direction;
use crate::rules::{BugId, RuleId};
use crate::wire::forgery::FORGED_SEQ;

pub(super) use values::{
    BitRate, Epoch, Flight, Message, OneOrMore, Percent, RawContentType, RawPosition, RuntLength,
    SealedLength, Time,
};

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
    pub(super) in_turn: Option<Spanned<Leave>>,
    #[serde(default)]
    pub(super) same_port: bool,
    #[serde(default)]
    pub(super) resume: bool,
    pub(super) certificate: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) quiet: Time,
    pub(super) line: Option<NonZeroU16>,
    #[serde(default)]
    pub(super) ends_know_mtu: bool,
    #[serde(default)]
    pub(super) rules: Vec<Spanned<RuleId>>,
    #[serde(default)]
    pub(super) bugs: Vec<Spanned<BugId>>,
    pub(super) handshake: Option<Spanned<String>>,
    pub(super) wrong_key: Option<Spanned<bool>>,
    #[serde(default = "usual_deadline")]
    pub(super) deadline: Time,
    #[serde(default)]
    pub(super) play: Vec<Spanned<RawPlay>>,
    #[serde(default)]
    pub(super) link: RawLinks,
    #[serde(default)]
    pub(super) rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    pub(super) inject: Vec<Spanned<RawInject>>,
    #[serde(default)]
    pub(super) blackhole: Vec<Spanned<RawBlackhole>>,
    #[serde(default)]
    pub(super) rebind: Vec<Spanned<RawRebind>>,
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
    pub(super) server: Spanned<String>,
    pub(super) client: Spanned<String>,
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
    pub(super) gemodel: Option<RawGeModel>,
    pub(super) duplicate: Percent,
    pub(super) corrupt: Percent,
    pub(super) reorder: Percent,
    pub(super) slot: Time,
    pub(super) rate: Option<BitRate>,
    pub(super) limit: Option<NonZeroU32>,
    pub(super) mtu: Option<NonZeroU16>,
    pub(super) too_big: bool,
}

/// With tc-netem's defaults: who names `p` alone gets independent losses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGeModel {
    pub(super) p: Percent,
    pub(super) r: Option<Percent>,
    #[serde(rename = "1-h")]
    pub(super) loss_in_bad: Option<Percent>,
    #[serde(rename = "1-k", default)]
    pub(super) loss_in_good: Percent,
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
    pub(super) resumed: Option<bool>,
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
    Prepend(RawForgery),
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
            RawAction::Prepend(forgery) => Self::Prepend(Vec::from(forgery)[0]),
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
    pub(super) replay: Option<Spanned<RawSelector>>,
    #[serde(default)]
    pub(super) flip_cookie: bool,
    #[serde(default = "one")]
    pub(super) repeat: NonZeroU32,
    #[serde(default)]
    pub(super) delay: Time,
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
#[serde(deny_unknown_fields)]
pub(super) struct RawBlackhole {
    pub(super) when: Option<When>,
    pub(super) after: Option<Spanned<RawSelector>>,
    pub(super) direction: Option<Direction>,
    #[serde(default)]
    pub(super) delay: Time,
    pub(super) lasts: Time,
    #[serde(default = "one")]
    pub(super) repeat: NonZeroU32,
    pub(super) spacing: Option<Time>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRebind {
    pub(super) when: Option<When>,
    pub(super) after: Option<Spanned<RawSelector>>,
    pub(super) what: RawRebound,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawRebound {
    Port,
    Address,
}

impl From<RawRebound> for Rebound {
    fn from(raw: RawRebound) -> Self {
        match raw {
            RawRebound::Port => Self::Port,
            RawRebound::Address => Self::Address,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum When {
    Established,
}

#[derive(Clone, Copy, Deserialize)]
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
    BadMac {
        length: SealedLength,
        number: Option<u32>,
    },
    HelloRequest,
    ClientHello,
    ClientHelloWithCookie,
    /// One of each, in turn.
    All,
}

impl From<RawForgery> for Vec<Forgery> {
    fn from(raw: RawForgery) -> Self {
        vec![match raw {
            RawForgery::Empty => Forgery::Empty,
            RawForgery::Garbage { length } => Forgery::Garbage {
                length: length.into(),
            },
            RawForgery::Epoch1Runt { length } => Forgery::Epoch1Runt { length: length.0 },
            RawForgery::PlaintextAlert { level, description } => {
                Forgery::PlaintextAlert { level, description }
            }
            RawForgery::BadChangeCipherSpec => Forgery::BadChangeCipherSpec,
            RawForgery::PlaintextData => Forgery::PlaintextData,
            RawForgery::TruncatedRecord => Forgery::TruncatedRecord,
            RawForgery::BadMac { length, number } => Forgery::BadMac {
                length: length.0,
                number: number.map_or(FORGED_SEQ, u64::from),
            },
            RawForgery::HelloRequest => Forgery::HelloRequest,
            RawForgery::ClientHello => Forgery::ClientHello,
            RawForgery::ClientHelloWithCookie => Forgery::ClientHelloWithCookie,
            RawForgery::All => return Forgery::ONE_OF_EACH.to_vec(),
        }]
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
    pub(super) fragments: Option<Bound>,
    #[serde(default)]
    pub(super) longest_after: RawDirections,
    #[serde(default)]
    pub(super) heartbeats: RawDirections,
    pub(super) server_growth: Option<Bound>,
    pub(super) datagrams: Option<Bound>,
    #[serde(default)]
    pub(super) repeats: Vec<Spanned<RawRepeats>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRepeats {
    pub(super) flight: Flight,
    pub(super) after: Vec<Time>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDirections {
    pub(super) to_server: Option<Bound>,
    pub(super) to_client: Option<Bound>,
}

impl From<RawDirections> for [Option<Bound>; 2] {
    fn from(raw: RawDirections) -> Self {
        [raw.to_server, raw.to_client]
    }
}
