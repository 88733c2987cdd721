//! What the fuzz targets of `dtls/fuzz` and the test of their seeds call: the parsers of what strangers
//! send and of what files hold. Each panics if its claim is broken. Runs on the caller's thread.

use std::sync::LazyLock;

use crate::KnownPeers;
use crate::core::cookie::{COOKIE, CookieJar};
use crate::core::filter::{Phase, RecordFilter, Role};
use crate::core::heartbeat::message::{Kind, Message, OVERHEAD, write};
use crate::core::record::{ALERT, HANDSHAKE, HEARTBEAT, split_record};
use crate::stats::Stats;

/// The first byte chooses role and phase, the rest is a datagram.
pub fn record_filter(data: &[u8]) {
    let Some((&choice, datagram)) = data.split_first() else {
        return;
    };
    let role = if choice & 1 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let phase = match choice >> 1 & 3 {
        0 => Phase::Plaintext,
        1 => Phase::Changing,
        _ => Phase::Established,
    };
    let mut filter = RecordFilter::new(role, 0);
    filter.enter(phase);
    let mut passed = Vec::new();
    filter.sieve(datagram, &mut passed, &Stats::default());
    assert!(passed.len() <= datagram.len(), "nothing is added");
    let mut rest = &passed[..];
    let mut number = 0;
    while let Some((record, tail)) = split_record(rest) {
        rest = tail;
        if record.epoch == 0 {
            assert_ne!(phase, Phase::Established, "plaintext is over");
            assert_ne!(record.content_type, ALERT, "anyone can send an alert");
            assert_eq!(record.sequence, number, "numbers are ours");
            number += 1;
            let bare = record.content_type == HANDSHAKE && record.body.is_empty();
            assert!(!bare, "a handshake record holds a message");
        } else {
            assert_eq!(record.epoch, 1, "there is no other epoch");
            assert_ne!(record.content_type, HEARTBEAT, "not for OpenSSL");
            assert!(record.body.len() >= 24, "no AEAD suite seals so little");
        }
    }
    assert!(rest.is_empty(), "only whole records pass");
}

/// The bytes are a cookie that somebody made up, and what somebody changes in a real one.
pub fn cookie(data: &[u8]) {
    const NOW: u64 = 1_800_000_000;
    static JAR: LazyLock<CookieJar> =
        LazyLock::new(|| CookieJar::new(NOW).expect("OpenSSL has randomness"));
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 4433));
    assert!(!JAR.verify(address, address, NOW, data), "forged");

    let mut cookie = [0; COOKIE];
    JAR.issue(address, address, NOW, false, &mut cookie)
        .expect("nothing is rotated");
    assert!(JAR.verify(address, address, NOW, &cookie), "its own");
    let real = cookie;
    for (byte, change) in cookie.iter_mut().zip(data) {
        *byte ^= change;
    }
    if cookie != real {
        assert!(!JAR.verify(address, address, NOW, &cookie), "changed");
    }
}

/// The bytes are a decrypted heartbeat record.
pub fn heartbeat(data: &[u8]) {
    let Some(message) = Message::parse(data) else {
        return;
    };
    let payload = message.payload;
    assert!(
        payload.len() + OVERHEAD <= data.len(),
        "it reads past the record"
    );
    let answer = write(Kind::Response, payload).expect("OpenSSL has randomness");
    assert!(answer.len() <= data.len(), "an answer amplifies");
    let kind = Kind::Response;
    assert_eq!(Message::parse(&answer), Some(Message { kind, payload }));
}

/// The bytes are a known-peers file.
pub fn known_peers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(known) = KnownPeers::parse(text) else {
        return;
    };
    let written: String = known
        .iter()
        .map(|known| format!("{} {}\n", known.peer, known.fingerprint))
        .collect();
    let again = KnownPeers::parse(&written).expect("what was read can be written");
    assert_eq!(again.len(), known.len());
    for (again, known) in again.iter().zip(&known) {
        assert_eq!(
            (&again.peer, again.fingerprint),
            (&known.peer, known.fingerprint)
        );
    }
}
