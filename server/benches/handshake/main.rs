//! `make bench`: what a handshake and a held connection cost the server, beside the floor that the
//! same OpenSSL sets without us. All figures of a table come from one run.
//!
//! ```text
//! floor      one thread, plain OpenSSL over loopback UDP; CPU of the server's half only
//! ours       the dtls-server process under the load of a dtls-client process; CPU from /proc
//! ```
//!
//! With the argument `transports` it measures only what connections that are held cost: memory, and CPU
//! per datagram, over either transport.
//!
//! Runs on the main thread; the two programs are processes of their own. Writes its table to
//! standard output and its raw figures to `target/bench/handshake.json`.
#![forbid(unsafe_code)]

mod exchange;
mod floor;
mod held;
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dtls_certs::{PkiFiles, TestPki};
use serde_json::{Value, json};

use floor::Floor;
use held::Held;
use program::{Client, Server};

/// The design's bounds.
const FULL_BUDGET: f64 = 1.15;
const RESUMED_BUDGET: f64 = 1.6;
const HELD_BUDGET_KIB: f64 = 96.0;

/// Floor and server are measured in turn this often; the median of the ratios is quoted.
const ROUNDS: usize = 5;
const FULL_HANDSHAKES: u32 = 2000;
const RESUMED_HANDSHAKES: u32 = 8000;

/// Connections held at once.
const HELD: [u32; 3] = [10, 1_000, 10_000];
const EXCHANGES: u32 = 10_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let target = target_folder()?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    let pki_folder = folder.join("certs");
    let pki = TestPki::new()?.write(&pki_folder, dtls_certs::Existing::Replace)?;
    let programs = target.join("release");
    let mut rows = Vec::new();
    if !std::env::args().any(|argument| argument == "transports") {
        handshakes(&programs, &pki, &mut rows)?;
    }
    transports(&programs, &pki, &mut rows)?;

    let raw = folder.join("handshake.json");
    fs::write(&raw, serde_json::to_string_pretty(&rows)?)?;
    println!("raw figures: {}", raw.display());
    Ok(())
}

/// CPU per handshake, and retransmissions where nothing is lost.
fn handshakes(
    programs: &Path,
    pki: &PkiFiles,
    rows: &mut Vec<Value>,
) -> Result<(), Box<dyn std::error::Error>> {
    println!("server CPU per handshake, 16 at once, client in another process ({ROUNDS} rounds)");
    for (name, resumed, count, budget) in [
        ("full", false, FULL_HANDSHAKES, FULL_BUDGET),
        ("resumed", true, RESUMED_HANDSHAKES, RESUMED_BUDGET),
    ] {
        let floor = Floor::new(pki)?;
        let server = Server::start(programs, pki, 64, "connected")?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let floor_us = floor.server_half_us(count / 4, resumed)?;
            let before = server.cpu()?;
            let outcome = Client::load(programs, pki, server.address(), count, 16, resumed)?;
            let ours_us = (server.cpu()? - before).as_secs_f64() * 1e6 / f64::from(count);
            if outcome.failed > 0 {
                return Err(format!("{} handshakes failed", outcome.failed).into());
            }
            rounds.push((ours_us, floor_us, ours_us / floor_us));
        }
        server.stop()?;
        let ratio = median(rounds.iter().map(|round| round.2));
        let (ours, floor_us) = (
            median(rounds.iter().map(|r| r.0)),
            median(rounds.iter().map(|r| r.1)),
        );
        println!(
            "  {name:<10} ours {ours:>6.0} us   floor {floor_us:>6.0} us   ratio {ratio:.2}   budget {budget:.2}   {}",
            verdict(ratio <= budget)
        );
        rows.push(json!({"what": name, "rounds": rounds, "ratio": ratio, "budget": budget}));
    }

    println!("10,000 handshakes on a clean network, 64 at once");
    let server = Server::start(programs, pki, 256, "connected")?;
    let outcome = Client::load(programs, pki, server.address(), 10_000, 64, false)?;
    let counters = server.stop()?;
    let resent = outcome.retransmissions + counters["retransmissions"].as_u64().unwrap_or(0);
    println!(
        "  completed {}   failed {}   retransmissions {resent}   budget 0   {}",
        outcome.completed,
        outcome.failed,
        verdict(resent == 0 && outcome.failed == 0)
    );
    rows.push(json!({
        "what": "clean", "completed": outcome.completed, "failed": outcome.failed,
        "retransmissions": resent,
    }));
    Ok(())
}

/// Memory and CPU of held connections, over each transport.
fn transports(
    programs: &Path,
    pki: &PkiFiles,
    rows: &mut Vec<Value>,
) -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "while connections are held: memory of each, thread included; CPU per exchange, both ends"
    );
    println!(
        "  transport    held   KiB each (budget {HELD_BUDGET_KIB:.0})   hello, unknown source   echo, established"
    );
    for transport in ["connected", "shared"] {
        for connections in HELD {
            let held = Held::new(programs, pki, transport, connections)?;
            let unknown_us = exchange::unknown_us(&held.server, EXCHANGES)?;
            let established_us = exchange::established_us(&held.server, EXCHANGES)?;
            let kib = held.kib;
            // Of a few connections, what the process has at its start would be their memory.
            let memory = if connections >= 1_000 {
                format!("{kib:.1}   {}", verdict(kib <= HELD_BUDGET_KIB))
            } else {
                String::new()
            };
            println!(
                "  {transport:<9} {connections:>7}   {memory:<23}   {unknown_us:>15.1} us   {established_us:>14.1} us"
            );
            rows.push(json!({
                "what": "held", "transport": transport, "connections": connections, "kib": kib,
                "unknown_us": unknown_us, "established_us": established_us,
            }));
        }
    }
    Ok(())
}

fn verdict(within: bool) -> &'static str {
    if within { "within" } else { "over" }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The target folder, from the place of this program: `target/release/deps/handshake-…`.
fn target_folder() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).map(Path::to_owned);
    target.ok_or_else(|| format!("{} lies in no target folder", program.display()).into())
}
