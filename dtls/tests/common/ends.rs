//! Both ends of a handshake in memory, carried until each is done or has given up. Time is made up:
//! when nothing moves, it jumps to the next deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dtls::core::{Connection, HelloOutcome, HelloVerifier, Progress, Read};
use dtls::{ClientConfig, HandshakeError, HandshakeInfo, ServerConfig, Session, Stats};

const CLIENT: &str = "192.0.2.1:40000";
pub(crate) const SERVER: &str = "192.0.2.9:4433";
pub(crate) const UNIX: u64 = 1_800_000_000;

/// What became of the two ends.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) client: Result<Connection, HandshakeError>,
    pub(crate) server: Result<Box<Connection>, HandshakeError>,
}

/// Carries a handshake to its end.
pub(crate) fn shake(client: &ClientConfig, server: &ServerConfig) -> Ends {
    shake_with("localhost", None, client, server)
}

/// Carries a handshake to its end, with a server name and perhaps a session.
pub(crate) fn shake_with(
    name: &str,
    session: Option<&Session>,
    client: &ClientConfig,
    server: &ServerConfig,
) -> Ends {
    let mut now = clock();
    let (peer, local): (SocketAddr, SocketAddr) =
        (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
    let stats = Arc::<Stats>::default();
    let mut client = Connection::connect(client, name, local, session, &stats, now).unwrap();
    let server = Arc::new(server.clone());
    let mut verifier = HelloVerifier::new(server, Arc::default()).unwrap();
    let mut accepted: Option<Box<Connection>> = None;
    let (mut at_client, mut at_server) = (None, None);
    // Bounded: each round carries a flight or skips at least a retransmission.
    for _ in 0..500 {
        step(&mut client, &mut at_client, now);
        let mut moved = false;
        while let Some(datagram) = client.transmit() {
            moved = true;
            if let Some(server) = &mut accepted {
                server.receive(&datagram, now);
                step(server, &mut at_server, now);
                continue;
            }
            match verifier.receive(&datagram, peer, local, UNIX, now).unwrap() {
                HelloOutcome::Answer(answer) => client.receive(&answer, now),
                HelloOutcome::Verified(hello) => {
                    let mut connection = hello.accept().unwrap();
                    step(&mut connection, &mut at_server, now);
                    accepted = Some(connection);
                }
                HelloOutcome::Noise => {}
            }
        }
        if let Some(server) = &mut accepted {
            while let Some(datagram) = server.transmit() {
                moved = true;
                client.receive(&datagram, now);
                step(&mut client, &mut at_client, now);
            }
        }
        if at_client.is_some() && at_server.is_some() && !moved {
            break;
        }
        if !moved {
            let ends = [
                (Some(&mut client), &mut at_client),
                (accepted.as_deref_mut(), &mut at_server),
            ];
            let deadlines = ends
                .iter()
                .filter(|(_, outcome)| outcome.is_none())
                .filter_map(|(end, _)| end.as_ref()?.deadline());
            now = deadlines.min().unwrap().max(now);
            for (end, outcome) in ends {
                if let (Some(end), None) = (end, &outcome)
                    && let Err(error) = end.handle_timeout(now)
                {
                    *outcome = Some(Err(error));
                }
            }
        }
    }
    Ends {
        client: at_client.unwrap().map(|()| client),
        server: at_server.unwrap().map(|()| accepted.unwrap()),
    }
}

fn step(end: &mut Connection, outcome: &mut Option<Result<(), HandshakeError>>, now: Instant) {
    if outcome.is_none() {
        *outcome = match end.handshake(now) {
            Ok(Progress::Waiting) => None,
            Ok(Progress::Established) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        };
    }
}

impl Ends {
    /// Both ends, which must agree that it went well, and data flow.
    #[track_caller]
    pub(crate) fn unwrap(self) -> (Connection, Box<Connection>) {
        let (mut client, mut server) = (self.client.unwrap(), self.server.unwrap());
        let mut buffer = [0; 100];
        client.write(b"ping").unwrap();
        carry(&mut client, &mut server);
        assert_eq!(server.read(&mut buffer).unwrap(), Read::Data(4));
        server.write(b"pong").unwrap();
        carry(&mut server, &mut client);
        assert_eq!(client.read(&mut buffer).unwrap(), Read::Data(4));
        (client, server)
    }

    /// What both ends found out, after data flowed.
    #[track_caller]
    pub(crate) fn infos(self) -> (HandshakeInfo, HandshakeInfo) {
        let (mut client, mut server) = self.unwrap();
        let infos = (client.info(), server.info());
        // Without it, OpenSSL would not let the session be resumed again.
        client.close();
        server.close();
        infos
    }

    /// Why the client refused the server's certificate.
    #[track_caller]
    pub(crate) fn refused_by_client(self) -> String {
        assert!(self.server.is_err());
        verification(self.client.map(drop))
    }

    /// Why the server refused the client's certificate.
    #[track_caller]
    pub(crate) fn refused_by_server(self) -> String {
        assert!(self.client.is_err());
        verification(self.server.map(drop))
    }
}

#[track_caller]
fn verification(outcome: Result<(), HandshakeError>) -> String {
    match outcome {
        Err(HandshakeError::Verification { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

/// The session of a connection that ends in order.
pub(crate) fn session(mut client: Connection) -> Session {
    let session = client.session().unwrap();
    client.close();
    session
}

fn carry(from: &mut Connection, to: &mut Connection) {
    while let Some(datagram) = from.transmit() {
        to.receive(&datagram, clock());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a start for the made-up time of a test"
)]
pub(crate) fn clock() -> Instant {
    Instant::now()
}
