//! A flood of hellos from many addresses: what the listener keeps of them, and how much it sends for
//! how much it receives. The listener has a thread of its own, the main thread floods it.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use dtls::DtlsListener;

use crate::Failure;
use crate::loopback::a_hello;
use crate::memory::Configs;

const SOURCES: u8 = 250;

/// Each source's hellos, in all; memory is first looked at after a quarter of them.
const ROUNDS: u32 = 800;
const UNDER_WAY: usize = 10;

/// What came of it.
pub(crate) struct Flood {
    pub(crate) hellos: u32,
    /// Bytes of the answers for each byte of the hellos.
    pub(crate) amplification: f64,
    /// The same for the shortest datagram that is answered.
    pub(crate) worst: f64,
    /// Bytes of resident memory by which the process has grown in the last three quarters.
    pub(crate) growth: i64,
}

pub(crate) fn run(configs: &Configs) -> Result<Flood, Failure> {
    let mut listener = DtlsListener::bind("127.0.0.1:0".parse()?, configs.server.clone())?;
    let (address, handle) = (listener.local_addr(), listener.handle());
    let server = thread::spawn(move || listener.accept().map(drop));
    let hello = a_hello(configs, address)?;
    let sockets = (1..=SOURCES)
        .map(|last| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, 0, last), 0))?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(socket)
        })
        .collect::<Result<Vec<_>, Failure>>()?;

    let (mut asked, mut answered) = (0, 0);
    let mut buffer = [0; 2048];
    let mut early = 0;
    for round in 0..ROUNDS {
        if round == ROUNDS / 4 {
            early = resident()?;
        }
        for some in sockets.chunks(UNDER_WAY) {
            for socket in some {
                asked += socket.send(&hello)?;
            }
            for socket in some {
                answered += socket.recv(&mut buffer)?;
            }
        }
    }
    let growth = resident()? - early;
    let short = shortest_hello();
    sockets[0].send(&short)?;
    let worst = ratio(sockets[0].recv(&mut buffer)?, short.len());
    handle.close();
    if server.join().map_err(|_| "the listener panicked")?.is_ok() {
        return Err("a cookie came back".into());
    }
    Ok(Flood {
        hellos: u32::from(SOURCES) * ROUNDS,
        amplification: ratio(answered, asked),
        worst,
        growth,
    })
}

/// A first fragment that ends with its empty cookie: no shorter one can be answered.
fn shortest_hello() -> Vec<u8> {
    // RFC 6347 §4.2.2 and §4.2.1: version, random, empty session id, empty cookie.
    const BODY: u8 = 2 + 32 + 1 + 1;
    let mut hello = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12 + BODY];
    hello.extend([1, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, BODY]);
    hello.extend([0xfe, 0xfd]);
    hello.extend([7; 32]);
    hello.extend([0, 0]);
    hello
}

/// Bytes of memory that this process has in use, see `proc_pid_status(5)`.
fn resident() -> Result<i64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    let kib: i64 = number.ok_or("no VmRSS in /proc/self/status")?.parse()?;
    Ok(kib * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one run")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}
