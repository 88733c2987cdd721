//! What was typed. Main thread.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{ListenerOptions, ServerOptions};
use crate::logging::LogFormat;
use crate::ops::Top;

/// A DTLS 1.2 server for UDP services: one blocking thread per connection
#[derive(Debug, Parser)]
#[command(name = "dtls-server", version, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Read settings from this TOML file; flags win over it, in each of its listeners
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Check every setting and file, say what would be started with which settings, and end
    #[arg(long)]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) listener: ListenerOptions,

    #[command(flatten)]
    pub(crate) server: ServerOptions,

    /// How to print the counters at the end, and the settings of --check
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// How to log, on standard error
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// Log every connection; twice: why handshakes failed, too
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Something else than to serve.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Status(Top),
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table of what is not zero.
    Text,
    /// One JSON object with every counter.
    Json,
}

const AFTER_HELP: &str = "\
Examples:
  dtls-server --listen '[::1]:4433' -v
      A first try: echoes, with a throw-away certificate. From another terminal:
      openssl s_client -dtls1_2 -connect '[::1]:4433'
  dtls-server --listen '[::]:5684' --cert server.pem --key server.key --client-ca clients.pem \
              --service forward --backend 127.0.0.1:5683
      In front of a plain CoAP server: each client has a UDP socket of its own towards the backend.
  dtls-server --listen '[::]:5684' --psk-file keys --suites iot
      Pre-shared keys alone, no certificate; a line of the file: sensor-17:6f1ed002ab5595859014ebf0951522d9
  dtls-server --config server.toml --check
      A key of the file is a flag without its dashes; [[listener]] begins each listener:
        drain-timeout = \"30s\"
        [[listener]]
        preset = \"coaps\"
        psk-file = \"keys\"
        [[listener]]
        listen = \"[::]:4433\"
        cert = \"server.pem\"
        key = \"server.key\"
        sni = [{ name = \"a.example\", cert = \"a.pem\", key = \"a.key\" }]
      Relative file names begin at the file's folder.

Signals: after SIGINT or SIGTERM no further client is answered. Connections may go on
until --drain-timeout; those left then get a close_notify. The server ends as soon as there is none,
and prints its counters. A second signal ends it at once, without a word to anyone.
SIGHUP, or a file that has changed, makes the server read the configuration, certificates, revocation
lists, keys and allow lists anew, for new connections. If anything is wrong, everything stays as it was.

Environment: RUST_LOG chooses what is logged, in place of -v, as env_logger documents.

Operations: with --metrics 127.0.0.1:9464, `dtls-server status 127.0.0.1:9464 --watch` shows what the
server does; Prometheus scrapes http://127.0.0.1:9464/metrics.

Exit codes: 0 ended by a signal, every connection closed; 1 the run failed, or was cut short by a
second signal; 2 wrong usage, certificate, key or other file; 3 the system does not allow it: the
port is taken, or a limit is too low.";
