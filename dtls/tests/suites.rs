//! Every cipher suite that is offered, against a client that has no other: OpenSSL's own state
//! machine over a wire in memory. What the record filter believes about a suite's overhead is held
//! to what is on the wire.

#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use common::ends::{SERVER, UNIX, clock};
use common::{identity, server_config};
use dtls::core::{Connection, HelloOutcome, HelloVerifier, Progress, Read};
use dtls::{Counter, PskKey, ServerConfig, ServerConfigBuilder, Stats, Suites};
use dtls_certs::Profile;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslOptions, SslStream, SslVersion};

const KEY: [u8; 16] = [7; 16];

/// Suites, what each adds to a record, and whether it takes `Suites::Iot`.
const TABLE: [(&str, usize, bool); 16] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", 24, false),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", 24, false),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", 16, false),
    ("ECDHE-RSA-AES128-GCM-SHA256", 24, false),
    ("ECDHE-RSA-AES256-GCM-SHA384", 24, false),
    ("ECDHE-RSA-CHACHA20-POLY1305", 16, false),
    ("ECDHE-PSK-CHACHA20-POLY1305", 16, false),
    ("PSK-AES128-GCM-SHA256", 24, false),
    ("PSK-AES256-GCM-SHA384", 24, false),
    ("PSK-CHACHA20-POLY1305", 16, false),
    ("ECDHE-ECDSA-AES128-CCM", 24, true),
    ("ECDHE-ECDSA-AES128-CCM8", 16, true),
    ("PSK-AES128-CCM", 24, true),
    ("PSK-AES128-CCM8", 16, true),
    // Never: without AEAD, and without ephemeral keys.
    ("ECDHE-ECDSA-AES128-SHA256", 0, false),
    ("AES128-GCM-SHA256", 0, false),
];

/// One end of the wire.
#[derive(Debug, Default, Clone)]
struct Wire {
    inbound: Rc<RefCell<VecDeque<Vec<u8>>>>,
    outbound: Rc<RefCell<VecDeque<Vec<u8>>>>,
}

impl io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.inbound.borrow_mut().pop_front();
        let datagram = datagram.ok_or(ErrorKind::WouldBlock)?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl io::Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outbound.borrow_mut().push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client that offers exactly one suite.
fn foreign_client(suite: &str) -> (SslStream<Wire>, Wire) {
    let mut context = SslContext::builder(SslMethod::dtls_client()).unwrap();
    context
        .set_max_proto_version(Some(SslVersion::DTLS1_2))
        .unwrap();
    // Level 0: only there OpenSSL has the suites with short tags.
    context
        .set_cipher_list(&format!("{suite}:@SECLEVEL=0"))
        .unwrap();
    context.set_options(SslOptions::NO_QUERY_MTU);
    context.set_psk_client_callback(|_, _, identity, key| {
        identity[..7].copy_from_slice(b"device\0");
        key[..KEY.len()].copy_from_slice(&KEY);
        Ok(KEY.len())
    });
    let mut ssl = Ssl::new(&context.build()).unwrap();
    ssl.set_mtu(1400).unwrap();
    ssl.set_connect_state();
    let wire = Wire::default();
    (SslStream::new(ssl, wire.clone()).unwrap(), wire)
}

/// The server's end, if the handshake completes.
fn shake(
    client: &mut SslStream<Wire>,
    wire: &Wire,
    server: ServerConfig,
    stats: &Arc<Stats>,
) -> Option<Box<Connection>> {
    let now = clock();
    let (peer, local) = ("192.0.2.1:40000".parse().unwrap(), SERVER.parse().unwrap());
    let mut verifier = HelloVerifier::new(Arc::new(server), Arc::clone(stats)).unwrap();
    let mut accepted: Option<Box<Connection>> = None;
    // Four flights each way are more than enough.
    for _ in 0..8 {
        let done = client.do_handshake().is_ok();
        let sent = std::mem::take(&mut *wire.outbound.borrow_mut());
        for datagram in sent {
            if let Some(server) = &mut accepted {
                server.receive(&datagram, now);
                server.handshake(now).ok()?;
                continue;
            }
            match verifier.receive(&datagram, peer, local, UNIX, now).unwrap() {
                HelloOutcome::Answer(answer) => wire.inbound.borrow_mut().push_back(answer),
                HelloOutcome::Verified(hello) => {
                    let mut connection = hello.accept().unwrap();
                    connection.handshake(now).ok()?;
                    accepted = Some(connection);
                }
                HelloOutcome::Noise => {}
            }
        }
        if let Some(server) = &mut accepted {
            while let Some(datagram) = server.transmit() {
                wire.inbound.borrow_mut().push_back(datagram);
            }
            if done && server.handshake(now).ok()? == Progress::Established {
                return accepted;
            }
        }
    }
    None
}

fn server_for(suite: &str, profile: Suites) -> ServerConfig {
    let rsa = suite.contains("-RSA-") || suite.starts_with("AES");
    let builder: ServerConfigBuilder = if rsa {
        ServerConfig::builder(identity(Profile::SERVER_RSA))
    } else {
        server_config()
    };
    builder
        .psk(|identity| (identity == b"device").then(|| PskKey::new(KEY).unwrap()))
        .suites(profile)
        .build()
        .unwrap()
}

#[test]
fn exactly_the_suites_of_the_table_are_accepted_by_each_profile() {
    for profile in [Suites::Recommended, Suites::Iot] {
        for (suite, overhead, iot_only) in TABLE {
            let (mut client, wire) = foreign_client(suite);
            let server = server_for(suite, profile);
            let accepted = shake(&mut client, &wire, server, &Arc::default()).is_some();
            let expected = overhead > 0 && (profile == Suites::Iot || !iot_only);
            assert_eq!(accepted, expected, "{suite} under {profile:?}");
        }
    }
}

#[test]
fn the_filter_knows_the_overhead_of_every_suite() {
    for (suite, overhead, _) in TABLE.into_iter().filter(|(_, overhead, _)| *overhead > 0) {
        let stats = Arc::<Stats>::default();
        let (mut client, wire) = foreign_client(suite);
        let mut server = shake(&mut client, &wire, server_for(suite, Suites::Iot), &stats).unwrap();
        assert_eq!(server.info().cipher, suite);
        server.write(b"x").unwrap();
        assert_eq!(
            server.transmit().unwrap().len(),
            13 + overhead + 1,
            "{suite}"
        );
        // What is shorter than any real record would kill the connection; it is dropped by its
        // length. What is just long enough is OpenSSL's to refuse, and does no harm there.
        for (body, runts) in [(overhead - 1, 1), (overhead, 1)] {
            let mut forged = vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 99, 0];
            forged.push(u8::try_from(body).unwrap());
            forged.resize(13 + body, 0);
            server.receive(&forged, clock());
            assert_eq!(server.read(&mut [0; 9]).unwrap(), Read::Empty, "{suite}");
            assert_eq!(stats.get(Counter::DroppedRunt), runts, "{suite}");
        }
        client.ssl_write(b"alive").unwrap();
        let datagram = wire.outbound.borrow_mut().pop_front().unwrap();
        server.receive(&datagram, clock());
        assert_eq!(server.read(&mut [0; 9]).unwrap(), Read::Data(5), "{suite}");
    }
}
