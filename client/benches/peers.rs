//! Handshakes with other implementations' servers and ours, one after another in one run: rate,
//! latency and the server's processor time for each. Main thread; the programs are processes.
//!
//! `make bench-peers` runs it. A peer that is not installed is named and left out; a peer that serves
//! one client at a time is shown as such, not as slow.

mod common;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Failure, Running, wait_until_bound};
use dtls_certs::{File as PkiFile, PkiFiles, Profile, TestPki};
use serde_json::Value;

/// Clients at once.
const AT_ONCE: [u32; 3] = [1, 16, 64];

/// Of one measurement.
const DURATION: &str = "4s";

/// Beyond this a client has been left out, whatever the load.
const PATIENCE: &str = "5s";

/// What the client trusts.
const AUTHORITIES: &str = "authorities.pem";

/// A server to start.
struct Peer {
    name: &'static str,
    program: &'static str,
    package: &'static str,
    args: fn(&mut Command, u16, &PkiFiles),
    /// Where it speaks DTLS, given the port it is told.
    port: fn(u16) -> u16,
    standard_input: fn() -> Stdio,
}

const PEERS: [Peer; 6] = [
    Peer {
        name: "dtls-server",
        program: "dtls-server",
        package: "",
        args: |command, port, pki| {
            command.arg("--listen").arg(format!("127.0.0.1:{port}"));
            command.arg("--cert").arg(pki.chain(Profile::SERVER));
            command.arg("--key").arg(pki.key(Profile::SERVER));
        },
        port: |port| port,
        standard_input: Stdio::null,
    },
    Peer {
        name: "openssl s_server",
        program: "openssl",
        package: "openssl",
        args: |command, port, pki| s_server(command, port, pki, &[]),
        port: |port| port,
        standard_input: Stdio::piped,
    },
    Peer {
        name: "openssl s_server -listen",
        program: "openssl",
        package: "openssl",
        args: |command, port, pki| s_server(command, port, pki, &["-listen"]),
        port: |port| port,
        standard_input: Stdio::piped,
    },
    Peer {
        name: "gnutls-serv",
        program: "gnutls-serv",
        package: "gnutls-bin",
        args: |command, port, pki| {
            command.args(["--udp", "--echo", "--port", &port.to_string()]);
            command
                .arg("--x509certfile")
                .arg(pki.chain(Profile::SERVER));
            command.arg("--x509keyfile").arg(pki.key(Profile::SERVER));
        },
        port: |port| port,
        standard_input: Stdio::null,
    },
    Peer {
        name: "coap-server (OpenSSL)",
        program: "coap-server-openssl",
        package: "libcoap3-bin",
        args: coap_server,
        port: |port| port + 1,
        standard_input: Stdio::null,
    },
    Peer {
        name: "coap-server (GnuTLS)",
        program: "coap-server-gnutls",
        package: "libcoap3-bin",
        args: coap_server,
        port: |port| port + 1,
        standard_input: Stdio::null,
    },
];

fn s_server(command: &mut Command, port: u16, pki: &PkiFiles, more: &[&str]) {
    command.args([
        "s_server",
        "-dtls1_2",
        "-quiet",
        "-accept",
        &format!("127.0.0.1:{port}"),
    ]);
    command.args(more);
    command.arg("-cert").arg(pki.chain(Profile::SERVER));
    command
        .arg("-cert_chain")
        .arg(pki.path(PkiFile::Intermediate));
    command.arg("-key").arg(pki.key(Profile::SERVER));
}

fn coap_server(command: &mut Command, port: u16, pki: &PkiFiles) {
    command.args(["-A", "127.0.0.1", "-p", &port.to_string(), "-n"]);
    command.arg("-c").arg(pki.chain(Profile::SERVER));
    command.arg("-j").arg(pki.key(Profile::SERVER));
}

fn main() -> Result<(), Failure> {
    let client = Path::new(env!("CARGO_BIN_EXE_dtls-client"));
    let dir = tempfile::tempdir()?;
    let pki = TestPki::generate(dir.path())?;
    // Some peers send their own certificate alone.
    let authorities = [pki.ca().to_path_buf(), pki.path(PkiFile::Intermediate)];
    let authorities: Vec<String> = authorities
        .iter()
        .map(std::fs::read_to_string)
        .collect::<Result<_, _>>()?;
    std::fs::write(dir.path().join(AUTHORITIES), authorities.concat())?;
    println!(
        "full handshakes for {DURATION} each, client on the same processors; µs: the server's processor \
         time per handshake\n"
    );
    println!(
        "{:<25} {:>7} {:>12} {:>7} {:>9} {:>9} {:>7}",
        "server", "at once", "handshakes/s", "µs", "p50 ms", "p99 ms", "failed"
    );
    let mut absent = Vec::new();
    for peer in &PEERS {
        let beside = client.with_file_name(peer.program);
        let program = if peer.package.is_empty() {
            beside.as_path()
        } else {
            Path::new(peer.program)
        };
        let mut alone = 0;
        for at_once in AT_ONCE {
            let Some(report) = measure(peer, program, client, &pki, dir.path(), at_once)? else {
                absent.push(peer);
                break;
            };
            let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
            let handshakes = report["handshakes"].as_u64().unwrap_or_default();
            let failed = report["failed"].as_u64().unwrap_or_default();
            if at_once == 1 {
                alone = handshakes;
            }
            let show =
                |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
            let why = report["failures"][0]["error"].as_str().unwrap_or_default();
            let remark = match (handshakes, failed) {
                (_, 0) => "",
                (0, _) if at_once == 1 => why,
                (1, _) if at_once == 1 => "serves one client, then none",
                _ if at_once > 1 && alone > 1 => "serves one client at a time",
                _ => "",
            };
            let line = format!(
                "{:<25} {at_once:>7} {:>12} {:>7} {:>9} {:>9} {failed:>7}  {remark}",
                peer.name,
                show(number("/handshakes_per_second")),
                number("/server/per_handshake_us").map_or("-".to_owned(), |us| format!("{us:.0}")),
                show(number("/latency/full_handshake/p50_ms")),
                show(number("/latency/full_handshake/p99_ms")),
            );
            println!("{}", line.trim_end());
            if !remark.is_empty() {
                break;
            }
        }
    }
    for peer in absent {
        println!(
            "not measured: {}, apt-get install {}",
            peer.name, peer.package
        );
    }
    Ok(())
}

/// One measurement with a fresh server; `None` where it is not installed.
fn measure(
    peer: &Peer,
    program: &Path,
    client: &Path,
    pki: &PkiFiles,
    dir: &Path,
    at_once: u32,
) -> Result<Option<Value>, Failure> {
    let told = std::net::UdpSocket::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let port = (peer.port)(told);
    let mut command = Command::new(program);
    (peer.args)(&mut command, told, pki);
    let log = File::create(dir.join("server.log"))?;
    let spawned = command
        .stdin((peer.standard_input)())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    let server = match spawned {
        Ok(child) => Running(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if peer.package.is_empty() {
                return Err(format!("{}: {error}; build it first", program.display()).into());
            }
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    wait_until_bound(port).map_err(|error| {
        let said = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
        format!("{}: {error}: {said}", peer.name)
    })?;
    let output = Command::new(client)
        .args(["load", &format!("127.0.0.1:{port}"), "--mode", "handshake"])
        .args([
            "--concurrency",
            &at_once.to_string(),
            "--duration",
            DURATION,
        ])
        .args(["--handshake-timeout", PATIENCE, "--format", "json"])
        .args(["--server-pid", &server.0.id().to_string()])
        .arg("--ca")
        .arg(dir.join(AUTHORITIES))
        .stderr(Stdio::null())
        .output()?;
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}
