//! Claim: no made-up cookie is good.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dtls::fuzzing::cookie(data));
