//! What `connect` prints: for people the facts on standard error and the data on standard output,
//! for programs one JSON object a line on standard output. Main thread.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use dtls::{CertificateInfo, DtlsStream, Fingerprint, HandshakeInfo, KnownPeers, Liveness};
use serde::Serialize;

use crate::cli::{Format, ServerArgs};
use crate::target::Target;

/// Where it goes, and how.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    /// Control characters of a stranger must not reach a person's terminal.
    escape: bool,
}

/// One line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// The handshake is complete.
    Connected(&'a Connected),
    /// A datagram came.
    Datagram {
        /// With U+FFFD for what is no UTF-8.
        text: String,
        /// All bytes, where they are no UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
    },
    /// A question for a sign of life has ended.
    Probe {
        /// `alive`, `silent` or `not_negotiated`.
        result: &'static str,
        /// From the question to the answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        rtt_ms: Option<f64>,
    },
    /// The connection ended in order.
    Closed {
        /// `peer` or `us`.
        by: &'static str,
    },
    /// It did not, or never began.
    Failed {
        /// As on standard error.
        error: String,
    },
}

/// What the handshake agreed on.
#[derive(Debug, Serialize)]
pub(crate) struct Connected {
    peer: String,
    version: &'static str,
    cipher: &'static str,
    group: Option<&'static str>,
    alpn: Option<String>,
    resumed: bool,
    handshake_ms: f64,
    /// Until the server's cookie came, if it asked for one.
    cookie_ms: Option<f64>,
    retransmissions: u32,
    datagrams: BothWays,
    bytes: BothWays,
    /// Whether the server takes heartbeat requests.
    heartbeat: bool,
    /// Whether the server has proved who it is.
    verified: bool,
    /// OpenSSL's verdict on the certificate, `ok` or why not.
    verification: &'static str,
    proof: Option<Proof>,
    psk_identity: Option<String>,
    chain: Vec<Certificate>,
    /// What the proof is about: the name asked for, or the known-peers file.
    #[serde(skip)]
    subject: String,
    /// What to say of the application protocol, if one was offered.
    #[serde(skip)]
    protocol: Option<String>,
}

#[derive(Debug, Serialize)]
struct BothWays {
    sent: u64,
    received: u64,
}

/// How the server has proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Proof {
    /// A trusted authority says that the certificate is this server's.
    Certificate,
    /// The certificate is a pinned one.
    Pin,
    /// The certificate is the one noted in the known-peers file.
    KnownPeer,
    /// It is noted there from now on; nothing vouches for it.
    FirstUse,
    /// It has the pre-shared key.
    Psk,
}

#[derive(Debug, Serialize)]
struct Certificate {
    subject: String,
    issuer: String,
    not_after: String,
    fingerprint: String,
}

impl Connected {
    /// The facts of a connection to `server`, made with these flags.
    pub(crate) fn new(stream: &DtlsStream, args: &ServerArgs, server: &Target) -> Self {
        let info = stream.info();
        let proof = Proof::of(&info, args, server);
        let cost = info.cost;
        Self {
            peer: stream.peer_addr().to_string(),
            version: info.version,
            cipher: info.cipher,
            group: info.group,
            alpn: info.alpn.as_deref().map(text_of),
            resumed: info.resumed,
            handshake_ms: milliseconds(info.time),
            cookie_ms: cost.cookie_round_trip.map(milliseconds),
            retransmissions: info.retransmissions,
            datagrams: BothWays {
                sent: cost.datagrams_sent.into(),
                received: cost.datagrams_received.into(),
            },
            bytes: BothWays {
                sent: cost.bytes_sent,
                received: cost.bytes_received,
            },
            heartbeat: stream.may_probe(),
            verified: proof.is_some(),
            verification: info.verification,
            proof,
            psk_identity: info.psk_identity.as_deref().map(text_of),
            chain: info.peer_chain.into_iter().map(Certificate::from).collect(),
            subject: match (proof, &args.known_peers) {
                (Some(Proof::KnownPeer | Proof::FirstUse), Some(file)) => {
                    file.display().to_string()
                }
                _ => server.host.clone(),
            },
            protocol: (!args.alpn.is_empty()).then(|| match &info.alpn {
                Some(chosen) => printable(&text_of(chosen)),
                None => "none: the server ignored the offer".to_owned(),
            }),
        }
    }

    fn for_people(&self) -> String {
        let plural = if self.retransmissions == 1 { "" } else { "s" };
        let mut text = format!(
            "connected to {} in {:.1} ms, {} retransmission{plural}\n",
            self.peer, self.handshake_ms, self.retransmissions,
        );
        let mut fact = |name: &str, value: &str| {
            text.push_str(&format!("  {name:<13} {value}\n"));
        };
        fact("version", self.version);
        fact("cipher", self.cipher);
        fact("group", self.group.unwrap_or("none"));
        if let Some(protocol) = &self.protocol {
            fact("protocol", protocol);
        }
        let (datagrams, bytes) = (&self.datagrams, &self.bytes);
        fact(
            "on the wire",
            &format!(
                "{} datagrams out, {} in; {} bytes out, {} in",
                datagrams.sent, datagrams.received, bytes.sent, bytes.received
            ),
        );
        fact("verification", &self.verification_for_people());
        for (depth, certificate) in self.chain.iter().enumerate() {
            fact(
                &format!("certificate {depth}"),
                &printable(&certificate.subject),
            );
            fact("  issuer", &printable(&certificate.issuer));
            fact("  not after", &certificate.not_after);
            fact("  SHA-256", &certificate.fingerprint);
        }
        text
    }

    fn verification_for_people(&self) -> String {
        let subject = &self.subject;
        match (self.proof, self.verification) {
            (Some(Proof::Certificate), _) => format!("ok, the certificate is {subject}'s"),
            (Some(Proof::Pin), _) => {
                "ok, the certificate is the pinned one; its name and dates were not looked at"
                    .into()
            }
            (Some(Proof::KnownPeer), _) => {
                format!("ok, the certificate is the one noted in {subject}")
            }
            (Some(Proof::FirstUse), _) => format!(
                "first use: noted in {subject}; compare the fingerprint with the server's own"
            ),
            (Some(Proof::Psk), _) => {
                let identity = self.psk_identity.as_deref().unwrap_or_default();
                format!(
                    "ok, both have the pre-shared key \"{}\"",
                    printable(identity)
                )
            }
            (None, "ok") => "none (--insecure)".to_owned(),
            (None, verdict) => format!("none (--insecure); it would say: {verdict}"),
        }
    }
}

impl Proof {
    /// What was proved to a client with these flags.
    fn of(info: &HandshakeInfo, args: &ServerArgs, server: &Target) -> Option<Self> {
        if info.psk_identity.is_some() {
            return Some(Self::Psk);
        }
        // A good chain proves nothing where the name was not looked at.
        if args.insecure || !info.verified {
            return None;
        }
        let leaf = info.peer_chain.first()?.fingerprint.parse().ok();
        let leaf: Option<Fingerprint> = leaf;
        if leaf.is_some_and(|leaf| args.pin.contains(&leaf)) {
            return Some(Self::Pin);
        }
        if info.first_use {
            return Some(Self::FirstUse);
        }
        let noted = args.known_peers.as_deref().and_then(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            let known = KnownPeers::parse(&text).ok()?;
            let peer = server.to_string().to_lowercase();
            known
                .iter()
                .any(|known| known.peer == peer && Some(known.fingerprint) == leaf)
                .then_some(Self::KnownPeer)
        });
        Some(noted.unwrap_or(Self::Certificate))
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl From<CertificateInfo> for Certificate {
    fn from(info: CertificateInfo) -> Self {
        Self {
            subject: info.subject,
            issuer: info.issuer,
            not_after: info.not_after,
            fingerprint: info.fingerprint,
        }
    }
}

impl Output {
    /// To this process's standard output and standard error.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            escape: format == Format::Text && io::stdout().is_terminal(),
        }
    }

    /// Prints an object; for people nothing.
    pub(crate) fn event(&mut self, event: &Event<'_>) -> io::Result<()> {
        if self.format == Format::Text {
            return Ok(());
        }
        let mut line = serde_json::to_string(event)?;
        line.push('\n');
        io::stdout().write_all(line.as_bytes())
    }

    /// Tells a person at a terminal that no address has answered for a while.
    pub(crate) fn waiting(&self, addresses: &[SocketAddr], unreachable: bool, args: &ServerArgs) {
        if self.format != Format::Text || !io::stderr().is_terminal() {
            return;
        }
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let hint = if unreachable {
            "; the network says that nothing listens there (ICMP)"
        } else {
            ""
        };
        eprintln!(
            "no answer yet from {}{hint}; trying for {} in all (--handshake-timeout)",
            addresses.join(", "),
            humantime::format_duration(args.handshake_timeout)
        );
    }

    /// Tells what the handshake agreed on.
    pub(crate) fn connected(&mut self, connected: &Connected) -> io::Result<()> {
        match self.format {
            Format::Json => self.event(&Event::Connected(connected)),
            Format::Text => io::stderr().write_all(connected.for_people().as_bytes()),
        }
    }

    /// Prints a datagram.
    pub(crate) fn datagram(&mut self, data: &[u8]) -> io::Result<()> {
        if self.format == Format::Json {
            let hex = std::str::from_utf8(data).is_err().then(|| hex(data));
            let text = String::from_utf8_lossy(data).into_owned();
            return self.event(&Event::Datagram { text, hex });
        }
        let mut line = if self.escape {
            printable(&String::from_utf8_lossy(data)).into_bytes()
        } else {
            data.to_vec()
        };
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }

    /// Tells what a question for a sign of life brought, after `waited` at most.
    pub(crate) fn probe(&mut self, found: Liveness, waited: Duration) -> io::Result<()> {
        let (result, rtt_ms) = match found {
            Liveness::Alive { rtt } => ("alive", Some(milliseconds(rtt))),
            Liveness::Silent => ("silent", None),
            Liveness::NotNegotiated => ("not_negotiated", None),
        };
        if self.format == Format::Json {
            return self.event(&Event::Probe { result, rtt_ms });
        }
        let mut err = io::stderr();
        match (found, rtt_ms) {
            (Liveness::Alive { .. }, rtt) => {
                writeln!(err, "probe: alive, {:.1} ms", rtt.unwrap_or_default())
            }
            (Liveness::Silent, _) => {
                let waited = humantime::format_duration(waited);
                writeln!(err, "probe: silent, no answer within {waited}")
            }
            (Liveness::NotNegotiated, _) => writeln!(
                err,
                "probe: the server takes no heartbeat requests (RFC 6520); no further ones are made"
            ),
        }
    }

    /// Tells who closed the connection.
    pub(crate) fn closed(&mut self, by: &'static str) -> io::Result<()> {
        if self.format == Format::Text && by == "peer" {
            writeln!(io::stderr(), "closed by the server")?;
        }
        self.event(&Event::Closed { by })
    }

    /// Tells about a line of the input that was not sent.
    pub(crate) fn not_sent(&mut self, number: u64, reason: &str) {
        eprintln!("dtls-client: line {number} was not sent: {reason}");
    }
}

/// With control characters, which would command a terminal, made visible.
fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_one_object_each_named_by_event() {
        let json = |event: &Event<'_>| serde_json::to_string(event).unwrap();
        let closed = json(&Event::Closed { by: "peer" });
        assert_eq!(closed, r#"{"event":"closed","by":"peer"}"#);
        let text = json(&Event::Datagram {
            text: "a\nb".to_owned(),
            hex: None,
        });
        assert_eq!(text, r#"{"event":"datagram","text":"a\nb"}"#);
    }

    #[test]
    fn control_characters_are_made_visible_and_letters_are_kept() {
        assert_eq!(printable("\u{1b}[2J\u{9b}\tä"), "\\u{1b}[2J\\u{9b}\tä");
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }
}
