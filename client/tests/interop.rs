//! Our client with other implementations' servers: a verified handshake and data both ways. The
//! programs are what `make test` installs; a missing one is a failure, not a skip.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

mod common;

use common::peers::{gnutls_serv, s_server};
use common::{Process, pki, stderr};
use dtls_certs::{File, Profile};
use serde_json::Value;

/// The first event is a verified handshake.
fn assert_verified(client: &mut Process) {
    let line = client.wait_out(|_| true);
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "connected", "{line}");
    assert_eq!(
        (&event["version"], &event["verified"]),
        (&"DTLSv1.2".into(), &true.into()),
        "{line}"
    );
}

fn datagram(text: &str) -> String {
    serde_json::json!({"event": "datagram", "text": text}).to_string()
}

#[test]
fn openssl_s_server_is_verified_and_data_flows_both_ways() {
    for profile in [Profile::SERVER, Profile::SERVER_RSA] {
        let (mut server, target) = s_server(|command| {
            command.arg("-cert").arg(pki().chain(profile));
            // -cert takes only the leaf from a file.
            command
                .arg("-cert_chain")
                .arg(pki().path(File::Intermediate));
            command.arg("-key").arg(pki().key(profile));
        });
        let mut client = Process::connect(&target, &["--format", "json"]);
        assert_verified(&mut client);
        client.write_line("from our client");
        assert!(server.says("from our client"));
        server.write_line("from their server");
        // It sends what it read, with its line end.
        let expected = datagram("from their server\n");
        client.wait_out(|line| line == expected);
        let output = client.finish();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}

#[test]
fn gnutls_serv_is_verified_and_echoes() {
    for profile in [Profile::SERVER, Profile::SERVER_RSA] {
        let (_server, target) = gnutls_serv(|command| {
            command.arg("--x509certfile").arg(pki().chain(profile));
            command.arg("--x509keyfile").arg(pki().key(profile));
        });
        let mut client = Process::connect(&target, &["--format", "json"]);
        assert_verified(&mut client);
        for text in ["hello", "again"] {
            client.write_line(text);
            let expected = datagram(text);
            client.wait_out(|line| line == expected);
        }
        let output = client.finish();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}
