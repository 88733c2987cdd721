//! Command-line tools: OpenSSL's, GnuTLS's and socat. Each verifies the server's certificate, gets
//! its answer from the echo service and from a plain UDP service behind us, and refuses the server
//! when it trusts another authority. Those that can use the suites of RFC 7925.

use std::net::SocketAddr;

use dtls_certs::Profile;

use crate::common::{Pki, Program, Server};
use crate::peer::{Peer, own_address};

/// A client program that sends what it reads on its standard input.
struct Client {
    peer: Peer,
    /// Its arguments, given the server's port and the file to trust.
    arguments: fn(u16, &str) -> String,
    /// What it says once it has verified the server; socat says nothing.
    verified: Option<&'static str>,
    /// What it says about a server it does not trust.
    refused: &'static str,
}

pub(crate) const OPENSSL: Peer = Peer {
    program: "openssl",
    package: "openssl",
};

pub(crate) const GNUTLS: Peer = Peer {
    program: "gnutls-cli",
    package: "gnutls-bin",
};

pub(crate) const SOCAT: Peer = Peer {
    program: "socat",
    package: "socat",
};

const S_CLIENT: Client = Client {
    peer: OPENSSL,
    arguments: |port, ca| {
        format!(
            "s_client -dtls1_2 -brief -connect 127.0.0.1:{port} -CAfile {ca} \
             -verify_hostname localhost -verify_return_error"
        )
    },
    verified: Some("Verification: OK"),
    refused: "certificate verify failed",
};

const GNUTLS_CLI: Client = Client {
    peer: GNUTLS,
    arguments: |port, ca| format!("--udp --port {port} --x509cafile {ca} 127.0.0.1"),
    verified: Some("The certificate is trusted"),
    refused: "NOT trusted",
};

const SOCAT_DTLS: Client = Client {
    peer: SOCAT,
    arguments: |port, ca| format!("- OPENSSL-DTLS-CLIENT:127.0.0.1:{port},cafile={ca},verify=1"),
    verified: None,
    refused: "certificate verify failed",
};

impl Client {
    #[track_caller]
    fn start(&self, server: &Server, ca: &str) -> Program {
        self.peer
            .start(&(self.arguments)(server.address.port(), ca))
    }

    /// Through the server's own echo service, or to another's behind it.
    #[track_caller]
    fn assert_verified_echo_and_refusal(&self, service: &[&str]) {
        let pki = Pki::new();
        let server = pki.serve(service);
        let mut trusting = self.start(&server, &pki.path("ca.pem"));
        if let Some(verified) = self.verified {
            trusting.wait_for(verified);
        }
        for text in ["a first datagram", "a second one"] {
            trusting.type_line(text);
            trusting.wait_for(text);
        }
        let left = trusting.finish();
        assert_eq!(left.status.code(), Some(0), "{left:#?}");

        let mut distrusting = self.start(&server, &pki.path("other-ca.pem"));
        distrusting.wait_for(self.refused);
        let left = distrusting.finish();
        assert_ne!(left.status.code(), Some(0), "{left:#?}");

        let finished = server.finish();
        finished.assert_success();
        assert_eq!(finished.counter("handshakes_completed"), 1);
        let forwarded = if service.is_empty() { 0 } else { 2 };
        for counter in ["datagrams_to_backend", "datagrams_from_backend"] {
            assert_eq!(finished.counter(counter), forwarded, "{counter}");
        }
    }

    #[track_caller]
    fn assert_verified_echo_and_refusal_through_forward(&self) {
        let (_echo, backend) = plain_echo();
        self.assert_verified_echo_and_refusal(&["--backend", &backend.to_string()]);
    }
}

/// A plain UDP echo service made of socat.
#[track_caller]
fn plain_echo() -> (Program, SocketAddr) {
    let address = own_address();
    let (ip, port) = (address.ip(), address.port());
    let echo = SOCAT.serve(
        &format!("UDP4-RECVFROM:{port},bind={ip},fork PIPE"),
        address,
    );
    (echo, address)
}

#[test]
fn openssl_s_client_verifies_the_server_and_gets_its_echo() {
    S_CLIENT.assert_verified_echo_and_refusal(&[]);
}

#[test]
fn gnutls_cli_verifies_the_server_and_gets_its_echo() {
    GNUTLS_CLI.assert_verified_echo_and_refusal(&[]);
}

#[test]
fn socat_verifies_the_server_and_gets_its_echo() {
    SOCAT_DTLS.assert_verified_echo_and_refusal(&[]);
}

#[test]
fn openssl_s_client_reaches_a_plain_service_through_forward() {
    S_CLIENT.assert_verified_echo_and_refusal_through_forward();
}

#[test]
fn gnutls_cli_reaches_a_plain_service_through_forward() {
    GNUTLS_CLI.assert_verified_echo_and_refusal_through_forward();
}

#[test]
fn socat_reaches_a_plain_service_through_forward() {
    SOCAT_DTLS.assert_verified_echo_and_refusal_through_forward();
}

/// Asks for new keys on a live connection, which DTLS 1.2 calls renegotiation; then another client
/// finds the server as it was.
#[track_caller]
fn assert_no_renegotiation(peer: Peer, arguments: impl Fn(u16, &str) -> String, ask: &str) {
    let pki = Pki::new();
    let server = pki.serve(&[]);
    let mut client = peer.start(&arguments(server.address.port(), &pki.path("ca.pem")));
    client.type_line("before");
    client.wait_for("before");
    client.type_line(ask);
    client.wait_for("o renegotiation");
    let mut other = GNUTLS_CLI.start(&server, &pki.path("ca.pem"));
    other.type_line("afterwards");
    other.wait_for("afterwards");
}

#[test]
fn openssl_s_client_may_not_renegotiate() {
    assert_no_renegotiation(
        OPENSSL,
        |port, ca| format!("s_client -dtls1_2 -connect 127.0.0.1:{port} -CAfile {ca}"),
        "R",
    );
}

#[test]
fn gnutls_cli_may_not_renegotiate() {
    assert_no_renegotiation(
        GNUTLS,
        |port, ca| format!("--udp --port {port} --x509cafile {ca} --inline-commands 127.0.0.1"),
        "^renegotiate^",
    );
}

const KEY: &str = "00112233445566778899aabbccddeeff";

/// The client is offered nothing but the one suite; `says` is how it names it afterwards.
#[track_caller]
fn assert_suite(peer: Peer, arguments: impl Fn(u16, &str) -> String, says: &str) {
    let pki = Pki::new();
    let (_echo, backend) = plain_echo();
    let keys = pki.private("keys", &format!("sensor:{KEY}\n"));
    let (certificate, key) = pki.files(Profile::SERVER);
    let server = Server::start(&[
        "--preset",
        "coaps",
        "--listen",
        "127.0.0.1:0",
        "--cert",
        &certificate,
        "--key",
        &key,
        "--psk-file",
        &keys,
        "--backend",
        &backend.to_string(),
    ]);
    let mut client = peer.start(&arguments(server.address.port(), &pki.path("ca.pem")));
    client.wait_for(says);
    client.type_line("eight bytes of tag");
    client.wait_for("eight bytes of tag");
}

#[test]
fn openssl_s_client_may_use_psk_with_ccm_8() {
    assert_suite(
        OPENSSL,
        |port, _| {
            format!(
                "s_client -dtls1_2 -brief -connect 127.0.0.1:{port} -cipher PSK-AES128-CCM8 \
                 -psk_identity sensor -psk {KEY}"
            )
        },
        "Ciphersuite: PSK-AES128-CCM8",
    );
}

#[test]
fn openssl_s_client_may_use_ecdsa_with_ccm_8() {
    assert_suite(
        OPENSSL,
        |port, ca| {
            format!(
                "s_client -dtls1_2 -brief -connect 127.0.0.1:{port} -CAfile {ca} \
                 -verify_return_error -cipher ECDHE-ECDSA-AES128-CCM8"
            )
        },
        "Ciphersuite: ECDHE-ECDSA-AES128-CCM8",
    );
}

#[test]
fn gnutls_cli_may_use_psk_with_ccm_8() {
    assert_suite(
        GNUTLS,
        |port, _| {
            format!(
                "--udp --port {port} --pskusername sensor --pskkey {KEY} \
                 --priority NORMAL:-KX-ALL:+PSK:-CIPHER-ALL:+AES-128-CCM-8 127.0.0.1"
            )
        },
        "(PSK)-(AES-128-CCM-8)",
    );
}

#[test]
fn gnutls_cli_may_use_ecdsa_with_ccm_8() {
    assert_suite(
        GNUTLS,
        |port, ca| {
            format!(
                "--udp --port {port} --x509cafile {ca} \
                 --priority NORMAL:-CIPHER-ALL:+AES-128-CCM-8 127.0.0.1"
            )
        },
        "-(AES-128-CCM-8)",
    );
}
