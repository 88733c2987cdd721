//! Syslog over DTLS: senders with certificates through `--preset syslog`, one way, to rsyslogd's
//! plain UDP input. logger(1) speaks UDP only, so socat gives its datagrams DTLS on the sender's host.

use std::fs;
use std::net::SocketAddr;

use dtls_certs::Profile;

use crate::common::backend::Backend;
use crate::common::{Pki, Program, Server, wait_until};
use crate::peer::{Peer, own_address};
use crate::tools::{GNUTLS, OPENSSL, SOCAT};

const RSYSLOGD: Peer = Peer {
    program: "rsyslogd",
    package: "rsyslog",
};

const LOGGER: Peer = Peer {
    program: "logger",
    package: "bsdutils",
};

/// A collector behind our server, and what a sender needs.
struct Setting {
    pki: Pki,
    server: Server,
    certificate: String,
    key: String,
}

impl Setting {
    #[track_caller]
    fn new(pki: Pki, collector: SocketAddr) -> Self {
        let (certificate, key) = pki.files(Profile::CLIENT);
        fs::write(pki.path("intermediate.pem"), pki.pki.intermediate_pem()).unwrap();
        let (ca, backend) = (pki.path("ca.pem"), collector.to_string());
        let server = pki.serve(&[
            "--preset",
            "syslog",
            "--client-ca",
            &ca,
            "--backend",
            &backend,
        ]);
        Self {
            pki,
            server,
            certificate,
            key,
        }
    }

    /// A program that makes each line of its standard input one datagram.
    #[track_caller]
    fn s_client(&self) -> Program {
        let (port, ca) = (self.server.address.port(), self.pki.path("ca.pem"));
        let (certificate, key) = (&self.certificate, &self.key);
        let chain = self.pki.path("intermediate.pem");
        let mut client = OPENSSL.start(&format!(
            "s_client -dtls1_2 -brief -connect 127.0.0.1:{port} -CAfile {ca} -verify_return_error \
             -cert {certificate} -cert_chain {chain} -key {key}"
        ));
        client.wait_for("Verification: OK");
        client
    }

    #[track_caller]
    fn gnutls_cli(&self) -> Program {
        let (port, ca) = (self.server.address.port(), self.pki.path("ca.pem"));
        let (certificate, key) = (&self.certificate, &self.key);
        let mut client = GNUTLS.start(&format!(
            "--udp --port {port} --x509cafile {ca} --x509certfile {certificate} \
             --x509keyfile {key} 127.0.0.1"
        ));
        client.wait_for("Simple Client Mode");
        client
    }

    /// A plain UDP address whose datagrams socat carries to our server.
    #[track_caller]
    fn relay(&self) -> (Program, SocketAddr) {
        let (address, server) = (own_address(), self.server.address);
        let (ip, port) = (address.ip(), address.port());
        let (certificate, key, ca) = (&self.certificate, &self.key, self.pki.path("ca.pem"));
        let relay = SOCAT.serve(
            &format!(
                "-u UDP4-RECV:{port},bind={ip} \
                 OPENSSL-DTLS-CLIENT:{server},cafile={ca},cert={certificate},key={key},verify=1"
            ),
            address,
        );
        (relay, address)
    }
}

/// An rsyslogd that writes what it understood of each message to a file, and that file.
#[track_caller]
fn serve_rsyslogd(pki: &Pki, address: SocketAddr) -> (Program, String) {
    let (seen, file) = (pki.path("seen"), pki.path("rsyslog.conf"));
    let (dir, ip, port) = (pki.path(""), address.ip(), address.port());
    let config = format!(
        "global(workDirectory=\"{dir}\")
         module(load=\"imudp\")
         input(type=\"imudp\" address=\"{ip}\" port=\"{port}\")
         template(name=\"seen\" type=\"string\"
                  string=\"%syslogfacility-text%.%syslogseverity-text% %app-name%: %msg:::drop-last-lf%\\n\")
         action(type=\"omfile\" file=\"{seen}\" template=\"seen\")\n"
    );
    fs::write(&file, config).unwrap();
    (
        RSYSLOGD.serve(&format!("-n -i NONE -f {file}"), address),
        seen,
    )
}

#[track_caller]
fn wait_for_lines(file: &str, lines: &[&str]) {
    wait_until(
        "rsyslogd's file",
        || fs::read_to_string(file).unwrap_or_default(),
        |seen| seen.lines().eq(lines.iter().copied()),
    );
}

#[test]
fn what_logger_says_reaches_rsyslogd() {
    let (pki, collector) = (Pki::new(), own_address());
    let (_rsyslogd, seen) = serve_rsyslogd(&pki, collector);
    let setting = Setting::new(pki, collector);
    let (_relay, address) = setting.relay();
    let (ip, port) = (address.ip(), address.port());
    let logger =
        format!("--udp --server {ip} --port {port} --tag boiler --priority local0.warning");
    let long = "x".repeat(1200);
    let mut expected = Vec::new();
    for (arguments, message) in [
        ("--rfc5424", "too-hot"),
        ("--rfc3164", "still-too-hot"),
        ("--size 2048 --rfc5424", long.as_str()),
    ] {
        let left = LOGGER.run(&format!("{logger} {arguments} {message}"));
        assert_eq!(left.status.code(), Some(0), "{left:#?}");
        // A space after the colon belongs to the older format's message.
        let space = if arguments == "--rfc3164" { " " } else { "" };
        expected.push(format!("local0.warning boiler: {space}{message}"));
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    wait_for_lines(&seen, &expected);

    let finished = setting.server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("handshakes_completed"), 1);
    assert_eq!(finished.counter("datagrams_to_backend"), 3);
    assert_eq!(finished.counter("datagrams_from_backend"), 0, "one way");
}

#[test]
fn lines_of_openssl_and_gnutls_reach_rsyslogd() {
    let (pki, collector) = (Pki::new(), own_address());
    let (_rsyslogd, seen) = serve_rsyslogd(&pki, collector);
    let setting = Setting::new(pki, collector);
    let mut clients = [setting.s_client(), setting.gnutls_cli()];
    let mut expected = Vec::new();
    for n in 0..3 {
        for (client, name) in clients.iter_mut().zip(["openssl", "gnutls"]) {
            client.type_line(&format!("<132>1 - boiler {name} - - - message {n}"));
            expected.push(format!("local0.warning {name}: message {n}"));
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            wait_for_lines(&seen, &expected);
        }
    }
    let finished = setting.server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("handshakes_completed"), 2);
    assert_eq!(finished.counter("datagrams_to_backend"), 6);
}

#[test]
fn frames_of_rfc_6012_reach_rsyslogd_as_messages() {
    let (pki, collector) = (Pki::new(), own_address());
    let (_rsyslogd, seen) = serve_rsyslogd(&pki, collector);
    let setting = Setting::new(pki, collector);
    let mut client = setting.s_client();
    // The line's end belongs to the last message.
    let [first, last] = ["one", "two"].map(|name| format!("<132>1 - boiler {name} - - - framed"));
    client.type_line(&format!("{} {first}{} {last}", first.len(), last.len() + 1));
    let expected = ["local0.warning one: framed", "local0.warning two: framed"];
    wait_for_lines(&seen, &expected);
    let finished = setting.server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("datagrams_to_backend"), 2);
}

#[test]
fn a_sender_without_a_certificate_logs_nothing() {
    let collector = Backend::new();
    let setting = Setting::new(Pki::new(), collector.address);
    let (port, ca) = (setting.server.address.port(), setting.pki.path("ca.pem"));
    let mut client = OPENSSL.start(&format!(
        "s_client -dtls1_2 -brief -connect 127.0.0.1:{port} -CAfile {ca}"
    ));
    client.wait_for("alert handshake failure");
    let left = client.finish();
    assert_ne!(left.status.code(), Some(0), "{left:#?}");
    let finished = setting.server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("handshakes_completed"), 0);
    assert_eq!(finished.counter("datagrams_to_backend"), 0);
}
