//! Operations in memory. Runs on the main thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dtls::core::{Connection, HelloOutcome, HelloVerifier, Progress};
use dtls::{ClientConfig, Identity, ServerConfig, ServerTrust, Stats};
use dtls_certs::{PkiFiles, Profile};
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslFiletype, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslStream, SslVerifyMode,
};

use crate::Failure;

/// Names for `--operation`, and what they are.
pub(crate) const OPERATIONS: [(&str, &str); 5] = [
    ("drop", "a record that the filter drops"),
    ("hello", "a hello without cookie, answered"),
    ("echo-raw", "100-byte echo, plain SSL at both ends"),
    ("echo-ours", "100-byte echo, Connection at both ends"),
    ("forged", "a record with a bad tag, dropped by OpenSSL"),
];

const REPEATED: u32 = 20_000;
const UNIX: u64 = 1_800_000_000;

/// Runs an operation and says nothing.
pub(crate) fn run(name: &str, count: &str, folder: &Path) -> Result<(), Failure> {
    let mut operation = prepare(name, folder)?;
    for _ in 0..count.parse::<u32>()? {
        operation()?;
    }
    Ok(())
}

/// Nanoseconds of one operation.
pub(crate) fn nanoseconds(name: &str, folder: &Path) -> Result<f64, Failure> {
    let mut operation = prepare(name, folder)?;
    for _ in 0..REPEATED / 10 {
        operation()?;
    }
    let start = now();
    for _ in 0..REPEATED {
        operation()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(REPEATED))
}

type Operation = Box<dyn FnMut() -> Result<(), Failure>>;

fn prepare(name: &str, folder: &Path) -> Result<Operation, Failure> {
    let configs = Configs::from_files(folder)?;
    match name {
        "drop" => receive_only(
            configs,
            vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4],
        ),
        "forged" => {
            let mut record = vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 255, 9, 0, 124];
            record.resize(13 + 124, 7);
            receive_only(configs, record)
        }
        "hello" => hello(configs),
        "echo-raw" => echo_raw(&configs),
        "echo-ours" => echo_ours(configs),
        other => Err(format!("no such operation: {other}").into()),
    }
}

/// Both configurations.
pub(crate) struct Configs {
    pub(crate) server: ServerConfig,
    pub(crate) client: ClientConfig,
    /// The same server for OpenSSL alone.
    pub(crate) plain: SslContext,
}

impl Configs {
    /// With the server's certificate in `folder`.
    pub(crate) fn from_files(folder: &Path) -> Result<Self, Failure> {
        let pki = PkiFiles::in_dir(folder);
        let (chain, key) = (pki.chain(Profile::SERVER), pki.key(Profile::SERVER));
        let mut plain = SslContext::builder(SslMethod::dtls_server())?;
        plain.set_cipher_list("ECDHE+AES128+AESGCM")?;
        plain.set_options(SslOptions::NO_QUERY_MTU);
        plain.set_mode(SslMode::RELEASE_BUFFERS);
        plain.set_session_cache_mode(SslSessionCacheMode::OFF);
        plain.set_certificate_chain_file(&chain)?;
        plain.set_private_key_file(&key, SslFiletype::PEM)?;
        Ok(Self {
            server: ServerConfig::builder(Identity::from_files(&chain, &key)?).build()?,
            client: ClientConfig::builder(ServerTrust::Anyone).build()?,
            plain: plain.build(),
        })
    }

    pub(crate) fn dial(&self, server: SocketAddr) -> Result<Connection, Failure> {
        let stats = Arc::<Stats>::default();
        Ok(Connection::connect(
            &self.client,
            "localhost",
            server,
            None,
            &stats,
            now(),
        )?)
    }
}

fn addresses() -> (SocketAddr, SocketAddr) {
    (
        ([192, 0, 2, 1], 40_000).into(),
        ([192, 0, 2, 9], 4433).into(),
    )
}

/// Both ends after their handshake.
fn established(configs: Configs) -> Result<(Connection, Box<Connection>, Instant), Failure> {
    let start = now();
    let (peer, local) = addresses();
    let mut client = configs.dial(local)?;
    let mut verifier = HelloVerifier::new(Arc::new(configs.server), Arc::default())?;
    let mut server: Option<Box<Connection>> = None;
    for _ in 0..10 {
        let done = client.handshake(start)? == Progress::Established;
        while let Some(datagram) = client.transmit() {
            let Some(server) = &mut server else {
                match verifier.receive(&datagram, peer, local, UNIX, start)? {
                    HelloOutcome::Answer(answer) => client.receive(&answer, start),
                    HelloOutcome::Verified(hello) => server = Some(hello.accept()?),
                    HelloOutcome::Noise => return Err("a hello was refused".into()),
                }
                continue;
            };
            server.receive(&datagram, start);
        }
        if let Some(server) = &mut server {
            server.handshake(start)?;
            while let Some(datagram) = server.transmit() {
                client.receive(&datagram, start);
                client.handshake(start)?;
            }
        }
        if done && let Some(mut server) = server.take_if(|end| end.handshake_time().is_some()) {
            // What the end of the handshake left to be looked at.
            let mut nothing = [0; 100];
            client.read(&mut nothing)?;
            server.read(&mut nothing)?;
            return Ok((client, server, start));
        }
    }
    Err("the handshake got stuck".into())
}

fn receive_only(configs: Configs, datagram: Vec<u8>) -> Result<Operation, Failure> {
    let (_client, mut server, start) = established(configs)?;
    let mut buffer = vec![0; 16 * 1024];
    Ok(Box::new(move || {
        server.receive(black_box(&datagram), start);
        black_box(server.read(&mut buffer)?);
        Ok(())
    }))
}

fn hello(configs: Configs) -> Result<Operation, Failure> {
    let start = now();
    let (peer, local) = addresses();
    let mut client = configs.dial(local)?;
    client.handshake(start)?;
    let hello = client.transmit().ok_or("no hello")?;
    let mut verifier = HelloVerifier::new(Arc::new(configs.server), Arc::default())?;
    Ok(Box::new(move || {
        match verifier.receive(black_box(&hello), peer, local, UNIX, start)? {
            HelloOutcome::Answer(answer) => drop(black_box(answer)),
            other => return Err(format!("{other:?}").into()),
        }
        Ok(())
    }))
}

fn echo_ours(configs: Configs) -> Result<Operation, Failure> {
    let (mut client, mut server, start) = established(configs)?;
    let mut buffer = vec![0; 16 * 1024];
    Ok(Box::new(move || {
        client.write(&[7; 100])?;
        pass(&mut client, &mut server, &mut buffer, start)?;
        server.write(&buffer[..100])?;
        pass(&mut server, &mut client, &mut buffer, start)
    }))
}

fn pass(
    from: &mut Connection,
    to: &mut Connection,
    buffer: &mut [u8],
    now: Instant,
) -> Result<(), Failure> {
    while let Some(datagram) = from.transmit() {
        to.receive(&datagram, now);
    }
    match to.read(buffer)? {
        dtls::core::Read::Data(100) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// OpenSSL's BIO in memory, and nothing but that.
struct Pipe {
    inbound: Queue,
    outbound: Queue,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.inbound.borrow_mut().pop_front();
        let datagram = datagram.ok_or(io::ErrorKind::WouldBlock)?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl Write for Pipe {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outbound.borrow_mut().push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn echo_raw(configs: &Configs) -> Result<Operation, Failure> {
    let mut context = SslContext::builder(SslMethod::dtls_client())?;
    context.set_options(SslOptions::NO_QUERY_MTU);
    context.set_mode(SslMode::RELEASE_BUFFERS);
    context.set_verify(SslVerifyMode::NONE);
    let (to_server, to_client) = (Queue::default(), Queue::default());
    let end = |context: &SslContext, inbound: &Queue, outbound: &Queue| {
        let mut ssl = Ssl::new(context)?;
        ssl.set_mtu(1472)?;
        let (inbound, outbound) = (Rc::clone(inbound), Rc::clone(outbound));
        SslStream::new(ssl, Pipe { inbound, outbound })
    };
    let mut client = end(&context.build(), &to_client, &to_server)?;
    let mut server = end(&configs.plain, &to_server, &to_client)?;
    for _ in 0..10 {
        for step in [client.connect(), server.accept()] {
            match step {
                Err(error) if error.code() != ErrorCode::WANT_READ => return Err(error.into()),
                _ => {}
            }
        }
    }
    let mut buffer = vec![0; 16 * 1024];
    Ok(Box::new(move || {
        client.ssl_write(&[7; 100])?;
        let length = server.ssl_read(&mut buffer)?;
        server.ssl_write(&buffer[..length])?;
        let length = client.ssl_read(&mut buffer)?;
        if length == 100 {
            Ok(())
        } else {
            Err("a short echo".into())
        }
    }))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
