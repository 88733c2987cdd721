//! Which datagrams a rule or an attacker means: by position, by what they carry, by chance.

use rand_chacha::ChaCha20Rng;
use serde::Serialize;

use super::link::Chance;
use crate::packet::Direction;
use crate::record::{Content, ContentType, MessageType, Place, Record};

/// A datagram is selected when everything named here holds of it; the default selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Selector {
    /// The direction.
    pub direction: Option<Direction>,
    /// One of these flights; empty for any datagram, also outside a handshake.
    pub flights: Vec<u8>,
    /// One of these transmissions of its flight; empty for any.
    pub transmissions: Vec<u32>,
    /// Whether its handshake resumes a session, as far as seen when it passes.
    pub resumed: Option<bool>,
    /// Position in its transmission.
    pub datagram: Option<Position>,
    /// Number in its flow and direction, from 1.
    pub ordinal: Option<u64>,
    /// Every so many of its flow and direction.
    pub every: Option<u32>,
    /// A message it carries, or a part of one.
    pub message: Option<MessageType>,
    /// Epoch of one of its records.
    pub epoch: Option<u16>,
    /// Type of one of its records; with `epoch`, of the same record.
    pub content_type: Option<ContentType>,
    /// Chance, tried when all else holds.
    pub chance: Option<Chance>,
}

/// Position of a datagram in one transmission of its flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// The nth, from 1.
    Nth(u32),
    /// The one that ends the flight.
    Last,
}

/// A datagram as a selector sees it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Which way it goes.
    pub direction: Direction,
    /// Its number in flow and direction, from 1.
    pub ordinal: u64,
    /// Its place in the handshake.
    pub place: Option<&'a Place>,
    /// What it carries.
    pub records: &'a [Record],
}

impl Selector {
    /// Whether the datagram is meant; draws only if all but chance speaks for it.
    pub fn selects(&self, seen: &Seen<'_>, draw: &mut ChaCha20Rng) -> bool {
        self.direction
            .is_none_or(|direction| direction == seen.direction)
            && self.selects_place(seen.place)
            && self.ordinal.is_none_or(|ordinal| ordinal == seen.ordinal)
            && self
                .every
                .is_none_or(|every| seen.ordinal.is_multiple_of(every.into()))
            && self
                .message
                .is_none_or(|message| seen.records.iter().any(|record| carries(record, message)))
            && self.selects_record(seen.records)
            && self.chance.is_none_or(|chance| chance.comes_true(draw))
    }

    fn selects_place(&self, place: Option<&Place>) -> bool {
        let Some(place) = place else {
            return self.flights.is_empty()
                && self.transmissions.is_empty()
                && self.resumed.is_none()
                && self.datagram.is_none();
        };
        (self.flights.is_empty() || self.flights.contains(&place.flight))
            && (self.transmissions.is_empty() || self.transmissions.contains(&place.transmission))
            && self.resumed.is_none_or(|resumed| resumed == place.resumed)
            && match self.datagram {
                None => true,
                Some(Position::Nth(number)) => place.datagram == number,
                Some(Position::Last) => place.last,
            }
    }

    fn selects_record(&self, records: &[Record]) -> bool {
        (self.epoch.is_none() && self.content_type.is_none())
            || records.iter().any(|record| {
                self.epoch.is_none_or(|epoch| epoch == record.epoch)
                    && self
                        .content_type
                        .is_none_or(|wanted| wanted == record.content_type)
            })
    }
}

fn carries(record: &Record, message: MessageType) -> bool {
    match &record.content {
        Content::Handshake(fragments) => {
            fragments.iter().any(|fragment| fragment.message == message)
        }
        Content::Encrypted => {
            message == MessageType::Finished && record.content_type == ContentType::Handshake
        }
        Content::ChangeCipherSpec | Content::Alert { .. } | Content::Malformed => false,
    }
}
