//! Which backend a client gets, and what becomes of one that comes, goes or is none.

use std::time::Duration;

use dtls::{ClientConfig, DtlsConnector, DtlsStream, PskKey, Recv};
use dtls_certs::Profile;

use crate::common::backend::Backend;
use crate::common::{PATIENCE, Pki, Program, command, now};
use crate::{TRANSPORTS, assert_nothing, forward};

#[test]
fn the_name_a_client_asks_for_chooses_the_backend_and_not_who_may() {
    TRANSPORTS.into_iter().for_each(choose_by_name);
}

fn choose_by_name(transport: &str) {
    const KEY: &str = "6f1ed002ab5595859014ebf0951522d9";
    let pki = Pki::new();
    let [named, starred, others] = [(); 3].map(|()| Backend::new());
    let (cert, key) = pki.files(Profile::SERVER_WRONG_NAME);
    let keys = pki.private("keys", &format!("a:{KEY}\nb:{KEY}\n"));
    let ca = pki.path("ca.pem");
    let server = forward(
        &pki,
        others.address,
        &[
            &[
                "--transport",
                transport,
                "--psk-file",
                &keys,
                "--client-ca",
                &ca,
            ][..],
            &["--allow", "psk:a", "--allow", "san:client.lab"],
            &["--sni", &format!("wrong-name.invalid={cert},{key}")],
            &[
                "--sni-backend",
                &format!("Wrong-Name.invalid={}", named.address),
            ],
            &["--sni-backend", &format!("*.lab={}", starred.address)],
        ]
        .concat(),
    );
    let by_certificate = pki.client().identity(pki.identity(Profile::CLIENT));
    let by_certificate = DtlsConnector::new(by_certificate.build().unwrap());
    let by_key = |identity| {
        let config = ClientConfig::psk_builder(identity, PskKey::from_hex(KEY).unwrap());
        let config = config.handshake_timeout(Duration::from_secs(2));
        DtlsConnector::new(config.build().unwrap())
    };
    let reaches = |stream: &mut DtlsStream, backend: &Backend, name: &str| {
        stream.send(name.as_bytes()).unwrap();
        assert_eq!(backend.receive().0, name.as_bytes(), "{transport}");
    };
    for (connector, name, backend) in [
        (&by_certificate, "wrong-name.invalid", &named),
        (&by_certificate, "server.lab", &starred),
        (&by_certificate, "localhost", &others),
        (&by_key("a"), "sensors.lab", &starred),
        (&by_key("a"), "elsewhere", &others),
    ] {
        let mut stream = connector.connect(name, server.address).unwrap();
        reaches(&mut stream, backend, name);
        let session = stream.session().unwrap();
        let mut resumed = connector.resume(name, server.address, &session).unwrap();
        assert!(resumed.info().resumed, "{name}");
        reaches(&mut resumed, backend, name);
    }
    for name in ["wrong-name.invalid", "sensors.lab", "elsewhere"] {
        assert!(by_key("b").connect(name, server.address).is_err(), "{name}");
    }
}

#[test]
fn a_backend_that_comes_later_is_reached_by_the_same_connection() {
    let (pki, backend) = (Pki::new(), Backend::new());
    let address = backend.address;
    drop(backend);
    let server = forward(&pki, address, &[]);
    let mut stream = server.connect(pki.client());
    for _ in 0..5 {
        stream.send(b"anybody there?").unwrap();
        assert_nothing(&mut stream);
    }
    let backend = Backend::at(address).echo();
    assert_echo_soon(&mut stream);
    drop(backend);
    let finished = server.finish();
    finished.assert_success();
    assert!(finished.counter("backend_refused") >= 5, "{finished:#?}");
    assert_eq!(finished.counter("handshakes_completed"), 1);
}

#[test]
fn a_backend_may_restart_on_its_port_any_number_of_times() {
    let (pki, backend) = (Pki::new(), Backend::new());
    let address = backend.address;
    let server = forward(&pki, address, &[]);
    let mut stream = server.connect(pki.client());
    let mut echo = backend.echo();
    for _ in 0..4 {
        assert_echo_soon(&mut stream);
        drop(echo);
        stream.send(b"lost").unwrap();
        assert_nothing(&mut stream);
        echo = Backend::at(address).echo();
    }
    let finished = server.finish();
    finished.assert_success();
    assert!(finished.counter("backend_refused") >= 4, "{finished:#?}");
}

#[test]
fn a_forward_without_a_usable_backend_does_not_start() {
    for (arguments, names) in [
        (&["--service", "forward"][..], "--backend HOST:PORT"),
        (
            &["--service", "echo", "--backend", "127.0.0.1:9"],
            "--backend: it has no effect",
        ),
        (
            &["--proxy-protocol", "every"],
            "--proxy-protocol: it has no effect",
        ),
        (
            &["--service", "forward", "--backend", "127.0.0.1"],
            "--backend: cannot look up 127.0.0.1:",
        ),
        (
            &[
                "--service",
                "forward",
                "--backend",
                "no-such-host.invalid:53",
            ],
            "no-such-host.invalid:53",
        ),
    ] {
        let all = [&["--listen", "127.0.0.1:0"], arguments].concat();
        let finished = Program::start(command(all)).unwrap().finish();
        assert_eq!(finished.status.code(), Some(2), "{finished:#?}");
        assert!(finished.stderr.contains(names), "{finished:#?}");
    }
}

/// Datagrams may be lost while a backend starts; asks until it answers.
#[track_caller]
fn assert_echo_soon(stream: &mut DtlsStream) {
    let deadline = now() + PATIENCE;
    stream.set_recv_timeout(Some(Duration::from_millis(100)));
    loop {
        stream.send(b"hello again").unwrap();
        match stream.recv(&mut [0; 64]).unwrap() {
            Recv::Data(_) => return,
            Recv::TimedOut => assert!(now() < deadline, "no answer"),
            other => panic!("{other:?}"),
        }
    }
}
