//! When flights were sent again, against when they should have been. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::{EventKind, Trace};
use crate::scenario::{Repeats, Scenario};

/// Whether every flight that the scenario names was repeated at its times.
///
/// # Errors
///
/// The first time that is wrong, in words.
pub(super) fn as_expected(scenario: &Scenario, trace: &Trace) -> Result<(), String> {
    scenario
        .expect
        .repeats
        .iter()
        .try_for_each(|wanted| one_flight(wanted, trace))
}

fn one_flight(wanted: &Repeats, trace: &Trace) -> Result<(), String> {
    let flight = wanted.flight;
    let handshakes = transmissions(trace, flight);
    if handshakes.is_empty() {
        return Err(format!("flight {flight} was never sent"));
    }
    for times in handshakes.into_values() {
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mut before = Duration::ZERO;
        for (index, at) in wanted.after.iter().enumerate() {
            let wanted = *at - before;
            before = *at;
            let nth = index + 2;
            let Some(gap) = gaps.get(index) else {
                return Err(format!(
                    "flight {flight} was sent {} times, and should have been {nth} times",
                    times.len()
                ));
            };
            // A timer is never early, but the clocks of ends and wire may differ in how they round.
            // What is late was late on a busy machine, or at the pace of a coarse timer.
            let (least, most) = (wanted * 19 / 20, wanted * 21 / 20 + LATE);
            if *gap < least || *gap > most {
                return Err(format!(
                    "transmission {nth} of flight {flight} came {:.2} s after the one before, \
                     expected {} s",
                    gap.as_secs_f64(),
                    wanted.as_secs_f64()
                ));
            }
        }
    }
    Ok(())
}

/// How late a timer may be on a busy machine; below half of the least step between two schedules
/// that must be told apart, 1, 2, 4 s and 1, 3, 6 s.
const LATE: Duration = Duration::from_millis(400);

/// When each transmission of a flight began, by client and handshake.
pub(crate) fn transmissions(trace: &Trace, flight: u8) -> BTreeMap<(u32, u32), Vec<Duration>> {
    let mut handshakes: BTreeMap<(u32, u32), Vec<Duration>> = BTreeMap::new();
    for event in &trace.events {
        let EventKind::Offered(decision) = &event.kind else {
            continue;
        };
        let Some(place) = decision.place.filter(|place| place.flight == flight) else {
            continue;
        };
        let times = handshakes
            .entry((decision.flow, place.handshake))
            .or_default();
        if times.len() < place.transmission as usize {
            times.push(event.at);
        }
    }
    handshakes
}
