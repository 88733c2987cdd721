//! When implementations sent their flights again, over a scale on which the times of RFC 6347 are evenly
//! spaced. Pure.

use std::collections::BTreeMap;

use super::implementation;
use crate::observe::sketch::Resent;
use crate::oracle::silence::Silence;
use crate::report::Row;
use crate::role::Role;

/// What `timers.svg` draws.
#[derive(Debug)]
pub(super) struct Timers {
    pub(super) height: i32,
    pub(super) bottom: i32,
    /// Abscissa and words.
    pub(super) ticks: Vec<(String, String)>,
    pub(super) rows: Vec<Line>,
}

/// A flight of an implementation.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) y: i32,
    pub(super) name: String,
    pub(super) dots: Vec<Dot>,
}

/// Repetitions at one time.
#[derive(Debug)]
pub(super) struct Dot {
    pub(super) x: String,
    pub(super) r: String,
    pub(super) full: bool,
    pub(super) title: String,
}

/// How often a flight was sent again at a time in hundredths of seconds, by its own timer or not.
type Times = BTreeMap<(u64, bool), u32>;

const LEFT: f64 = 240.0;
const RIGHT: f64 = 940.0;
const TOP: i32 = 46;
const LINE: i32 = 26;
/// Seconds at the right edge.
const LAST: f64 = 127.0;

impl Timers {
    /// The repetitions of all runs, and of the oracle's silent peer; `None` if there were none.
    pub(super) fn of(rows: &[Row], silences: &[Silence]) -> Option<Self> {
        let mut lines: BTreeMap<(String, u8), Times> = BTreeMap::new();
        for row in rows {
            let Some(sketch) = &row.sketch else {
                continue;
            };
            // Among many at once, who is late says more of the machine than of its timers.
            if sketch.only.is_some() {
                continue;
            }
            // Flights 2 and 6 are only answers, unless something is wrong.
            let timed = |resent: &&Resent| resent.by_timer || !matches!(resent.flight, 2 | 6);
            for resent in sketch.resent.iter().filter(timed) {
                let label = match resent.sender {
                    Role::Server => &row.server,
                    Role::Client => &row.client,
                };
                let name = format!("{} {}", implementation(label), resent.sender.name());
                let times = lines.entry((name, resent.flight)).or_default();
                let at = (resent.after.as_secs_f64() * 100.0).round();
                *times.entry((whole(at), resent.by_timer)).or_default() += 1;
            }
        }
        for silence in silences {
            let role = if silence.flight % 2 == 1 {
                "client"
            } else {
                "server"
            };
            let times = lines
                .entry((format!("ours {role}, simulated"), silence.flight))
                .or_default();
            for at in silence.times.iter().skip(1) {
                *times
                    .entry((whole((at * 100.0).round()), true))
                    .or_default() += 1;
            }
        }
        lines.retain(|_, times| !times.is_empty());
        if lines.is_empty() {
            return None;
        }
        let rows: Vec<Line> = (TOP..)
            .step_by(LINE.unsigned_abs() as usize)
            .zip(lines)
            .map(|(y, ((name, flight), times))| Line {
                y,
                name: format!("{name}, flight {flight}"),
                dots: times.into_iter().map(dot).collect(),
            })
            .collect();
        let bottom = rows.last().map_or(TOP, |line| line.y + 14);
        Some(Self {
            height: bottom + 28,
            bottom,
            ticks: [0, 1, 3, 7, 15, 31, 63]
                .map(|second| (place(f64::from(second)), format!("{second} s")))
                .to_vec(),
            rows,
        })
    }
}

fn dot(((hundredths, full), count): ((u64, bool), u32)) -> Dot {
    #[expect(
        clippy::cast_precision_loss,
        reason = "minutes in hundredths of seconds"
    )]
    let at = hundredths as f64 / 100.0;
    let times = if count == 1 { "once" } else { "times" };
    let count_words = if count == 1 {
        String::new()
    } else {
        format!("{count} ")
    };
    Dot {
        x: place(at),
        r: format!("{:.1}", (3.0 + f64::from(count).ln()).min(8.0)),
        full,
        title: format!("{at:.2} s, {count_words}{times}"),
    }
}

/// The abscissa of a time: 0, 1, 3, 7, 15… s are equally far apart.
fn place(seconds: f64) -> String {
    let share = (seconds + 1.0).log2() / (LAST + 1.0_f64).log2();
    format!("{:.1}", LEFT + share.min(1.0) * (RIGHT - LEFT))
}

fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time is not negative, and what is too long is cut"
    )]
    let whole = number as u64;
    whole
}
