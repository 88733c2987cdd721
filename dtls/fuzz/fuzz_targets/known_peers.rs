//! Claim: any known-peers file is parsed or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dtls::fuzzing::known_peers(data));
