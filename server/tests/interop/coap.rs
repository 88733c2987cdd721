//! libcoap's client over coaps, in its OpenSSL and its GnuTLS build, through `--preset coaps` to
//! libcoap's server without DTLS. Bodies of several kilobytes go in blocks of 512 bytes and come
//! back in blocks of 256 (RFC 7959), each block a datagram.

use std::fs;

use dtls_certs::Profile;

use crate::common::{Finished, Pki, Program, Server};
use crate::peer::{Peer, own_address};

const LIBCOAP: &str = "libcoap3-bin";

const WITH_OPENSSL: Peer = Peer {
    program: "coap-client-openssl",
    package: LIBCOAP,
};

const WITH_GNUTLS: Peer = Peer {
    program: "coap-client-gnutls",
    package: LIBCOAP,
};

const SERVER: Peer = Peer {
    program: "coap-server-notls",
    package: LIBCOAP,
};

const KEY: &str = "sixteen-bytes-at-least";

/// Not a multiple of a block.
const BODY: usize = 5003;

/// A plain CoAP server behind ours, and the files of both.
struct Setting {
    pki: Pki,
    server: Server,
    _backend: Program,
    body: Vec<u8>,
    peer: Peer,
}

impl Setting {
    #[track_caller]
    fn new(peer: Peer, arguments: impl Fn(&Pki) -> Vec<String>) -> Self {
        let pki = Pki::new();
        let address = own_address();
        let (ip, port) = (address.ip(), address.port());
        let backend = SERVER.serve(&format!("-A {ip} -p {port} -d 4"), address);
        let body: Vec<u8> = (b'a'..=b'w').cycle().take(BODY).collect();
        fs::write(pki.path("body"), &body).unwrap();
        let mut all = vec![
            "--preset".to_owned(),
            "coaps".to_owned(),
            "--listen".to_owned(),
            "127.0.0.1:0".to_owned(),
            "--backend".to_owned(),
            address.to_string(),
            "--format".to_owned(),
            "json".to_owned(),
            "--drain-timeout".to_owned(),
            "0s".to_owned(),
        ];
        all.extend(arguments(&pki));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Self {
            server: Server::start(&all),
            pki,
            _backend: backend,
            body,
            peer,
        }
    }

    /// Runs the client; `-B` bounds it, should nobody answer.
    #[track_caller]
    fn run(&self, credentials: &str, patience: u32, request: &str) -> Finished {
        // libcoap compares names, and ours has one.
        let uri = format!("coaps://localhost:{}/kept", self.server.address.port());
        self.peer
            .run(&format!("{credentials} -B {patience} {request} {uri}"))
    }

    /// What a GET gives.
    #[track_caller]
    fn get(&self, credentials: &str, patience: u32) -> (Option<Vec<u8>>, Finished) {
        let file = self.pki.path("got");
        drop(fs::remove_file(&file));
        let left = self.run(credentials, patience, &format!("-m get -b 256 -o {file}"));
        (fs::read(&file).ok(), left)
    }

    #[track_caller]
    fn assert_blocks_both_ways(&self, credentials: &str) {
        let body = self.pki.path("body");
        let left = self.run(credentials, 15, &format!("-m put -b 512 -f {body}"));
        assert_eq!(left.status.code(), Some(0), "{left:#?}");
        let (got, left) = self.get(credentials, 15);
        assert!(got.as_ref() == Some(&self.body), "{left:#?}");
    }

    /// Ends our server and looks that each block was a datagram, both ways.
    #[track_caller]
    fn assert_finished(self) -> Finished {
        let finished = self.server.finish();
        finished.assert_success();
        assert_eq!(finished.counter("handshakes_completed"), 2);
        let blocks = (BODY.div_ceil(512) + BODY.div_ceil(256)) as u64;
        for counter in ["datagrams_to_backend", "datagrams_from_backend"] {
            assert!(finished.counter(counter) >= blocks, "{finished:#?}");
        }
        finished
    }
}

#[track_caller]
fn transfers_blocks_with_a_pre_shared_key(peer: Peer) {
    let setting = Setting::new(peer, |pki| {
        let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
        let keys = pki.private("keys", &format!("sensor:{hex}\n"));
        vec!["--psk-file".to_owned(), keys]
    });
    setting.assert_blocks_both_ways(&format!("-u sensor -k {KEY}"));
    for stranger in [
        "-u sensor -k sixteen-wrong-bytes-here".to_owned(),
        format!("-u nobody -k {KEY}"),
    ] {
        let (got, left) = setting.get(&stranger, 2);
        assert_eq!(got, None, "{left:#?}");
    }
    let finished = setting.assert_finished();
    assert_eq!(finished.counter("refused_psk_unknown"), 1);
}

/// `authorities` are the files that must be in `--client-ca` for the client's chain.
#[track_caller]
fn transfers_blocks_with_certificates(peer: Peer, authorities: fn(&Pki) -> String) {
    let setting = Setting::new(peer, |pki| {
        let (certificate, key) = pki.files(Profile::SERVER);
        let clients = pki.path("clients.pem");
        fs::write(&clients, authorities(pki)).unwrap();
        [
            "--cert",
            &certificate,
            "--key",
            &key,
            "--client-ca",
            &clients,
        ]
        .map(str::to_owned)
        .to_vec()
    });
    let (certificate, key) = setting.pki.files(Profile::CLIENT);
    let (foreign, foreign_key) = setting.pki.files(Profile::SERVER_OTHER_CA);
    let (ca, other_ca) = (setting.pki.path("ca.pem"), setting.pki.path("other-ca.pem"));
    setting.assert_blocks_both_ways(&format!("-c {certificate} -j {key} -C {ca}"));
    for stranger in [
        // It does not trust us; it has no certificate; we do not trust its certificate.
        format!("-c {certificate} -j {key} -C {other_ca}"),
        format!("-C {ca}"),
        format!("-c {foreign} -j {foreign_key} -R {ca}"),
    ] {
        let (got, left) = setting.get(&stranger, 1);
        assert_eq!(got, None, "{stranger}: {left:#?}");
    }
    // Those whom we refuse; whoever refuses us falls silent.
    let finished = setting.assert_finished();
    assert!(finished.counter("handshakes_failed") >= 2, "{finished:#?}");
}

#[test]
fn coap_client_with_openssl_transfers_blocks_with_a_pre_shared_key() {
    transfers_blocks_with_a_pre_shared_key(WITH_OPENSSL);
}

#[test]
fn coap_client_with_gnutls_transfers_blocks_with_a_pre_shared_key() {
    transfers_blocks_with_a_pre_shared_key(WITH_GNUTLS);
}

#[test]
fn coap_client_with_openssl_transfers_blocks_with_certificates_on_both_sides() {
    // It sends its own certificate without the one that signed it.
    transfers_blocks_with_certificates(WITH_OPENSSL, |pki| {
        pki.pki.ca_pem() + &pki.pki.intermediate_pem()
    });
}

#[test]
fn coap_client_with_gnutls_transfers_blocks_with_certificates_on_both_sides() {
    transfers_blocks_with_certificates(WITH_GNUTLS, |pki| pki.pki.ca_pem());
}
