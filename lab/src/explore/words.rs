//! Faults and runs in words, for people. Pure.

use crate::packet::Direction;
use crate::role::Role;
use crate::sim::end::State;
use crate::sim::fault::Call;
use crate::sim::play::Played;
use crate::sim::world::Sent;
use crate::sim::{Fault, Position};
use crate::wire::Fate;

/// Each fault as an instruction: `drop the 2nd HelloVerifyRequest`. `sent` is what was sent in a run
/// with these faults.
pub(crate) fn of_faults(faults: &[Fault], sent: &[Sent]) -> Vec<String> {
    let name = |at: &Position| named(*at, sent);
    faults
        .iter()
        .map(|fault| match fault {
            Fault::Fate(at, fate) => match fate {
                Fate::Delivered => format!("let {} pass", name(at)),
                Fate::Dropped => format!("drop {}", name(at)),
                Fate::Delayed { by } => {
                    format!("delay {} by {}", name(at), humantime::format_duration(*by))
                }
                Fate::Duplicated { copies: 1 } => format!("send {} twice", name(at)),
                Fate::Duplicated { copies } => {
                    format!("send {} more copies of {}", copies, name(at))
                }
                Fate::Held { passes } => {
                    format!("hold {} until {passes} have passed it", name(at))
                }
                Fate::Overtook => format!("let {} overtake those before it", name(at)),
                Fate::Prepended { bytes } => {
                    format!("put {} bytes before {}", bytes.len(), name(at))
                }
                Fate::Corrupted { bits } => {
                    format!("flip {} bits of {}", bits.len(), name(at))
                }
            },
            Fault::Replay { of, after } => {
                format!("replay {} behind {}", name(of), name(after))
            }
            Fault::Icmp { end, after, kind } => format!(
                "send the {} a forged {} {} behind {}",
                end.name(),
                kind.family,
                kind.name,
                name(after)
            ),
            Fault::Errno(bad) => {
                let call = match bad.call {
                    Call::Receive => "receive",
                    Call::Send => "send",
                };
                format!(
                    "let the {}'s {} {call} fail with {:?}",
                    bad.end.name(),
                    nth(u64::from(bad.nth)),
                    bad.errno
                )
            }
        })
        .collect()
}

/// `the 2nd HelloVerifyRequest`: by what it carries, counted among those that carry the same.
fn named(at: Position, sent: &[Sent]) -> String {
    let Some(index) = sent.iter().position(|sent| sent.position == at) else {
        return format!("the {} datagram {}", nth(at.ordinal), to(at.direction));
    };
    let same =
        |other: &&Sent| other.position.direction == at.direction && other.what == sent[index].what;
    let number = sent[..=index].iter().filter(same).count() as u64;
    let mut what = sent[index].what.clone();
    // A whole flight by its first and last message.
    let messages: Vec<&str> = what.split(' ').collect();
    if let [first, _, .., last] = messages[..]
        && !what.contains("application data")
    {
        what = format!("{first}…{last}");
    }
    format!("the {} {what}", nth(number))
}

const fn to(direction: Direction) -> &'static str {
    match direction {
        Direction::ToServer => "to the server",
        Direction::ToClient => "to the client",
    }
}

pub(crate) fn nth(number: u64) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Every datagram of a run, a line each.
pub(crate) fn ladder(played: &Played) -> Vec<String> {
    let line = |sent: &Sent| {
        let arrow = match sent.position.direction {
            Direction::ToServer => "─►",
            Direction::ToClient => "◄─",
        };
        let flight = sent.place.map_or_else(String::new, |place| {
            let again = match place.transmission {
                1 => String::new(),
                times => format!(" ({})", nth(times.into())),
            };
            format!("flight {}{again}", place.flight)
        });
        let fate = match &sent.fate {
            Fate::Delivered => String::new(),
            fate => format!("  {fate}"),
        };
        format!(
            "{:>10.3} s  {arrow} {:<12} {flight:<15} {}{fate}",
            sent.at.as_secs_f64(),
            sent.position.to_string(),
            sent.what
        )
    };
    played.sent.iter().map(line).collect()
}

/// How an end stands, in words.
pub(crate) fn state(role: Role, state: &State) -> String {
    let who = role.name();
    match state {
        State::Shaking => format!("the {who} still waits"),
        State::Established(_) => format!("the {who} is done"),
        State::Failed(at, why) => {
            format!("the {who} gave up after {:.3} s ({why})", at.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_english_endings() {
        let told: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 22, 103, 111]
            .into_iter()
            .map(nth)
            .collect();
        let expected = [
            "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "103rd", "111th",
        ];
        assert_eq!(told, expected);
    }
}
