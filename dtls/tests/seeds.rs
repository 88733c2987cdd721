//! The fuzz targets' seeds (`dtls/fuzz/seeds`), and what lies close to them, without a fuzzer: every
//! seed, every part of it from the start, and every change of one byte.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

use std::fs;
use std::path::Path;

use dtls::fuzzing;

/// Values that a byte is changed to, besides its neighbours and its complement.
const ODD: [u8; 8] = [0, 1, 2, 3, 20, 22, 127, 255];

/// Runs `target` over its seeds; returns how many there are.
fn run(name: &str, target: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let seed = fs::read(&path).unwrap();
        // A panic's message has no room for the input: this says which it was.
        eprintln!("{}", path.display());
        target(&seed);
        for length in 0..seed.len() {
            target(&seed[..length]);
        }
        let mut changed = seed.clone();
        for place in 0..seed.len() {
            let byte = seed[place];
            for value in [byte ^ 1, byte ^ 0x80, !byte, byte.wrapping_add(1)]
                .into_iter()
                .chain(ODD)
            {
                changed[place] = value;
                target(&changed);
            }
            changed[place] = byte;
        }
        seeds += 1;
    }
    seeds
}

#[test]
fn record_filter_holds_around_every_seed() {
    assert!(run("record_filter", fuzzing::record_filter) >= 30);
}

#[test]
fn cookie_holds_around_every_seed() {
    assert!(run("cookie", fuzzing::cookie) >= 10);
}

#[test]
fn heartbeat_holds_around_every_seed() {
    assert!(run("heartbeat", fuzzing::heartbeat) >= 10);
}

#[test]
fn known_peers_holds_around_every_seed() {
    assert!(run("known_peers", fuzzing::known_peers) >= 25);
}
