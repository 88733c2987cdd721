//! `dtls-server`: a DTLS server for UDP services. Main thread; everything else is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use dtls_server::{Adjust, Args};

fn main() -> ExitCode {
    let as_it_is: Adjust = Arc::new(std::convert::identity);
    dtls_server::run(Args::parse(), &as_it_is)
}
