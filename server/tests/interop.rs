//! Other people's clients: OpenSSL's, GnuTLS's and socat, as Debian packages them. Each verifies
//! the server's certificate, gets its echo, and refuses the server when it trusts another authority.

mod common;

use std::io;
use std::process::Command;

use common::{Pki, Program, Server};

/// A client program that sends what it reads on its standard input.
struct Client {
    program: &'static str,
    package: &'static str,
    /// Its arguments, given the server's port and the file to trust.
    arguments: fn(u16, &str) -> Vec<String>,
    /// What it says once it has verified the server; socat says nothing.
    verified: Option<&'static str>,
    /// What it says about a server it does not trust.
    refused: &'static str,
}

const OPENSSL: Client = Client {
    program: "openssl",
    package: "openssl",
    arguments: |port, ca| {
        let command = format!(
            "s_client -dtls1_2 -brief -connect 127.0.0.1:{port} -CAfile {ca} \
             -verify_hostname localhost -verify_return_error"
        );
        command.split(' ').map(str::to_owned).collect()
    },
    verified: Some("Verification: OK"),
    refused: "certificate verify failed",
};

const GNUTLS: Client = Client {
    program: "gnutls-cli",
    package: "gnutls-bin",
    arguments: |port, ca| {
        let command = format!("--udp --port {port} --x509cafile {ca} 127.0.0.1");
        command.split(' ').map(str::to_owned).collect()
    },
    verified: Some("The certificate is trusted"),
    refused: "NOT trusted",
};

const SOCAT: Client = Client {
    program: "socat",
    package: "socat",
    arguments: |port, ca| {
        let server = format!("OPENSSL-DTLS-CLIENT:127.0.0.1:{port},cafile={ca},verify=1");
        vec!["-".to_owned(), server]
    },
    verified: None,
    refused: "certificate verify failed",
};

impl Client {
    #[track_caller]
    fn start(&self, server: &Server, ca: &str) -> Program {
        let mut command = Command::new(self.program);
        command.args((self.arguments)(server.address.port(), ca));
        // What is set for other purposes must not change the outcome.
        for name in [
            "OPENSSL_CONF",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "GNUTLS_SYSTEM_PRIORITY_FILE",
        ] {
            command.env_remove(name);
        }
        match Program::start(command) {
            Ok(program) => program,
            Err(error) if error.kind() == io::ErrorKind::NotFound => panic!(
                "`{}` is not installed (Debian package {}); run: make deps",
                self.program, self.package
            ),
            Err(error) => panic!("cannot start {}: {error}", self.program),
        }
    }

    #[track_caller]
    fn assert_verified_echo_and_refusal(&self) {
        let pki = Pki::new();
        let server = pki.serve(&[]);
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
    }
}

#[test]
fn openssl_s_client_verifies_the_server_and_gets_its_echo() {
    OPENSSL.assert_verified_echo_and_refusal();
}

#[test]
fn gnutls_cli_verifies_the_server_and_gets_its_echo() {
    GNUTLS.assert_verified_echo_and_refusal();
}

#[test]
fn socat_verifies_the_server_and_gets_its_echo() {
    SOCAT.assert_verified_echo_and_refusal();
}
