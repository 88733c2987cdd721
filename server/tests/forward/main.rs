//! The forward service over real loopback sockets: a DTLS client, the server, a plain UDP backend.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

#[path = "../common/mod.rs"]
mod common;
mod backends;
mod connections;
mod datagrams;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Pki, Server};
use dtls::{ClientConfigBuilder, DtlsStream, Recv};

/// How connections receive and send; a forward waits for a descriptor of either.
const TRANSPORTS: [&str; 2] = ["connected", "shared"];

fn forward(pki: &Pki, backend: SocketAddr, arguments: &[&str]) -> Server {
    let backend = backend.to_string();
    let mut all = vec!["--service", "forward", "--backend", &backend];
    all.extend(arguments);
    pki.serve(&all)
}

/// A client whose datagrams may be large.
fn wide(pki: &Pki) -> ClientConfigBuilder {
    pki.client().link_mtu(16_384)
}

/// Nothing comes for a moment, in which the connection stays open.
#[track_caller]
fn assert_nothing(stream: &mut DtlsStream) {
    stream.set_recv_timeout(Some(Duration::from_millis(50)));
    assert_eq!(stream.recv(&mut [0; 64]).unwrap(), Recv::TimedOut);
}
