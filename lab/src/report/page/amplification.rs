//! How much servers send to an address for what came from it, before anything proves that the address
//! is the client's: bars. Pure.

use std::collections::BTreeMap;

use super::implementation;
use crate::report::Row;
use crate::rules::Exchanged;

/// What `amplification.svg` draws.
#[derive(Debug)]
pub(super) struct Amplification {
    pub(super) height: i32,
    pub(super) bottom: i32,
    pub(super) ticks: Vec<Tick>,
    pub(super) bars: Vec<Bar>,
}

#[derive(Debug)]
pub(super) struct Tick {
    pub(super) x: String,
    pub(super) words: String,
    pub(super) limit: bool,
}

/// A server in a mode.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) y: i32,
    pub(super) name: String,
    pub(super) title: String,
    pub(super) width: String,
    pub(super) median: String,
    pub(super) over: bool,
    pub(super) words_x: String,
    pub(super) words: String,
}

const LEFT: f64 = 240.0;
/// Where the longest bar ends; its words follow.
const RIGHT: f64 = 740.0;
const TOP: i32 = 44;
const LINE: i32 = 30;
/// RFC 9147 §5.1.
const ALLOWED: f64 = 3.0;

impl Amplification {
    /// `None` where no server was heard.
    pub(super) fn of(rows: &[Row]) -> Option<Self> {
        let mut servers: BTreeMap<(String, bool), Vec<(Exchanged, &Row)>> = BTreeMap::new();
        for row in rows {
            let Some((bytes, cookie)) = row.sketch.as_ref().and_then(|it| it.unverified) else {
                continue;
            };
            let key = (implementation(&row.server).to_owned(), cookie);
            servers.entry(key).or_default().push((bytes, row));
        }
        let all = servers.values().flatten();
        let most = all.map(|(bytes, _)| bytes.factor()).reduce(f64::max)?;
        let scale = Scale(most.max(ALLOWED) * 1.05);
        let bars: Vec<Bar> = (TOP..)
            .step_by(LINE.unsigned_abs() as usize)
            .zip(servers)
            .filter_map(|(y, (server, runs))| bar(y, server, runs, &scale))
            .collect();
        let bottom = bars.last().map_or(TOP, |bar| bar.y + 16);
        Some(Self {
            height: bottom + 10,
            bottom,
            ticks: scale.ticks(),
            bars,
        })
    }
}

fn bar(
    y: i32,
    (server, cookie): (String, bool),
    mut runs: Vec<(Exchanged, &Row)>,
    scale: &Scale,
) -> Option<Bar> {
    runs.sort_by(|one, other| one.0.factor().total_cmp(&other.0.factor()));
    let median = runs.get(runs.len() / 2)?.0.factor();
    let (bytes, row) = runs.last()?;
    let factor = bytes.factor();
    let mode = if cookie { "cookie" } else { "no cookie" };
    Some(Bar {
        y,
        name: format!("{server}, {mode}"),
        title: format!("{} {} / {}", row.scenario, row.server, row.client),
        width: format!("{:.1}", scale.place(factor) - LEFT),
        median: format!("{:.1}", scale.place(median)),
        over: factor > ALLOWED,
        words_x: format!("{:.1}", scale.place(factor) + 8.0),
        words: format!(
            "{factor:.2} ({} of {} B), {}",
            bytes.sent, bytes.received, row.scenario
        ),
    })
}

/// From 0 to so many bytes for one.
struct Scale(f64);

impl Scale {
    fn place(&self, factor: f64) -> f64 {
        LEFT + factor / self.0 * (RIGHT - LEFT)
    }

    fn ticks(&self) -> Vec<Tick> {
        let step = match self.0 {
            few if few < 8.0 => 1.0,
            some if some < 20.0 => 3.0,
            many => 3.0 * (many / 30.0).ceil(),
        };
        (0..)
            .map(|number| f64::from(number) * step)
            .take_while(|factor| *factor <= self.0)
            .map(|factor| Tick {
                x: format!("{:.1}", self.place(factor)),
                words: format!("{factor} ×"),
                limit: (factor - ALLOWED).abs() < 0.01,
            })
            .collect()
    }
}
