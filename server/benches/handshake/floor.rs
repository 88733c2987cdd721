//! The floor: OpenSSL's own server half over loopback UDP, in one thread, with nothing of ours.
//!
//! Client and server take turns on this thread; only the server's turns are on the clock. Its
//! context has the settings of `dtls`, its cookie is a constant.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dtls::core::{Connection, Progress};
use dtls::{ClientConfig, ServerTrust, Session, Stats, TrustAnchors};
use dtls_certs::{PkiFiles, Profile};
use nix::time::{ClockId, clock_gettime};
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslFiletype, SslMethod, SslOptions, SslSessionCacheMode, SslStream,
    SslVersion,
};

type Failure = Box<dyn std::error::Error>;

/// Both contexts.
pub(crate) struct Floor {
    server: SslContext,
    client: ClientConfig,
}

impl Floor {
    /// Reads the server's certificate and the client's trust from `pki`.
    pub(crate) fn new(pki: &PkiFiles) -> Result<Self, Failure> {
        let mut server = SslContext::builder(SslMethod::dtls_server())?;
        server.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
        server.set_cipher_list("ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20")?;
        server.set_groups_list("X25519:P-256")?;
        server.set_options(SslOptions::NO_QUERY_MTU | SslOptions::COOKIE_EXCHANGE);
        server.set_session_cache_mode(SslSessionCacheMode::OFF);
        server.set_certificate_chain_file(pki.chain(Profile::SERVER))?;
        server.set_private_key_file(pki.key(Profile::SERVER), SslFiletype::PEM)?;
        server.set_cookie_generate_cb(|_, cookie| {
            cookie[..21].fill(7);
            Ok(21)
        });
        server.set_cookie_verify_cb(|_, cookie| cookie == [7; 21]);
        let anchors = TrustAnchors::from_file(pki.ca())?;
        let client = ClientConfig::builder(ServerTrust::Anchors(anchors)).build()?;
        Ok(Self {
            server: server.build(),
            client,
        })
    }

    /// Microseconds of CPU that the server's half of one handshake takes, the mean of `count`.
    ///
    /// The other processors do the same meanwhile. While the server is measured they are busy with
    /// its client; a floor taken on an otherwise idle machine would run at another clock, with a
    /// core's caches and sibling thread to itself, and take half the time.
    pub(crate) fn server_half_us(&self, count: u32, resumed: bool) -> Result<f64, Failure> {
        let session = if resumed {
            Some(self.handshake(None)?.1)
        } else {
            None
        };
        let others = std::thread::available_parallelism()?.get() - 1;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..others {
                scope.spawn(|| {
                    let mut going = true;
                    while going {
                        going = self.handshake(session.as_ref()).is_ok()
                            && !done.load(Ordering::Relaxed);
                    }
                });
            }
            let mut spent = Ok(Duration::ZERO);
            for _ in 0..count {
                spent = spent.and_then(|spent| Ok(spent + self.handshake(session.as_ref())?.0));
            }
            done.store(true, Ordering::Relaxed);
            spent.map(|spent: Duration| spent.as_secs_f64() * 1e6 / f64::from(count))
        })
    }

    fn handshake(&self, session: Option<&Session>) -> Result<(Duration, Session), Failure> {
        let (here, there) = (
            UdpSocket::bind("127.0.0.1:0")?,
            UdpSocket::bind("127.0.0.1:0")?,
        );
        here.connect(there.local_addr()?)?;
        there.connect(here.local_addr()?)?;
        here.set_nonblocking(true)?;
        there.set_nonblocking(true)?;
        let start = now();
        let (stats, peer) = (Arc::<Stats>::default(), there.local_addr()?);
        let mut client =
            Connection::connect(&self.client, "localhost", peer, session, &stats, start)?;

        let mut spent = Duration::ZERO;
        let before = cpu()?;
        let mut ssl = Ssl::new(&self.server)?;
        ssl.set_mtu(1472)?;
        ssl.set_accept_state();
        let mut server = SslStream::new(ssl, Plain(there))?;
        spent += cpu()? - before;

        let mut buffer = [0; 4096];
        let mut done = (false, false);
        let give_up = start + Duration::from_secs(10);
        while done != (true, true) {
            if now() > give_up {
                return Err("the floor's handshake got stuck".into());
            }
            done.0 |= client.handshake(start)? == Progress::Established;
            while let Some(datagram) = client.transmit() {
                here.send(&datagram)?;
            }
            let before = cpu()?;
            match server.do_handshake() {
                Ok(()) => done.1 = true,
                Err(error) if error.code() == ErrorCode::WANT_READ => {}
                Err(error) => return Err(error.into()),
            }
            spent += cpu()? - before;
            while let Ok(length) = here.recv(&mut buffer) {
                client.receive(&buffer[..length], start);
                client.handshake(start)?;
            }
        }
        let session = client.session().ok_or("no session")?;
        // OpenSSL forgets the session of a connection that was not closed.
        client.close();
        let before = cpu()?;
        drop(server);
        spent += cpu()? - before;
        Ok((spent, session))
    }
}

/// A socket as OpenSSL's BIO, one system call a datagram.
struct Plain(UdpSocket);

impl io::Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
}

impl io::Write for Plain {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.send(datagram)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// CPU time of this thread.
fn cpu() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
}

#[expect(clippy::disallowed_methods, reason = "bounds a loop of the benchmark")]
fn now() -> Instant {
    Instant::now()
}
