//! `dtls-server`: a DTLS server for UDP services. Main thread; everything else is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use dtls_server::Args;

fn main() -> ExitCode {
    dtls_server::run(Args::parse(), std::convert::identity)
}
