//! Bugs that DTLS implementations have had, by the ids under which scenarios name them. Pure data;
//! `dtls-lab bugs` prints it.

use serde::{Deserialize, Serialize};

/// A bug that somebody had, and so anybody may have.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Bug {
    /// Its id.
    pub id: BugId,
    /// What goes wrong.
    pub what: &'static str,
    /// Where it was found: issues as `project #number`.
    pub seen_in: &'static str,
    /// Why no scenario of DTLS 1.2 can show it, where that is so.
    pub absent: Option<&'static str>,
}

/// Names of the bugs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the table below says what each is")]
pub enum BugId {
    B1,
    B2,
    B3,
    B4,
    B5,
    B6,
    B7,
    B8,
    B9,
    B10,
    B11,
    B12,
    B13,
    B14,
    B15,
    B16,
    B17,
    B18,
    B19,
    B20,
    B21,
    B22,
    B23,
    B24,
    B25,
    B26,
    B27,
}

impl std::fmt::Display for BugId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

/// All bugs, in order of id.
pub const BUGS: &[Bug] = &[
    bug(
        BugId::B1,
        "The server ignores a repeated hello without a cookie once its HelloVerifyRequest was lost.",
        "openssl #2439, #18635; wolfssl #612; pion/dtls #479",
    ),
    bug(
        BugId::B2,
        "After a repeated hello the ServerHello has the wrong record number, and is dropped as a replay.",
        "openssl #32063",
    ),
    bug(
        BugId::B3,
        "The last flight is not sent again.",
        "mbedtls #9911; bc-java #1489; pion/dtls #479, #646; licode #1887; tinydtls #119",
    ),
    bug(
        BugId::B4,
        "A repeated flight 5 breaks a server that is done.",
        "botan #2498, #4036, #2316",
    ),
    not_in_1_2(
        BugId::B5,
        "A lost ACK of the last flight leaves the client waiting for ever.",
        "openssl #32891",
        "only DTLS 1.3 has ACKs",
    ),
    not_in_1_2(
        BugId::B6,
        "The handshake completes, and no data can be decrypted.",
        "wolfssl #8855",
        "a matter of DTLS 1.3 epochs; every run of the lab demands data after the handshake (L1)",
    ),
    not_in_1_2(
        BugId::B7,
        "Certain losses around HelloRetryRequest end in a cookie error.",
        "wolfssl #10315",
        "only DTLS 1.3 has a HelloRetryRequest",
    ),
    bug(
        BugId::B8,
        "A CertificateVerify that comes after its ChangeCipherSpec ends the handshake.",
        "wolfssl #7512",
    ),
    bug(
        BugId::B9,
        "A Finished that comes before its ChangeCipherSpec ends the handshake or costs a timeout.",
        "tinydtls #79, #85, #191; openssl #4929, #15478; bc-java #1489",
    ),
    bug(
        BugId::B10,
        "A flight that is cut otherwise when it comes again is never put together.",
        "pion/dtls #1099; OvenMediaEngine #2329",
    ),
    bug(
        BugId::B11,
        "A hello in several fragments is refused.",
        "mbedtls #7549; wolfssl #9266",
    ),
    bug(
        BugId::B12,
        "A certificate that is too big for the path never arrives.",
        "mbedtls #7740, #1966; wolfssl-rs #249",
    ),
    bug(
        BugId::B13,
        "The timer doubles from flight to flight, though nothing is lost.",
        "erlang/otp #7301",
    ),
    bug(
        BugId::B14,
        "The timer of the first hello is never armed, or found too late.",
        "dimpl #160; str0m #943; mbedtls #5641",
    ),
    bug(
        BugId::B15,
        "Ends that cannot agree send ever more for each duplicate.",
        "pion/dtls #758, #759",
    ),
    bug(
        BugId::B16,
        "Flights are repeated after 1, 3, 6 and 12 s, and after 32 s comes 4 s.",
        "gnutls `lib/dtls.c`",
    ),
    bug(
        BugId::B17,
        "A lost NewSessionTicket stalls the handshake.",
        "gnutls issue 543",
    ),
    bug(
        BugId::B18,
        "A socket error on receive ends the listener.",
        "webrtc-rs #812",
    ),
    bug(
        BugId::B19,
        "An ICMP error on an unconnected socket ends the process.",
        "bun #29116, #29135, #35922, #35923",
    ),
    bug(
        BugId::B20,
        "An ICMP error, whoever sent it, ends the session.",
        "libcoap #1989, #2004, #357, #356, #132, #2098",
    ),
    bug(
        BugId::B21,
        "An ICMP error that comes back for an unverified hello is answered with more datagrams.",
        "botan #1833",
    ),
    bug(
        BugId::B22,
        "An unverified address is sent many times the bytes that came from it.",
        "matrixssl #31; botan #1833",
    ),
    bug(
        BugId::B23,
        "An alert, HelloRequest or data in the clear is obeyed in mid-connection.",
        "openssl #32622, #32363; tinydtls #114",
    ),
    bug(
        BugId::B24,
        "The connection of a client that has died keeps it from coming back.",
        "openssl #3283; pion/dtls #253",
    ),
    bug(
        BugId::B25,
        "A client whose address has changed never learns that its server does not know it.",
        "wolfssl #2644",
    ),
    not_in_1_2(
        BugId::B26,
        "Fragments of the handshake before keep the messages of a renegotiation out.",
        "botan #5836",
        "renegotiation is refused (RFC 9325 §3.5); into a handshake in the clear anybody on the path \
         can send what spoils it",
    ),
    bug(
        BugId::B27,
        "A bad record is answered with an alert.",
        "openssl #25389",
    ),
];

const fn bug(id: BugId, what: &'static str, seen_in: &'static str) -> Bug {
    Bug {
        id,
        what,
        seen_in,
        absent: None,
    }
}

const fn not_in_1_2(
    id: BugId,
    what: &'static str,
    seen_in: &'static str,
    why: &'static str,
) -> Bug {
    Bug {
        absent: Some(why),
        ..bug(id, what, seen_in)
    }
}
