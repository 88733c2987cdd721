//! What `connect` prints: for people the facts on standard error and the data on standard output,
//! for programs one JSON object a line on standard output. Main thread.

use std::io::{self, IsTerminal, Write};

use dtls::{CertificateInfo, DtlsStream};
use serde::Serialize;

use crate::cli::Format;

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
    resumed: bool,
    handshake_ms: f64,
    retransmissions: u32,
    /// Whether the certificate was checked and found good.
    verified: bool,
    /// OpenSSL's verdict, `ok` or why not.
    verification: &'static str,
    chain: Vec<Certificate>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    subject: String,
    issuer: String,
    not_after: String,
    fingerprint: String,
}

impl Connected {
    /// The facts of a connection; `insecure` means that any certificate was accepted.
    pub(crate) fn new(stream: &DtlsStream, insecure: bool) -> Self {
        let info = stream.info();
        Self {
            peer: stream.peer_addr().to_string(),
            version: info.version,
            cipher: info.cipher,
            group: info.group,
            resumed: info.resumed,
            handshake_ms: (info.time.as_secs_f64() * 1e6).round() / 1e3,
            retransmissions: info.retransmissions,
            // A good chain proves nothing where the name was not looked at.
            verified: info.verified && !insecure,
            verification: info.verification,
            chain: info.peer_chain.into_iter().map(Certificate::from).collect(),
        }
    }

    fn for_people(&self, name: &str) -> String {
        let plural = if self.retransmissions == 1 { "" } else { "s" };
        let verification = match (self.verified, self.verification) {
            (true, _) => format!("ok, the certificate is {name}'s"),
            (false, "ok") => "none (--insecure)".to_owned(),
            (false, verdict) => format!("none (--insecure); it would say: {verdict}"),
        };
        let mut text = format!(
            "connected to {} in {:.1} ms, {} retransmission{plural}\n",
            self.peer, self.handshake_ms, self.retransmissions,
        );
        let mut fact = |name: &str, value: &str| {
            text.push_str(&format!("  {name:<13} {value}\n"));
        };
        fact("version", self.version);
        fact("cipher", self.cipher);
        fact("group", self.group.unwrap_or("unknown"));
        fact("verification", &verification);
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

    /// Tells what the handshake with `name` agreed on.
    pub(crate) fn connected(&mut self, connected: &Connected, name: &str) -> io::Result<()> {
        match self.format {
            Format::Json => self.event(&Event::Connected(connected)),
            Format::Text => io::stderr().write_all(connected.for_people(name).as_bytes()),
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
