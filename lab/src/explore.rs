//! Exhaustive spaces: every case of a kind of fault, in every kind of handshake, on the simulator.
//!
//! ```text
//! space   case number ◄─► list of faults          a bijection: a failing line replays itself
//!   ▼
//! sim     one connection for each case            as many threads as there are cores
//!   ▼
//! shrink  a failing list made minimal             told as a command and in words
//!   ▼
//! report  table or JSON
//! ```
//!
//! The calling thread waits for its workers; each case is played on one of them.

pub mod report;
pub mod shrink;
pub mod space;
pub mod words;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::clock::now;
use crate::packet::Family;
use crate::scenario::Shape;
use crate::sim::play::{Played, play, play_over};
use crate::sim::shape::{Cast, Setup};
use crate::sim::{Defect, Fault, SimulationError, check_clock};
use space::{Kind, Space};

/// Two configured ends, and their handshake without faults.
#[derive(Debug)]
pub struct Stage {
    shape: Shape,
    cast: Cast,
    clean: Played,
    /// Datagrams of the same over IPv6, whose headers leave less room.
    clean_v6: usize,
}

/// What all cases of one space in one kind of handshake came to.
#[derive(Debug, Clone, Serialize)]
pub struct Explored {
    /// The space.
    pub space: &'static str,
    /// The kind of handshake.
    pub handshake: &'static str,
    /// How many cases were played.
    pub cases: u64,
    /// How many broke rule L1: both ends agree and data flows, or both fail.
    pub failed: u64,
    /// How many took longer than their faults explain: a timeout more than need be.
    pub late: u64,
    /// The longest handshake, in virtual seconds.
    pub slowest: f64,
    /// How long it took, in real seconds.
    pub seconds: f64,
    /// The failures with the lowest numbers, and the slowest late case.
    pub shown: Vec<Finding>,
}

/// One case worth telling.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Its number in the space, where it comes from one.
    pub case: Option<u64>,
    /// Whether it failed; a late one did not.
    pub failed: bool,
    /// What was missing, or how long it took.
    pub why: String,
    /// A minimal list of faults that does the same.
    pub minimal: Vec<String>,
    /// That list in words.
    pub words: Vec<String>,
    /// The command that plays the case again.
    pub replay: String,
    /// The command that plays the minimal list.
    pub replay_minimal: String,
}

impl Stage {
    /// Two ends that shake hands in this way, one of them perhaps with a defect.
    ///
    /// # Errors
    ///
    /// [`SimulationError`], also when the handshake without faults fails.
    pub fn new(shape: Shape, defect: Option<Defect>) -> Result<Self, SimulationError> {
        check_clock()?;
        let cast = Cast::new(&Setup::of(shape, defect))?;
        let clean = play(&cast, &[])?;
        let clean_v6 = play_over(Family::Ipv6, &cast, &[])?.sent.len();
        if play(&cast, &[])? != clean {
            let why = "it takes another course each time";
            return Err(SimulationError::Control(why.to_owned()));
        }
        match (&clean.verdict, clean.took) {
            (Ok(()), Some(Duration::ZERO)) => Ok(Self {
                shape,
                cast,
                clean,
                clean_v6,
            }),
            (Ok(()), took) => Err(SimulationError::Control(format!("it takes {took:?}"))),
            (Err(why), _) => Err(SimulationError::Control(why.clone())),
        }
    }

    /// The space of this kind in this handshake.
    #[must_use]
    pub fn space(&self, kind: Kind) -> Space {
        Space::new(kind, &self.clean)
    }

    /// Plays every case of a space on `workers` threads; `tick` is told each.
    ///
    /// # Errors
    ///
    /// [`SimulationError`] when a case could not be played at all.
    pub fn explore(
        &self,
        kind: Kind,
        workers: usize,
        tick: &(dyn Fn() + Sync),
    ) -> Result<Explored, SimulationError> {
        let space = self.space(kind);
        let started = now();
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let all = Mutex::new(Tally::default());
        std::thread::scope(|scope| {
            for _ in 0..workers.max(1) {
                scope.spawn(|| {
                    let mut tally = Tally::default();
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(faults) = space.case(number) else {
                            break;
                        };
                        match play(&self.cast, &faults) {
                            Ok(played) => {
                                let verdict = self.verdict(&faults, &played);
                                tally.add(number, kind, &faults, &played, verdict);
                            }
                            Err(error) => {
                                tally.broken = Some(error);
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                        tick();
                    }
                    all.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .merge(tally);
                });
            }
        });
        let tally = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = tally.broken {
            return Err(error);
        }
        let mut shown = Vec::new();
        for (number, why) in tally.failures {
            shown.push(self.finding(kind, number, &space, Some(why))?);
        }
        if let Some((_, number)) = tally.latest {
            shown.push(self.finding(kind, number, &space, None)?);
        }
        Ok(Explored {
            space: kind.into(),
            handshake: self.shape.into(),
            cases: space.len(),
            failed: tally.failed,
            late: tally.late,
            slowest: tally.slowest.as_secs_f64(),
            seconds: now().saturating_duration_since(started).as_secs_f64(),
            shown,
        })
    }

    /// Plays one list of faults: what it came to and every datagram of it; shrunk if it fails.
    ///
    /// # Errors
    ///
    /// [`SimulationError`] when it could not be played at all.
    pub fn play_one(&self, faults: &[Fault]) -> Result<(Finding, Vec<String>), SimulationError> {
        let played = play(&self.cast, faults)?;
        let ladder = words::ladder(&played);
        let verdict = self.verdict(faults, &played);
        let failed = verdict.is_err();
        let why = match verdict {
            Ok(()) => format!(
                "both ends agree after {:.3} s, data flows both ways",
                played.took.unwrap_or_default().as_secs_f64()
            ),
            Err(why) => why,
        };
        let minimal = if failed {
            self.shrink(faults)?
        } else {
            faults.to_vec()
        };
        Ok((self.tell(None, failed, why, &minimal, faults)?, ladder))
    }

    fn finding(
        &self,
        kind: Kind,
        number: u64,
        space: &Space,
        failure: Option<String>,
    ) -> Result<Finding, SimulationError> {
        let faults = space.case(number).unwrap_or_default();
        let case = Some((kind, number));
        match failure {
            Some(why) => {
                let minimal = self.shrink(&faults)?;
                self.tell(case, true, why, &minimal, &faults)
            }
            None => {
                let took = play(&self.cast, &faults)?.took.unwrap_or_default();
                let why = format!("the handshake took {:.3} s", took.as_secs_f64());
                self.tell(case, false, why, &faults, &faults)
            }
        }
    }

    /// What a run came to: rule L1, and I2 where nothing but ICMP errors came.
    fn verdict(&self, faults: &[Fault], played: &Played) -> Result<(), String> {
        played.verdict.clone()?;
        // Those of one case are all of one IP version.
        let mut clean = None;
        for fault in faults {
            let Fault::Icmp { kind, .. } = fault else {
                return Ok(());
            };
            clean = Some(match kind.family {
                Family::Ipv4 => self.clean.sent.len(),
                Family::Ipv6 => self.clean_v6,
            });
        }
        let sent = played.sent.len();
        if let Some(clean) = clean
            && sent != clean
        {
            return Err(format!(
                "{sent} datagrams were sent because of it, and {clean} without it"
            ));
        }
        Ok(())
    }

    /// The fewest of these faults that fail still.
    fn shrink(&self, faults: &[Fault]) -> Result<Vec<Fault>, SimulationError> {
        let mut broken = None;
        let minimal = shrink::minimal(faults, |part| match play(&self.cast, part) {
            Ok(played) => self.verdict(part, &played).is_err(),
            Err(error) => {
                broken = Some(error);
                false
            }
        });
        match broken {
            Some(error) => Err(error),
            None => Ok(minimal),
        }
    }

    fn tell(
        &self,
        case: Option<(Kind, u64)>,
        failed: bool,
        why: String,
        minimal: &[Fault],
        faults: &[Fault],
    ) -> Result<Finding, SimulationError> {
        let played = play(&self.cast, minimal)?;
        let list = |faults: &[Fault]| {
            let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
            words.join(",")
        };
        let command = |rest: String| {
            let defect = self
                .cast
                .defect
                .map_or_else(String::new, |defect| format!(" --defect {defect}"));
            format!("dtls-lab explore {rest} --handshake {}{defect}", self.shape)
        };
        Ok(Finding {
            case: case.map(|(_, number)| number),
            failed,
            why,
            minimal: minimal.iter().map(ToString::to_string).collect(),
            words: words::of_faults(minimal, &played.sent),
            replay: command(match case {
                Some((kind, number)) => format!("--space {kind} --case {number}"),
                None => format!("--faults '{}'", list(faults)),
            }),
            replay_minimal: command(format!("--faults '{}'", list(minimal))),
        })
    }
}

/// What one thread has seen so far.
#[derive(Debug, Default)]
struct Tally {
    failed: u64,
    late: u64,
    slowest: Duration,
    /// The failures with the lowest numbers.
    failures: Vec<(u64, String)>,
    /// The slowest of the late ones; of equals, that with the lowest number.
    latest: Option<(std::cmp::Reverse<Duration>, u64)>,
    broken: Option<SimulationError>,
}

impl Tally {
    fn add(
        &mut self,
        number: u64,
        kind: Kind,
        faults: &[Fault],
        played: &Played,
        verdict: Result<(), String>,
    ) {
        if let Err(why) = verdict {
            self.failed += 1;
            self.failures.push((number, why));
            self.trim();
        }
        let Some(took) = played.took else { return };
        self.slowest = self.slowest.max(took);
        if took > kind.allowance(faults) {
            self.late += 1;
            let this = (std::cmp::Reverse(took), number);
            self.latest = Some(self.latest.map_or(this, |other| other.min(this)));
        }
    }

    fn merge(&mut self, other: Self) {
        self.failed += other.failed;
        self.late += other.late;
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
        self.trim();
        self.latest = [self.latest, other.latest].into_iter().flatten().min();
        self.broken = self.broken.take().or(other.broken);
    }

    fn trim(&mut self) {
        self.failures.sort();
        self.failures.truncate(MOST_SHOWN);
    }
}

/// Failures of one space that are shrunk and told; the others are counted.
const MOST_SHOWN: usize = 5;

#[cfg(test)]
mod tests;
