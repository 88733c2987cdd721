//! Servers over the loopback, each on a thread of its own whose CPU time is taken; the main thread is
//! their client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dtls::core::{Connection, Progress};
use dtls::{DtlsListener, Recv};
use nix::time::{ClockId, clock_gettime};
use openssl::ssl::{Ssl, SslStream};

use crate::Failure;
use crate::memory::{Configs, now};

/// Datagrams measured, and before that, to warm up.
const MEASURED: u32 = 40_000;
const WARM_UP: u32 = 4_000;
const IN_FLIGHT: usize = 8;

const GIVE_UP: Duration = Duration::from_secs(10);

/// CPU time of this thread.
fn cpu() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
}

type Server = JoinHandle<Result<Duration, Failure>>;

fn micros(server: Server) -> Result<f64, Failure> {
    let spent = server
        .join()
        .map_err(|_| "the server's thread panicked")??;
    Ok(spent.as_secs_f64() * 1e6 / f64::from(MEASURED + WARM_UP))
}

fn client_socket(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("[::1]:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(GIVE_UP))?;
    Ok(socket)
}

/// Keeps some datagrams in flight; each answer brings the next.
fn ask(
    socket: &UdpSocket,
    mut question: impl FnMut() -> Result<Vec<u8>, Failure>,
) -> Result<(), Failure> {
    let mut answer = [0; 2048];
    for _ in 0..IN_FLIGHT {
        socket.send(&question()?)?;
    }
    for _ in IN_FLIGHT..(MEASURED + WARM_UP) as usize {
        socket.recv(&mut answer)?;
        socket.send(&question()?)?;
    }
    for _ in 0..IN_FLIGHT {
        socket.recv(&mut answer)?;
    }
    Ok(())
}

/// A client's first datagram.
pub(crate) fn a_hello(configs: &Configs, server: SocketAddr) -> Result<Vec<u8>, Failure> {
    let mut client = configs.dial(server)?;
    client.handshake(now())?;
    Ok(client.transmit().ok_or("no hello")?)
}

/// Microseconds of the listener's thread for a hello that it answers.
pub(crate) fn hello_ours(configs: &Configs) -> Result<f64, Failure> {
    let mut listener = DtlsListener::bind("[::1]:0".parse()?, configs.server.clone())?;
    let (address, handle) = (listener.local_addr(), listener.handle());
    let server = thread::spawn(move || {
        let before = cpu()?;
        // Nobody brings a cookie back: it returns when it is closed.
        if listener.accept().is_ok() {
            return Err("a cookie came back".into());
        }
        Ok(cpu()? - before)
    });
    let hello = a_hello(configs, address)?;
    ask(&client_socket(address)?, || Ok(hello.clone()))?;
    handle.close();
    micros(server)
}

/// The same for a thread that sends back as many bytes as a HelloVerifyRequest has.
pub(crate) fn hello_floor(configs: &Configs) -> Result<f64, Failure> {
    // RFC 6347 §4.2.1: record header, message header, version, length, cookie.
    const QUESTION: usize = 13 + 12 + 2 + 1 + 21;
    let socket = UdpSocket::bind("[::1]:0")?;
    let address = socket.local_addr()?;
    let server = thread::spawn(move || {
        let before = cpu()?;
        let mut buffer = [0; 16 * 1024];
        for _ in 0..MEASURED + WARM_UP {
            let (_, peer) = socket.recv_from(&mut buffer)?;
            socket.send_to(&buffer[..QUESTION], peer)?;
        }
        Ok(cpu()? - before)
    });
    let hello = a_hello(configs, address)?;
    ask(&client_socket(address)?, || Ok(hello.clone()))?;
    micros(server)
}

/// Microseconds of a worker's thread for 100 bytes sent back.
pub(crate) fn echo_ours(configs: &Configs) -> Result<f64, Failure> {
    let mut listener = DtlsListener::bind("[::1]:0".parse()?, configs.server.clone())?;
    let address = listener.local_addr();
    let server = thread::spawn(move || {
        let mut stream = listener.accept()?.accept()?;
        let mut buffer = [0; 16 * 1024];
        let before = cpu()?;
        for _ in 0..MEASURED + WARM_UP {
            match stream.recv(&mut buffer)? {
                Recv::Data(length) => stream.send(&buffer[..length])?,
                other => return Err(format!("{other:?}").into()),
            }
        }
        Ok(cpu()? - before)
    });
    echo_client(configs, address)?;
    micros(server)
}

/// The same with OpenSSL on a connected socket, one system call a datagram.
pub(crate) fn echo_floor(configs: &Configs) -> Result<f64, Failure> {
    let socket = UdpSocket::bind("[::1]:0")?;
    let (address, context) = (socket.local_addr()?, configs.plain.clone());
    let server = thread::spawn(move || {
        let (_, peer) = socket.peek_from(&mut [0; 1])?;
        socket.connect(peer)?;
        socket.set_read_timeout(Some(GIVE_UP))?;
        let mut ssl = Ssl::new(&context)?;
        ssl.set_mtu(1472)?;
        let mut stream = SslStream::new(ssl, Plain(socket))?;
        stream.accept()?;
        let mut buffer = [0; 16 * 1024];
        let before = cpu()?;
        for _ in 0..MEASURED + WARM_UP {
            let length = stream.ssl_read(&mut buffer)?;
            stream.ssl_write(&buffer[..length])?;
        }
        Ok(cpu()? - before)
    });
    echo_client(configs, address)?;
    micros(server)
}

/// A socket as OpenSSL's BIO.
struct Plain(UdpSocket);

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
}

impl Write for Plain {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.send(datagram)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn echo_client(configs: &Configs, server: SocketAddr) -> Result<(), Failure> {
    let socket = client_socket(server)?;
    let mut client = configs.dial(server)?;
    shake_hands(&mut client, &socket)?;
    ask(&socket, || {
        client.write(&[7; 100])?;
        Ok(client.transmit().ok_or("nothing to send")?)
    })
}

fn shake_hands(client: &mut Connection, socket: &UdpSocket) -> Result<(), Failure> {
    let mut buffer = [0; 4096];
    for _ in 0..100 {
        let done = client.handshake(now())? == Progress::Established;
        while let Some(datagram) = client.transmit() {
            socket.send(&datagram)?;
        }
        if done {
            return Ok(());
        }
        let length = socket.recv(&mut buffer)?;
        client.receive(&buffer[..length], now());
    }
    Err("the handshake got stuck".into())
}
