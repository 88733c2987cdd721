//! The silence probe (rule T1): what an end does when its peer falls silent in the middle of a
//! handshake. Every transmission of the flight it waits behind, at its time, against the schedule of
//! RFC 6347 §4.2.4.1; flights without a timer (2 and 6) must not be repeated at all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Question;
use super::model::Cut;
use crate::scenario::{Action, Family, Link, Rule, Selector};
use crate::sim::shape::{Cast, Setup};
use crate::sim::world::{Part, World};
use crate::sim::{SimulationError, check_clock};
use crate::wire::Engine;

/// What was seen of one flight.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Silence {
    /// The flight, after whose first transmission the wire is dead.
    pub flight: u8,
    /// When it was sent, in seconds from the first time.
    pub times: Vec<f64>,
    /// When it should have been.
    pub expected: Vec<f64>,
    /// Into how many datagrams each transmission was cut.
    pub datagrams: Vec<usize>,
    /// Whether the times are right, to a millisecond.
    pub right: bool,
}

impl Question {
    /// Probes every flight that this handshake has.
    ///
    /// # Errors
    ///
    /// [`SimulationError`] when no handshake could be played.
    pub fn silences(&self) -> Result<Vec<Silence>, SimulationError> {
        check_clock()?;
        let setup = Setup::of(self.shape, self.defect).patient(PROBED + Duration::from_secs(1));
        let cast = Cast::new(&setup)?;
        let mut silences = Vec::new();
        for flight in 1..=6 {
            silences.extend(probe(&cast, flight)?);
        }
        Ok(silences)
    }
}

/// How each transmission of each flight is cut.
pub(super) fn cuts(cast: &Cast) -> Result<[Vec<Cut>; 6], SimulationError> {
    let mut cuts: [Vec<Cut>; 6] = std::array::from_fn(|_| vec![vec![1]]);
    for (flight, cuts) in (1..).zip(&mut cuts) {
        let seen = transmissions(cast, flight)?;
        if !seen.is_empty() {
            let parts: Vec<Vec<Vec<Part>>> = seen.into_iter().map(|it| it.parts).collect();
            *cuts = pieces(&parts);
        }
    }
    Ok(cuts)
}

/// Each datagram as the set of the pieces of its flight that it carries. A piece is what no transmission cuts
/// through.
fn pieces(transmissions: &[Vec<Vec<Part>>]) -> Vec<Cut> {
    let all = || transmissions.iter().flatten().flatten();
    let mut edges: Vec<(u16, u32)> = Vec::new();
    for part in all() {
        if let Part::Message { number, start, end } = *part {
            edges.extend([(number, start), (number, end)]);
        }
    }
    edges.sort_unstable();
    edges.dedup();
    // From one edge to the next of the same message; then ChangeCipherSpec and Finished.
    let spans: Vec<_> = edges
        .windows(2)
        .filter(|pair| pair[0].0 == pair[1].0)
        .map(|pair| (pair[0].0, pair[0].1, pair[1].1))
        .collect();
    let carries = |datagram: &[Part], index: usize| {
        datagram.iter().any(|part| match *part {
            Part::Message { number, start, end } => spans
                .get(index)
                .is_some_and(|span| span.0 == number && start <= span.1 && span.2 <= end),
            Part::ChangeCipherSpec => index == spans.len(),
            Part::Finished => index == spans.len() + 1,
        })
    };
    let set = |datagram: &Vec<Part>| {
        (0..spans.len() + 2)
            .filter(|index| carries(datagram, *index))
            .fold(0, |set, index| set | 1_u64 << index)
    };
    transmissions
        .iter()
        .map(|datagrams| datagrams.iter().map(set).collect())
        .collect()
}

/// One transmission of a flight: when it began, and the parts in each of its datagrams.
#[derive(Debug)]
struct Transmission {
    at: Duration,
    parts: Vec<Vec<Part>>,
}

/// What an end does about a flight that nobody answers. `None`: the handshake has no such flight.
fn probe(cast: &Cast, flight: u8) -> Result<Option<Silence>, SimulationError> {
    let seen = transmissions(cast, flight)?;
    let Some(start) = seen.first().map(|first| first.at) else {
        return Ok(None);
    };
    let times: Vec<f64> = seen
        .iter()
        .map(|it| (it.at - start).as_secs_f64())
        .collect();
    let expected = expected(flight);
    let right = times.len() == expected.len()
        && times
            .iter()
            .zip(&expected)
            .all(|(seen, wanted)| (seen - wanted).abs() < 0.001);
    Ok(Some(Silence {
        flight,
        times,
        expected,
        datagrams: seen.iter().map(|it| it.parts.len()).collect(),
        right,
    }))
}

/// Lets everything pass that comes before `flight`, and then nothing; how that was sent.
fn transmissions(cast: &Cast, flight: u8) -> Result<Vec<Transmission>, SimulationError> {
    let before = Selector {
        flights: (1..flight).collect(),
        transmissions: vec![1],
        ..Selector::default()
    };
    let rule = |select, action| Rule {
        select,
        action,
        times: None,
    };
    let mut rules = vec![rule(Selector::default(), Action::Drop)];
    if flight > 1 {
        rules.insert(0, rule(before, Action::Pass));
    }
    let engine = Engine::made_of(rules, &Link::default(), 0);
    let mut world = World::new(cast, engine, &[], Family::Ipv4, None)?;
    world.run_out(PROBED);
    let mut seen: Vec<Transmission> = Vec::new();
    for (sent, parts) in world.sent.iter().zip(&world.parts) {
        let Some(place) = sent.place.filter(|place| place.flight == flight) else {
            continue;
        };
        if seen.len() < place.transmission as usize {
            seen.push(Transmission {
                at: sent.at,
                parts: Vec::new(),
            });
        }
        if let Some(newest) = seen.last_mut() {
            newest.parts.push(parts.clone());
        }
    }
    Ok(seen)
}

fn expected(flight: u8) -> Vec<f64> {
    match flight {
        // 2 is without state, 6 is repeated on request.
        2 | 6 => vec![0.0],
        _ => SCHEDULE.to_vec(),
    }
}

/// Seconds after the first transmission: 1 s and doubling, 60 s at most, up to the end of the probe.
const SCHEDULE: [f64; 9] = [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0];
/// Long enough to see the timer at its longest, twice.
const PROBED: Duration = Duration::from_secs(200);
