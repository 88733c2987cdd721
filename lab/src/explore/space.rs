//! Cases by number: each number is a list of faults, and each such list has its number. Pure.

use std::time::Duration;

use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};

use crate::icmp;
use crate::packet::Direction;
use crate::role::Role;
use crate::sim::fault::{BadCall, Call};
use crate::sim::play::Played;
use crate::sim::{Fault, Position};
use crate::wire::Fate;

/// A kind of fault, all of whose cases make a space.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, EnumIter, EnumString, Display, IntoStaticStr, VariantNames,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    /// Up to three datagrams are lost, first transmissions or later ones.
    #[strum(serialize = "drops3")]
    Drops3,
    /// The datagrams of one flight arrive in another order.
    Permutations,
    /// One datagram arrives twice.
    Duplicates,
    /// A copy of one datagram arrives again behind a later one.
    Replays,
    /// One socket call of one end fails: an ICMP error, or a reason of the kernel's own.
    Errno,
    /// One forged ICMP error, of each kind of both IP versions, reaches one end behind one datagram.
    Icmp,
}

impl Kind {
    /// How long a handshake with these faults may take before it counts as late.
    pub(crate) fn allowance(self, faults: &[Fault]) -> Duration {
        match self {
            // In the worst case all are transmissions of one flight: 1 s, 2 s, 4 s.
            Self::Drops3 => Duration::from_secs((1 << faults.len()) - 1),
            // The delays that make the order, and no timeout.
            Self::Permutations | Self::Duplicates | Self::Replays | Self::Icmp => {
                Duration::from_millis(500)
            }
            // A send that fails for good is a lost datagram.
            Self::Errno => Duration::from_secs(1),
        }
    }
}

/// All cases of one kind in one handshake.
#[derive(Debug, Clone)]
pub struct Space {
    kind: Kind,
    /// What can be lost, doubled or replayed, in the order of a handshake without faults.
    positions: Vec<Position>,
    /// Flights of more than one datagram.
    flights: Vec<Vec<Position>>,
    /// Socket calls that may fail.
    calls: Vec<BadCall>,
}

impl Space {
    /// The space around a handshake without faults.
    pub(crate) fn new(kind: Kind, clean: &Played) -> Self {
        let positions = match kind {
            Kind::Drops3 => Direction::BOTH
                .into_iter()
                .flat_map(|direction| {
                    let sent = clean.sent.iter();
                    let count = sent.filter(|sent| sent.position.direction == direction);
                    let last = count.count() as u64 + REPEATED;
                    (1..=last).map(move |ordinal| Position { direction, ordinal })
                })
                .collect(),
            _ => clean.sent.iter().map(|sent| sent.position).collect(),
        };
        let flights = (1..=6)
            .map(|flight| {
                let of = |sent: &&crate::sim::world::Sent| {
                    sent.place.is_some_and(|place| place.flight == flight)
                };
                clean
                    .sent
                    .iter()
                    .filter(of)
                    .map(|sent| sent.position)
                    .collect()
            })
            .filter(|flight: &Vec<Position>| flight.len() > 1)
            .collect();
        let mut calls = Vec::new();
        for (role, made) in [Role::Client, Role::Server].into_iter().zip(clean.calls) {
            for (call, made) in [Call::Receive, Call::Send].into_iter().zip(made) {
                // One more than without faults: what is sent again.
                for nth in 1..=made + 1 {
                    calls.extend(call.errnos().map(|errno| BadCall {
                        end: role,
                        call,
                        nth,
                        errno,
                    }));
                }
            }
        }
        Self {
            kind,
            positions,
            flights,
            calls,
        }
    }

    /// How many cases there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no space is empty")]
    pub fn len(&self) -> u64 {
        let n = self.positions.len() as u64;
        match self.kind {
            Kind::Drops3 => (0..=MOST_DROPS).map(|k| choose(n, k)).sum(),
            Kind::Permutations => self.flights.iter().map(|it| factorial(it.len())).sum(),
            Kind::Duplicates => n,
            Kind::Replays => n * (n + 1) / 2,
            Kind::Errno => self.calls.len() as u64,
            Kind::Icmp => n * VICTIMS.len() as u64 * icmp::KINDS.len() as u64,
        }
    }

    /// The faults of a case; `None` beyond the last.
    #[must_use]
    pub fn case(&self, number: u64) -> Option<Vec<Fault>> {
        if number >= self.len() {
            return None;
        }
        let at = |index: u64| self.positions[index_of(index)];
        Some(match self.kind {
            Kind::Drops3 => subset(self.positions.len() as u64, number)
                .into_iter()
                .map(|index| Fault::Fate(at(index), Fate::Dropped))
                .collect(),
            Kind::Permutations => self.permutation(number),
            Kind::Duplicates => vec![Fault::Fate(at(number), Fate::Duplicated { copies: 1 })],
            Kind::Replays => {
                let pair = colex_unrank(2, number);
                // Pairs of different numbers stand for pairs that may be equal: (i, j + 1).
                vec![Fault::Replay {
                    of: at(pair[0]),
                    after: at(pair[1] - 1),
                }]
            }
            Kind::Errno => vec![Fault::Errno(self.calls[index_of(number)])],
            Kind::Icmp => {
                let (place, kind) = (
                    index_of(number) / icmp::KINDS.len(),
                    index_of(number) % icmp::KINDS.len(),
                );
                vec![Fault::Icmp {
                    end: VICTIMS[place % VICTIMS.len()],
                    after: self.positions[place / VICTIMS.len()],
                    kind: &icmp::KINDS[kind],
                }]
            }
        })
    }

    /// The number of a case; `None` for faults that are none of this space.
    #[must_use]
    pub fn number(&self, faults: &[Fault]) -> Option<u64> {
        let index = |position: &Position| {
            let found = self.positions.iter().position(|it| it == position)?;
            Some(found as u64)
        };
        match (self.kind, faults) {
            (Kind::Drops3, drops) => {
                let chosen: Option<Vec<u64>> = drops
                    .iter()
                    .map(|fault| match fault {
                        Fault::Fate(at, Fate::Dropped) => index(at),
                        _ => None,
                    })
                    .collect();
                let chosen = chosen?;
                let k = chosen.len() as u64;
                let ascending = chosen.is_sorted_by(|one, next| one < next);
                if k > MOST_DROPS || !ascending {
                    return None;
                }
                let n = self.positions.len() as u64;
                let smaller: u64 = (0..k).map(|fewer| choose(n, fewer)).sum();
                Some(smaller + colex_rank(&chosen))
            }
            (Kind::Permutations, delays) => self.number_of_permutation(delays),
            (Kind::Duplicates, [Fault::Fate(at, Fate::Duplicated { copies: 1 })]) => index(at),
            (Kind::Replays, [Fault::Replay { of, after }]) => {
                let (of, after) = (index(of)?, index(after)?);
                (of <= after).then(|| colex_rank(&[of, after + 1]))
            }
            (Kind::Icmp, [Fault::Icmp { end, after, kind }]) => {
                let victim = VICTIMS.iter().position(|role| role == end)? as u64;
                let kind = icmp::KINDS.iter().position(|it| it == *kind)? as u64;
                let place = index(after)? * VICTIMS.len() as u64 + victim;
                Some(place * icmp::KINDS.len() as u64 + kind)
            }
            (Kind::Errno, [Fault::Errno(bad)]) => {
                let index = self.calls.iter().position(|call| call == bad)?;
                Some(index as u64)
            }
            _ => None,
        }
    }

    /// Delays by which the datagrams of a flight arrive in another order.
    fn permutation(&self, mut number: u64) -> Vec<Fault> {
        for flight in &self.flights {
            let orders = factorial(flight.len());
            if number < orders {
                let ranks = permutation_of(flight.len(), number);
                let delayed = |(at, rank): (&Position, u64)| {
                    let by = BETWEEN * u32::try_from(rank).unwrap_or(u32::MAX);
                    Fault::Fate(*at, Fate::Delayed { by })
                };
                return flight.iter().zip(ranks).map(delayed).collect();
            }
            number -= orders;
        }
        Vec::new()
    }

    fn number_of_permutation(&self, delays: &[Fault]) -> Option<u64> {
        let mut before = 0;
        for flight in &self.flights {
            let ranks: Option<Vec<u64>> = flight
                .iter()
                .zip(delays)
                .map(|(at, fault)| match fault {
                    Fault::Fate(of, Fate::Delayed { by }) if of == at => {
                        let rank = by.as_nanos() / BETWEEN.as_nanos();
                        u64::try_from(rank).ok()
                    }
                    _ => None,
                })
                .collect();
            if let Some(ranks) = ranks
                && delays.len() == flight.len()
            {
                return Some(before + number_of(&ranks)?);
            }
            before += factorial(flight.len());
        }
        None
    }
}

/// The `number`th subset of at most [`MOST_DROPS`] of `n`, ascending: the empty one first, then those
/// of one, and so on.
fn subset(n: u64, mut number: u64) -> Vec<u64> {
    for k in 0..=MOST_DROPS {
        let count = choose(n, k);
        if number < count {
            return colex_unrank(k, number);
        }
        number -= count;
    }
    Vec::new()
}

/// The `number`th set of `k` numbers in colexicographic order, ascending (the combinatorial number
/// system).
fn colex_unrank(k: u64, mut number: u64) -> Vec<u64> {
    let mut chosen = Vec::new();
    for k in (1..=k).rev() {
        let mut largest = k - 1;
        while choose(largest + 1, k) <= number {
            largest += 1;
        }
        number -= choose(largest, k);
        chosen.push(largest);
    }
    chosen.reverse();
    chosen
}

fn colex_rank(ascending: &[u64]) -> u64 {
    (1..)
        .zip(ascending)
        .map(|(k, index)| choose(*index, k))
        .sum()
}

fn choose(n: u64, k: u64) -> u64 {
    if k > n {
        return 0;
    }
    (0..k).fold(1, |product, i| product * (n - i) / (i + 1))
}

fn factorial(n: usize) -> u64 {
    (1..=n as u64).product()
}

/// The `number`th order of `n` things in lexicographic order: the rank of each.
fn permutation_of(n: usize, mut number: u64) -> Vec<u64> {
    let mut left: Vec<u64> = (0..n as u64).collect();
    (0..n)
        .map(|done| {
            let orders = factorial(n - 1 - done);
            let rank = left.remove(index_of(number / orders));
            number %= orders;
            rank
        })
        .collect()
}

/// The inverse of [`permutation_of`]; `None` if these are not the ranks of an order.
fn number_of(ranks: &[u64]) -> Option<u64> {
    let mut left: Vec<u64> = (0..ranks.len() as u64).collect();
    let mut number = 0;
    for (done, rank) in ranks.iter().enumerate() {
        let index = left.iter().position(|it| it == rank)?;
        left.remove(index);
        number += index as u64 * factorial(ranks.len() - 1 - done);
    }
    Some(number)
}

fn index_of(number: u64) -> usize {
    usize::try_from(number).expect("a number of things in memory fits")
}

/// Who gets a forged error.
const VICTIMS: [Role; 2] = [Role::Client, Role::Server];
/// How many datagrams a case of `drops3` loses at most.
const MOST_DROPS: u64 = 3;
/// Datagrams beyond those of a handshake without faults that may be lost: flights sent again.
const REPEATED: u64 = 6;
/// Between two datagrams of a flight that arrive in another order.
const BETWEEN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
