//! A listener's settings as they are written: each may be missing. Main thread, at the start.

use std::net::SocketAddr;
use std::path::PathBuf;

use dtls::Fingerprint;

use super::values::{ClientAuth, NamedIdentity, PortSharing, Suites, Time, TimeOrNone, Transport};
use crate::service::{IdleCounts, ProxyProtocol, ServiceName};

/// What may be said of a listener.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ListenerOptions {
    /// Address and port to listen on; [::]:4433 takes IPv4 too, port 0 takes any free port
    #[arg(long, value_name = "ADDR:PORT", value_parser = super::values::address)]
    pub(crate) listen: Option<SocketAddr>,

    /// What to do with the clients' datagrams [default: echo]
    #[arg(long, value_enum)]
    pub(crate) service: Option<ServiceName>,

    /// The plain UDP service behind --service forward; a name is looked up again as clients come
    #[arg(long, value_name = "HOST:PORT", help_heading = "Forwarding")]
    pub(crate) backend: Option<String>,

    /// Which datagrams to the backend begin with a PROXY protocol header (version 2), which says who
    /// the client is [default: none]
    #[arg(long, value_enum, value_name = "WHICH", help_heading = "Forwarding")]
    pub(crate) proxy_protocol: Option<ProxyProtocol>,

    /// Whose datagrams keep a connection from being idle [default: both]
    #[arg(long, value_enum, value_name = "WHOSE", help_heading = "Forwarding")]
    pub(crate) idle_counts: Option<IdleCounts>,

    /// Certificate chain in PEM form, the server's own first; without it, and without --psk-file,
    /// a throw-away certificate is made and its fingerprint printed
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    pub(crate) cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM form
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    pub(crate) key: Option<PathBuf>,

    /// Show this certificate to clients that ask for NAME (server_name), a host name or
    /// *.example.org; may be repeated. All others see that of --cert
    #[arg(long, value_name = "NAME=CERT,KEY", help_heading = "Identity")]
    pub(crate) sni: Option<Vec<NamedIdentity>>,

    /// Take clients with pre-shared keys: a line of the file is IDENTITY:KEY, the key in
    /// hexadecimal; # starts a comment line
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    pub(crate) psk_file: Option<PathBuf>,

    /// Helps clients that have several pre-shared keys to choose one; sent in clear text
    #[arg(long, value_name = "TEXT", help_heading = "Identity")]
    pub(crate) psk_hint: Option<String>,

    /// Whether clients must show a certificate; one who has a pre-shared key need not
    /// [default: required with --client-ca or --client-pin, otherwise off]
    #[arg(long, value_enum, value_name = "WHETHER", help_heading = "Clients")]
    pub(crate) client_auth: Option<ClientAuth>,

    /// Authorities in PEM form in which the clients' certificates must end
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    pub(crate) client_ca: Option<PathBuf>,

    /// Revocation lists in PEM form: a current one of every authority in a client's chain
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    pub(crate) client_crl: Option<PathBuf>,

    /// Take this client certificate, whatever its issuer, dates and names; SHA-256, may be
    /// repeated. Beside --client-ca, either is good enough
    #[arg(long, value_name = "FINGERPRINT", help_heading = "Clients")]
    pub(crate) client_pin: Option<Vec<Fingerprint>>,

    /// Cipher suites [default: recommended]
    #[arg(long, value_enum, value_name = "WHICH", help_heading = "Protocol")]
    pub(crate) suites: Option<Suites>,

    /// Application protocol to speak (ALPN), the preferred one first; may be repeated. A client
    /// that offers only others is refused [default: whatever clients offer is ignored]
    #[arg(long, value_name = "NAME", help_heading = "Protocol")]
    pub(crate) alpn: Option<Vec<String>>,

    /// Agree on heartbeats (RFC 6520) with clients that offer them
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Protocol")]
    pub(crate) heartbeat: Option<bool>,

    /// Before a connection counts as idle, ask the client for a heartbeat and wait this long for
    /// it; implies --heartbeat [default: none]
    #[arg(long, value_name = "TIME|none", help_heading = "Protocol")]
    pub(crate) probe_when_idle: Option<TimeOrNone>,

    /// Give a handshake up after this long [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Timing")]
    pub(crate) handshake_timeout: Option<Time>,

    /// Close a connection whose client has been silent for this long [default: 60s]
    #[arg(long, value_name = "TIME|none", help_heading = "Timing")]
    pub(crate) idle_timeout: Option<TimeOrNone>,

    /// Send an unanswered flight again after this long, then after twice as long each time; less
    /// than the default suits networks that are known to be near [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = "Timing")]
    pub(crate) retransmit_initial: Option<Time>,

    /// The longest time between two repetitions of a flight [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Timing")]
    pub(crate) retransmit_max: Option<Time>,

    /// Build datagrams for links of this many bytes, IP header included; 576 at least
    /// [default: 1500]
    #[arg(long, value_name = "BYTES", help_heading = "Network")]
    pub(crate) link_mtu: Option<u16>,

    /// How the sockets of all connections share the port [default: reuseport]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Network")]
    pub(crate) port_sharing: Option<PortSharing>,

    /// How connections receive and send [default: connected]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Network")]
    pub(crate) transport: Option<Transport>,
}
