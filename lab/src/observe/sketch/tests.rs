//! Sketches of made-up traces.

use super::*;
use crate::observe::Event;
use crate::wire::Decision;

fn place(flight: u8, transmission: u32) -> Option<Place> {
    Some(Place {
        flight,
        transmission,
        datagram: 1,
        last: true,
        resumed: false,
        handshake: 1,
    })
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn offered(
    at: u64,
    flow: u32,
    direction: Direction,
    ordinal: u64,
    place: Option<Place>,
    fate: Fate,
) -> Event {
    Event {
        at: ms(at),
        kind: EventKind::Offered(Decision {
            flow,
            direction,
            ordinal,
            rebound: 0,
            place,
            what: format!("message {ordinal}"),
            length: 100,
            fate,
            cause: Cause::None,
        }),
    }
}

fn delivered(at: u64, flow: u32, direction: Direction, ordinal: u64) -> Event {
    Event {
        at: ms(at),
        kind: EventKind::Delivered {
            flow,
            direction,
            ordinal,
            copy: 0,
        },
    }
}

fn forged(at: u64, what: &str) -> Event {
    Event {
        at: ms(at),
        kind: EventKind::Forged {
            flow: 0,
            direction: ToServer,
            inject: 0,
            what: what.to_owned(),
            length: 60,
        },
    }
}

fn sketch(events: Vec<Event>) -> Sketch {
    Sketch::of(&Trace {
        events,
        ..Trace::default()
    })
}

use Direction::{ToClient, ToServer};

#[test]
fn lost_datagram_arrives_nowhere_and_a_duplicate_twice() {
    let sketch = sketch(vec![
        offered(0, 0, ToServer, 1, place(1, 1), Fate::Dropped),
        offered(
            1000,
            0,
            ToServer,
            2,
            place(1, 2),
            Fate::Duplicated { copies: 1 },
        ),
        delivered(1001, 0, ToServer, 2),
        delivered(1002, 0, ToServer, 2),
    ]);
    let arrivals: Vec<usize> = sketch
        .first
        .iter()
        .map(|step| step.arrivals.len())
        .collect();
    assert_eq!(arrivals, [0, 2]);
    assert_eq!(sketch.left_out, 0);
}

#[test]
fn repetition_counts_as_the_timers_only_if_nothing_had_arrived() {
    let sketch = sketch(vec![
        offered(0, 0, ToServer, 1, place(3, 1), Fate::Delivered),
        delivered(0, 0, ToServer, 1),
        offered(5, 0, ToClient, 1, place(4, 1), Fate::Dropped),
        offered(1000, 0, ToServer, 2, place(3, 2), Fate::Dropped),
        offered(1005, 0, ToClient, 2, place(4, 2), Fate::Delivered),
        delivered(1005, 0, ToClient, 2),
        offered(3000, 0, ToServer, 3, place(3, 3), Fate::Delivered),
        delivered(3000, 0, ToServer, 3),
        offered(3001, 0, ToClient, 3, place(4, 3), Fate::Delivered),
    ]);
    let told: Vec<_> = sketch
        .resent
        .iter()
        .map(|it| (it.sender.name(), it.flight, it.after, it.by_timer))
        .collect();
    assert_eq!(
        told,
        [
            ("client", 3, ms(1000), true),
            ("server", 4, ms(1000), true),
            ("client", 3, ms(3000), false),
            ("server", 4, ms(2996), false),
        ]
    );
}

#[test]
fn flood_of_one_kind_is_one_step() {
    let mut events = vec![offered(0, 0, ToServer, 1, place(1, 1), Fate::Delivered)];
    events.extend((0..10_000).map(|at| forged(at, "bad-mac")));
    events.push(forged(10_000, "garbage"));
    let counts: Vec<u32> = sketch(events).first.iter().map(|step| step.count).collect();
    assert_eq!(counts, [1, 10_000, 1]);
}

#[test]
fn long_run_keeps_its_beginning_and_its_end_and_counts_the_rest() {
    let events = (1..=1000)
        .map(|ordinal| offered(ordinal, 0, ToServer, ordinal, None, Fate::Dropped))
        .collect();
    let sketch = sketch(events);
    assert_eq!(
        sketch.first.len() + sketch.left_out + sketch.last.len(),
        1000
    );
    assert_eq!(sketch.first[0].at, ms(1));
    let last = sketch.last.last().expect("the end is kept");
    assert_eq!(last.at, ms(1000));
    assert!(sketch.first.len() + sketch.last.len() <= 70);
}

#[test]
fn of_many_clients_the_one_that_needed_most_is_told() {
    let mut events = Vec::new();
    for flow in 0..64 {
        events.push(offered(0, flow, ToServer, 1, place(1, 1), Fate::Delivered));
    }
    events.push(offered(1000, 7, ToServer, 2, place(1, 2), Fate::Delivered));
    let sketch = sketch(events);
    assert_eq!((sketch.clients, sketch.only), (64, Some(7)));
    assert_eq!(sketch.first.len(), 2);
}
