//! `make bench`: what a datagram costs: filter, slot, cookie, echo, beside what the same OpenSSL and the
//! same system calls cost without us.
//!
//! ```text
//! memory     one thread, no system call: nanoseconds, and instructions where valgrind is there
//! loopback   CPU time of the server's thread, ours and the floor in turn; the median ratio is quoted
//! flood      hellos from many addresses: answers for each second of CPU, bytes sent, memory
//! ```
//!
//! Runs on the main thread, which starts one for each server. Instructions are counted by callgrind
//! in another process of this program (`--operation NAME COUNT FOLDER`).
#![forbid(unsafe_code)]

mod flood;
mod loopback;
mod memory;

use std::path::Path;
use std::process::{Command, ExitCode};

use dtls_certs::{Existing, TestPki};
use memory::{Configs, OPERATIONS};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The design's bounds.
const HELLO_BUDGET: f64 = 1.3;
const ECHO_BUDGET: f64 = 1.25;
const AMPLIFICATION_BUDGET: f64 = 3.0;

/// What the allocator may take or give back at any time.
const FLAT_BYTES: i64 = 256 * 1024;

/// Ours and the floor are measured in turn this often.
const ROUNDS: usize = 7;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [flag, name, count, folder] if flag == "--operation" => {
            memory::run(name, count, Path::new(folder))
        }
        _ => run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    // In files, because making keys takes a number of instructions that differs from run to run.
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    TestPki::new()?.write(folder, Existing::Replace)?;
    println!("a datagram in memory, one thread (median of {ROUNDS})");
    for (name, says) in OPERATIONS {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(memory::nanoseconds(name, folder)?);
        }
        let instructions = match instructions(name, folder)? {
            Some(count) => format!("{count:>7} instructions"),
            None => "instructions not counted: valgrind is missing, run `make deps`".to_owned(),
        };
        println!("  {says:<44} {:>6.0} ns   {instructions}", median(rounds));
    }

    println!("over the loopback, CPU of the server's thread, 8 in flight ({ROUNDS} rounds)");
    let configs = Configs::from_files(folder)?;
    let hello = compare(&configs, loopback::hello_ours, loopback::hello_floor)?;
    report("hello answered / recvfrom + sendto", &hello, HELLO_BUDGET);
    let echo = compare(&configs, loopback::echo_ours, loopback::echo_floor)?;
    report("100-byte echo / SSL_read + SSL_write", &echo, ECHO_BUDGET);
    flood(&configs, &hello)
}

/// `rounds` are of hellos: the same run tells how many a second of CPU is good for.
fn flood(configs: &Configs, rounds: &[(f64, f64)]) -> Result<(), Failure> {
    let flood = flood::run(configs)?;
    println!("a flood of {} hellos from 250 addresses", flood.hellos);
    let a_second = |us: f64| 1e6 / us;
    println!(
        "  answered per second of CPU: {:.0}; recvfrom + sendto alone: {:.0}",
        a_second(median(rounds.iter().map(|round| round.0).collect())),
        a_second(median(rounds.iter().map(|round| round.1).collect())),
    );
    println!(
        "  bytes sent for each received: {:.2}, at worst {:.2}   budget {AMPLIFICATION_BUDGET}   {}",
        flood.amplification,
        flood.worst,
        verdict(flood.amplification.max(flood.worst) <= AMPLIFICATION_BUDGET)
    );
    println!(
        "  memory, from a quarter of them to the end: {:+} KiB   {}",
        flood.growth / 1024,
        if flood.growth <= FLAT_BYTES {
            "flat"
        } else {
            "GROWS"
        }
    );
    Ok(())
}

fn verdict(within: bool) -> &'static str {
    if within { "within" } else { "over" }
}

type Measure = fn(&Configs) -> Result<f64, Failure>;

/// Microseconds of ours and of the floor, in turn.
fn compare(configs: &Configs, ours: Measure, floor: Measure) -> Result<Vec<(f64, f64)>, Failure> {
    (0..ROUNDS)
        .map(|_| Ok((ours(configs)?, floor(configs)?)))
        .collect()
}

fn report(says: &str, rounds: &[(f64, f64)], budget: f64) {
    let ours = median(rounds.iter().map(|round| round.0).collect());
    let floor = median(rounds.iter().map(|round| round.1).collect());
    let ratio = median(rounds.iter().map(|round| round.0 / round.1).collect());
    let verdict = verdict(ratio <= budget);
    println!(
        "  {says:<38} ours {ours:>5.2} us   floor {floor:>5.2} us   ratio {ratio:.2}   \
         budget {budget:.2}   {verdict}"
    );
}

/// Instructions of one operation: the difference of two runs leaves out what is done once.
fn instructions(name: &str, folder: &Path) -> Result<Option<u64>, Failure> {
    const FEW: u64 = 1000;
    const MANY: u64 = 11_000;
    let (Some(few), Some(many)) = (
        callgrind(name, FEW, folder)?,
        callgrind(name, MANY, folder)?,
    ) else {
        return Ok(None);
    };
    Ok(Some(many.saturating_sub(few) / (MANY - FEW)))
}

/// Instructions of a whole run; `None` without valgrind.
fn callgrind(name: &str, count: u64, folder: &Path) -> Result<Option<u64>, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--operation", name, &count.to_string()])
        .arg(folder)
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    match count {
        Some(count) if output.status.success() => Ok(Some(count)),
        _ => Err(format!("callgrind: {said}").into()),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
