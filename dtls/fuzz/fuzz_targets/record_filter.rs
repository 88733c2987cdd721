//! Claim: any datagram passes the record filter only as whole records, in every role and phase.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dtls::fuzzing::record_filter(data));
