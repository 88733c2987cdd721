//! Pre-shared keys, suites of constrained devices, names and protocols with programs of others:
//! `openssl` and `gnutls-cli`, which `make deps` installs.

#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use common::{EchoServer, identity, server_config};
use dtls::{
    ClientConfig, ConnectError, Counter, DtlsConnector, HandshakeError, PskKey, Recv, ServerConfig,
    Suites,
};
use dtls_certs::Profile;

const HEX: &str = "6f1ed002ab5595859014ebf0951522d9";
const WRONG: &str = "6f1ed002ab5595859014ebf0951522d8";

/// A program with its output as lines; killed when dropped.
struct Program {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Program {
    fn start(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let mut child = Command::new(name)
            .args(words)
            .env_remove("OPENSSL_CONF")
            .env_remove("GNUTLS_SYSTEM_PRIORITY_FILE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}; run: make deps"));
        let (post, lines) = mpsc::channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let output = BufReader::new(child.stdout.take().unwrap());
        let errors_post = post.clone();
        thread::spawn(move || pass_on(errors, &errors_post));
        thread::spawn(move || pass_on(output, &post));
        let stdin = child.stdin.take().unwrap();
        Self {
            child,
            stdin,
            lines,
        }
    }

    /// Whether a line with `text` comes, before the program ends or falls silent.
    fn says(&self, text: &str) -> bool {
        self.says_within(text, Duration::from_secs(10))
    }

    /// The same with another limit to its silence.
    fn says_within(&self, text: &str, silence: Duration) -> bool {
        while let Ok(line) = self.lines.recv_timeout(silence) {
            if line.contains(text) {
                return true;
            }
            // Shown by a failing test.
            println!("{line}");
        }
        false
    }

    /// Whether what is typed comes back.
    fn is_echoed(&mut self, text: &str) -> bool {
        writeln!(self.stdin, "{text}").unwrap();
        self.says(text)
    }
}

fn pass_on(lines: impl BufRead, post: &mpsc::Sender<String>) {
    for line in lines.lines().map_while(Result::ok) {
        if post.send(line).is_err() {
            return;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn key(hex: &str) -> PskKey {
    PskKey::from_hex(hex).unwrap()
}

fn psk_server() -> EchoServer {
    let lookup = |identity: &[u8]| (identity == b"sensor-17").then(|| key(HEX));
    let config = ServerConfig::psk_builder(lookup)
        .psk_hint("plant 3")
        .suites(Suites::Iot)
        .handshake_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    EchoServer::start("127.0.0.1:0", config)
}

fn s_client(to: SocketAddr, rest: &str) -> Program {
    Program::start(&format!("openssl s_client -dtls1_2 -connect {to} {rest}"))
}

fn gnutls_cli(to: SocketAddr, rest: &str) -> Program {
    let port = to.port();
    Program::start(&format!("gnutls-cli --udp --port {port} {rest} 127.0.0.1"))
}

#[test]
fn openssl_s_client_is_served_by_key_with_each_kind_of_suite() {
    let server = psk_server();
    for suite in [
        "PSK-AES128-GCM-SHA256",
        "ECDHE-PSK-CHACHA20-POLY1305",
        "PSK-AES128-CCM8",
    ] {
        let level = "@SECLEVEL=0";
        let options = format!("-cipher {suite}:{level} -psk_identity sensor-17 -psk {HEX}");
        let mut client = s_client(server.address, &options);
        assert!(client.is_echoed("hello"), "{suite}");
    }
}

#[test]
fn gnutls_cli_is_served_by_key_with_each_kind_of_suite() {
    let server = psk_server();
    for choice in [
        "+PSK:-CIPHER-ALL:+AES-128-GCM",
        // Not +ECDHE-PSK: gnutls-cli 3.7.9 crashes over it, with OpenSSL's own server too.
        "+PSK:-CIPHER-ALL:+CHACHA20-POLY1305",
        "+PSK:-CIPHER-ALL:+AES-128-CCM-8",
    ] {
        let options = format!(
            "--priority NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:{choice} \
             --pskusername sensor-17 --pskkey {HEX}"
        );
        let mut client = gnutls_cli(server.address, &options);
        assert!(client.is_echoed("hello"), "{choice}");
    }
}

#[test]
fn a_foreign_client_with_a_wrong_key_or_identity_gets_nowhere_and_no_alert() {
    let server = psk_server();
    let clients = [
        format!("-cipher PSK -psk_identity sensor-17 -psk {WRONG}"),
        format!("-cipher PSK -psk_identity sensor-18 -psk {HEX}"),
    ]
    .map(|options| s_client(server.address, &options));
    // Longer than the server's handshake timeout.
    let silence = Duration::from_secs(3);
    assert!(
        !clients
            .iter()
            .any(|client| client.says_within("alert", silence))
    );
    let stats = server.stats.clone();
    let outcomes = server.finish();
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(HandshakeError::TimedOut { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(stats.get(Counter::HandshakesCompleted), 0);
}

#[test]
fn our_client_proves_itself_to_openssl_s_server_by_key() {
    // s_server cannot say which port it was given.
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut server = Program::start(&format!(
        "openssl s_server -dtls1_2 -accept 127.0.0.1:{port} -nocert -psk_identity sensor-17 \
         -psk {HEX} -psk_hint plant"
    ));
    assert!(server.says("ACCEPT"));
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let config = ClientConfig::psk_builder("sensor-17", key(HEX))
        .build()
        .unwrap();
    let mut stream = DtlsConnector::new(config).connect("localhost", to).unwrap();
    stream.send(b"from us\n").unwrap();
    assert!(server.says("from us"));
    writeln!(server.stdin, "from them").unwrap();
    stream.set_recv_timeout(Some(Duration::from_secs(10)));
    let mut buffer = [0; 100];
    assert_eq!(stream.recv(&mut buffer).unwrap(), Recv::Data(10));
    assert_eq!(&buffer[..10], b"from them\n");
    let info = stream.info();
    assert!(info.verified && info.psk_identity.as_deref() == Some(b"sensor-17"));
    drop(stream);
    let wrong = ClientConfig::psk_builder("sensor-17", key(WRONG))
        .handshake_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let refused = DtlsConnector::new(wrong).connect("localhost", to);
    assert!(
        matches!(refused, Err(ConnectError::Handshake(_))),
        "{refused:?}"
    );
}

#[test]
fn foreign_clients_choose_a_certificate_by_name_and_agree_on_a_protocol() {
    let other = identity(Profile::SERVER_WRONG_NAME);
    let config = server_config()
        .identity_for("wrong-name.invalid", other)
        .alpn(["coap"])
        .build()
        .unwrap();
    let server = EchoServer::start("127.0.0.1:0", config);
    let mut client = s_client(
        server.address,
        "-servername wrong-name.invalid -verify_hostname wrong-name.invalid -alpn x,coap",
    );
    assert!(client.says("ALPN protocol: coap"));
    assert!(client.is_echoed("hello"));
    let client = s_client(server.address, "-alpn x");
    assert!(client.says("no application protocol"));
    let mut client = gnutls_cli(
        server.address,
        "--insecure --sni-hostname wrong-name.invalid --alpn coap",
    );
    assert!(client.says("Application protocol: coap"));
    assert!(client.is_echoed("hello"));
}
