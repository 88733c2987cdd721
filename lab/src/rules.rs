//! The rules a DTLS 1.2 implementation must keep, by their ids: what each demands, and how the lab
//! sees it. Pure data; `dtls-lab rules` prints it, and a scenario names those it shows.
//!
//! Some are checked on every datagram of every run ([`Watcher`]), whatever the scenario is about.
//! The others need a fault, and are as good as the scenarios that name them.

mod bugs;
mod watcher;

pub use bugs::{BUGS, Bug, BugId};
pub use watcher::{Arrival, Exchanged, Passing, Watcher};

use serde::{Deserialize, Serialize};

/// A rule and where it comes from.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rule {
    /// Its id.
    pub id: RuleId,
    /// What it demands, in one sentence.
    pub demands: &'static str,
    /// Where that stands.
    pub reference: &'static str,
    /// Whether every run is held to it.
    pub every_run: bool,
    /// Why DTLS 1.2 knows no such rule, where that is so.
    pub absent: Option<&'static str>,
}

/// Names of the rules: C cookies, T timers and repetition, O order, R records, A address, M path
/// MTU, I ICMP, N addresses that change, U congestion, H heartbeats, K limits, L what every run must
/// end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the table below says what each is")]
pub enum RuleId {
    C1,
    C2,
    C3,
    C4,
    C5,
    C6,
    T1,
    T2,
    T3,
    T4,
    T5,
    T6,
    T7,
    T8,
    T9,
    T10,
    O1,
    O2,
    R1,
    R2,
    R3,
    R4,
    A1,
    M1,
    M2,
    I1,
    I2,
    N1,
    U1,
    H1,
    K1,
    L1,
}

impl std::fmt::Display for RuleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

/// All rules, in order of id.
pub const RULES: &[Rule] = &[
    every_run(
        RuleId::C1,
        "No ServerHello before the client has returned a cookie.",
        "RFC 6347 §4.2.1",
    ),
    every_run(
        RuleId::C2,
        "HelloVerifyRequest and the first ServerHello bear the record number of the hello they answer.",
        "RFC 6347 §4.2.1",
    ),
    every_run(
        RuleId::C3,
        "A wrong, stale or foreign cookie gets no ServerHello.",
        "RFC 6347 §4.2.1",
    ),
    every_run(
        RuleId::C4,
        "An address that has not returned a cookie is sent no more bytes than came from it.",
        "RFC 6347 §4.2.1",
    ),
    every_run(
        RuleId::C5,
        "A HelloVerifyRequest answers a hello and is never repeated without one: it leaves neither timer nor state.",
        "RFC 6347 §4.2.1",
    ),
    in_scenarios(
        RuleId::C6,
        "A repeated hello without cookie gets another HelloVerifyRequest.",
        "RFC 6347 §4.2.1",
    ),
    in_scenarios(
        RuleId::T1,
        "An unanswered flight is sent again after 1 s, then after twice as long each time.",
        "RFC 6347 §4.2.4.1",
    ),
    in_scenarios(
        RuleId::T2,
        "The timer starts anew for each flight and is not doubled without loss.",
        "RFC 6347 §4.2.4.1",
    ),
    every_run(
        RuleId::T3,
        "A repeated flight has the same messages, byte for byte, in records with numbers of their own.",
        "RFC 6347 §4.1, §4.2.4",
    ),
    in_scenarios(
        RuleId::T4,
        "Other fragment boundaries, and fragments that overlap, are taken.",
        "RFC 6347 §4.2.3",
    ),
    in_scenarios(
        RuleId::T5,
        "A repeated flight of the other end is answered once, without a storm.",
        "RFC 6347 §4.2.4",
    ),
    every_run(
        RuleId::T6,
        "The last flight is sent again when the other end repeats its own, and never by a timer.",
        "RFC 6347 §4.2.4",
    ),
    in_scenarios(
        RuleId::T7,
        "In a resumed handshake the client keeps the last flight and sends it again on demand.",
        "RFC 6347 §4.2.4",
    ),
    not_in_1_2(
        RuleId::T8,
        "The ACK of the last flight is sent again when that comes again.",
        "RFC 9147 §7.1",
        "DTLS 1.2 has no ACK; T6 is its rule",
    ),
    in_scenarios(
        RuleId::T9,
        "A part of a flight neither advances the handshake nor holds back the timer.",
        "RFC 6347 §4.2.4",
    ),
    not_in_1_2(
        RuleId::T10,
        "No more than ten records are sent at a time.",
        "RFC 9147 §5.8.3",
        "RFC 6347 does not limit the records of a flight",
    ),
    in_scenarios(
        RuleId::O1,
        "Messages out of order are kept or dropped, and the handshake completes.",
        "RFC 6347 §4.2.2",
    ),
    in_scenarios(
        RuleId::O2,
        "Data that overtakes Finished and Finished that overtakes ChangeCipherSpec end nothing.",
        "RFC 6347 §4.2.4",
    ),
    in_scenarios(
        RuleId::R1,
        "Replayed records are dropped, and none is counted as seen before its MAC is good.",
        "RFC 6347 §4.1.2.6",
    ),
    every_run(
        RuleId::R2,
        "Invalid records are dropped in silence, in every state, and the connection goes on: nobody sends an alert and goes on.",
        "RFC 6347 §4.1.2.7",
    ),
    in_scenarios(
        RuleId::R3,
        "An alert that nobody sealed ends nothing that is established.",
        "RFC 6347 §4.1.2.7",
    ),
    in_scenarios(
        RuleId::R4,
        "A bad record does not take its neighbours in the datagram with it.",
        "RFC 6347 §4.1.2.7",
    ),
    in_scenarios(
        RuleId::A1,
        "A new hello on a live 4-tuple is taken up, and the old connection lives until the new one is complete.",
        "RFC 6347 §4.2.8",
    ),
    in_scenarios(
        RuleId::M1,
        "Fragments become smaller when a flight is lost again and again.",
        "RFC 6347 §4.1.1.1",
    ),
    in_scenarios(
        RuleId::M2,
        "A forged packet-too-big shortens no datagram.",
        "RFC 8899 §4.6.2",
    ),
    in_scenarios(
        RuleId::I1,
        "An ICMP error is a hint: no connection and no handshake ends by it.",
        "RFC 8085 §5.2",
    ),
    in_scenarios(
        RuleId::I2,
        "An ICMP error causes no answer, no early repetition and no early end.",
        "RFC 8085 §5.2",
    ),
    in_scenarios(
        RuleId::N1,
        "Without a connection ID no datagram from another address moves a connection there.",
        "RFC 9146 §6",
    ),
    in_scenarios(
        RuleId::U1,
        "A slow path costs repeated flights that become rarer, and no handshake.",
        "RFC 8085 §3.1.1",
    ),
    in_scenarios(
        RuleId::H1,
        "Heartbeats keep an idle connection alive across losses, and tell when the peer is gone.",
        "RFC 6520",
    ),
    in_scenarios(
        RuleId::K1,
        "Ten thousand bad records end no connection and pin no memory.",
        "RFC 9325 §4.4",
    ),
    every_run(
        RuleId::L1,
        "After every fault data flows both ways, or both ends have given up.",
        "RFC 6347 §4.2.4",
    ),
];

const fn every_run(id: RuleId, demands: &'static str, reference: &'static str) -> Rule {
    Rule {
        id,
        demands,
        reference,
        every_run: true,
        absent: None,
    }
}

const fn in_scenarios(id: RuleId, demands: &'static str, reference: &'static str) -> Rule {
    Rule {
        every_run: false,
        ..every_run(id, demands, reference)
    }
}

const fn not_in_1_2(
    id: RuleId,
    demands: &'static str,
    reference: &'static str,
    why: &'static str,
) -> Rule {
    Rule {
        absent: Some(why),
        ..in_scenarios(id, demands, reference)
    }
}

#[cfg(test)]
mod tests;
