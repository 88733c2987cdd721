//! RADIUS over DTLS: radclient asks radsecproxy over UDP, radsecproxy asks us over DTLS with its
//! certificate, and `FreeRADIUS`, which has no DTLS, answers behind `--preset radius`.

use std::fs;
use std::net::SocketAddr;

use dtls_certs::Profile;

use crate::common::{Finished, Pki, Program, Server};
use crate::peer::{Peer, own_address};

const FREERADIUS: Peer = Peer {
    program: "freeradius",
    package: "freeradius",
};

const RADSECPROXY: Peer = Peer {
    program: "radsecproxy",
    package: "radsecproxy",
};

const RADCLIENT: Peer = Peer {
    program: "radclient",
    package: "freeradius-utils",
};

/// The one that RFC 7360 §2.1 gives to everybody: DTLS protects, not this.
const SECRET: &str = "radius/dtls";

/// What radclient and radsecproxy share.
const UDP_SECRET: &str = "between-the-two";

struct Setting {
    pki: Pki,
    server: Server,
    _freeradius: Program,
}

impl Setting {
    #[track_caller]
    fn new() -> Self {
        let (pki, address) = (Pki::new(), own_address());
        let freeradius = serve_freeradius(&pki, address);
        let (ca, backend) = (pki.path("ca.pem"), address.to_string());
        let server = pki.serve(&[
            "--preset",
            "radius",
            "--client-ca",
            &ca,
            "--backend",
            &backend,
        ]);
        Self {
            pki,
            server,
            _freeradius: freeradius,
        }
    }

    /// Starts radsecproxy with the certificate of this profile.
    #[track_caller]
    fn proxy(&self, profile: Profile) -> (Program, SocketAddr) {
        let address = own_address();
        let (certificate, key) = self.pki.files(profile);
        let ca = self.pki.path("ca.pem");
        let server = self.server.address;
        let config = format!(
            "ListenUDP {address}
             tls default {{
                 CACertificateFile {ca}
                 CertificateFile {certificate}
                 CertificateKeyFile {key}
             }}
             client 127.0.0.1 {{
                 type udp
                 secret {UDP_SECRET}
             }}
             server localhost {{
                 host {server}
                 type dtls
                 secret {SECRET}
             }}
             realm * {{
                 server localhost
             }}\n"
        );
        let file = self.pki.path("radsecproxy.conf");
        fs::write(&file, config).unwrap();
        let proxy = RADSECPROXY.serve(&format!("-f -d 5 -c {file}"), address);
        (proxy, address)
    }

    /// Asks for access; `patience` is in seconds, twice.
    #[track_caller]
    fn ask(&self, proxy: SocketAddr, password: &str, patience: u32) -> Finished {
        let request = format!("User-Name = alice, User-Password = {password}\n");
        let file = self.pki.path("request");
        fs::write(&file, request).unwrap();
        let dictionary = self.pki.path("");
        RADCLIENT.run(&format!(
            "-d {dictionary} -x -r 2 -t {patience} -f {file} {proxy} auth {UDP_SECRET}"
        ))
    }
}

/// A `FreeRADIUS` that knows one user, and one client: us.
#[track_caller]
fn serve_freeradius(pki: &Pki, address: SocketAddr) -> Program {
    let dir = pki.path("");
    let (ip, port) = (address.ip(), address.port());
    let config = format!(
        "raddbdir = {dir}
         logdir = {dir}
         run_dir = {dir}
         libdir = /usr/lib/freeradius
         log {{
             destination = stdout
         }}
         client ours {{
             ipaddr = 127.0.0.1
             secret = {SECRET}
         }}
         modules {{
             files {{
                 usersfile = ${{raddbdir}}/users
             }}
             pap {{
             }}
         }}
         server default {{
             listen {{
                 type = auth
                 ipaddr = {ip}
                 port = {port}
             }}
             authorize {{
                 files
                 pap
             }}
             authenticate {{
                 Auth-Type PAP {{
                     pap
                 }}
             }}
         }}\n"
    );
    fs::write(pki.path("radiusd.conf"), config).unwrap();
    let user = "alice Cleartext-Password := \"wonderland\"\n\tReply-Message := \"come in\"\n";
    fs::write(pki.path("users"), user).unwrap();
    // radclient reads a dictionary beside the system's, and by default one that not everybody may.
    fs::write(pki.path("dictionary"), "").unwrap();
    FREERADIUS.serve(&format!("-X -d {dir}"), address)
}

#[test]
fn radsecproxy_gets_freeradius_answers_with_certificates_on_both_sides() {
    let setting = Setting::new();
    let (mut proxy, address) = setting.proxy(Profile::CLIENT);
    proxy.wait_for("DTLS connection to localhost");

    let left = setting.ask(address, "wonderland", 5);
    assert_eq!(left.status.code(), Some(0), "{left:#?}");
    assert!(left.stdout.contains("Received Access-Accept"), "{left:#?}");
    assert!(left.stdout.contains("come in"), "{left:#?}");
    let left = setting.ask(address, "looking-glass", 5);
    assert_eq!(left.status.code(), Some(1), "{left:#?}");
    assert!(left.stdout.contains("Received Access-Reject"), "{left:#?}");

    let finished = setting.server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("handshakes_completed"), 1);
    for counter in ["datagrams_to_backend", "datagrams_from_backend"] {
        assert_eq!(finished.counter(counter), 2, "{counter}: {finished:#?}");
    }
}

#[test]
fn radsecproxy_with_a_certificate_of_another_authority_gets_no_answer() {
    let setting = Setting::new();
    let (mut proxy, address) = setting.proxy(Profile::SERVER_OTHER_CA);
    proxy.wait_for("unknown ca");
    let left = setting.ask(address, "wonderland", 1);
    assert_eq!(left.status.code(), Some(1), "{left:#?}");
    assert!(!left.stdout.contains("Received"), "{left:#?}");

    let finished = setting.server.finish();
    finished.assert_success();
    assert_eq!(finished.counter("handshakes_completed"), 0);
    assert_eq!(finished.counter("datagrams_to_backend"), 0);
}
