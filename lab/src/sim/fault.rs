//! What is done to one simulated run: a list of single faults, each at a named place. The list needs
//! no seed: it is what a failing run is shrunk to, and what its replay command carries. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;

use crate::icmp::{self, Kind};
use crate::packet::Direction;
use crate::role::Role;
use crate::wire::Fate;

/// A datagram by its number in its direction, from 1, as its sender sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which way it goes.
    pub direction: Direction,
    /// Its number in that direction.
    pub ordinal: u64,
}

/// A call on a connected socket that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCall {
    /// Whose socket.
    pub end: Role,
    /// Which call.
    pub call: Call,
    /// How many calls of its kind this end has made with it, from 1.
    pub nth: u32,
    /// What the call reports, once.
    pub errno: Errno,
}

/// What an end does with its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `recvfrom(2)`.
    Receive,
    /// `send(2)`.
    Send,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A datagram's fate is this.
    Fate(Position, Fate),
    /// A copy of a datagram comes right behind another one that was sent later.
    Replay {
        /// Which is copied.
        of: Position,
        /// Behind which the copy comes.
        after: Position,
    },
    /// A socket call fails once.
    Errno(BadCall),
    /// A forged ICMP error reaches an end right behind a datagram, whichever end that went to.
    Icmp {
        /// Who gets it.
        end: Role,
        /// Behind which datagram.
        after: Position,
        /// Which error, and so over which IP version.
        kind: &'static Kind,
    },
}

impl Call {
    /// The word in replay commands.
    const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Send => "send",
        }
    }

    /// What such a call may report; no receive is forbidden by a packet filter.
    pub(crate) fn errnos(self) -> impl Iterator<Item = Errno> {
        ERRNOS
            .into_iter()
            .filter(move |errno| self == Self::Send || *errno != Errno::EPERM)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.direction, self.ordinal)
    }
}

impl fmt::Display for Fault {
    /// As `--faults` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fate(at, fate) => {
                write!(f, "{at}=")?;
                match fate {
                    Fate::Delivered => f.write_str("pass"),
                    Fate::Dropped => f.write_str("drop"),
                    Fate::Delayed { by } => write!(f, "delay:{}us", by.as_micros()),
                    Fate::Duplicated { copies } => write!(f, "duplicate:{copies}"),
                    Fate::Held { passes } => write!(f, "reorder:{passes}"),
                    Fate::Overtook => f.write_str("overtake"),
                    Fate::Corrupted { bits } => {
                        f.write_str("corrupt")?;
                        bits.iter().try_for_each(|bit| write!(f, ":{bit}"))
                    }
                    Fate::Prepended { bytes } => {
                        f.write_str("prepend:")?;
                        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
                    }
                }
            }
            Self::Replay { of, after } => write!(f, "{of}=replay:{after}"),
            Self::Icmp { end, after, kind } => write!(
                f,
                "{after}=icmp:{}:{}:{}",
                end.name(),
                kind.family,
                kind.name
            ),
            Self::Errno(bad) => write!(
                f,
                "{}.{}#{}={:?}",
                bad.end.name(),
                bad.call.name(),
                bad.nth,
                bad.errno
            ),
        }
    }
}

/// A fault that `--faults` cannot mean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no fault; write for example to_client#2=drop, to_server#1=delay:300us, \
     to_client#1=duplicate:1, to_server#1=replay:to_client#3, server.send#2=ECONNREFUSED or \
     to_client#2=icmp:server:ipv4:port-unreachable"
)]
pub struct Unreadable(String);

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (direction, ordinal) = text.split_once('#').ok_or(())?;
        let direction = match direction {
            "to_server" => Direction::ToServer,
            "to_client" => Direction::ToClient,
            _ => return Err(()),
        };
        let ordinal = ordinal.parse().map_err(drop)?;
        if ordinal == 0 {
            return Err(());
        }
        Ok(Self { direction, ordinal })
    }
}

impl FromStr for Fault {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        fault(text).ok_or_else(|| Unreadable(text.to_owned()))
    }
}

impl Fault {
    /// The fault that a line of `decisions.jsonl` tells of; `None` for a datagram that was simply
    /// delivered.
    ///
    /// # Errors
    ///
    /// What is wrong with the line, in words.
    pub fn of_decision(line: &str) -> Result<Option<Self>, String> {
        let decision: Told = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if decision.flow > 0 {
            return Err(format!(
                "it tells of client {}, and the simulator has one",
                decision.flow + 1
            ));
        }
        let at = Position {
            direction: decision.direction,
            ordinal: decision.ordinal,
        };
        Ok((decision.fate != Fate::Delivered).then_some(Self::Fate(at, decision.fate)))
    }
}

/// What matters of a [`Decision`](crate::wire::Decision).
#[derive(Debug, serde::Deserialize)]
struct Told {
    flow: u32,
    direction: Direction,
    ordinal: u64,
    fate: Fate,
}

fn role(name: &str) -> Option<Role> {
    [Role::Server, Role::Client]
        .into_iter()
        .find(|role| role.name() == name)
}

fn fault(text: &str) -> Option<Fault> {
    let (place, what) = text.trim().split_once('=')?;
    if let Some((end, call)) = place.split_once('.') {
        let (call, nth) = call.split_once('#')?;
        let end = role(end)?;
        let call = [Call::Receive, Call::Send]
            .into_iter()
            .find(|known| known.name() == call)?;
        let errno = ERRNOS
            .into_iter()
            .find(|errno| format!("{errno:?}") == what)?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0)?;
        return Some(Fault::Errno(BadCall {
            end,
            call,
            nth,
            errno,
        }));
    }
    let at: Position = place.parse().ok()?;
    let (verb, argument) = what.split_once(':').unwrap_or((what, ""));
    let fate = match (verb, argument) {
        ("pass", "") => Fate::Delivered,
        ("drop", "") => Fate::Dropped,
        ("overtake", "") => Fate::Overtook,
        ("delay", by) => Fate::Delayed {
            by: Duration::from_micros(by.strip_suffix("us")?.parse().ok()?),
        },
        ("duplicate", copies) => Fate::Duplicated {
            copies: copies.parse().ok()?,
        },
        ("reorder", passes) => Fate::Held {
            passes: passes.parse().ok().filter(|passes| *passes > 0)?,
        },
        ("corrupt", bits) => Fate::Corrupted {
            bits: bits
                .split(':')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .ok()?,
        },
        ("prepend", digits) => Fate::Prepended {
            bytes: (0..digits.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
                .collect::<Option<_>>()?,
        },
        ("icmp", error) => {
            let (end, error) = error.split_once(':')?;
            let (family, name) = error.split_once(':')?;
            let end = role(end)?;
            let kind = icmp::KINDS
                .iter()
                .find(|kind| kind.name == name && kind.family.to_string() == family)?;
            let after = at;
            return Some(Fault::Icmp { end, after, kind });
        }
        ("replay", after) => {
            let after = after.parse().ok()?;
            return Some(Fault::Replay { of: at, after });
        }
        _ => return None,
    };
    Some(Fault::Fate(at, fate))
}

/// What socket calls are made to report: every errno by which Linux reports an ICMP error on a UDP
/// socket, ECONNRESET, by which other systems do, and what a call may report for reasons of its own.
pub const ERRNOS: [Errno; 17] = [
    Errno::ECONNREFUSED,
    Errno::ECONNRESET,
    Errno::EHOSTUNREACH,
    Errno::ENETUNREACH,
    Errno::EHOSTDOWN,
    Errno::ENONET,
    Errno::ENOPROTOOPT,
    Errno::EOPNOTSUPP,
    Errno::EPROTO,
    Errno::EACCES,
    Errno::EMSGSIZE,
    Errno::ENOBUFS,
    Errno::ENOMEM,
    Errno::EINTR,
    Errno::EAGAIN,
    Errno::EPERM,
    Errno::ENETDOWN,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        (any::<bool>(), 1..1000u64).prop_map(|(to_server, ordinal)| Position {
            direction: Direction::BOTH[usize::from(!to_server)],
            ordinal,
        })
    }

    fn any_fault() -> impl Strategy<Value = Fault> {
        let fate = prop_oneof![
            Just(Fate::Delivered),
            Just(Fate::Dropped),
            Just(Fate::Overtook),
            (0..10_000_000u64).prop_map(|us| Fate::Delayed {
                by: Duration::from_micros(us)
            }),
            (1..9u32).prop_map(|copies| Fate::Duplicated { copies }),
            (1..9u32).prop_map(|passes| Fate::Held { passes }),
            proptest::collection::vec(any::<u64>(), 1..4).prop_map(|bits| Fate::Corrupted { bits }),
            proptest::collection::vec(any::<u8>(), 0..9)
                .prop_map(|bytes| Fate::Prepended { bytes }),
        ];
        let call = (any::<bool>(), any::<bool>(), 1..99u32, 0..ERRNOS.len()).prop_map(
            |(server, send, nth, errno)| {
                Fault::Errno(BadCall {
                    end: if server { Role::Server } else { Role::Client },
                    call: if send { Call::Send } else { Call::Receive },
                    nth,
                    errno: ERRNOS[errno],
                })
            },
        );
        prop_oneof![
            (position(), fate).prop_map(|(at, fate)| Fault::Fate(at, fate)),
            (position(), position()).prop_map(|(of, after)| Fault::Replay { of, after }),
            call,
            (position(), any::<bool>(), 0..icmp::KINDS.len()).prop_map(|(after, server, kind)| {
                let end = if server { Role::Server } else { Role::Client };
                let kind = &icmp::KINDS[kind];
                Fault::Icmp { end, after, kind }
            }),
        ]
    }

    proptest! {
        #[test]
        fn fault_reads_back_as_it_is_printed(fault in any_fault()) {
            prop_assert_eq!(fault.to_string().parse::<Fault>(), Ok(fault));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            drop(text.parse::<Fault>());
        }
    }

    #[test]
    fn refused_fault_is_quoted_with_examples() {
        for text in [
            "to_client#0=drop",
            "to_client#1",
            "server.send#1=EWHAT",
            "x#1=drop",
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(
                error.contains(text) && error.contains("to_client#2=drop"),
                "{error}"
            );
        }
    }
}
