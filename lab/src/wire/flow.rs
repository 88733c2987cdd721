//! What the engine keeps of one client: its places outside, its handshake, what is held back.

use std::net::SocketAddr;
use std::time::Duration;

use super::change::Blackhole;
use super::decision::Fate;
use super::{Delivery, Origin, rule};
use crate::packet::{self, Direction, Path};
use crate::record::FlightTracker;

/// The datagrams between one client and the server.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) client: SocketAddr,
    /// From the client to the server, as the client sees it.
    path: Path,
    /// Where the server has seen the client, the newest last: more than one behind a NAT that rebinds.
    pub(super) places: Vec<SocketAddr>,
    pub(super) tracker: FlightTracker,
    pub(super) sides: [Side; 2],
    pub(super) uses: Uses,
    /// Frames each inject has seen and would replay, the oldest first.
    pub(super) observed: Vec<Vec<Vec<u8>>>,
    /// When each blackhole was set off.
    pub(super) holes: Vec<Option<Duration>>,
}

/// How often things have happened in a flow, by their index in the scenario.
#[derive(Debug)]
pub(super) struct Uses {
    /// Datagrams that each rule has taken.
    pub(super) rules: Vec<u32>,
    /// How often each inject has fired.
    pub(super) injects: Vec<u32>,
    /// How often each rebinding has happened.
    pub(super) rebinds: Vec<u32>,
}

/// One direction of a flow.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) offered: u64,
    /// Whether a link that loses in bursts is in its bad state for this flow.
    pub(super) bad: bool,
    pub(super) held: Vec<Held>,
}

/// A datagram that waits to be overtaken.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) delivery: Delivery,
    /// How many datagrams must still pass it.
    passes: u32,
    /// When it goes even if none does.
    pub(super) until: Duration,
}

impl Flow {
    /// A client that has just appeared, for a scenario with so many of each.
    pub(super) fn new(path: Path, [rules, injects, holes, rebinds]: [usize; 4]) -> Self {
        Self {
            client: path.source,
            path,
            places: vec![path.source],
            tracker: FlightTracker::default(),
            sides: [Side::default(), Side::default()],
            uses: Uses {
                rules: vec![0; rules],
                injects: vec![0; injects],
                rebinds: vec![0; rebinds],
            },
            observed: vec![Vec::new(); injects],
            holes: vec![None; holes],
        }
    }

    /// From the client to the server, as the server sees it.
    pub(super) fn outside(&self) -> Path {
        Path {
            source: self.place(),
            ..self.path
        }
    }

    /// From the server to the client, as the client sees it.
    pub(super) fn inside(&self) -> Path {
        self.path.reversed()
    }

    /// Where the server sees the client now.
    pub(super) fn place(&self) -> SocketAddr {
        self.places.last().copied().unwrap_or(self.client)
    }

    /// How often the client was rebound before the place that a datagram comes from or goes to.
    pub(super) fn rebound(&self, direction: Direction, path: &Path) -> usize {
        let newest = self.places.len() - 1;
        match direction {
            Direction::ToServer => newest,
            Direction::ToClient => {
                let of = |place: &SocketAddr| *place == path.destination;
                self.places.iter().position(of).unwrap_or(newest)
            }
        }
    }

    /// Writes the addresses into a frame that it has at the far end of the NAT.
    pub(super) fn translate(&self, direction: Direction, frame: &mut [u8]) {
        if self.places.len() > 1 {
            match direction {
                Direction::ToServer => {
                    packet::readdress(frame, packet::PathEnd::Source, self.place());
                }
                Direction::ToClient => {
                    packet::readdress(frame, packet::PathEnd::Destination, self.client);
                }
            }
        }
    }

    /// The blackhole that swallows what is sent at `now`.
    pub(super) fn hole(
        &self,
        all: &[Blackhole],
        direction: Direction,
        now: Duration,
    ) -> Option<usize> {
        all.iter().zip(&self.holes).position(|(hole, set_off)| {
            set_off.is_some_and(|at| hole.covers(direction, now.saturating_sub(at)))
        })
    }
}

impl Side {
    /// Carries out a fate: what is sent because of this datagram, itself included. `times`: when the
    /// datagram and each of its copies leaves the link.
    pub(super) fn carry(
        &mut self,
        times: &[Duration],
        fate: &Fate,
        mut delivery: Delivery,
    ) -> Vec<Delivery> {
        let (Some((at, copies)), false) = (times.split_first(), *fate == Fate::Dropped) else {
            return Vec::new();
        };
        delivery.at = *at;
        packet::fix_checksums(&mut delivery.frame);
        match fate {
            Fate::Delivered | Fate::Overtook | Fate::Duplicated { .. } | Fate::Dropped => {}
            Fate::Delayed { by } => delivery.at += *by,
            Fate::Corrupted { bits } => packet::flip_bits(&mut delivery.frame, bits),
            Fate::Prepended { bytes } => packet::prepend(&mut delivery.frame, bytes),
            Fate::Held { passes } => {
                self.held.push(Held {
                    until: delivery.at + rule::LONGEST_HOLD,
                    passes: *passes,
                    delivery,
                });
                return Vec::new();
            }
        }
        let last = copies.last().copied().unwrap_or(delivery.at);
        let mut deliveries = vec![delivery];
        for (number, at) in (1..).zip(copies) {
            let mut copy = deliveries[0].clone();
            copy.at = *at;
            if let Origin::Sent { copy, .. } = &mut copy.origin {
                *copy = number;
            }
            deliveries.push(copy);
        }
        let passed_at = deliveries[0].at.max(last);
        deliveries.extend(self.release_passed(passed_at));
        deliveries
    }

    /// The held datagrams for which the one sent at `at` was the last that had to pass.
    fn release_passed(&mut self, at: Duration) -> impl Iterator<Item = Delivery> {
        for held in &mut self.held {
            held.passes -= 1;
        }
        self.held
            .extract_if(.., |held| held.passes == 0)
            .map(move |held| Delivery {
                at,
                ..held.delivery
            })
    }
}
