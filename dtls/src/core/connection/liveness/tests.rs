//! Two ends in memory under a virtual clock, which agree on heartbeats.

mod hostile;
mod probing;

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
use crate::core::record::{self, APPLICATION_DATA};
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
