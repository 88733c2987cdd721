//! Two ends in memory, with everything in between done by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::core::{Connection, HelloOutcome, HelloVerifier, Progress, Read};
use dtls::{ClientConfig, ServerConfig, ServerConfigBuilder, ServerTrust, Stats};
use dtls_certs::Profile;

use super::{anchors, identity};

pub(crate) const CLIENT: &str = "192.0.2.1:40000";
pub(crate) const SERVER: &str = "192.0.2.9:4433";
/// Much shorter than on a real network: OpenSSL's timers run on the real clock.
pub(crate) const FIRST_TIMER: Duration = Duration::from_millis(100);
pub(crate) const LONGEST_TIMER: Duration = Duration::from_millis(250);
pub(crate) const UNIX: u64 = 1_800_000_000;

/// A client and a server; the server's connection exists once a hello was verified.
pub(crate) struct Pair {
    client_config: ClientConfig,
    server_config: Arc<ServerConfig>,
    pub(crate) client: Connection,
    pub(crate) verifier: HelloVerifier,
    pub(crate) server: Option<Box<Connection>>,
    pub(crate) client_stats: Arc<Stats>,
    pub(crate) server_stats: Arc<Stats>,
    pub(crate) start: Instant,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(Profile::SERVER)
    }

    pub(crate) fn with(profile: Profile) -> Self {
        Self::adjusted(profile, |server| server)
    }

    /// With the last word on the server's configuration.
    pub(crate) fn adjusted(
        profile: Profile,
        adjust: impl FnOnce(ServerConfigBuilder) -> ServerConfigBuilder,
    ) -> Self {
        Self::timed(profile, FIRST_TIMER, adjust)
    }

    /// A pair whose timers never expire in a test, however busy the machine is.
    pub(crate) fn patient(adjust: impl FnOnce(ServerConfigBuilder) -> ServerConfigBuilder) -> Self {
        Self::timed(Profile::SERVER, Duration::from_secs(60), adjust)
    }

    fn timed(
        profile: Profile,
        first: Duration,
        adjust: impl FnOnce(ServerConfigBuilder) -> ServerConfigBuilder,
    ) -> Self {
        let longest = first.max(LONGEST_TIMER);
        let start = now();
        let (client_stats, server_stats) = (Arc::<Stats>::default(), Arc::<Stats>::default());
        let client = ClientConfig::builder(ServerTrust::Anchors(anchors()))
            .retransmission_timer(first, longest)
            .build()
            .unwrap();
        let server = ServerConfig::builder(identity(profile)).retransmission_timer(first, longest);
        let server = Arc::new(adjust(server).build().unwrap());
        let peer = SERVER.parse().unwrap();
        Self {
            client: Connection::connect(&client, "localhost", peer, None, &client_stats, start)
                .unwrap(),
            verifier: HelloVerifier::new(Arc::clone(&server), Arc::clone(&server_stats)).unwrap(),
            client_config: client,
            server_config: server,
            server: None,
            client_stats,
            server_stats,
            start,
        }
    }

    /// The same two ends, which complete a handshake and then begin one that resumes its session.
    pub(crate) fn resuming(mut self) -> Self {
        let flight_4 = self.up_to_flight_4();
        self.finish_from(&flight_4);
        self.assert_data_both_ways();
        let session = self.client.session().unwrap();
        self.client.close();
        let (config, peer) = (&self.client_config, SERVER.parse().unwrap());
        let stats = &self.client_stats;
        self.start = now();
        self.client =
            Connection::connect(config, "localhost", peer, Some(&session), stats, self.start)
                .unwrap();
        self.server = None;
        self.verifier = HelloVerifier::new(
            Arc::clone(&self.server_config),
            Arc::clone(&self.server_stats),
        )
        .unwrap();
        self
    }

    /// What the client writes next.
    pub(crate) fn client_writes(&mut self) -> Vec<Vec<u8>> {
        self.client.handshake(self.start).unwrap();
        drain(&mut self.client)
    }

    /// Hands datagrams to whatever answers at the server's address, and returns its answers.
    pub(crate) fn at_server(&mut self, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for datagram in datagrams {
            let Some(server) = &mut self.server else {
                let (peer, local): (SocketAddr, SocketAddr) =
                    (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
                match self
                    .verifier
                    .receive(datagram, peer, local, UNIX, self.start)
                    .unwrap()
                {
                    HelloOutcome::Answer(answer) => answers.push(answer),
                    HelloOutcome::Verified(hello) => {
                        let mut connection = hello.accept().unwrap();
                        connection.handshake(self.start).unwrap();
                        answers.extend(drain(&mut connection));
                        self.server = Some(connection);
                    }
                    HelloOutcome::Noise => {}
                }
                continue;
            };
            server.receive(datagram, self.start);
            server.handshake(self.start).unwrap();
            answers.extend(drain(server));
        }
        answers
    }

    /// Hands datagrams to the client and returns its answers.
    pub(crate) fn at_client(&mut self, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for datagram in datagrams {
            self.client.receive(datagram, self.start);
            self.client.handshake(self.start).unwrap();
        }
        drain(&mut self.client)
    }

    /// Flights 1 to 4; returns flight 4.
    pub(crate) fn up_to_flight_4(&mut self) -> Vec<Vec<u8>> {
        let flight_1 = self.client_writes();
        let flight_2 = self.at_server(&flight_1);
        let flight_3 = self.at_client(&flight_2);
        self.at_server(&flight_3)
    }

    pub(crate) fn finish_from(&mut self, flight_4: &[Vec<u8>]) {
        let flight_5 = self.at_client(flight_4);
        let flight_6 = self.at_server(&flight_5);
        self.at_client(&flight_6);
    }

    pub(crate) fn server(&mut self) -> &mut Connection {
        self.server.as_mut().unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_data_both_ways(&mut self) {
        let start = self.start;
        assert_eq!(self.client.handshake(start).unwrap(), Progress::Established);
        assert_eq!(
            self.server().handshake(start).unwrap(),
            Progress::Established
        );
        let mut buffer = [0; 100];
        self.client.write(b"ping").unwrap();
        for datagram in drain(&mut self.client) {
            self.server().receive(&datagram, start);
        }
        assert_eq!(self.server().read(&mut buffer).unwrap(), Read::Data(4));
        self.server().write(b"pong").unwrap();
        for datagram in drain(self.server()) {
            self.client.receive(&datagram, start);
        }
        assert_eq!(self.client.read(&mut buffer).unwrap(), Read::Data(4));
        assert_eq!(&buffer[..4], b"pong");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn drain(connection: &mut Connection) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| connection.transmit()).collect()
}

/// Waits until OpenSSL's own timer, which reads the real clock, has expired.
pub(crate) fn expire(connection: &mut Connection) -> Vec<Vec<u8>> {
    loop {
        let deadline = connection.deadline().unwrap();
        std::thread::park_timeout(deadline.saturating_duration_since(now()));
        connection.handle_timeout(now()).unwrap();
        let resent = drain(connection);
        if !resent.is_empty() {
            return resent;
        }
    }
}

pub(crate) fn record(content_type: u8, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![content_type, 0xfe, 0xfd];
    bytes.extend(epoch.to_be_bytes());
    bytes.extend(&sequence.to_be_bytes()[2..]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

pub(crate) fn record_number(datagram: &[u8]) -> u64 {
    datagram[5..11]
        .iter()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The records of a flight, each a datagram of its own.
pub(crate) fn apart(flight: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for datagram in flight {
        let mut rest = &datagram[..];
        while let [_, _, _, _, _, _, _, _, _, _, _, l0, l1, ..] = *rest {
            let (record, tail) = rest.split_at(13 + usize::from(u16::from_be_bytes([l0, l1])));
            records.push(record.to_vec());
            rest = tail;
        }
    }
    records
}
