//! Claim: any decrypted heartbeat is parsed without reading past it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dtls::fuzzing::heartbeat(data));
