//! What the load generator itself costs, and the highest rate at which our server takes 10,000
//! handshakes from it.
//!
//! ```text
//! floor       OpenSSL's client half alone, in memory, one thread; nothing of ours
//! ours        dtls-client load with dtls-server, both processes' time from /proc
//! saturation  far more connections than the server can take, a processor for each of the two; not
//!             measured where there is only one
//! knee        a ramp, then 10,000 handshakes at the rate it finds; counts beside the server's own
//! ```
//!
//! Processor times are the result; rates depend on what else the machine does. Main thread, and one
//! for each further processor while the floor is taken.
#![forbid(unsafe_code)]

mod common;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Failure, Running, wait_until_bound};
use dtls_certs::{PkiFiles, Profile, TestPki};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslOptions,
    SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
};
use serde_json::Value;

/// Floor and generator are measured in turn this often; the round whose ratio is the median of all
/// ratios is quoted.
const ROUNDS: usize = 5;
const FLOOR_HANDSHAKES: u32 = 1000;
const HANDSHAKES: u32 = 4000;

/// Beyond this the server does not keep up; on a machine that does much else, `make bench P99=2s`
/// says what only that explains.
const BOUND: &str = "250ms";

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let pki = TestPki::generate(dir.path())?;
    let mut args = std::env::args().skip_while(|arg| arg != "--p99").skip(1);
    let bound = args.next().unwrap_or_else(|| BOUND.to_owned());
    cost(&pki)?;
    saturation(&pki)?;
    knee(&pki, &bound)
}

/// Processor time of the client per full handshake, beside OpenSSL's alone.
fn cost(pki: &PkiFiles) -> Result<(), Failure> {
    let floor = Floor::new(pki)?;
    let server = Server::start(pki, None)?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let alone = floor.client_half_us(FLOOR_HANDSHAKES)?;
        let count = HANDSHAKES.to_string();
        let report = server.load(pki, None, &["--concurrency", "16", "--connections", &count])?;
        let [client, server] = ["/client/per_handshake_us", "/server/per_handshake_us"]
            .map(|pointer| number(&report, pointer));
        rounds.push((client?, server?, alone));
    }
    // The figures of one round: medians of each column would not belong together.
    rounds.sort_by(|one, other| (one.0 / one.2).total_cmp(&(other.0 / other.2)));
    let (client, server, alone) = rounds[ROUNDS / 2];
    println!(
        "processor time per full handshake, 16 at once: of {ROUNDS} rounds that with the median ratio"
    );
    println!(
        "  client   dtls-client load {client:.0} us   OpenSSL's client half in memory {alone:.0} us   \
         ratio {:.2}",
        client / alone
    );
    println!("  server   dtls-server      {server:.0} us");
    Ok(())
}

/// Which of the two is at its end first, with a processor each.
fn saturation(pki: &PkiFiles) -> Result<(), Failure> {
    let Some([of_server, of_client]) = two_processors()? else {
        println!(
            "saturation not measured: server and client need a processor each, and this process may \
             use one only"
        );
        return Ok(());
    };
    println!("more connections than the server can take, a processor for each of the two");
    for (name, mode) in [
        ("full", "handshake"),
        ("resumed", "resume"),
        ("hellos", "hello-flood"),
    ] {
        let server = Server::start(pki, Some(of_server))?;
        let more = ["--mode", mode, "--concurrency", "64", "--duration", "4s"];
        let report = server.load(pki, Some(of_client), &more)?;
        let seconds = number(&report, "/seconds")?;
        let busy = |who: &str| -> Result<f64, Failure> {
            Ok(100.0 * number(&report, &format!("/{who}/processor_seconds"))? / seconds)
        };
        println!(
            "  {name:<8} {:>6.0} a second   server {:>3.0} % busy   client {:>3.0} % busy",
            number(&report, "/completed")? / seconds,
            busy("server")?,
            busy("client")?
        );
    }
    Ok(())
}

/// The highest rate without failures, and the counts of both ends at it.
fn knee(pki: &PkiFiles, bound: &str) -> Result<(), Failure> {
    let bound_ms = humantime::parse_duration(bound)?.as_secs_f64() * 1e3;
    let server = Server::start(pki, None)?;
    let ramp = [
        "--mode",
        "handshake",
        "--rate",
        "100..2000/20s",
        "--p99",
        bound,
    ];
    let report = server.load(pki, None, &ramp)?;
    let mut rate = number(&report, "/knee/rate")?;
    println!(
        "10,000 full handshakes at the highest rate with p99 within {bound} (ramp: {rate:.0}/s)"
    );
    // What holds for a second of a ramp may be too much in the long run.
    for _ in 0..10 {
        let server = Server::start(pki, None)?;
        let text = format!("{rate:.0}");
        let more = [
            "--mode",
            "handshake",
            "--rate",
            &text,
            "--connections",
            "10000",
        ];
        let report = server.load(pki, None, &more)?;
        let p99 = number(&report, "/latency/full_handshake/p99_ms")?;
        let count = |pointer: &str| number(&report, pointer);
        let theirs = |name: &str| count(&format!("/server_counters/dtls_server_{name}_total"));
        let kept = p99 <= bound_ms && count("/failed")? == 0.0;
        println!(
            "  {rate:>5.0}/s   completed {}, failed {}, resent {}; p50 {:.1} ms, p99 {p99:.1} ms; client \
             {:.0} us, server {:.0} us each{}",
            count("/completed")?,
            count("/failed")?,
            count("/retransmissions")?,
            count("/latency/full_handshake/p50_ms")?,
            count("/client/per_handshake_us")?,
            count("/server/per_handshake_us")?,
            if kept { "" } else { "   too much" }
        );
        if kept {
            println!(
                "          counts, ours and the server's: handshakes {} and {}, cookies {} and {}",
                count("/handshakes")?,
                theirs("handshakes_completed")?,
                count("/cookies")?,
                theirs("hello_verify_requests")?,
            );
            return Ok(());
        }
        rate *= 0.8;
    }
    Err("no rate was low enough".into())
}

fn number(report: &Value, pointer: &str) -> Result<f64, Failure> {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    Ok(value.ok_or_else(|| format!("no {pointer} in {report:#}"))?)
}

/// `dtls-server` of the same build.
struct Server {
    process: Running,
    port: u16,
    metrics: u16,
}

impl Server {
    /// On this processor alone, if one is named.
    fn start(pki: &PkiFiles, processor: Option<usize>) -> Result<Self, Failure> {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let client = Path::new(env!("CARGO_BIN_EXE_dtls-client"));
        let mut command = pinned(&client.with_file_name("dtls-server"), processor);
        command
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--metrics", &format!("127.0.0.1:{metrics}")])
            .arg("--cert")
            .arg(pki.chain(Profile::SERVER))
            .arg("--key")
            .arg(pki.key(Profile::SERVER))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Running(command.spawn()?);
        wait_until_bound(port)?;
        Ok(Self {
            process,
            port,
            metrics,
        })
    }

    /// Runs the generator against it and gives its report.
    fn load(
        &self,
        pki: &PkiFiles,
        processor: Option<usize>,
        args: &[&str],
    ) -> Result<Value, Failure> {
        let client = Path::new(env!("CARGO_BIN_EXE_dtls-client"));
        let output = pinned(client, processor)
            .args([
                "load",
                &format!("127.0.0.1:{}", self.port),
                "--format",
                "json",
            ])
            .args(["--server-pid", &self.process.0.id().to_string()])
            .args([
                "--server-metrics",
                &format!("http://127.0.0.1:{}", self.metrics),
            ])
            .args(["--messages", "0", "--ca"])
            .arg(pki.ca())
            .args(args)
            .stderr(Stdio::inherit())
            .output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// taskset(1) becomes the program it starts, so the process is that program's.
fn pinned(program: &Path, processor: Option<usize>) -> Command {
    let Some(processor) = processor else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &processor.to_string()]);
    command.arg(program);
    command
}

/// The first two that this process may run on; a container or taskset(1) may have left it any.
fn two_processors() -> Result<Option<[usize; 2]>, Failure> {
    let allowed = sched_getaffinity(Pid::this())?;
    let mut allowed = (0..CpuSet::count()).filter(|&one| allowed.is_set(one) == Ok(true));
    Ok(allowed.next().zip(allowed.next()).map(Into::into))
}

/// OpenSSL at both ends, with the settings of `dtls` that cost time.
struct Floor {
    client: SslContext,
    server: SslContext,
}

impl Floor {
    fn new(pki: &PkiFiles) -> Result<Self, Failure> {
        let base = |method| -> Result<SslContextBuilder, Failure> {
            let mut context = SslContext::builder(method)?;
            context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
            context.set_cipher_list("ECDHE+AES128+AESGCM")?;
            context.set_groups_list("X25519:P-256")?;
            context.set_session_cache_mode(SslSessionCacheMode::OFF);
            Ok(context)
        };
        let mut client = base(SslMethod::dtls_client())?;
        client.set_options(SslOptions::NO_QUERY_MTU);
        client.set_ca_file(pki.ca())?;
        client.set_verify(SslVerifyMode::PEER);
        let mut server = base(SslMethod::dtls_server())?;
        server.set_options(SslOptions::NO_QUERY_MTU | SslOptions::COOKIE_EXCHANGE);
        server.set_certificate_chain_file(pki.chain(Profile::SERVER))?;
        server.set_private_key_file(pki.key(Profile::SERVER), SslFiletype::PEM)?;
        server.set_cookie_generate_cb(|_, cookie| {
            cookie[..21].fill(7);
            Ok(21)
        });
        server.set_cookie_verify_cb(|_, cookie| cookie == [7; 21]);
        Ok(Self {
            client: client.build(),
            server: server.build(),
        })
    }

    /// Microseconds of processor time that the client's half of one handshake takes, the mean of
    /// `count`. The other processors do the same meanwhile: while the generator is measured they are
    /// busy with its server.
    fn client_half_us(&self, count: u32) -> Result<f64, Failure> {
        let others = std::thread::available_parallelism()?.get() - 1;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..others {
                scope.spawn(|| {
                    let mut going = true;
                    while going {
                        going = self.handshake().is_ok() && !done.load(Ordering::Relaxed);
                    }
                });
            }
            let mut spent = Ok(Duration::ZERO);
            for _ in 0..count {
                spent = spent.and_then(|spent| Ok(spent + self.handshake()?));
            }
            done.store(true, Ordering::Relaxed);
            spent.map(|spent: Duration| spent.as_secs_f64() * 1e6 / f64::from(count))
        })
    }

    /// One handshake and the client's part of its end; gives the client's processor time.
    fn handshake(&self) -> Result<Duration, Failure> {
        let (there, here) = (Queue::default(), Queue::default());
        let mut spent = Duration::ZERO;
        let before = cpu()?;
        let mut ssl = Ssl::new(&self.client)?;
        ssl.set_mtu(1372)?;
        ssl.param_mut()
            .set_ip(std::net::Ipv4Addr::LOCALHOST.into())?;
        ssl.set_connect_state();
        let mut client = SslStream::new(ssl, Pipe(here.clone(), there.clone()))?;
        spent += cpu()? - before;
        let mut ssl = Ssl::new(&self.server)?;
        ssl.set_mtu(1372)?;
        ssl.set_accept_state();
        let mut server = SslStream::new(ssl, Pipe(there, here))?;
        let mut done = (false, false);
        for _ in 0..20 {
            let before = cpu()?;
            done.0 |= step(&mut client)?;
            spent += cpu()? - before;
            done.1 |= step(&mut server)?;
            if done == (true, true) {
                let before = cpu()?;
                client.shutdown()?;
                drop(client);
                return Ok(spent + (cpu()? - before));
            }
        }
        Err("the floor's handshake got stuck".into())
    }
}

/// Goes as far as it can; whether that is to the end.
fn step(end: &mut SslStream<Pipe>) -> Result<bool, Failure> {
    match end.do_handshake() {
        Ok(()) => Ok(true),
        Err(error) if error.code() == ErrorCode::WANT_READ => Ok(false),
        Err(error) => Err(error.into()),
    }
}

type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// Datagrams from one queue and to the other.
struct Pipe(Queue, Queue);

impl io::Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.0.borrow_mut().pop_front();
        let datagram = datagram.ok_or(ErrorKind::WouldBlock)?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl io::Write for Pipe {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.1.borrow_mut().push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Processor time of this thread.
fn cpu() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
}
