//! The silence probe (rule T1): what an end does when its peer falls silent in the middle of a
//! handshake. Every transmission of the flight it waits behind, at its time, against the schedule of
//! RFC 6347 §4.2.4.1; flights without a timer (2 and 6) must not be repeated at all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Question;
use crate::scenario::{Action, Family, Link, Rule, Selector};
use crate::sim::shape::{Cast, Setup};
use crate::sim::world::World;
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
    pub datagrams: Vec<u32>,
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

/// How many datagrams each transmission of each flight has.
pub(super) fn flight_sizes(cast: &Cast) -> Result<[Vec<u32>; 6], SimulationError> {
    let mut sizes: [Vec<u32>; 6] = std::array::from_fn(|_| vec![1]);
    for (flight, sizes) in (1..).zip(&mut sizes) {
        if let Some(silence) = probe(cast, flight)? {
            *sizes = silence.datagrams;
        }
    }
    Ok(sizes)
}

/// Lets everything pass that comes before `flight`, and then nothing. `None`: the handshake has no such
/// flight.
fn probe(cast: &Cast, flight: u8) -> Result<Option<Silence>, SimulationError> {
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
    let mut times: Vec<Duration> = Vec::new();
    let mut datagrams: Vec<u32> = Vec::new();
    for sent in &world.sent {
        let Some(place) = sent.place.filter(|place| place.flight == flight) else {
            continue;
        };
        let transmission = place.transmission as usize;
        if datagrams.len() < transmission {
            datagrams.resize(transmission, 0);
            times.push(sent.at);
        }
        datagrams[transmission - 1] += 1;
    }
    let Some(start) = times.first().copied() else {
        return Ok(None);
    };
    let times: Vec<f64> = times.iter().map(|at| (*at - start).as_secs_f64()).collect();
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
        datagrams,
        right,
    }))
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
