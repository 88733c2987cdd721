//! `dtls-server-weakened`: the server with safeguards that can be switched off, so that tests can
//! show what each of them is good for. Never for use. Main thread.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dtls::{Safeguard, ServerConfigBuilder};
use dtls_server::{Adjust, Args};
use strum::VariantNames;

/// The server with safeguards switched off, for tests only
#[derive(Parser)]
#[command(name = "dtls-server-weakened", version)]
struct Weakened {
    #[command(flatten)]
    server: Args,

    /// Switch a safeguard off; may be repeated
    #[arg(long, value_name = "SAFEGUARD", value_parser = safeguards())]
    without: Vec<Safeguard>,
}

fn main() -> ExitCode {
    let Weakened { server, without } = Weakened::parse();
    let weaken: Adjust = Arc::new(move |config| {
        without
            .iter()
            .copied()
            .fold(config, ServerConfigBuilder::without)
    });
    dtls_server::run(server, &weaken)
}

fn safeguards() -> impl TypedValueParser<Value = Safeguard> {
    PossibleValuesParser::new(Safeguard::VARIANTS).try_map(|name| name.parse::<Safeguard>())
}
