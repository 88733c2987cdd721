//! Which handshakes are simulated, and the two configurations of each. Configurations are made once and
//! shared by all threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dtls::{
    ClientConfig, ClientConfigBuilder, Identity, KeyLog, PskKey, ServerConfig, ServerConfigBuilder,
    Session, TicketKey, TicketKeys, Trust, TrustAnchors,
};
use dtls_certs::{Profile, TestPki};

use super::SimulationError;
use super::defect::Defect;
use crate::scenario::Shape;

/// What both ends of a run are made of.
#[derive(Debug)]
pub(crate) struct Cast {
    pub(crate) client: ClientConfig,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) session: Option<Session>,
    pub(crate) split: bool,
    pub(crate) defect: Option<Defect>,
    /// The secrets of client and server as key logs have them, where evidence is wanted.
    pub(crate) secrets: [Secrets; 2],
}

/// The lines of a key log.
pub(crate) type Secrets = Arc<Mutex<String>>;

/// Writes a key log.
fn writes_to(secrets: &Secrets) -> KeyLog {
    let secrets = Arc::clone(secrets);
    Arc::new(move |line: &str| {
        let mut secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.push_str(line);
        secrets.push('\n');
    })
}

/// What a run's two ends are to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) shape: Shape,
    pub(crate) defect: Option<Defect>,
    pub(crate) client: Tuning,
    pub(crate) server: Tuning,
    /// What the server shows, where it shows a certificate.
    pub(crate) certificate: Profile,
    /// The client's pre-shared key is not the server's.
    pub(crate) wrong_key: bool,
    /// Both ends log their secrets.
    pub(crate) log_secrets: bool,
}

impl Setup {
    /// The usual ends.
    pub(crate) fn of(shape: Shape, defect: Option<Defect>) -> Self {
        Self {
            shape,
            defect,
            client: Tuning::default(),
            server: Tuning::default(),
            certificate: Profile::SERVER,
            wrong_key: false,
            log_secrets: false,
        }
    }

    /// Ends that try so long.
    pub(crate) fn patient(mut self, timeout: Duration) -> Self {
        self.client.handshake_timeout = Some(timeout);
        self.server.handshake_timeout = Some(timeout);
        self
    }
}

/// Sizes and times of an end that a scenario may set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tuning {
    pub(crate) link_mtu: Option<u16>,
    pub(crate) handshake_timeout: Option<Duration>,
}

impl Cast {
    /// Makes the configurations; for a resumed handshake also the session, by a handshake without
    /// faults.
    pub(crate) fn new(setup: &Setup) -> Result<Self, SimulationError> {
        let Setup {
            shape,
            defect,
            client,
            server,
            ..
        } = *setup;
        let pki = TestPki::new()?;
        let anchors = || TrustAnchors::from_pem(pki.ca_pem().as_bytes());
        let issue = |profile| -> Result<Identity, SimulationError> {
            let leaf = pki.issue(profile)?;
            Ok(Identity::from_pem(
                leaf.chain_pem.as_bytes(),
                leaf.key_pem.as_bytes(),
            )?)
        };
        let packed = shape.packed();
        let (mut client_config, mut server_config) = if packed == Shape::Psk {
            let key = PskKey::new([7; 32])?;
            let known = PskKey::new([if setup.wrong_key { 8 } else { 7 }; 32])?;
            let client = ClientConfig::psk_builder("lab", known);
            (
                client,
                ServerConfig::psk_builder(move |_| Some(key.clone())),
            )
        } else {
            let client = ClientConfig::builder(Trust::Anchors(anchors()?));
            (client, ServerConfig::builder(issue(setup.certificate)?))
        };
        if matches!(packed, Shape::ClientAuth | Shape::Fragmented) {
            client_config = client_config.identity(issue(Profile::CLIENT)?);
            server_config = server_config.client_ca(anchors()?);
        }
        let fragmented = (packed == Shape::Fragmented).then_some(SMALLEST_LINK);
        let timeout = |tuning: Tuning| tuning.handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT);
        client_config = client_config.handshake_timeout(timeout(client));
        server_config = server_config
            .handshake_timeout(timeout(server))
            .ticket_keys(&TicketKeys::new(TicketKey::random()?));
        if let Some(mtu) = client.link_mtu.or(fragmented) {
            client_config = client_config.link_mtu(mtu);
        }
        if let Some(mtu) = server.link_mtu.or(fragmented) {
            server_config = server_config.link_mtu(mtu);
        }
        (client_config, server_config) = timers(defect, client_config, server_config);
        let secrets: [Secrets; 2] = Default::default();
        if setup.log_secrets {
            client_config = client_config.key_log(writes_to(&secrets[0]));
            server_config = server_config.key_log(writes_to(&secrets[1]));
        }
        let mut cast = Self {
            client: client_config.build()?,
            server: Arc::new(server_config.build()?),
            session: None,
            split: shape.is_split(),
            defect,
            secrets,
        };
        if packed == Shape::Resumed {
            cast.session = Some(super::world::first_session(&cast)?);
        }
        Ok(cast)
    }
}

/// The configurations with the timers of a defect.
fn timers(
    defect: Option<Defect>,
    client: ClientConfigBuilder,
    server: ServerConfigBuilder,
) -> (ClientConfigBuilder, ServerConfigBuilder) {
    match defect {
        Some(Defect::Initial400Ms) => (
            client.retransmission_timer(FIRST_OF_SRTP, MINUTE),
            server.retransmission_timer(FIRST_OF_SRTP, MINUTE),
        ),
        Some(Defect::NoBackoff) => (
            client.retransmission_timer(SECOND, SECOND),
            server.retransmission_timer(SECOND, SECOND),
        ),
        Some(Defect::Cap32s) => {
            let cap = 32 * SECOND;
            (
                client.retransmission_timer(SECOND, cap),
                server.retransmission_timer(SECOND, cap),
            )
        }
        // An hour is beyond every run.
        Some(Defect::DeafServer | Defect::ServerWithoutTimer) => (
            client,
            server.retransmission_timer(60 * MINUTE, 60 * MINUTE),
        ),
        _ => (client, server),
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// RFC 9147 §5.8.2, which is wrong for DTLS 1.2.
const FIRST_OF_SRTP: Duration = Duration::from_millis(400);
/// Long enough for every timer to be seen, and for the slowest of 10,000 at 30 % loss.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(120);
/// 548 bytes of UDP payload: what every IPv4 host takes (RFC 791 §3.1).
const SMALLEST_LINK: u16 = 576;
