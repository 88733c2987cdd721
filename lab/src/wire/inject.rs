//! What an attacker sends: forged ICMP errors and forged datagrams, when and to whom.

use std::time::Duration;

use super::forgery::Forgery;
use super::rng::Draws;
use super::selector::Selector;
use super::{Delivery, Origin};
use crate::icmp;
use crate::packet::Family;
use crate::packet::{Datagram, Direction, Path};

/// One thing an attacker does in every flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inject {
    /// What sets it off.
    pub trigger: Trigger,
    /// To which end it goes; it claims to come from the other.
    pub to: Direction,
    /// What is sent.
    pub payload: Payload,
    /// Whether a replayed hello has a bit of its cookie flipped.
    pub flip_cookie: bool,
    /// How many times over it is sent, each time it is set off.
    pub repeat: u32,
    /// How long after the trigger's own delivery.
    pub delay: Duration,
    /// Time between the frames, where there is more than one.
    pub spacing: Duration,
    /// How often in one flow.
    pub times: u32,
}

/// What sets an attacker off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// Application data has flowed both ways.
    Established,
    /// An offered datagram, delivered or not.
    After(Selector),
}

/// What an attacker sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// ICMP errors about datagrams of the end they go to.
    Icmp(Icmp),
    /// Datagrams from the other end's address and port.
    Datagrams(Vec<Forgery>),
    /// The other end's own datagrams, the latest of those selected, once more.
    Replay(Selector),
}

/// Kinds of ICMP error; of each flow's IP version, all of these are sent in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icmp {
    /// The kinds, of both families.
    pub kinds: Vec<&'static icmp::Kind>,
    /// What a packet-too-big announces.
    pub mtu: u32,
}

impl Inject {
    /// The frames that go along the path of the datagrams to the victim, the first one at `from` plus
    /// the delay.
    pub(super) fn forge(
        &self,
        from: Duration,
        to_victim: &Path,
        source: &Source<'_>,
    ) -> Vec<Delivery> {
        let frames = self.frames(to_victim, source);
        let mut at = from + self.delay;
        let mut deliveries = Vec::with_capacity(frames.len());
        for (what, frame) in frames {
            deliveries.push(Delivery {
                at,
                direction: self.to,
                frame,
                origin: Origin::Forged {
                    flow: source.flow,
                    inject: source.inject,
                    what,
                },
            });
            at += self.spacing;
        }
        deliveries
    }

    /// What is sent and its name.
    fn frames(&self, to_victim: &Path, source: &Source<'_>) -> Vec<(String, Vec<u8>)> {
        let forge = |number: usize| match &self.payload {
            Payload::Icmp(icmp) => {
                let family = Family::of(to_victim.source.ip());
                let mut kinds = icmp.kinds.iter().filter(|kind| kind.family == family);
                let kind = kinds.nth(number)?;
                let claimed = to_victim.source.ip();
                let frame = icmp::forge(kind, claimed, &to_victim.reversed(), icmp.mtu);
                Some((format!("icmp {}", kind.name), frame))
            }
            Payload::Datagrams(forgeries) => {
                let forgery = forgeries.get(number)?;
                Some((forgery.name().to_owned(), Vec::new()))
            }
            Payload::Replay(_) => {
                let frame = source.observed.get(number)?;
                Some(("replay".to_owned(), frame.clone()))
            }
        };
        let kinds: Vec<_> = (0..).map_while(forge).collect();
        let rounds = (0..self.repeat).flat_map(|_| &kinds);
        let mut frames: Vec<_> = rounds.cloned().collect();
        if let Payload::Datagrams(forgeries) = &self.payload {
            for (number, (forgery, (_, frame))) in
                (0..).zip(forgeries.iter().cycle().zip(&mut frames))
            {
                // Each has random bytes of its own.
                let draws = Draws {
                    seed: source.seed,
                    flow: source.flow,
                    direction: self.to,
                    ordinal: number,
                };
                let payload = forgery.bytes(&mut draws.inject(source.inject));
                *frame = Datagram {
                    path: *to_victim,
                    payload: &payload,
                }
                .to_frame();
            }
        }
        frames
    }
}

/// Whose forgery: what its chances and its name in a report depend on.
pub(super) struct Source<'a> {
    pub(super) seed: u64,
    pub(super) flow: u32,
    /// Index in the scenario.
    pub(super) inject: usize,
    /// Frames this inject has seen and would replay.
    pub(super) observed: &'a [Vec<u8>],
}

/// Datagrams an observer keeps to replay: more than a handshake has.
pub(super) const MOST_OBSERVED: usize = 64;
