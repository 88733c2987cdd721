//! A listener's settings as they are written: each may be missing. Main thread, at the start.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::allow::Entry;
use super::preset::Preset;
use super::values::{
    ClientAuth, Listen, NamedBackend, NamedIdentity, Pin, PortSharing, Suites, TcpAddress, Time,
    TimeOrNone, Transport,
};
use crate::service::{IdleCounts, ProxyProtocol, ServiceName, SyslogFrames};

/// What may be said of a listener.
///
/// One struct for flags, file, presets and defaults: a flag and its key in the file have one name.
#[derive(Debug, Clone, Default, clap::Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ListenerOptions {
    /// Address and port to listen on; [::]:4433 takes IPv4 too, port 0 takes any free port
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<Listen>,

    /// Defaults for a protocol: coaps (CoAP, port 5684), syslog (6514), radius (2083);
    /// --check shows them
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub(crate) preset: Option<Preset>,

    /// What to do with the clients' datagrams [default: echo]
    #[arg(long, value_enum)]
    pub(crate) service: Option<ServiceName>,

    /// The plain UDP service behind --service forward; a name is looked up again as clients come
    #[arg(long, value_name = "HOST:PORT", help_heading = "Forwarding")]
    pub(crate) backend: Option<String>,

    /// Forward clients that ask for NAME (server_name), a host name or *.example.org, to a backend of
    /// their own; may be repeated. All others go to that of --backend
    #[arg(long, value_name = "NAME=HOST:PORT", help_heading = "Forwarding")]
    pub(crate) sni_backend: Option<Vec<NamedBackend>>,

    /// Which datagrams to the backend begin with a PROXY protocol header (version 2), which says who
    /// the client is [default: none]
    #[arg(long, value_enum, value_name = "WHICH", help_heading = "Forwarding")]
    pub(crate) proxy_protocol: Option<ProxyProtocol>,

    /// Syslog over DTLS (RFC 6012) puts a length before each message, and maybe several messages
    /// into a record; plain UDP collectors expect neither [default: keep]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Forwarding")]
    pub(crate) syslog_frames: Option<SyslogFrames>,

    /// Whose datagrams keep a connection from being idle [default: both]
    #[arg(long, value_enum, value_name = "WHOSE", help_heading = "Forwarding")]
    pub(crate) idle_counts: Option<IdleCounts>,

    /// Certificate chain in PEM form, the server's own first; without it, and without --psk-file,
    /// a throw-away certificate is made and its fingerprint printed
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    #[serde(serialize_with = "path")]
    pub(crate) cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM form
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    #[serde(serialize_with = "path")]
    pub(crate) key: Option<PathBuf>,

    /// Show this certificate to clients that ask for NAME (server_name), a host name or
    /// *.example.org; may be repeated. All others see that of --cert
    #[arg(long, value_name = "NAME=CERT,KEY", help_heading = "Identity")]
    pub(crate) sni: Option<Vec<NamedIdentity>>,

    /// Take clients with pre-shared keys: a line of the file is IDENTITY:KEY, the key in
    /// hexadecimal; # starts a comment line
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    #[serde(serialize_with = "path")]
    pub(crate) psk_file: Option<PathBuf>,

    /// Helps clients that have several pre-shared keys to choose one; sent in clear text
    #[arg(long, value_name = "TEXT", help_heading = "Identity")]
    pub(crate) psk_hint: Option<String>,

    /// Take the keys of cookies and session tickets from this file, which every server behind the
    /// same address has: a line is NUMBER:SECRET, the secret in hexadecimal ("openssl rand -hex 32").
    /// The first line's issues, a second line's is taken as well
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    #[serde(serialize_with = "path")]
    pub(crate) shared_keys: Option<PathBuf>,

    /// Whether clients must show a certificate; one who has a pre-shared key need not
    /// [default: required with --client-ca or --client-pin, otherwise off]
    #[arg(long, value_enum, value_name = "WHETHER", help_heading = "Clients")]
    pub(crate) client_auth: Option<ClientAuth>,

    /// Authorities in PEM form in which the clients' certificates must end
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    #[serde(serialize_with = "path")]
    pub(crate) client_ca: Option<PathBuf>,

    /// Revocation lists in PEM form: a current one of every authority in a client's chain
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    #[serde(serialize_with = "path")]
    pub(crate) client_crl: Option<PathBuf>,

    /// Take this client certificate, whatever its issuer, dates and names; SHA-256, may be
    /// repeated. Beside --client-ca, either is good enough
    #[arg(long, value_name = "FINGERPRINT", help_heading = "Clients")]
    pub(crate) client_pin: Option<Vec<Pin>>,

    /// Of those who prove who they are, let only these in; may be repeated: SHA256:FINGERPRINT of a
    /// certificate, san:NAME for a subject alternative name (*.example.org takes one label), or
    /// psk:IDENTITY
    #[arg(long, value_name = "CLIENT", help_heading = "Clients")]
    pub(crate) allow: Option<Vec<Entry>>,

    /// Let in those of this file, too: one CLIENT a line as with --allow, # starts a comment line
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    #[serde(serialize_with = "path")]
    pub(crate) allow_file: Option<PathBuf>,

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

    /// Build datagrams for links of this many bytes, IP header included; 304 at least
    /// [default: 1400]
    #[arg(long, value_name = "BYTES", help_heading = "Network")]
    pub(crate) link_mtu: Option<u16>,

    /// How the sockets of all connections share the port [default: reuseport]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Network")]
    pub(crate) port_sharing: Option<PortSharing>,

    /// How connections receive and send [default: connected]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Network")]
    pub(crate) transport: Option<Transport>,

    /// Connections at once, handshakes included; beyond them new clients get no answer and try
    /// again [default: as many as the descriptor limit carries, at most 10000, shared by all
    /// listeners]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// Handshakes in progress at once; beyond them new clients get no answer and try again
    /// [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_half_open: Option<NonZeroUsize>,

    /// Connections of one IPv4 address, or one IPv6 subnet of 64 bits [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_per_prefix: Option<NonZeroUsize>,

    /// First hellos of one address or subnet that are answered in a second, at once or one by one;
    /// at least 10 where floods from many addresses are to be expected [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) hello_rate: Option<NonZeroU32>,
}

impl ListenerOptions {
    /// What these say, and where they say nothing, what `other` says.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            preset: self.preset.or(other.preset),
            service: self.service.or(other.service),
            backend: self.backend.or(other.backend),
            sni_backend: self.sni_backend.or(other.sni_backend),
            proxy_protocol: self.proxy_protocol.or(other.proxy_protocol),
            syslog_frames: self.syslog_frames.or(other.syslog_frames),
            idle_counts: self.idle_counts.or(other.idle_counts),
            cert: self.cert.or(other.cert),
            key: self.key.or(other.key),
            sni: self.sni.or(other.sni),
            psk_file: self.psk_file.or(other.psk_file),
            psk_hint: self.psk_hint.or(other.psk_hint),
            shared_keys: self.shared_keys.or(other.shared_keys),
            client_auth: self.client_auth.or(other.client_auth),
            client_ca: self.client_ca.or(other.client_ca),
            client_crl: self.client_crl.or(other.client_crl),
            client_pin: self.client_pin.or(other.client_pin),
            allow: self.allow.or(other.allow),
            allow_file: self.allow_file.or(other.allow_file),
            suites: self.suites.or(other.suites),
            alpn: self.alpn.or(other.alpn),
            heartbeat: self.heartbeat.or(other.heartbeat),
            probe_when_idle: self.probe_when_idle.or(other.probe_when_idle),
            handshake_timeout: self.handshake_timeout.or(other.handshake_timeout),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            retransmit_initial: self.retransmit_initial.or(other.retransmit_initial),
            retransmit_max: self.retransmit_max.or(other.retransmit_max),
            link_mtu: self.link_mtu.or(other.link_mtu),
            port_sharing: self.port_sharing.or(other.port_sharing),
            transport: self.transport.or(other.transport),
            max_connections: self.max_connections.or(other.max_connections),
            max_half_open: self.max_half_open.or(other.max_half_open),
            max_per_prefix: self.max_per_prefix.or(other.max_per_prefix),
            hello_rate: self.hello_rate.or(other.hello_rate),
        }
    }

    /// The files that are named.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        // The same list as that of which relative names are resolved.
        self.clone().each_file(|file| files.push(file.clone()));
        files
    }

    /// Reads relative file names from `folder` on.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.each_file(|file| *file = folder.join(&*file));
    }

    fn each_file(&mut self, act: impl FnMut(&mut PathBuf)) {
        let files = [
            &mut self.cert,
            &mut self.key,
            &mut self.psk_file,
            &mut self.client_ca,
            &mut self.client_crl,
            &mut self.allow_file,
            &mut self.shared_keys,
        ];
        let named = self.sni.iter_mut().flatten();
        let named = named.flat_map(|named| [&mut named.cert, &mut named.key]);
        files.into_iter().flatten().chain(named).for_each(act);
    }

    /// What is said, by key.
    pub(super) fn said(&self) -> serde_json::Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut all)) => {
                all.retain(|_, value| !value.is_null());
                all
            }
            // Every key is a string, and no value refuses to be written.
            _ => serde_json::Map::new(),
        }
    }
}

/// What may be said of the whole server.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ServerOptions {
    /// After a signal, let connections go on for this long before closing those that are left
    /// [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub(crate) drain_timeout: Option<Time>,

    /// Once files are read and ports below 1024 bound, become this user, for good; for a start as
    /// root
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// Answer /metrics (OpenMetrics, for Prometheus), /health, /ready and /status over HTTP on this
    /// TCP address, to whoever can reach it
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<TcpAddress>,

    /// Append the session secrets to this file, for a network analyser; whoever reads it reads
    /// all traffic
    #[arg(long, value_name = "FILE")]
    pub(crate) keylog: Option<PathBuf>,

    /// In a file only: one for each address.
    #[arg(skip)]
    pub(crate) listener: Vec<ListenerOptions>,
}

impl ServerOptions {
    /// Reads relative file names from `folder` on.
    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Some(file) = &mut self.keylog {
            *file = folder.join(&*file);
        }
        for listener in &mut self.listener {
            listener.resolve(folder);
        }
    }
}

/// A path for people to read, whatever its bytes.
fn path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.collect_str(&path.display()),
        None => serializer.serialize_none(),
    }
}
