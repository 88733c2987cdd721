//! What a planted defect does: it stands between an end and its socket, and looks at, leaves out,
//! repeats, delays and forges what a broken implementation would.
//!
//! No keys: a defect of sealed records works on whole datagrams. One thread with its end.

mod datagram;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use datagram::{carries, is_bad, is_clear, with_cookie};

use super::defect::Defect;
use super::end::Moment;
use crate::packet::Direction;
use crate::record::{
    self, Content, ContentType, FlightTracker, Fragment, MessageType, Place, Record, fragments,
};
use crate::role::Role;

pub(crate) use datagram::split_records;

/// One end's defect, and what it has to remember.
#[derive(Debug)]
pub(crate) struct Saboteur {
    pub(crate) defect: Defect,
    role: Role,
    tracker: FlightTracker,
    /// The first transmission of each flight of its own, and the newest.
    first: BTreeMap<u8, Vec<Vec<u8>>>,
    newest: Vec<Vec<u8>>,
    /// Parts of messages that have come, as message number, offset and length.
    parts: Vec<(u16, u32, u32)>,
    /// The highest number of a message that has come.
    highest: Option<u16>,
    change_cipher_spec: bool,
    /// The highest record number of epoch 1 that has come.
    record: u64,
    /// The hello that began the connection.
    random: Option<[u8; 32]>,
    /// What was read from datagrams that have come.
    read: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    bad: u32,
    /// Expiries since the end last moved on, and how often it has.
    expiries: u32,
    flights: u32,
    questions: u32,
    forged: u32,
    answered: u32,
    /// Before this the end's timer does not expire.
    held_until: Option<Instant>,
    /// A timer of its own.
    due: Option<Instant>,
    /// The newest HelloVerifyRequest.
    question: Option<Vec<u8>>,
}

/// What an end makes of an ICMP error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    Nothing,
    Ends,
    Sends(Vec<Vec<u8>>),
    Believes,
}

impl Saboteur {
    pub(crate) fn new(defect: Defect, role: Role) -> Self {
        Self {
            defect,
            role,
            tracker: FlightTracker::default(),
            first: BTreeMap::new(),
            newest: Vec::new(),
            parts: Vec::new(),
            highest: None,
            change_cipher_spec: false,
            record: 0,
            random: None,
            read: HashMap::new(),
            bad: 0,
            expiries: 0,
            flights: 0,
            questions: 0,
            forged: 0,
            answered: 0,
            held_until: None,
            due: None,
            question: None,
        }
    }

    fn is(&self, defect: Defect, role: Role) -> bool {
        self.defect == defect && self.role == role
    }

    /// The hello that a server which cares for no cookie takes this one for, once it has asked `answer`.
    pub(crate) fn waves_through(&self, hello: &[u8], answer: &[u8]) -> Option<Vec<u8>> {
        let records = record::parse(hello);
        let has_cookie = fragments(&records)
            .find_map(|it| it.hello.as_ref())?
            .has_cookie();
        let careless = match self.defect {
            Defect::NoCookie => !has_cookie,
            Defect::AnyCookie => has_cookie,
            _ => false,
        };
        let answer = record::parse(answer);
        let cookie = fragments(&answer).find_map(Fragment::cookie_asked_for)?;
        careless.then(|| with_cookie(hello, cookie)).flatten()
    }

    /// What is sent for a HelloVerifyRequest.
    pub(crate) fn asks(&mut self, question: Vec<u8>, now: Moment) -> Vec<Vec<u8>> {
        self.questions += 1;
        let silent = match self.defect {
            Defect::OneHelloVerifyRequest => self.questions > 1,
            Defect::TwoHelloVerifyRequests => self.questions > 2,
            _ => false,
        };
        if self.defect == Defect::HelloVerifyTimer {
            self.question = Some(question.clone());
            self.due = Some(now.instant + SECOND);
        }
        match (silent, self.defect) {
            (true, _) => Vec::new(),
            (false, Defect::Amplifies) => vec![question; 4],
            (false, _) => vec![question],
        }
    }

    /// The server has a connection now, because of this hello.
    pub(crate) fn accepted(&mut self, hello: &[u8]) {
        self.due = None;
        let records = record::parse(hello);
        self.tracker.place(Direction::ToServer, &records);
        let hello = fragments(&records).find_map(|it| it.hello.as_ref());
        self.random = hello.map(|hello| hello.random);
    }

    /// What the end is to take in place of this datagram.
    ///
    /// # Errors
    ///
    /// The defect ends the connection, in words.
    pub(crate) fn receives(
        &mut self,
        datagram: &[u8],
        done: bool,
        now: Moment,
    ) -> Result<Vec<Vec<u8>>, String> {
        let records = record::parse(datagram);
        let towards = match self.role {
            Role::Server => Direction::ToServer,
            Role::Client => Direction::ToClient,
        };
        self.tracker.place(towards, &records);
        self.ends_by(&records, done)?;
        let hello = fragments(&records).find_map(|it| it.hello.as_ref());
        let foreign = hello.is_some_and(|hello| self.random.is_some_and(|it| it != hello.random));
        if self.is(Defect::HelloCloses, Role::Server) && done && foreign {
            return Err("a hello has come".to_owned());
        }
        if self.is(Defect::DeafToNewHello, Role::Server) && done && foreign {
            return Ok(Vec::new());
        }
        if self.defect == Defect::BadRecordTakesNeighbours && records.iter().any(is_bad) {
            return Ok(Vec::new());
        }
        if self.defect == Defect::PartHoldsTimer && !done {
            self.held_until = Some(now.instant + SECOND);
        }
        let kept = match self.defect {
            Defect::RefragmentedNeverJoined => self.cut_alike(datagram),
            Defect::WindowBeforeMac => self.within_window(datagram),
            _ => datagram.to_vec(),
        };
        Ok(vec![kept])
    }

    /// Whether one of these records ends the connection.
    fn ends_by(&mut self, records: &[Record], done: bool) -> Result<(), String> {
        let bad = records.is_empty() || records.iter().any(is_bad);
        let alert = records
            .iter()
            .any(|record| matches!(record.content, Content::Alert { .. }));
        self.bad += u32::from(bad || alert);
        let unexpected = match self.defect {
            Defect::FatalOutOfOrder => self.overtakes(records),
            Defect::FatalEarlyRecord => self.is_early(records, done),
            _ => false,
        };
        let why = match self.defect {
            Defect::FatalBadRecord if bad => "a bad record",
            Defect::ObeysPlaintextAlert if alert => "an alert",
            Defect::GivesUpOnBadRecords if done && self.bad > 1000 => "too many bad records",
            _ if unexpected => "an unexpected message",
            _ => return Ok(()),
        };
        Err(why.to_owned())
    }

    /// Whether a message comes before one that precedes it.
    fn overtakes(&mut self, records: &[Record]) -> bool {
        for fragment in fragments(records) {
            let expected = self
                .highest
                .map_or(fragment.message_seq, |highest| highest + 1);
            let begun = self.highest == Some(fragment.message_seq);
            if fragment.message_seq > expected {
                return true;
            }
            let follows = |part: &(u16, u32, u32)| {
                part.0 == fragment.message_seq && part.1 + part.2 >= fragment.offset
            };
            if fragment.offset > 0 && !(begun && self.parts.iter().any(follows)) {
                return true;
            }
            self.highest = self.highest.max(Some(fragment.message_seq));
            self.parts.push((
                fragment.message_seq,
                fragment.offset,
                fragment.fragment_length,
            ));
        }
        false
    }

    /// Whether a sealed record comes before the ChangeCipherSpec, or data before Finished.
    fn is_early(&mut self, records: &[Record], done: bool) -> bool {
        let mut finished = done;
        for record in records {
            match (&record.content, record.content_type) {
                (Content::ChangeCipherSpec, _) => self.change_cipher_spec = true,
                (Content::Encrypted, _) if !self.change_cipher_spec => return true,
                (Content::Encrypted, ContentType::Handshake) => finished = true,
                (Content::Encrypted, _) if !finished => return true,
                _ => {}
            }
        }
        false
    }

    /// Without the fragments that overlap an earlier one and are not that one.
    fn cut_alike(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        for one in split_records(datagram) {
            let records = record::parse(&one);
            let clashes = fragments(&records).any(|fragment| {
                let (start, end) = (fragment.offset, fragment.offset + fragment.fragment_length);
                self.parts.iter().any(|&(message, offset, length)| {
                    message == fragment.message_seq
                        && (offset, length) != (start, fragment.fragment_length)
                        && offset < end
                        && start < offset + length
                })
            });
            if !clashes {
                for it in fragments(&records) {
                    self.parts
                        .push((it.message_seq, it.offset, it.fragment_length));
                }
                kept.extend(one);
            }
        }
        kept
    }

    /// Without the sealed records that are too far behind the newest, whoever sent that.
    fn within_window(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        for one in split_records(datagram) {
            let sealed = record::parse(&one)
                .first()
                .filter(|record| record.epoch == 1)
                .map(|record| record.seq);
            match sealed {
                Some(seq) if seq + WINDOW <= self.record => {}
                _ => {
                    self.record = self.record.max(sealed.unwrap_or_default());
                    kept.extend(one);
                }
            }
        }
        kept
    }

    /// What an end sends at once because of what came, besides what it would.
    pub(crate) fn answers(&mut self, datagram: &[u8], done: bool, moved: bool) -> Vec<Vec<u8>> {
        let records = record::parse(datagram);
        let bad = records.is_empty() || records.iter().any(is_bad);
        if self.defect == Defect::BadRecordAnswered && bad {
            return vec![self.alert()];
        }
        let (whole, part) = self.repeated(&records);
        if done || moved || self.answered == MOST_ANSWERS {
            return Vec::new();
        }
        self.answered += u32::from(part);
        match self.defect {
            Defect::AnswersDuplicates if whole => self.newest.clone(),
            Defect::ServerWithoutTimer if whole && self.role == Role::Server => self.newest.clone(),
            Defect::DuplicateStorm if part && self.role == Role::Server => {
                let again = std::iter::repeat_n(self.newest.clone(), 5).flatten();
                let again: Vec<_> = again.filter(|datagram| is_clear(datagram)).collect();
                again.iter().map(|it| self.renumbered(it)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether the end of a flight, or any part of one, has been here before.
    fn repeated(&mut self, records: &[Record]) -> (bool, bool) {
        let (mut whole, mut part) = (false, false);
        if !matches!(
            self.defect,
            Defect::AnswersDuplicates | Defect::ServerWithoutTimer | Defect::DuplicateStorm
        ) {
            return (whole, part);
        }
        for fragment in fragments(records) {
            let item = (fragment.message_seq, fragment.offset, 0);
            if self.parts.contains(&item) {
                part = true;
                whole |= fragment.is_last() && fragment.message.ends_flight();
            } else {
                self.parts.push(item);
            }
        }
        (whole, part)
    }

    /// What was read of this datagram when it came before.
    pub(crate) fn read_again(&self, datagram: &[u8]) -> &[Vec<u8>] {
        let known = self.read.get(datagram).map(Vec::as_slice);
        known
            .filter(|_| self.defect == Defect::ReplaysDelivered)
            .unwrap_or_default()
    }

    /// Remembers what was read of a datagram.
    pub(crate) fn has_read(&mut self, datagram: &[u8], data: &[Vec<u8>]) {
        if self.defect == Defect::ReplaysDelivered && !data.is_empty() {
            self.read.insert(datagram.to_vec(), data.to_vec());
        }
    }

    /// What the end makes of an ICMP error.
    pub(crate) fn hears(&mut self, errno: Errno, done: bool) -> Reaction {
        match self.defect {
            Defect::FatalErrno => Reaction::Ends,
            Defect::ObeysTooBig if errno == Errno::EMSGSIZE => Reaction::Believes,
            Defect::IcmpRepeatsFlight if !done => {
                let newest = self.newest.clone();
                let again = newest.iter().map(|datagram| self.renumbered(datagram));
                Reaction::Sends(again.collect())
            }
            _ => Reaction::Nothing,
        }
    }

    /// Whether the server keeps to itself what it would say.
    pub(crate) fn is_mute(&self) -> bool {
        self.is(Defect::Mute, Role::Server)
    }

    /// What is sent in place of a datagram. `done`: the handshake was complete before.
    pub(crate) fn sends(&mut self, datagram: Vec<u8>, done: bool) -> Vec<Vec<u8>> {
        let records = record::parse(&datagram);
        let away = match self.role {
            Role::Server => Direction::ToClient,
            Role::Client => Direction::ToServer,
        };
        let place = self.tracker.place(away, &records);
        if let Some(place) = place {
            self.keep(&place, &datagram);
        }
        let closing = matches!(datagram.first(), Some(20 | 22));
        let first_of = |this: &Self, place: Place| this.first.get(&place.flight).cloned();
        match (self.defect, place) {
            (Defect::LastFlightNeverResent, _) if self.role == Role::Server && done && closing => {
                Vec::new()
            }
            (Defect::ResumedLastFlightNeverResent, _)
                if self.role == Role::Client && done && closing =>
            {
                Vec::new()
            }
            (Defect::ServerHelloRenumbered, Some(place))
                if place.flight == 4 && carries(&records, MessageType::ServerHello) =>
            {
                vec![self.renumbered(&datagram)]
            }
            (Defect::OldRecordNumbers | Defect::NeverShrinks, Some(place))
                if place.flight == 4 && place.transmission > 1 =>
            {
                let first = first_of(self, place).unwrap_or_default();
                if !first.iter().all(|it| is_clear(it)) {
                    return vec![datagram];
                }
                if place.datagram > 1 {
                    return Vec::new();
                }
                if self.defect == Defect::OldRecordNumbers {
                    return first;
                }
                first.iter().map(|it| self.renumbered(it)).collect()
            }
            _ => vec![datagram],
        }
    }

    fn keep(&mut self, place: &Place, datagram: &[u8]) {
        if place.transmission == 1 {
            let first = self.first.entry(place.flight).or_default();
            first.push(datagram.to_vec());
        }
        if place.datagram == 1 {
            self.newest.clear();
        }
        self.newest.push(datagram.to_vec());
    }

    /// A copy whose records in the clear have numbers that nobody has used.
    fn renumbered(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut copy = Vec::with_capacity(datagram.len());
        for mut one in split_records(datagram) {
            if one.get(3..5) == Some(&[0, 0]) {
                self.forged += 1;
                one[5..11].copy_from_slice(&(UNUSED + u64::from(self.forged)).to_be_bytes()[2..]);
            }
            copy.extend(one);
        }
        copy
    }

    /// A fatal alert in the clear: `unexpected_message`.
    fn alert(&mut self) -> Vec<u8> {
        let bare = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 10];
        self.renumbered(&bare)
    }

    /// The end's timer has expired.
    pub(crate) fn expired(&mut self) {
        self.expiries += 1;
    }

    /// What came has moved the end on: its timer is another one now.
    pub(crate) fn moves_on(&mut self) {
        self.expiries = 0;
        self.flights += 1;
        self.held_until = None;
    }

    /// The handshake is complete.
    pub(crate) fn completed(&mut self, now: Moment) {
        if self.is(Defect::LastFlightTimer, Role::Server) {
            self.due = Some(now.instant + SECOND);
        }
    }

    /// When an end whose timer expires at `due` acts.
    pub(crate) fn acts_at(&self, due: Instant, shaking: bool) -> Instant {
        if !shaking {
            return due;
        }
        let late = match (self.defect, self.expiries) {
            (Defect::Gaps13612, expiries @ 1..) => SECOND * (1 << (expiries - 1).min(6)),
            // Whoever is in its second flight waits 2 s for it, and so on.
            (Defect::TimerCarriedOver, 0) => SECOND * ((1 << self.flights.min(6)) - 1),
            _ => Duration::ZERO,
        };
        let due = due + late;
        match self.held_until {
            Some(until) if self.defect == Defect::PartHoldsTimer => due.max(until),
            _ => due,
        }
    }

    /// When [`Saboteur::acts`] wants to be called.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What its own timer sends, if that has expired.
    pub(crate) fn acts(&mut self, now: Moment) -> Vec<Vec<u8>> {
        if self.due.is_none_or(|due| due > now.instant) {
            return Vec::new();
        }
        self.due = None;
        if self.defect == Defect::LastFlightTimer {
            return self.newest.clone();
        }
        self.questions += 1;
        if self.questions < 8 {
            self.due = Some(now.instant + SECOND);
        }
        self.question.clone().into_iter().collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// Records that a replay window spans (RFC 6347 §4.1.2.6).
const WINDOW: u64 = 64;
/// Two ends that answer each other's duplicates on a wire that makes more would never end.
const MOST_ANSWERS: u32 = 100;
/// Above every number that a run uses.
const UNUSED: u64 = 1 << 20;
