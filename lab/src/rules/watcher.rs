//! The rules that every run is held to, watched on the wire datagram by datagram.
//!
//! The relay thread tells of each datagram twice: as it was sent, and when it arrives. A rule that
//! is broken is noted once, with the words for a report; nothing is judged here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::RuleId;
use crate::packet::Direction;
use crate::record::{Content, ContentType, Fragment, MessageType, Place, Record, fragments};

/// A datagram an endpoint has sent, before anything becomes of it.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'a> {
    /// The client's number.
    pub flow: u32,
    /// Which way.
    pub direction: Direction,
    /// Its number in flow and direction.
    pub ordinal: u64,
    /// Bytes of the IP packet.
    pub length: usize,
    /// Whether the network has given the client another place in mid-run.
    pub rebound: bool,
    /// Its place in the handshake.
    pub place: Option<&'a Place>,
    /// What it carries.
    pub records: &'a [Record],
}

/// A datagram that reaches an end.
#[derive(Debug, Clone, Copy)]
pub enum Arrival<'a> {
    /// One that an endpoint sent, or a copy of it.
    Sent {
        /// The client's number.
        flow: u32,
        /// Which way.
        direction: Direction,
        /// Its number in flow and direction.
        ordinal: u64,
    },
    /// One an attacker made or replayed.
    Forged {
        /// The client's number.
        flow: u32,
        /// Which way.
        direction: Direction,
        /// Bytes of the IP packet.
        length: usize,
        /// What it carries.
        records: &'a [Record],
    },
}

/// What the rules need to remember of each client, and which of them were broken.
#[derive(Debug, Default)]
pub struct Watcher {
    flows: HashMap<u32, Flow>,
    broken: BTreeMap<RuleId, String>,
}

#[derive(Debug, Default)]
struct Flow {
    handshake: u32,
    /// Bytes from and to the client's address before it has returned a cookie.
    unverified: Exchanged,
    /// The same when there was most to one byte, before the address had proven itself in any way.
    most: Exchanged,
    /// The cookies the server has asked for, and how often it did.
    cookies: Vec<Vec<u8>>,
    questions: u32,
    /// Hellos that have reached the server, whoever sent them.
    hellos_arrived: u32,
    returned: Returned,
    /// Somebody else sends hellos as well: which hello an answer is for cannot be told any more.
    meddled: bool,
    /// The alert each end has sent.
    alerts: [Option<Alert>; 2],
    /// Parts of each end's messages, by number of the message.
    parts: [HashMap<u16, Vec<Part>>; 2],
    /// Record numbers of the client's hellos without and with a cookie.
    hellos: [BTreeSet<u64>; 2],
    server_hello_seen: bool,
    /// Numbers used, by direction and epoch.
    used: [BTreeSet<(u16, u64)>; 2],
    /// How often the end of the last flight but one has arrived.
    asked_for_last: u32,
    /// Of each datagram on its way: its bytes, whether it returns a cookie, whether it ends the last
    /// flight but one.
    on_their_way: HashMap<(Direction, u64), Arriving>,
}

/// The best that was done towards returning a cookie.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Returned {
    #[default]
    None,
    /// One that the server had not asked this address for.
    Wrong,
    /// One that it had.
    Right,
}

#[derive(Debug)]
struct Alert {
    what: String,
    sealed: bool,
}

/// A part of a message, as it was sent.
#[derive(Debug)]
struct Part {
    message: MessageType,
    length: u32,
    offset: u32,
    body: Vec<u8>,
}

/// Bytes of IP packets that a server exchanged with an address that may be anybody's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Exchanged {
    /// From the address.
    pub received: usize,
    /// To it.
    pub sent: usize,
}

impl Exchanged {
    /// How many bytes went out for each that came in.
    #[must_use]
    pub fn factor(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "bytes of a handshake")]
        let factor = self.sent as f64 / self.received.max(1) as f64;
        factor
    }
}

#[derive(Debug, Clone)]
struct Arriving {
    length: usize,
    hello: Option<Cookie>,
    asks_for_last: bool,
}

/// What a datagram with a hello, or with a part of one, says of a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cookie {
    None,
    /// Perhaps only its beginning.
    Some(Vec<u8>),
    /// A later part of a hello: it cannot be told.
    Unseen,
}

impl Watcher {
    /// The rules broken so far, each with what was seen.
    pub fn broken(&self) -> &BTreeMap<RuleId, String> {
        &self.broken
    }

    /// What went to the client's address for what had come from it, where that is most, before anything
    /// proved that the address is the client's; and whether the server asked for a cookie. `None` before
    /// the server has said anything.
    #[must_use]
    pub fn most_for_unverified(&self) -> Option<(Exchanged, bool)> {
        self.flows
            .values()
            .map(|flow| (flow.most, flow.questions > 0))
            .filter(|(most, _)| most.sent > 0)
            .max_by(|one, other| one.0.factor().total_cmp(&other.0.factor()))
    }

    /// Looks at a datagram that an endpoint sends.
    pub fn passes(&mut self, seen: &Passing<'_>) {
        let flow = self.flows.entry(seen.flow).or_default();
        let mut broken = Vec::new();
        if let Some(place) = seen.place {
            if place.handshake != flow.handshake {
                flow.begin(place.handshake);
            }
            flow.note_hellos(seen);
            broken.extend(flow.cookie_first(place));
            broken.extend(flow.number_of_the_hello(seen));
            broken.extend(flow.question_on_demand(place));
            broken.extend(flow.last_on_demand(place));
        }
        broken.extend(flow.fresh_numbers(seen));
        broken.extend(flow.same_messages(seen));
        broken.extend(flow.amplification(seen));
        broken.extend(flow.alert_and_on(seen));
        flow.on_their_way.insert(
            (seen.direction, seen.ordinal),
            Arriving {
                length: seen.length,
                hello: hello_of(seen.records),
                asks_for_last: seen.place.is_some_and(asks_for_last),
            },
        );
        for (rule, what) in broken {
            self.broken.entry(rule).or_insert(what);
        }
    }

    /// Looks at a datagram that reaches an end.
    pub fn arrives(&mut self, arrival: Arrival<'_>) {
        match arrival {
            Arrival::Sent {
                flow,
                direction,
                ordinal,
            } => {
                let flow = self.flows.entry(flow).or_default();
                let Some(of) = flow.on_their_way.get(&(direction, ordinal)).cloned() else {
                    return;
                };
                if direction == Direction::ToServer {
                    flow.reaches_server(of.length, of.hello);
                }
                flow.asked_for_last += u32::from(of.asks_for_last);
            }
            Arrival::Forged {
                flow,
                direction,
                length,
                records,
            } => {
                let flow = self.flows.entry(flow).or_default();
                if direction == Direction::ToServer {
                    flow.reaches_server(length, hello_of(records));
                }
                let handshake = |record: &Record| {
                    matches!(record.content, Content::Handshake(_))
                        || record.content_type == ContentType::Handshake
                };
                if records.iter().any(handshake) {
                    flow.meddled = true;
                    flow.asked_for_last += 1;
                }
            }
        }
    }
}

type Breach = Option<(RuleId, String)>;

impl Flow {
    fn begin(&mut self, handshake: u32) {
        *self = Self {
            handshake,
            unverified: std::mem::take(&mut self.unverified),
            most: self.most,
            cookies: std::mem::take(&mut self.cookies),
            questions: self.questions,
            hellos_arrived: self.hellos_arrived,
            returned: self.returned,
            meddled: self.meddled,
            on_their_way: std::mem::take(&mut self.on_their_way),
            ..Self::default()
        };
    }

    fn note_hellos(&mut self, seen: &Passing<'_>) {
        let asked = fragments(seen.records).filter_map(Fragment::cookie_asked_for);
        for cookie in asked {
            if !self.cookies.iter().any(|known| known == cookie) {
                self.cookies.push(cookie.to_vec());
            }
        }
        // A hello without a cookie may share the datagram of one with it.
        for record in seen.records {
            let one = std::slice::from_ref(record);
            if let Some(cookie) = hello_of(one) {
                self.hellos[usize::from(cookie != Cookie::None)].insert(record.seq);
            }
        }
    }

    fn reaches_server(&mut self, length: usize, hello: Option<Cookie>) {
        self.unverified.received += length;
        let Some(cookie) = hello else { return };
        self.hellos_arrived += 1;
        let returned = match cookie {
            Cookie::None => Returned::None,
            Cookie::Some(cookie) if self.cookies.iter().any(|it| it.starts_with(&cookie)) => {
                Returned::Right
            }
            Cookie::Some(_) => Returned::Wrong,
            Cookie::Unseen => Returned::Right,
        };
        self.returned = self.returned.max(returned);
    }

    /// C1 and C3.
    fn cookie_first(&self, place: &Place) -> Breach {
        let (rule, what) = match self.returned {
            Returned::None => (RuleId::C1, "no cookie"),
            Returned::Wrong => (
                RuleId::C3,
                "none but cookies that it had not asked that address for",
            ),
            Returned::Right => return None,
        };
        (place.flight == 4).then(|| {
            let what = format!("the server sent flight 4 to a client that had returned {what}");
            (rule, what)
        })
    }

    /// C5.
    fn question_on_demand(&mut self, place: &Place) -> Breach {
        if place.flight != 2 {
            return None;
        }
        self.questions += 1;
        (self.questions > self.hellos_arrived).then(|| {
            let (questions, hellos) = (self.questions, self.hellos_arrived);
            let what = format!("{questions} HelloVerifyRequests were sent for {hellos} hellos");
            (RuleId::C5, what)
        })
    }

    /// C2.
    fn number_of_the_hello(&mut self, seen: &Passing<'_>) -> Breach {
        for record in seen.records {
            let Content::Handshake(fragments) = &record.content else {
                continue;
            };
            for fragment in fragments {
                let (answered, what) = match fragment.message {
                    MessageType::HelloVerifyRequest => (&self.hellos[0], "HelloVerifyRequest"),
                    MessageType::ServerHello if !self.server_hello_seen => {
                        self.server_hello_seen = true;
                        (&self.hellos[1], "ServerHello")
                    }
                    _ => continue,
                };
                // A cookie is void at another place, and its hello as good as one without.
                let of_void_cookie = fragment.message == MessageType::HelloVerifyRequest
                    && seen.rebound
                    && self.hellos[1].contains(&record.seq);
                if of_void_cookie {
                    continue;
                }
                // Without any such hello it is another rule that is broken.
                if !self.meddled && !answered.is_empty() && !answered.contains(&record.seq) {
                    let seq = record.seq;
                    let what =
                        format!("{what} has record number {seq}, but its hello has {answered:?}");
                    return Some((RuleId::C2, what));
                }
            }
        }
        None
    }

    /// C4.
    fn amplification(&mut self, seen: &Passing<'_>) -> Breach {
        if self.returned == Returned::Right || seen.direction == Direction::ToServer {
            return None;
        }
        self.unverified.sent += seen.length;
        // Who answers flight 4 has got it: without a cookie this is what proves the address.
        let answered = self.asked_for_last > 0;
        if !answered && self.unverified.factor() > self.most.factor() {
            self.most = self.unverified;
        }
        let Exchanged { received, sent } = self.unverified;
        (sent > received).then(|| {
            let what =
                format!("{sent} bytes sent to an address that had sent {received} and no cookie");
            (RuleId::C4, what)
        })
    }

    /// T3.
    fn fresh_numbers(&mut self, seen: &Passing<'_>) -> Breach {
        // A HelloVerifyRequest has the number of its hello, however often that comes. And on a port that
        // served before, the last words of the old connection may come late.
        let answers_a_hello = seen.place.is_some_and(|place| place.flight == 2);
        if self.meddled || self.handshake > 1 || answers_a_hello {
            return None;
        }
        let used = &mut self.used[seen.direction as usize];
        let mut numbers = seen
            .records
            .iter()
            .filter(|record| !matches!(record.content, Content::Malformed));
        let twice = numbers.find(|record| !used.insert((record.epoch, record.seq)))?;
        let what = format!(
            "record number {} of epoch {} was used twice {}",
            twice.seq, twice.epoch, seen.direction
        );
        Some((RuleId::T3, what))
    }

    /// T3 as well: the bytes of a message are the same whenever they are sent.
    fn same_messages(&mut self, seen: &Passing<'_>) -> Breach {
        if self.meddled || self.handshake > 1 {
            return None;
        }
        for fragment in fragments(seen.records) {
            // Each HelloVerifyRequest is made anew, and its cookie may be another one.
            if fragment.message == MessageType::HelloVerifyRequest {
                continue;
            }
            let parts = self.parts[seen.direction as usize]
                .entry(fragment.message_seq)
                .or_default();
            if let Some(other) = parts.iter().find(|part| !part.agrees_with(fragment)) {
                let what = format!(
                    "message {} was a {} of {} bytes and came again {} as another",
                    fragment.message_seq, other.message, other.length, seen.direction
                );
                return Some((RuleId::T3, what));
            }
            let known = |part: &Part| {
                part.offset == fragment.offset && part.body.len() == fragment.body.len()
            };
            if !parts.iter().any(known) {
                parts.push(Part {
                    message: fragment.message,
                    length: fragment.length,
                    offset: fragment.offset,
                    body: fragment.body.clone(),
                });
            }
        }
        None
    }

    /// R2: whoever sends an alert means the end; one that goes on has answered noise. After a sealed one the
    /// last flight may still be asked for.
    fn alert_and_on(&mut self, seen: &Passing<'_>) -> Breach {
        // On a port that served before, the last words of the old connection may come late.
        if self.handshake > 1 {
            return None;
        }
        let alert = &mut self.alerts[seen.direction as usize];
        for record in seen.records {
            let goes_on = match (&record.content, record.content_type) {
                // The answer to a HelloRequest that is declined (RFC 5246 §7.2.2).
                (
                    Content::Alert {
                        description: NO_RENEGOTIATION,
                        ..
                    },
                    _,
                ) => false,
                (Content::Alert { level, description }, _) => {
                    alert.get_or_insert_with(|| Alert {
                        what: format!("alert({level},{description})"),
                        sealed: false,
                    });
                    false
                }
                (Content::Encrypted, ContentType::Alert) => {
                    alert.get_or_insert_with(|| Alert {
                        what: "an encrypted alert".to_owned(),
                        sealed: true,
                    });
                    false
                }
                (Content::Encrypted, ContentType::ApplicationData) => true,
                (Content::Handshake(_), _) => alert.as_ref().is_some_and(|alert| !alert.sealed),
                _ => false,
            };
            if goes_on && let Some(alert) = alert {
                let what = &alert.what;
                let what = format!("{what} was sent {}, and the end went on", seen.direction);
                return Some((RuleId::R2, what));
            }
        }
        None
    }

    /// T6 and T7: the last flight answers, and has no timer.
    fn last_on_demand(&self, place: &Place) -> Breach {
        let last_flight = if place.resumed { 5 } else { 6 };
        let unasked = place.flight == last_flight && place.transmission > self.asked_for_last;
        unasked.then(|| {
            let what = format!(
                "flight {last_flight} was sent {} times, but asked for {} times",
                place.transmission, self.asked_for_last
            );
            (RuleId::T6, what)
        })
    }
}

impl Part {
    /// Whether both can be parts of one message.
    fn agrees_with(&self, other: &Fragment) -> bool {
        if (self.message, self.length) != (other.message, other.length) {
            return false;
        }
        let start = self.offset.max(other.offset);
        let end = (self.offset + length_of(&self.body)).min(other.offset + length_of(&other.body));
        let of = |offset: u32, body: &[u8]| {
            let part = (start - offset) as usize..(end - offset) as usize;
            body.get(part).map(<[u8]>::to_vec)
        };
        start >= end || of(self.offset, &self.body) == of(other.offset, &other.body)
    }
}

fn length_of(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX)
}

/// What a datagram with a hello says of a cookie.
fn hello_of(records: &[Record]) -> Option<Cookie> {
    let mut hellos =
        fragments(records).filter(|fragment| fragment.message == MessageType::ClientHello);
    let fragment = hellos.next()?;
    Some(match &fragment.hello {
        Some(hello) if hello.has_cookie() => Cookie::Some(hello.cookie.clone()),
        Some(_) => Cookie::None,
        None if fragment.message_seq > 0 => Cookie::Unseen,
        None => Cookie::None,
    })
}

/// RFC 5246 §7.2.
const NO_RENEGOTIATION: u8 = 100;

/// Whether a datagram ends the flight that the last one answers.
fn asks_for_last(place: &Place) -> bool {
    let asking = if place.resumed { 4 } else { 5 };
    place.flight == asking && place.last
}
