//! What the fuzz targets of `dtls/fuzz` call: the parsers of what strangers send and of what files
//! hold. Each panics if its claim is broken. Runs on the fuzzer's thread.

use std::sync::LazyLock;

use crate::KnownPeers;
use crate::core::CookieJar;
use crate::core::filter::{Phase, RecordFilter, Role};
use crate::core::heartbeat::message::Message;
use crate::core::record::split_record;
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
    let mut filter = RecordFilter::new(role, 0);
    filter.enter(match choice >> 1 & 3 {
        0 => Phase::Plaintext,
        1 => Phase::Changing,
        _ => Phase::Established,
    });
    let mut passed = Vec::new();
    filter.sieve(datagram, &mut passed, &Stats::default());
    assert!(passed.len() <= datagram.len(), "nothing is added");
    let mut rest = &passed[..];
    while let Some((_, tail)) = split_record(rest) {
        rest = tail;
    }
    assert!(rest.is_empty(), "only whole records pass");
}

/// The bytes are a cookie that somebody made up.
pub fn cookie(data: &[u8]) {
    const NOW: u64 = 1_800_000_000;
    static JAR: LazyLock<CookieJar> =
        LazyLock::new(|| CookieJar::new(NOW).expect("OpenSSL has randomness"));
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 4433));
    assert!(!JAR.verify(address, address, NOW, data), "forged");
}

/// The bytes are a decrypted heartbeat record.
pub fn heartbeat(data: &[u8]) {
    if let Some(message) = Message::parse(data) {
        assert!(
            message.payload.len() + 3 + 16 <= data.len(),
            "it reads past the record"
        );
    }
}

/// The bytes are a known-peers file.
pub fn known_peers(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        drop(KnownPeers::parse(text));
    }
}
