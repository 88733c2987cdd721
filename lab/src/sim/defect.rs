//! Defects that are planted in simulated ends to see that somebody notices: for each rule at least one
//! end that breaks it. What they do stands in `saboteur`.

use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};

/// Something wrong on purpose, by which checks are checked.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    EnumIter,
    EnumString,
    Display,
    IntoStaticStr,
    VariantNames,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Defect {
    /// The server takes up a hello without a cookie (C1).
    NoCookie,
    /// The server numbers the record of its ServerHello as it likes (C2).
    ServerHelloRenumbered,
    /// The server takes any cookie for its own (C3).
    AnyCookie,
    /// The server sends each HelloVerifyRequest four times (C4).
    Amplifies,
    /// The server repeats its HelloVerifyRequest every second (C5).
    HelloVerifyTimer,
    /// The server answers one hello without a cookie, and no more (C6).
    OneHelloVerifyRequest,
    /// The server answers two of them, and no more.
    TwoHelloVerifyRequests,
    /// The first retransmission comes after 0.4 s (T1).
    #[strum(serialize = "initial-400ms")]
    Initial400Ms,
    /// A retransmission every second, for ever (T1).
    NoBackoff,
    /// Retransmissions after 1, 3, 6, 12 s (T1).
    #[strum(serialize = "gaps-1-3-6-12")]
    Gaps13612,
    /// The timer never waits longer than 32 s (T1).
    #[strum(serialize = "cap-32s")]
    Cap32s,
    /// The timer of each flight begins where that of the last one ended (T2).
    TimerCarriedOver,
    /// The server has no timer, and duplicates move it to nothing (T2).
    DeafServer,
    /// The server has no timer, but answers a duplicate with its own flight.
    ServerWithoutTimer,
    /// A repeated flight 4 is a copy of the first one, record numbers and all (T3).
    OldRecordNumbers,
    /// Fragments are put together only if the message was always cut alike (T4).
    RefragmentedNeverJoined,
    /// The server answers each duplicate with its flight five times over (T5).
    DuplicateStorm,
    /// A server that is done repeats nothing (T6).
    LastFlightNeverResent,
    /// The server repeats the last flight after a second, unasked (T6).
    LastFlightTimer,
    /// A client that is done with a resumed handshake repeats nothing (T7).
    ResumedLastFlightNeverResent,
    /// Whatever arrives holds the timer back for a second (T9).
    PartHoldsTimer,
    /// A message that overtakes another ends the handshake (O1).
    FatalOutOfOrder,
    /// A sealed record that overtakes ChangeCipherSpec or Finished ends the handshake (O2).
    FatalEarlyRecord,
    /// A datagram that comes twice is read twice (R1).
    ReplaysDelivered,
    /// The replay window moves before the MAC is checked (R1).
    WindowBeforeMac,
    /// A bad record ends the connection (R2).
    FatalBadRecord,
    /// A bad record is answered with an alert (R2).
    BadRecordAnswered,
    /// An alert in the clear ends whatever it comes to (R3).
    ObeysPlaintextAlert,
    /// A bad record takes its whole datagram with it (R4).
    BadRecordTakesNeighbours,
    /// The server closes a connection when a hello comes (A1).
    HelloCloses,
    /// The server is deaf to hellos while it has a connection (A1).
    DeafToNewHello,
    /// A repeated flight 4 is never cut smaller (M1).
    NeverShrinks,
    /// A packet-too-big is believed (M2).
    ObeysTooBig,
    /// A socket error ends the connection, whatever it is (I1).
    FatalErrno,
    /// An ICMP error has the flight sent again at once (I2).
    IcmpRepeatsFlight,
    /// A thousand bad records end a connection (K1).
    GivesUpOnBadRecords,
    /// The server is done and says nothing (L1).
    Mute,
    /// Not a defect but its absence: both ends answer a duplicate of the peer's flight with their own, as
    /// figure 2 of RFC 6347 has it and OpenSSL does not.
    AnswersDuplicates,
}

#[cfg(test)]
mod tests;
