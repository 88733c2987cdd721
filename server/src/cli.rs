//! What was typed. Main thread.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::service::Service;

/// A DTLS 1.2 server for UDP services: one blocking thread per connection
#[derive(Debug, Parser)]
#[command(name = "dtls-server", version, after_help = AFTER_HELP)]
pub struct Args {
    /// Address and port to listen on; [::]:4433 takes IPv4 too, port 0 takes any free port
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) listen: SocketAddr,

    /// Certificate chain in PEM form, the server's own first; without it a throw-away certificate
    /// is made and its fingerprint printed
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM form
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Require of every client a certificate that ends in one of the authorities in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,

    /// What to do with the clients' datagrams
    #[arg(long, value_enum, default_value_t = Service::Echo)]
    pub(crate) service: Service,

    /// Connections at once, handshakes included; beyond them new clients get no answer and try
    /// again [default: as many as the descriptor limit carries, at most 10000]
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// Give a handshake up after this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) handshake_timeout: Duration,

    /// Close a connection whose client has been silent for this long, or `none`
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_idle)]
    pub(crate) idle_timeout: IdleTimeout,

    /// After a signal, wait this long for connections to close
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) drain_timeout: Duration,

    /// How the sockets of all connections share the port
    #[arg(long, value_enum, value_name = "HOW", default_value_t = PortSharing::Reuseport)]
    pub(crate) port_sharing: PortSharing,

    /// Build datagrams for links of this many bytes, IP header included
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    pub(crate) link_mtu: u16,

    /// Append the session secrets to this file, for a network analyser; whoever reads it reads
    /// all traffic
    #[arg(long, value_name = "FILE")]
    pub(crate) keylog: Option<PathBuf>,

    /// How to print the counters at the end
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Log every connection; twice: why handshakes failed, too
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table of what is not zero.
    Text,
    /// One JSON object with every counter.
    Json,
}

/// `--port-sharing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PortSharing {
    /// SO_REUSEPORT with a socket filter: nobody else can join the port (Linux)
    Reuseport,
    /// SO_REUSEADDR, the portable pattern: any local user can share the port
    Reuseaddr,
}

/// `--idle-timeout`; nothing is `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdleTimeout(pub(crate) Option<Duration>);

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "give an IP address and a port, such as 127.0.0.1:4433, [::1]:4433 or [::]:4433".to_owned()
    })
}

fn parse_idle(text: &str) -> Result<IdleTimeout, String> {
    if text == "none" {
        return Ok(IdleTimeout(None));
    }
    humantime::parse_duration(text)
        .map(|time| IdleTimeout(Some(time)))
        .map_err(|error| format!("{error}; give a time such as 90s or 5m, or `none`"))
}

const AFTER_HELP: &str = "\
Examples:
  dtls-server --listen '[::1]:4433' -v
      A first try: echoes, with a throw-away certificate. From another terminal:
      openssl s_client -dtls1_2 -connect '[::1]:4433'
  dtls-server --listen '[::]:4433' --cert server.pem --key server.key --client-ca clients.pem

Signals: SIGINT, SIGTERM and SIGHUP close every connection with a close_notify, print the counters
and end the server; a second one ends it at once.

Environment: RUST_LOG chooses what is logged, in place of -v, as env_logger documents.

Exit codes: 0 ended by a signal, every connection closed; 1 the run failed, or was cut short by a
second signal; 2 wrong usage, certificate, key or other file; 3 the system does not allow it: the
port is taken, or a limit is too low.";
