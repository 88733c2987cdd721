//! Heartbeats between two ends in memory, under a virtual clock: every suite, every loss, and what
//! a lying or forging peer may send.

use std::collections::HashSet;
use std::sync::LazyLock;

use dtls_certs::{Profile, TestPki};
use openssl::ssl::{
    ExtensionContext, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslStream,
};

use super::*;
use crate::config::Settings;
use crate::config::{ClientConfig, ClientConfigBuilder, Identity, ServerConfig, ServerTrust};
use crate::core::heartbeat::message::{Kind, OVERHEAD, write};
use crate::core::heartbeat::protection::Protection;
use crate::core::record::APPLICATION_DATA;
use crate::core::slot::Slot;
use crate::core::{Progress, Read};
use crate::stats::Stats;
use std::net::SocketAddr;
use std::sync::Arc;

const SECOND: Duration = Duration::from_secs(1);
const DEFAULT: &str = "ECDHE-ECDSA-AES128-GCM-SHA256";

/// Both nonce layouts, all key and tag lengths, both hashes.
const SUITES: [&str; 7] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-CCM",
    "ECDHE-ECDSA-AES256-CCM",
    "ECDHE-ECDSA-AES128-CCM8",
    "ECDHE-ECDSA-AES256-CCM8",
];

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let leaf = TestPki::new().unwrap().issue(Profile::SERVER).unwrap();
    Identity::from_pem(leaf.chain_pem.as_bytes(), leaf.key_pem.as_bytes()).unwrap()
});

/// One end, its counters, and all it ever transmitted.
struct End {
    connection: Connection,
    stats: Arc<Stats>,
    wire: Vec<Vec<u8>>,
}

struct Pair {
    client: End,
    server: End,
    now: Instant,
}

fn client_config() -> ClientConfigBuilder {
    ClientConfig::builder(ServerTrust::Anyone)
}

fn peer() -> SocketAddr {
    "192.0.2.9:4433".parse().unwrap()
}

impl End {
    fn new(
        context: &SslContext,
        is_server: bool,
        suite: &str,
        settings: Settings,
        now: Instant,
    ) -> Self {
        let mut ssl = Ssl::new(context).unwrap();
        // The 8-byte tags are below the default security level.
        ssl.set_cipher_list(&format!("{suite}:@SECLEVEL=0"))
            .unwrap();
        crate::verify::introduce(&mut ssl, 0, Some("localhost"), peer()).unwrap();
        let stats = Arc::<Stats>::default();
        let settings = Arc::new(settings);
        if is_server {
            ssl.set_accept_state();
        } else {
            ssl.set_connect_state();
        }
        let stream = SslStream::new(ssl, Slot::default()).unwrap();
        let connection = if is_server {
            Connection::accepted(stream, 0, peer(), &settings, &stats, now)
        } else {
            Connection::new(stream, 0, peer(), &settings, &stats, now)
        };
        Self {
            connection: connection.unwrap(),
            stats,
            wire: Vec::new(),
        }
    }

    fn transmit(&mut self) -> Vec<Vec<u8>> {
        let sent: Vec<_> = std::iter::from_fn(|| self.connection.transmit()).collect();
        self.wire.extend(sent.iter().cloned());
        sent
    }

    fn receive(&mut self, datagrams: &[Vec<u8>], now: Instant) -> Vec<Vec<u8>> {
        for datagram in datagrams {
            self.connection.receive(datagram, now);
        }
        self.transmit()
    }

    fn data(&mut self, text: &[u8]) -> Vec<Vec<u8>> {
        self.connection.write(text).unwrap();
        self.transmit()
    }

    /// A heartbeat that this end seals properly, whatever it says.
    fn heartbeat(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        assert!(self.connection.send_heartbeat(message));
        self.transmit()
    }

    #[track_caller]
    fn reads(&mut self, expected: &[u8]) {
        let mut buffer = [0; 2000];
        assert_eq!(
            self.connection.read(&mut buffer).unwrap(),
            Read::Data(expected.len())
        );
        assert_eq!(&buffer[..expected.len()], expected);
        assert_eq!(self.connection.read(&mut buffer).unwrap(), Read::Empty);
    }

    fn count(&self, counter: Counter) -> u64 {
        self.stats.get(counter)
    }

    /// Record numbers of the protected records transmitted, by content type.
    fn numbers(&self) -> Vec<(u8, u64)> {
        let mut numbers = Vec::new();
        for datagram in &self.wire {
            let mut rest = &datagram[..];
            while let Some((record, tail)) = split_record(rest) {
                rest = tail;
                if record.epoch == 1 {
                    numbers.push((record.content_type, record.sequence));
                }
            }
        }
        numbers
    }

    /// On the wire: each number once, each nonce once, and exactly this many records of data.
    #[track_caller]
    fn assert_sound_wire(&self, data: usize) {
        let numbers = self.numbers();
        let distinct: HashSet<u64> = numbers.iter().map(|(_, number)| *number).collect();
        assert_eq!(distinct.len(), numbers.len(), "{numbers:?}");
        let sent = numbers
            .iter()
            .filter(|(content_type, _)| *content_type == APPLICATION_DATA);
        assert_eq!(sent.count(), data, "a placeholder left: {numbers:?}");
        let cipher = self.connection.ssl().current_cipher().unwrap().name();
        if !cipher.contains("CHACHA20") {
            let protected = self.wire.iter().filter(|datagram| datagram[3..5] == [0, 1]);
            let nonces: Vec<_> = protected.map(|datagram| &datagram[13..21]).collect();
            let distinct: HashSet<_> = nonces.iter().collect();
            assert_eq!(distinct.len(), nonces.len(), "{cipher}");
        }
    }
}

impl Pair {
    fn new(suite: &str) -> Self {
        Self::with(suite, client_config().heartbeat(true), true)
    }

    fn with(suite: &str, client: ClientConfigBuilder, server_agrees: bool) -> Self {
        let client = client.build().unwrap();
        let settings = Settings::clone(client.settings());
        Self::of(suite, client.context(), settings, server_agrees)
    }

    fn of(suite: &str, client: &SslContext, settings: Settings, server_agrees: bool) -> Self {
        let mut pair = Self::before_handshake(suite, client, settings, server_agrees);
        pair.shake_hands();
        pair
    }

    fn before_handshake(
        suite: &str,
        client: &SslContext,
        settings: Settings,
        server_agrees: bool,
    ) -> Self {
        let now = now();
        let server = ServerConfig::builder(IDENTITY.clone())
            .heartbeat(server_agrees)
            .build()
            .unwrap();
        let server_settings = Settings::clone(server.settings());
        Self {
            client: End::new(client, false, suite, settings, now),
            server: End::new(server.context(), true, suite, server_settings, now),
            now,
        }
    }

    fn shake_hands(&mut self) {
        for _ in 0..5 {
            self.client.connection.handshake(self.now).unwrap();
            let flight = self.client.transmit();
            for datagram in &flight {
                self.server.connection.receive(datagram, self.now);
                self.server.connection.handshake(self.now).unwrap();
            }
            for datagram in &self.server.transmit() {
                self.client.connection.receive(datagram, self.now);
                self.client.connection.handshake(self.now).unwrap();
            }
        }
        for end in [&mut self.client, &mut self.server] {
            let progress = end.connection.handshake(self.now).unwrap();
            assert_eq!(progress, Progress::Established);
            // Whatever lay behind Finished.
            assert_eq!(
                end.connection.read(&mut [0; 100]).unwrap(),
                Read::Empty,
                "nothing was sent"
            );
        }
    }

    /// Lets time pass up to the client's next deadline, and returns what it sends then.
    fn expire(&mut self) -> Vec<Vec<u8>> {
        self.now = self.client.connection.deadline().unwrap();
        self.client.connection.handle_timeout(self.now).unwrap();
        self.client.transmit()
    }

    #[track_caller]
    fn assert_data_both_ways(&mut self) {
        for text in [&b"a"[..], b"some text", &[7; 1000]] {
            let sent = self.client.data(text);
            self.server.receive(&sent, self.now);
            self.server.reads(text);
            let sent = self.server.data(text);
            self.client.receive(&sent, self.now);
            self.client.reads(text);
        }
    }

    #[track_caller]
    fn assert_alive(&mut self) {
        assert!(self.client.connection.probe(10 * SECOND, self.now));
        assert_eq!(self.client.connection.liveness(), None);
        let request = self.client.transmit();
        assert_eq!(request.len(), 1);
        let answer = self.server.receive(&request, self.now);
        assert_eq!(answer.len(), 1);
        self.client.receive(&answer, self.now);
        assert_eq!(
            self.client.connection.liveness(),
            Some(Liveness::Alive {
                rtt: Duration::ZERO
            })
        );
    }

    /// The client sends a heartbeat as it likes; the server must not answer, must count, and must
    /// go on as if nothing had been.
    #[track_caller]
    fn assert_unanswered(&mut self, message: &[u8], reason: Counter) {
        let before = self.server.count(reason);
        let sent = self.client.heartbeat(message);
        assert_eq!(self.server.receive(&sent, self.now), Vec::<Vec<u8>>::new());
        assert_eq!(self.server.count(reason), before + 1, "{}", reason.name());
        assert_eq!(
            self.server.connection.read(&mut [0; 10]).unwrap(),
            Read::Empty
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// A client's context that says `mode` where RFC 6520 wants 1 or 2.
fn context_with_mode(mode: &'static [u8]) -> SslContext {
    let mut context: SslContextBuilder = SslContext::builder(SslMethod::dtls_client()).unwrap();
    context.set_options(SslOptions::NO_QUERY_MTU);
    context
        .add_custom_ext(
            15,
            ExtensionContext::CLIENT_HELLO | ExtensionContext::TLS1_2_SERVER_HELLO,
            move |_, _, _| Ok(Some(mode)),
            |_, _, _, _| Ok(()),
        )
        .unwrap();
    context.build()
}

fn settings() -> Settings {
    Settings::clone(client_config().build().unwrap().settings())
}

fn raw(kind: u8, claimed: u16, rest: usize) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(claimed.to_be_bytes());
    message.resize(3 + rest, 0xaa);
    message
}

#[test]
fn our_keys_and_nonces_open_what_openssl_seals_with_every_suite() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        for (text, n) in [(&b"first"[..], 0), (b"second", 1)] {
            let sent = pair.client.data(text);
            let (record, _) = split_record(&sent[0]).unwrap();
            let server = pair.server.connection.heartbeat.as_ref().unwrap();
            let opened = server.protection().open(&record);
            assert_eq!(opened.as_deref(), Some(text), "{suite} {n}");
            let sent = pair.server.data(text);
            let (record, _) = split_record(&sent[0]).unwrap();
            let client = pair.client.connection.heartbeat.as_ref().unwrap();
            let opened = client.protection().open(&record);
            assert_eq!(opened.as_deref(), Some(text), "{suite} {n}");
        }
    }
}

#[test]
fn a_probe_finds_the_peer_alive_and_data_intact_with_every_suite() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        let ssl = pair.client.connection.ssl();
        assert_eq!(ssl.current_cipher().unwrap().name(), suite);
        pair.assert_data_both_ways();
        for _ in 0..3 {
            pair.assert_alive();
            pair.assert_data_both_ways();
            pair.now += SECOND;
        }
        let payload = pair.server.connection.max_payload() - OVERHEAD;
        let largest = write(Kind::Request, &vec![5; payload]).unwrap();
        let sent = pair.client.heartbeat(&largest);
        assert_eq!(pair.server.receive(&sent, pair.now).len(), 1, "{suite}");
        pair.client.assert_sound_wire(12);
        pair.server.assert_sound_wire(12);
        let count = |counter| pair.client.count(counter);
        assert_eq!(count(Counter::HeartbeatRequestsSent), 3);
        assert_eq!(count(Counter::HeartbeatResponsesReceived), 3);
        assert_eq!(pair.server.count(Counter::HeartbeatResponsesSent), 4);
    }
}

#[test]
fn the_server_can_ask_too() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.server.connection.probe(SECOND, pair.now));
    let request = pair.server.transmit();
    let answer = pair.client.receive(&request, pair.now);
    pair.server.receive(&answer, pair.now);
    assert!(matches!(
        pair.server.connection.liveness(),
        Some(Liveness::Alive { .. })
    ));
    pair.assert_data_both_ways();
}

#[test]
fn heartbeats_need_both_ends_and_are_otherwise_dropped_before_openssl_sees_them() {
    for (client, server) in [(false, false), (true, false), (false, true)] {
        let mut pair = Pair::with(DEFAULT, client_config().heartbeat(client), server);
        for end in [&mut pair.client, &mut pair.server] {
            assert!(!end.connection.probe(SECOND, pair.now));
            assert_eq!(
                end.connection.liveness(),
                Some(Liveness::NotNegotiated),
                "{client} {server}"
            );
            assert_eq!(end.connection.deadline(), None);
            let mut forged = vec![24, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 60];
            forged.extend([7; 60]);
            assert!(end.receive(&[forged], pair.now).is_empty());
            assert_eq!(end.count(Counter::DroppedHeartbeatUnexpected), 1);
        }
        pair.assert_data_both_ways();
    }
}

#[test]
fn a_peer_that_forbids_requests_is_answered_but_not_asked() {
    let mut pair = Pair::of(DEFAULT, &context_with_mode(&[2]), settings(), true);
    assert!(!pair.server.connection.probe(SECOND, pair.now));
    assert_eq!(
        pair.server.connection.liveness(),
        Some(Liveness::NotNegotiated)
    );
    let server = &pair.server.connection.stream;
    let ends = Protection::of(pair.client.connection.ssl())
        .unwrap()
        .unwrap();
    assert_eq!(server.ssl().version_str(), "DTLSv1.2");
    // The client's own code has no heartbeat here: seal by hand.
    let suite = ends.suite();
    let placeholder = pair.client.connection.take_placeholder(suite).unwrap();
    let message = write(Kind::Request, b"hello").unwrap();
    let request = ends.seal(placeholder, &message).unwrap();
    let answer = pair.server.receive(&[request], pair.now);
    assert_eq!(answer.len(), 1);
    let (record, _) = split_record(&answer[0]).unwrap();
    let opened = ends.open(&record).unwrap();
    assert_eq!(&opened[..8], b"\x02\0\x05hello");
    pair.assert_data_both_ways();
}

#[test]
fn an_unknown_mode_ends_the_handshake() {
    for mode in [&[0][..], &[3], &[], &[1, 1]] {
        let context = context_with_mode(mode);
        let mut pair = Pair::before_handshake(DEFAULT, &context, settings(), true);
        pair.client.connection.handshake(pair.now).unwrap();
        let hello = pair.client.transmit();
        pair.server.connection.receive(&hello[0], pair.now);
        assert!(pair.server.connection.handshake(pair.now).is_err());
    }
}

#[test]
fn a_heartbeat_during_the_handshake_is_dropped_and_the_handshake_goes_on() {
    let client = client_config().heartbeat(true).build().unwrap();
    let settings = Settings::clone(client.settings());
    let mut pair = Pair::before_handshake(DEFAULT, client.context(), settings, true);
    pair.client.connection.handshake(pair.now).unwrap();
    let hello = pair.client.transmit();
    pair.server.connection.receive(&hello[0], pair.now);
    pair.server.connection.handshake(pair.now).unwrap();
    let mut forged = vec![24, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 60];
    forged.extend([7; 60]);
    for end in [&mut pair.client, &mut pair.server] {
        end.connection.receive(&forged, pair.now);
        end.connection.handshake(pair.now).unwrap();
        assert_eq!(end.count(Counter::DroppedHeartbeatUnexpected), 1);
        assert!(!end.connection.probe(SECOND, pair.now), "not yet");
    }
    let flight = pair.server.transmit();
    for datagram in &flight {
        pair.client.connection.receive(datagram, pair.now);
    }
    pair.shake_hands();
    pair.assert_alive();
}

#[test]
fn a_lost_request_is_sent_again_with_the_same_payload_under_a_new_number() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(30 * SECOND, pair.now));
    let start = pair.now;
    let first = pair.client.transmit();
    let again = pair.expire();
    assert_eq!(pair.now - start, SECOND);
    let third = pair.expire();
    assert_eq!(pair.now - start, 3 * SECOND, "doubled");
    let server = pair.server.connection.heartbeat.as_ref().unwrap();
    let opened: Vec<_> = [&first, &again, &third]
        .map(|sent| {
            let (record, _) = split_record(&sent[0]).unwrap();
            server.protection().open(&record).unwrap()
        })
        .into();
    assert_eq!(opened[0][..19], opened[2][..19]);
    assert_ne!(opened[0][19..], opened[2][19..], "padding is new");
    let answer = pair.server.receive(&third, pair.now);
    pair.client.receive(&answer, pair.now);
    let alive = Liveness::Alive { rtt: 3 * SECOND };
    assert_eq!(pair.client.connection.liveness(), Some(alive));
    assert_eq!(pair.client.connection.deadline(), None, "the timer stopped");
    pair.client.assert_sound_wire(0);
}

#[test]
fn a_lost_response_is_asked_for_again() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(30 * SECOND, pair.now));
    let request = pair.client.transmit();
    let lost = pair.server.receive(&request, pair.now);
    assert_eq!(lost.len(), 1);
    let again = pair.expire();
    let answer = pair.server.receive(&again, pair.now);
    pair.client.receive(&answer, pair.now);
    assert_eq!(
        pair.client.connection.liveness(),
        Some(Liveness::Alive { rtt: SECOND })
    );
    // The first answer was only late.
    pair.client.receive(&lost, pair.now);
    assert_eq!(pair.client.count(Counter::DroppedHeartbeatUnasked), 1);
    pair.server.assert_sound_wire(0);
    pair.assert_data_both_ways();
}

#[test]
fn a_silent_peer_is_given_up_at_the_timeout_and_may_be_found_later() {
    let mut pair = Pair::new(DEFAULT);
    let start = pair.now;
    assert!(pair.client.connection.probe(10 * SECOND, pair.now));
    let mut sent = pair.client.transmit().len();
    while pair.client.connection.liveness().is_none() {
        sent += pair.expire().len();
    }
    assert_eq!(pair.client.connection.liveness(), Some(Liveness::Silent));
    assert_eq!(
        (sent, pair.now - start),
        (4, 10 * SECOND),
        "at 0, 1, 3, 7 s"
    );
    assert_eq!(pair.client.count(Counter::ProbesUnanswered), 1);
    assert_eq!(pair.client.connection.deadline(), None);
    pair.assert_alive();
    pair.assert_data_both_ways();
}

#[test]
fn a_second_probe_joins_the_one_in_flight() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(SECOND, pair.now));
    assert!(pair.client.connection.probe(2 * SECOND, pair.now));
    assert_eq!(pair.client.transmit().len(), 1);
    pair.expire();
    assert_eq!(pair.client.connection.liveness(), None, "the new timeout");
    pair.expire();
    assert_eq!(pair.client.connection.liveness(), Some(Liveness::Silent));
}

#[test]
fn replayed_heartbeats_are_answered_once_and_settle_nothing() {
    let mut pair = Pair::new(DEFAULT);
    assert!(pair.client.connection.probe(SECOND, pair.now));
    let request = pair.client.transmit();
    let answer = pair.server.receive(&request, pair.now);
    for _ in 0..3 {
        assert!(pair.server.receive(&request, pair.now).is_empty());
    }
    assert_eq!(pair.server.count(Counter::DroppedHeartbeatReplayed), 3);
    pair.client.receive(&answer, pair.now);
    assert!(pair.client.connection.probe(SECOND, pair.now));
    pair.client.receive(&answer, pair.now);
    assert_eq!(pair.client.connection.liveness(), None);
    assert_eq!(pair.client.count(Counter::DroppedHeartbeatReplayed), 1);
    // Data cannot be replayed as a heartbeat nor the other way round: the type is authenticated.
    let mut disguised = pair.client.data(b"data");
    disguised[0][0] = HEARTBEAT;
    assert!(pair.server.receive(&disguised, pair.now).is_empty());
    assert_eq!(pair.server.count(Counter::DroppedHeartbeatForged), 1);
    let mut disguised = pair.client.heartbeat(&raw(1, 0, 16));
    disguised[0][0] = APPLICATION_DATA;
    pair.server.receive(&disguised, pair.now);
    assert_eq!(
        pair.server.connection.read(&mut [0; 99]).unwrap(),
        Read::Empty
    );
}

#[test]
fn no_changed_bit_and_no_missing_byte_is_accepted() {
    for suite in [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ] {
        let mut pair = Pair::new(suite);
        let good = pair.client.heartbeat(&raw(1, 4, 20)).remove(0);
        for at in 0..good.len() {
            let mut forged = good.clone();
            forged[at] ^= 1;
            let answers = pair.server.receive(&[forged], pair.now);
            assert!(answers.is_empty(), "{suite}: byte {at}");
            let outcome = pair.server.connection.read(&mut [0; 99]);
            assert_eq!(outcome.unwrap(), Read::Empty, "{suite}: byte {at}");
        }
        for length in 0..good.len() {
            let mut cut = good[..length].to_vec();
            assert!(pair.server.receive(&[cut.clone()], pair.now).is_empty());
            // The same with a header that admits it.
            if let Some(body) = length.checked_sub(13) {
                cut[12] = u8::try_from(body).unwrap();
                assert!(pair.server.receive(&[cut], pair.now).is_empty());
            }
            let outcome = pair.server.connection.read(&mut [0; 99]);
            assert_eq!(outcome.unwrap(), Read::Empty, "{suite}: {length} bytes");
        }
        assert!(pair.server.count(Counter::DroppedHeartbeatForged) > 40);
        assert_eq!(pair.server.receive(&[good], pair.now).len(), 1);
        pair.assert_data_both_ways();
    }
}

#[test]
fn a_payload_length_that_lies_gets_no_answer() {
    let mut pair = Pair::new(DEFAULT);
    let malformed = Counter::DroppedHeartbeatMalformed;
    for (claimed, rest) in [
        (0x4000, 1),  // the original attack
        (0xffff, 16), // as much as can be claimed
        (5, 20),      // padding one byte short
        (21, 20),     // payload one byte beyond
        (20, 20),     // no padding
        (0, 15),
        (0, 0),
        (1, 0),
        (0xffed, 16), // with header and padding 2^16
    ] {
        pair.assert_unanswered(&raw(1, claimed, rest), malformed);
    }
    for short in [&[1][..], &[1, 0]] {
        pair.assert_unanswered(short, malformed);
    }
    for kind in [0, 3, 255] {
        pair.assert_unanswered(&raw(kind, 1, 17), malformed);
    }
    pair.now += SECOND;
    let sent = pair.client.heartbeat(&raw(1, 4, 20));
    assert_eq!(pair.server.receive(&sent, pair.now).len(), 1);
    pair.assert_data_both_ways();
}

#[test]
fn an_answer_holds_the_payload_received_and_fresh_padding_and_nothing_else() {
    let mut pair = Pair::new(DEFAULT);
    for length in [0, 1, 17, 500] {
        let payload = vec![0x5a; length];
        let mut message = write(Kind::Request, &payload).unwrap();
        message.extend([0x77; 200]);
        let sent = pair.client.heartbeat(&message);
        let answer = pair.server.receive(&sent, pair.now);
        let (record, _) = split_record(&answer[0]).unwrap();
        let client = pair.client.connection.heartbeat.as_ref().unwrap();
        let opened = client.protection().open(&record).unwrap();
        assert_eq!(opened.len(), length + OVERHEAD);
        assert_eq!(opened[3..3 + length], payload);
        assert!(!opened[3 + length..].starts_with(&[0x77; 4]));
    }
}

#[test]
fn requests_too_long_or_too_many_get_no_answer() {
    let mut pair = Pair::new(DEFAULT);
    let limit = pair.server.connection.max_payload() - OVERHEAD;
    for length in [limit + 1, 10_000] {
        let message = write(Kind::Request, &vec![0; length]).unwrap();
        pair.assert_unanswered(&message, Counter::DroppedHeartbeatExcess);
    }
    for _ in 0..2 {
        let answered = (0..100)
            .map(|_| {
                let sent = pair.client.heartbeat(&raw(1, 0, 16));
                pair.server.receive(&sent, pair.now).len()
            })
            .sum::<usize>();
        assert_eq!(answered, 10);
        pair.now += SECOND;
    }
    pair.assert_alive();
}

#[test]
fn a_response_to_nothing_or_to_something_else_settles_nothing() {
    let mut pair = Pair::new(DEFAULT);
    pair.assert_unanswered(&raw(2, 16, 32), Counter::DroppedHeartbeatUnasked);
    assert!(pair.server.connection.probe(SECOND, pair.now));
    drop(pair.server.transmit());
    pair.assert_unanswered(&raw(2, 16, 32), Counter::DroppedHeartbeatUnasked);
    pair.assert_unanswered(&raw(2, 0, 16), Counter::DroppedHeartbeatUnasked);
    assert_eq!(pair.server.connection.liveness(), None);
}

#[test]
fn a_heartbeat_between_records_of_data_takes_nothing_with_it() {
    let mut pair = Pair::new(DEFAULT);
    let one = pair.client.data(b"one").remove(0);
    let beat = pair.client.heartbeat(&raw(1, 0, 16)).remove(0);
    let two = pair.client.data(b"two").remove(0);
    let answer = pair.server.receive(&[[one, beat, two].concat()], pair.now);
    assert_eq!(answer.len(), 1);
    let mut buffer = [0; 99];
    for text in [b"one", b"two"] {
        let read = pair.server.connection.read(&mut buffer).unwrap();
        assert_eq!((read, &buffer[..3]), (Read::Data(3), &text[..]));
    }
}

#[test]
fn a_closed_connection_sends_no_heartbeat() {
    let mut pair = Pair::new(DEFAULT);
    let request = pair.client.heartbeat(&raw(1, 0, 16));
    pair.server.connection.close();
    assert_eq!(pair.server.transmit().len(), 1, "close_notify");
    assert!(pair.server.receive(&request, pair.now).is_empty());
    assert!(pair.server.connection.probe(SECOND, pair.now));
    assert!(pair.server.transmit().is_empty());
    assert_eq!(pair.server.count(Counter::HeartbeatRequestsSent), 0);
    assert_eq!(pair.server.count(Counter::HeartbeatResponsesSent), 0);
}

#[test]
fn an_idle_connection_is_probed_before_it_counts_as_idle() {
    let config = client_config()
        .idle_timeout(Some(60 * SECOND))
        .probe_when_idle(Some(5 * SECOND));
    let mut pair = Pair::with(DEFAULT, config, true);
    let start = pair.now;
    let request = pair.expire();
    assert_eq!((request.len(), pair.now - start), (1, 60 * SECOND));
    assert!(!pair.client.connection.is_idle(pair.now));
    let answer = pair.server.receive(&request, pair.now);
    pair.client.receive(&answer, pair.now);
    assert!(!pair.client.connection.is_idle(pair.now));
    assert_eq!(
        pair.client.connection.deadline(),
        Some(start + 120 * SECOND),
        "an answer is a sign of life"
    );
    // Nobody answers any more.
    let mut sent = 0;
    while !pair.client.connection.is_idle(pair.now) {
        sent += pair.expire().len();
    }
    assert_eq!((sent, pair.now - start), (3, 125 * SECOND));
    // Until something is heard.
    let data = pair.server.data(b"late");
    pair.now += SECOND;
    pair.client.receive(&data, pair.now);
    pair.client.reads(b"late");
    assert!(!pair.client.connection.is_idle(pair.now));
    assert_eq!(
        pair.client.connection.deadline(),
        Some(pair.now + 60 * SECOND)
    );
}

#[test]
fn without_heartbeats_an_idle_connection_is_idle_at_once() {
    let config = client_config()
        .idle_timeout(Some(60 * SECOND))
        .probe_when_idle(Some(5 * SECOND));
    let mut pair = Pair::with(DEFAULT, config, false);
    assert!(pair.expire().is_empty());
    assert!(pair.client.connection.is_idle(pair.now));
    pair.client.connection.suspect(pair.now);
    assert!(pair.client.transmit().is_empty());
}

#[test]
fn a_suspicion_costs_one_request_and_ends_nothing_unless_the_peer_is_silent() {
    let config = client_config().probe_when_idle(Some(2 * SECOND));
    let mut pair = Pair::with(DEFAULT, config, true);
    for _ in 0..50 {
        pair.client.connection.suspect(pair.now);
    }
    let request = pair.client.transmit();
    assert_eq!(request.len(), 1);
    let answer = pair.server.receive(&request, pair.now);
    pair.client.receive(&answer, pair.now);
    assert!(!pair.client.connection.is_idle(pair.now));
    assert_eq!(pair.client.connection.deadline(), None);
    let start = pair.now;
    pair.client.connection.suspect(pair.now);
    while pair.client.connection.deadline().is_some() {
        pair.expire();
        assert_eq!(
            pair.client.connection.is_idle(pair.now),
            pair.now - start == 2 * SECOND,
            "more hints put nothing off"
        );
        if pair.now - start < 2 * SECOND {
            pair.client.connection.suspect(pair.now);
        }
    }
    assert!(pair.client.connection.is_idle(pair.now));
    // The same for an application that asked for no policy: nothing happens at all.
    let mut pair = Pair::new(DEFAULT);
    pair.client.connection.suspect(pair.now);
    assert!(pair.client.transmit().is_empty());
}

#[test]
fn a_forged_record_of_any_length_is_no_sign_of_life_with_any_suite() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        let shortest = if suite.ends_with("CCM8") || suite.contains("CHACHA") {
            16
        } else {
            24
        };
        let heard = pair.server.connection.timers.last_heard();
        for (n, length) in (shortest..100).enumerate() {
            let mut forged = vec![24, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0];
            forged.push(u8::try_from(length).unwrap());
            forged.resize(13 + length, 0x5a);
            let later = pair.now + SECOND;
            assert!(pair.server.receive(&[forged], later).is_empty());
            let forgeries = u64::try_from(n).unwrap() + 1;
            assert_eq!(
                pair.server.count(Counter::DroppedHeartbeatForged),
                forgeries,
                "{suite}: {length} bytes"
            );
        }
        assert_eq!(pair.server.connection.timers.last_heard(), heard);
    }
}
