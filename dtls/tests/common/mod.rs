//! A PKI, a server thread and clients for the tests of this crate.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]
#![allow(dead_code, unused_macros, reason = "each test binary uses its part")]

pub(crate) mod ends;
pub(crate) mod forgeries;
pub(crate) mod pair;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dtls::{
    ClientConfig, DtlsConnector, DtlsListener, DtlsStream, HandshakeError, Identity,
    ListenerHandle, Recv, ServerConfig, ServerConfigBuilder, ServerTrust, Stats, Trust,
    TrustAnchors,
};
use dtls_certs::{Profile, TestPki};

/// Makes each function two tests, `connected::name` and `shared::name`. One that is not listed is
/// reported as unused.
macro_rules! on_each_transport {
    ($($name:ident),+ $(,)?) => {
        mod connected {
            $(#[test] fn $name() { super::$name(dtls::Transport::Connected); })+
        }
        mod shared {
            $(#[test] fn $name() { super::$name(dtls::Transport::Shared); })+
        }
    };
}

/// One PKI for the whole test process.
pub(crate) static PKI: LazyLock<TestPki> = LazyLock::new(|| TestPki::new().unwrap());

pub(crate) fn identity(profile: Profile) -> Identity {
    let leaf = PKI.issue(profile).unwrap();
    Identity::from_pem(leaf.chain_pem.as_bytes(), leaf.key_pem.as_bytes()).unwrap()
}

pub(crate) fn anchors() -> TrustAnchors {
    TrustAnchors::from_pem(PKI.ca_pem().as_bytes()).unwrap()
}

pub(crate) fn server_config() -> ServerConfigBuilder {
    ServerConfig::builder(identity(Profile::SERVER)).handshake_timeout(Duration::from_secs(10))
}

pub(crate) fn connector() -> DtlsConnector {
    let config = ClientConfig::builder(ServerTrust::Anchors(anchors()))
        .handshake_timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    DtlsConnector::new(config)
}

pub(crate) fn client(trust: Trust) -> ClientConfig {
    ClientConfig::builder(trust).build().unwrap()
}

/// An echo server on its own threads; closed and joined when dropped.
pub(crate) struct EchoServer {
    pub(crate) address: SocketAddr,
    pub(crate) stats: Arc<Stats>,
    pub(crate) handle: ListenerHandle,
    thread: Option<JoinHandle<Vec<Result<(), HandshakeError>>>>,
}

impl EchoServer {
    pub(crate) fn start(address: &str, config: ServerConfig) -> Self {
        let mut listener = DtlsListener::bind(address.parse().unwrap(), config).unwrap();
        let (address, stats, handle) = (listener.local_addr(), listener.stats(), listener.handle());
        let thread = thread::spawn(move || {
            let mut workers = Vec::new();
            while let Ok(incoming) = listener.accept() {
                workers.push(thread::spawn(move || incoming.accept().map(echo)));
            }
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        Self {
            address,
            stats,
            handle,
            thread: Some(thread),
        }
    }

    /// Closes the listener and waits for every connection to end.
    pub(crate) fn finish(mut self) -> Vec<Result<(), HandshakeError>> {
        self.handle.close();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.handle.close();
    }
}

pub(crate) fn echo(mut stream: DtlsStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.recv(&mut buffer) {
            Ok(Recv::Data(length)) => stream.send(&buffer[..length]).unwrap(),
            Ok(Recv::Reconnected) => assert!(stream.accept_reconnect()),
            _ => return,
        }
    }
}

#[track_caller]
pub(crate) fn assert_echo(stream: &mut DtlsStream, text: &[u8]) {
    stream.set_recv_timeout(Some(Duration::from_secs(10)));
    stream.send(text).unwrap();
    let mut buffer = [0; 16 * 1024];
    assert_eq!(stream.recv(&mut buffer).unwrap(), Recv::Data(text.len()));
    assert_eq!(&buffer[..text.len()], text);
}
