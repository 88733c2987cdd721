//! A run as a ladder (sequence) diagram: datagrams between client and server from top to bottom, flight
//! by flight, with what became of each. Pure.

use std::time::Duration;

use crate::explore::words::nth;
use crate::observe::sketch::{Sketch, Step, StepKind};
use crate::packet::Direction;
use crate::record::Place;
use crate::wire::{Cause, Fate};

/// What `ladder.svg` draws.
#[derive(Debug)]
pub(super) struct Ladder {
    pub(super) height: i32,
    pub(super) summary: String,
    /// Top and height of the ground of every other flight.
    pub(super) bands: Vec<(i32, i32)>,
    /// Abscissa, top and bottom.
    pub(super) lifelines: Vec<(i32, i32, i32)>,
    pub(super) rows: Vec<Row>,
    /// Ordinate and words of what is between rows.
    pub(super) gaps: Vec<(i32, String)>,
}

/// One datagram.
#[derive(Debug)]
pub(super) struct Row {
    /// Of the text.
    pub(super) y: i32,
    pub(super) class: &'static str,
    pub(super) title: String,
    pub(super) time: String,
    pub(super) flight: String,
    pub(super) label: String,
    pub(super) fate: String,
    /// SVG paths that end in an arrow.
    pub(super) arrows: Vec<String>,
    /// And that do not.
    pub(super) lines: Vec<String>,
}

/// Abscissas of the lifelines.
const CLIENT: i32 = 215;
const SERVER: i32 = 715;
/// Below the headings.
const TOP: i32 = 40;
const ROW: i32 = 30;
const GAP: i32 = 22;
/// From a row's text to its arrow.
const BELOW_TEXT: i32 = 6;
/// How far a datagram falls that arrives at once.
const FALL: i32 = 5;
/// Longer pauses are told: those between lines of text sent in vain are not, any timer's is.
const PAUSE: Duration = Duration::from_millis(300);
/// An arrow that would fall over more rows is cut.
const LONGEST_FALL: i32 = 8 * ROW;

impl Ladder {
    pub(super) fn of(sketch: &Sketch) -> Self {
        let steps: Vec<&Step> = sketch.first.iter().chain(&sketch.last).collect();
        let start = steps.first().map_or(Duration::ZERO, |step| step.at);
        let mut drawing = Drawing::default();
        let mut y = TOP;
        for (index, step) in steps.iter().enumerate() {
            if index == sketch.first.len() && sketch.left_out > 0 {
                let words = format!(
                    "{} more, left out here; events.jsonl has them",
                    sketch.left_out
                );
                drawing.gaps.push((y, words));
                y += GAP;
            }
            let pause = index.checked_sub(1).map_or(Duration::ZERO, |before| {
                step.at.saturating_sub(steps[before].at)
            });
            if pause >= PAUSE {
                drawing.gaps.push((y, format!("{} later", seconds(pause))));
                y += GAP;
            }
            drawing.ordinates.push(y);
            y += ROW;
        }
        drawing.bands(&steps);
        let rows = (0..steps.len())
            .map(|index| drawing.row(&steps, index, start, sketch))
            .collect();
        let bottom = y - ROW / 2;
        Self {
            height: bottom + 10,
            summary: summary(&steps),
            bands: drawing.grounds,
            lifelines: vec![(CLIENT, 22, bottom), (SERVER, 22, bottom)],
            rows,
            gaps: drawing.gaps,
        }
    }
}

#[derive(Debug, Default)]
struct Drawing {
    /// Of the text of each step.
    ordinates: Vec<i32>,
    gaps: Vec<(i32, String)>,
    grounds: Vec<(i32, i32)>,
    /// Whether a step is the first of its flight.
    begins: Vec<bool>,
}

impl Drawing {
    /// Grounds below every other flight, so that one can see where each begins.
    fn bands(&mut self, steps: &[&Step]) {
        let mut dark = false;
        for (index, step) in steps.iter().enumerate() {
            let same = index > 0 && group(steps[index - 1]) == group(step);
            self.begins.push(!same);
            dark ^= !same;
            if !dark {
                continue;
            }
            let top = self.ordinates[index] - 15;
            match self.grounds.last_mut() {
                Some((from, height)) if same => *height = top + ROW - *from,
                _ => self.grounds.push((top, ROW)),
            }
        }
    }

    fn row(&self, steps: &[&Step], index: usize, start: Duration, sketch: &Sketch) -> Row {
        let step = steps[index];
        let y = self.ordinates[index];
        let (from, to) = match step.direction {
            Direction::ToServer => (CLIENT, SERVER),
            Direction::ToClient => (SERVER, CLIENT),
        };
        let mut row = Row {
            y,
            class: "plain",
            title: String::new(),
            time: format!("{:.3}", step.at.saturating_sub(start).as_secs_f64()),
            flight: String::new(),
            label: String::new(),
            fate: String::new(),
            arrows: Vec::new(),
            lines: Vec::new(),
        };
        let line_y = y + BELOW_TEXT;
        let middle = i32::midpoint(from, to);
        match &step.kind {
            StepKind::Sent {
                place,
                what,
                length,
                fate,
                cause,
                rebound,
            } => {
                row.label = shortened(what);
                row.title = what.clone();
                if self.begins[index] {
                    row.flight = flight(place.as_ref(), step, sketch);
                }
                row.fate = format!("{length} B");
                if let Some(words) = fate_words(fate, *cause) {
                    row.fate = format!("{length} B, {words}");
                }
                if *rebound > 0 {
                    let address = nth(*rebound as u64 + 1);
                    row.fate.push_str(&format!(", {address} NAT address"));
                }
                row.class = class(fate);
                if step.arrivals.is_empty() {
                    if *fate != Fate::Dropped {
                        row.class = "lost";
                        row.fate.push_str(", never arrived");
                    }
                    let end = from + (to - from) * 6 / 10;
                    row.lines
                        .push(format!("M{from} {line_y}L{end} {}", line_y + FALL / 2));
                    row.lines.push(cross(end, line_y + FALL / 2));
                }
                for arrival in &step.arrivals {
                    row.arrows
                        .push(self.arrow(steps, index, *arrival, from, to));
                }
                let late = step
                    .arrivals
                    .iter()
                    .max()
                    .map(|last| last.saturating_sub(step.at));
                if let Some(late) = late.filter(|late| *late >= LATE) {
                    row.fate
                        .push_str(&format!(", {} on its way", seconds(late)));
                }
            }
            StepKind::Forged { what, length } => {
                row.class = "forged";
                row.label = match step.count {
                    1 => format!("forged: {what}"),
                    count => format!("forged: {what}, {count} times"),
                };
                row.title.clone_from(&row.label);
                row.flight = client_of(step, sketch).unwrap_or_default();
                row.fate = format!("{length} B, from an attacker");
                row.arrows
                    .push(format!("M{middle} {line_y}L{to} {}", line_y + FALL));
                row.lines.push(disc(middle, line_y));
            }
            StepKind::TooBig => {
                row.class = "odd";
                row.label = "ICMP packet too big".to_owned();
                row.title.clone_from(&row.label);
                row.fate = "from the link".to_owned();
                row.arrows
                    .push(format!("M{middle} {line_y}L{to} {}", line_y + FALL));
                row.lines.push(disc(middle, line_y));
            }
            StepKind::LostByLab => {
                row.class = "lost";
                row.label = "the lab lost a frame".to_owned();
                row.title.clone_from(&row.label);
                row.lines.push(cross(middle, line_y));
            }
        }
        row
    }

    /// From where it was sent to where it arrived: below whatever was sent before it arrived.
    fn arrow(
        &self,
        steps: &[&Step],
        index: usize,
        arrival: Duration,
        from: i32,
        to: i32,
    ) -> String {
        let line_y = self.ordinates[index] + BELOW_TEXT;
        let passed = steps.iter().rposition(|later| later.at < arrival);
        let end = match passed {
            Some(passed) if passed > index => {
                let lowest = line_y + LONGEST_FALL;
                (self.ordinates[passed] + BELOW_TEXT + 2 * FALL).min(lowest)
            }
            _ => line_y + FALL,
        };
        format!("M{from} {line_y}L{to} {end}")
    }
}

/// A datagram that takes longer is told.
const LATE: Duration = Duration::from_millis(50);

/// What stands together: the datagrams of one transmission of a flight.
fn group(step: &Step) -> Option<(u32, Direction, u32, u8, u32)> {
    let StepKind::Sent {
        place: Some(place), ..
    } = &step.kind
    else {
        return None;
    };
    Some((
        step.flow,
        step.direction,
        place.handshake,
        place.flight,
        place.transmission,
    ))
}

fn flight(place: Option<&Place>, step: &Step, sketch: &Sketch) -> String {
    let mut words = match place {
        Some(place) if place.transmission > 1 => {
            format!("{} ({})", place.flight, nth(place.transmission.into()))
        }
        Some(place) => place.flight.to_string(),
        None => String::new(),
    };
    if let Some(place) = place.filter(|place| place.handshake > 1) {
        words = format!("{words}, hs {}", place.handshake);
    }
    if let Some(client) = client_of(step, sketch) {
        words = format!("{words} {client}");
    }
    words
}

/// Which client, where there are several.
fn client_of(step: &Step, sketch: &Sketch) -> Option<String> {
    (sketch.clients > 1 && sketch.only.is_none()).then(|| format!("client {}", step.flow + 1))
}

fn class(fate: &Fate) -> &'static str {
    match fate {
        Fate::Delivered => "plain",
        Fate::Dropped => "lost",
        Fate::Delayed { .. }
        | Fate::Duplicated { .. }
        | Fate::Held { .. }
        | Fate::Overtook
        | Fate::Corrupted { .. }
        | Fate::Prepended { .. } => "odd",
    }
}

/// What became of it and through whom; `None` for plain delivery.
fn fate_words(fate: &Fate, cause: Cause) -> Option<String> {
    if *fate == Fate::Delivered {
        return None;
    }
    let fate = match fate {
        Fate::Dropped => "lost".to_owned(),
        Fate::Duplicated { copies: 1 } => "duplicated".to_owned(),
        Fate::Corrupted { bits } if bits.len() == 1 => "corrupted".to_owned(),
        other => other.to_string(),
    };
    Some(match cause {
        Cause::None | Cause::Prescribed => fate,
        Cause::Link | Cause::Netem => format!("{fate} by chance"),
        Cause::Mtu => format!("{fate}: above the MTU"),
        Cause::Limit => format!("{fate}: the queue is full"),
        Cause::Blackhole(index) => format!("{fate} in blackhole {}", index + 1),
        Cause::Nat => format!("{fate}: unknown to the NAT"),
        Cause::Rule(index) => format!("{fate} by rule {}", index + 1),
    })
}

fn summary(steps: &[&Step]) -> String {
    let lost = steps
        .iter()
        .filter(|step| matches!(step.kind, StepKind::Sent { .. }) && step.arrivals.is_empty());
    let forged = steps
        .iter()
        .filter(|step| matches!(step.kind, StepKind::Forged { .. }));
    format!(
        "Ladder diagram of {} datagrams between client and server, {} lost, {} kinds forged in turn",
        steps.len(),
        lost.count(),
        forged.count()
    )
}

fn cross(x: i32, y: i32) -> String {
    format!("M{} {}l10 10m0-10l-10 10", x - 5, y - 5)
}

fn disc(x: i32, y: i32) -> String {
    format!("M{} {y}a3 3 0 1 0 6 0a3 3 0 1 0-6 0", x - 3)
}

fn seconds(duration: Duration) -> String {
    super::duration(duration.as_secs_f64() * 1000.0)
}

fn shortened(what: &str) -> String {
    if what.chars().count() <= WIDEST {
        return what.to_owned();
    }
    let kept: String = what.chars().take(WIDEST - 1).collect();
    format!("{}…", kept.trim_end())
}

/// Characters between the lifelines.
const WIDEST: usize = 66;
