//! Other people's programs, as Debian packages them, on both sides of the server: clients that
//! speak DTLS to it and plain UDP services behind it. A program that is not installed fails the
//! test that needs it. What these programs cannot do is in docs/interop.md.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

#[path = "../common/mod.rs"]
mod common;

mod peer;

mod coap;
mod radius;
mod syslog;
mod tools;
