//! Which flight, and which transmission of it, each datagram of a connection belongs to.
//!
//! The numbers are those of figure 1 of RFC 6347, told by sender and message, whichever messages
//! a handshake leaves out: a server that asks for no cookie goes from 1 to 4, and an
//! abbreviated (resumed) handshake has 4 = ServerHello to the server's Finished and 5 = the
//! client's Finished, and no 6.
//!
//! The tracker must see each datagram once, as its sender sent it: before the wire loses,
//! doubles or reorders anything. Then a message that was already in the transmission at hand
//! can only mean that the sender has begun to send the flight again.

use serde::Serialize;

use super::{Content, ContentType, Fragment, MessageType, Record};
use crate::packet::Direction;

/// Where a datagram stands in its handshake. All numbers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// 1 to 6, as in figure 1 of RFC 6347.
    pub flight: u8,
    /// 1 the first time the flight is sent, 2 when it is sent again.
    pub transmission: u32,
    /// Position of the datagram within this transmission.
    pub datagram: u32,
    /// Whether the flight ends with this datagram.
    pub last: bool,
    /// Whether the handshake resumes a session, as far as seen.
    pub resumed: bool,
    /// Which handshake on this 4-tuple: a hello with another random begins the next.
    pub handshake: u32,
}

/// Follows the handshakes of one connection, both directions.
#[derive(Debug, Clone, Default)]
pub struct FlightTracker {
    handshake: u32,
    random: Option<[u8; 32]>,
    hello_done: bool,
    resumed: bool,
    flights: [Progress; 6],
}

/// What has been seen of one flight.
#[derive(Debug, Clone, Default)]
struct Progress {
    transmission: u32,
    datagrams: u32,
    seen: Vec<Item>,
}

/// What a datagram carries of a flight, precise enough to recognise it when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Part { message_seq: u16, offset: u32 },
    ChangeCipherSpec,
    Finished,
}

impl FlightTracker {
    /// Where the datagram with these records stands; `None` when it carries no handshake
    /// message, such as application data or an alert.
    pub fn place(&mut self, direction: Direction, records: &[Record]) -> Option<Place> {
        let mut flight = None;
        let mut items = Vec::new();
        let mut last = false;
        for record in records {
            match (&record.content, record.content_type) {
                (Content::Handshake(fragments), _) => {
                    for fragment in fragments {
                        self.begin_handshake(direction, fragment);
                        let Some(of) = self.flight_of(direction, fragment) else {
                            continue;
                        };
                        if belongs(of, &mut flight, &mut items, &mut last) {
                            items.push(Item::Part {
                                message_seq: fragment.message_seq,
                                offset: fragment.offset,
                            });
                            last |= fragment.is_last() && fragment.message.ends_flight();
                        }
                    }
                }
                (Content::ChangeCipherSpec, _) => {
                    let of = self.closing_flight(direction);
                    if belongs(of, &mut flight, &mut items, &mut last) {
                        items.push(Item::ChangeCipherSpec);
                    }
                }
                (Content::Encrypted, ContentType::Handshake) => {
                    let of = self.closing_flight(direction);
                    if belongs(of, &mut flight, &mut items, &mut last) {
                        items.push(Item::Finished);
                        last = true;
                    }
                }
                (Content::Encrypted | Content::Alert { .. } | Content::Malformed, _) => {}
            }
        }
        let flight = flight?;
        let progress = &mut self.flights[usize::from(flight) - 1];
        let again = items.iter().any(|item| progress.seen.contains(item));
        if progress.transmission == 0 || again {
            progress.transmission += 1;
            progress.datagrams = 0;
            progress.seen.clear();
        }
        progress.datagrams += 1;
        progress.seen.extend(items);
        Some(Place {
            flight,
            transmission: progress.transmission,
            datagram: progress.datagrams,
            last,
            resumed: self.resumed,
            handshake: self.handshake,
        })
    }

    /// A first hello, or one with another random, begins a handshake of its own.
    fn begin_handshake(&mut self, direction: Direction, fragment: &Fragment) {
        let Some(hello) = &fragment.hello else {
            return;
        };
        if direction == Direction::ToServer && self.random != Some(hello.random) {
            *self = Self {
                handshake: self.handshake + 1,
                random: Some(hello.random),
                ..Self::default()
            };
        }
    }

    fn flight_of(&mut self, direction: Direction, fragment: &Fragment) -> Option<u8> {
        match (direction, fragment.message) {
            (_, MessageType::HelloRequest | MessageType::Other(_)) => None,
            (Direction::ToServer, MessageType::ClientHello) => {
                let cookie = match &fragment.hello {
                    Some(hello) => hello.has_cookie(),
                    // A later fragment: the hello with the cookie is the client's second message.
                    None => fragment.message_seq > 0,
                };
                Some(if cookie { 3 } else { 1 })
            }
            (Direction::ToServer, _) => Some(5),
            (Direction::ToClient, MessageType::HelloVerifyRequest) => Some(2),
            // The one plaintext message that both kinds of the server's last flight may open with.
            (Direction::ToClient, MessageType::NewSessionTicket) => {
                Some(if self.hello_done { 6 } else { 4 })
            }
            (Direction::ToClient, message) => {
                self.hello_done |= message == MessageType::ServerHelloDone && fragment.is_last();
                Some(4)
            }
        }
    }

    /// The flight of a ChangeCipherSpec or Finished.
    fn closing_flight(&mut self, direction: Direction) -> u8 {
        match direction {
            Direction::ToServer => 5,
            Direction::ToClient if self.hello_done => 6,
            Direction::ToClient => {
                self.resumed = true;
                4
            }
        }
    }
}

/// Whether what is of flight `of` counts for its datagram. A repeated flight and the next one may
/// share a datagram, which then is of the later: that it went out again is the lesser news.
fn belongs(of: u8, flight: &mut Option<u8>, items: &mut Vec<Item>, last: &mut bool) -> bool {
    if flight.is_some_and(|earlier| earlier < of) {
        items.clear();
        *last = false;
        *flight = Some(of);
    }
    *flight.get_or_insert(of) == of
}

#[cfg(test)]
mod tests;
