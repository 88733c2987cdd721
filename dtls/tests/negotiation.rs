//! What the ends agree on besides certificates: pre-shared keys, names, protocols, suites, exported
//! keys.

#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use common::ends::{shake, shake_with};
use common::{anchors, client, identity, server_config};
use dtls::{
    ClientAuth, ClientConfig, ClientConfigBuilder, ExportError, HandshakeError, Identity, PskKey,
    ServerConfig, Trust,
};
use dtls_certs::Profile;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509Name};

fn key(byte: u8) -> PskKey {
    PskKey::new([byte; 32]).unwrap()
}

fn lookup(identity: &[u8]) -> Option<PskKey> {
    (identity == b"sensor-17").then(|| key(1))
}

fn psk_server() -> ServerConfig {
    ServerConfig::psk_builder(lookup).build().unwrap()
}

fn psk_client(identity: &str, byte: u8) -> ClientConfig {
    ClientConfig::psk_builder(identity, key(byte))
        .build()
        .unwrap()
}

fn trusting() -> ClientConfigBuilder {
    ClientConfig::builder(Trust::Anchors(anchors()))
}

#[test]
fn a_client_offers_the_groups_and_suites_that_it_is_told_and_no_others() {
    let server = server_config().build().unwrap();
    let agreed = |client: ClientConfigBuilder| {
        let ends = shake(&client.build().unwrap(), &server);
        ends.client.ok().map(|client| {
            let info = client.info();
            (info.group, info.cipher)
        })
    };
    let gcm = "ECDHE-ECDSA-AES128-GCM-SHA256";
    let chacha = "ECDHE-ECDSA-CHACHA20-POLY1305";
    let p256 = agreed(trusting().groups(["P-256"]));
    assert_eq!(p256, Some((Some("prime256v1"), gcm)));
    let both = agreed(
        trusting()
            .groups(["X25519", "P-256"])
            .cipher_suites([chacha]),
    );
    assert_eq!(both, Some((Some("X25519"), chacha)));
    // The server's certificate is on P-256, and it has no ECDHE-RSA to show.
    assert_eq!(agreed(trusting().groups(["X25519"])), None);
    let rsa = ["ECDHE-RSA-AES128-GCM-SHA256"];
    assert_eq!(agreed(trusting().cipher_suites(rsa)), None);
}

#[test]
fn a_group_or_suite_that_cannot_be_is_refused_by_name() {
    for (client, word) in [
        (trusting().groups(["X25519", "P-257"]), "\"P-257\""),
        (trusting().groups(["a\0b"]), "a group"),
        (trusting().cipher_suites(["AES128-SHA"]), "\"AES128-SHA\""),
        // Of another set, and for another proof.
        (trusting().cipher_suites(["ECDHE-ECDSA-AES128-CCM"]), "CCM"),
        (
            trusting().cipher_suites(["PSK-AES128-GCM-SHA256"]),
            "PSK-AES128",
        ),
    ] {
        let error = client.build().unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn the_right_identity_and_key_are_proof_of_both_ends() {
    let (client, server) = shake(&psk_client("sensor-17", 1), &psk_server()).infos();
    for info in [client, server] {
        assert_eq!(info.psk_identity.as_deref(), Some(&b"sensor-17"[..]));
        assert!(info.verified && info.peer_chain.is_empty());
        assert_eq!(info.cipher, "ECDHE-PSK-CHACHA20-POLY1305");
    }
}

#[test]
fn a_wrong_key_and_an_unknown_identity_look_the_same() {
    let wrong_key = shake(&psk_client("sensor-17", 2), &psk_server());
    let unknown = shake(&psk_client("sensor-18", 1), &psk_server());
    for ends in [wrong_key, unknown] {
        for outcome in [ends.client.map(drop), ends.server.map(drop)] {
            let error = outcome.unwrap_err();
            assert!(
                matches!(error, HandshakeError::TimedOut { .. }),
                "{error:?}"
            );
            assert!(
                error.to_string().contains("wrong pre-shared key"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_lookup_that_panics_knows_nobody() {
    let server = ServerConfig::psk_builder(|_| panic!("on purpose"))
        .build()
        .unwrap();
    assert!(shake(&psk_client("sensor-17", 1), &server).client.is_err());
}

#[test]
fn a_client_with_only_a_key_takes_no_certificate_instead() {
    let server = server_config().build().unwrap();
    let ends = shake(&psk_client("sensor-17", 1), &server);
    assert!(ends.client.is_err() && ends.server.is_err());
}

#[test]
fn a_server_with_both_serves_either_client() {
    let server = server_config()
        .client_auth(ClientAuth::Required(Trust::Anchors(anchors())))
        .psk(lookup)
        .psk_hint("plant 3")
        .build()
        .unwrap();
    let (_, info) = shake(&psk_client("sensor-17", 1), &server).infos();
    assert!(info.verified && info.psk_identity.is_some());
    let showing = trusting()
        .identity(identity(Profile::CLIENT))
        .build()
        .unwrap();
    let (_, info) = shake(&showing, &server).infos();
    assert!(info.verified && info.psk_identity.is_none());
    // Neither is still not enough.
    assert!(shake(&trusting().build().unwrap(), &server).client.is_err());
}

#[test]
fn a_client_with_both_takes_either_server() {
    let both = trusting().psk("sensor-17", key(1)).build().unwrap();
    let (info, _) = shake(&both, &psk_server()).infos();
    assert!(info.psk_identity.is_some());
    let (info, _) = shake(&both, &server_config().build().unwrap()).infos();
    assert!(info.verified && info.psk_identity.is_none());
    let bad = ServerConfig::builder(identity(Profile::SERVER_OTHER_CA))
        .build()
        .unwrap();
    shake(&both, &bad).refused_by_client();
}

#[test]
fn bad_identities_and_hints_are_refused_when_the_configuration_is_made() {
    for identity in [vec![], vec![b'a'; 129], b"a\0b".to_vec()] {
        assert!(ClientConfig::psk_builder(identity, key(1)).build().is_err());
    }
    let hint = "x".repeat(129);
    assert!(
        ServerConfig::psk_builder(lookup)
            .psk_hint(hint)
            .build()
            .is_err()
    );
}

#[test]
fn the_name_asked_for_chooses_the_certificate() {
    let [default, exact, star] =
        [Profile::SERVER, Profile::SERVER_RSA, Profile::SERVER].map(identity);
    let fingerprints = [&default, &exact, &star].map(|identity| identity.fingerprint().unwrap());
    let server = ServerConfig::builder(default)
        .identity_for("a.example", exact.clone())
        .identity_for("*.B.example", star)
        .identity_for("own.b.example", exact)
        .build()
        .unwrap();
    for (name, chosen) in [
        ("a.example", 1),
        ("A.Example.", 1),
        ("x.b.example", 2),
        ("own.b.example", 1),
        ("x.y.b.example", 0),
        ("b.example", 0),
        ("localhost", 0),
        ("127.0.0.1", 0),
    ] {
        let (info, at_server) = shake_with(name, None, &client(Trust::Anyone), &server).infos();
        assert_eq!(
            info.peer_chain[0].fingerprint, fingerprints[chosen],
            "{name}"
        );
        // The whole chain came along.
        assert_eq!(info.peer_chain.len(), 2, "{name}");
        let asked = (name != "127.0.0.1").then(|| name.to_owned());
        assert_eq!(at_server.server_name, asked);
    }
}

#[test]
fn names_that_are_none_or_come_twice_are_refused() {
    let with = |names: &[&str]| {
        names
            .iter()
            .fold(server_config(), |config, name| {
                config.identity_for(*name, identity(Profile::SERVER))
            })
            .build()
    };
    assert!(with(&["a.example", "b.example"]).is_ok());
    for names in [&["*"][..], &["::1"], &["a b"], &["a.example", "A.example"]] {
        assert!(with(names).is_err(), "{names:?}");
    }
    let expired = server_config().identity_for("a", identity(Profile::SERVER_EXPIRED));
    assert!(expired.build().is_err());
    let bodiless = ServerConfig::psk_builder(lookup).identity_for("a", identity(Profile::SERVER));
    assert!(bodiless.build().is_err());
}

#[test]
fn protocols_are_agreed_on_by_the_servers_preference_or_the_handshake_ends() {
    let server = |protocols: &[&str]| {
        server_config()
            .alpn(protocols.iter().copied())
            .build()
            .unwrap()
    };
    let client = |protocols: &[&str]| trusting().alpn(protocols.iter().copied()).build().unwrap();
    for (offered, spoken, agreed) in [
        (&["coap", "x"][..], &["x", "coap"][..], Some("x")),
        (&["coap"], &["coap"], Some("coap")),
        (&["coap"], &[], None),
        (&[], &["coap"], None),
        (&[], &[], None),
    ] {
        let (at_client, at_server) = shake(&client(offered), &server(spoken)).infos();
        let agreed = agreed.map(|name| name.as_bytes().to_vec());
        assert_eq!(at_client.alpn, agreed, "{offered:?} {spoken:?}");
        assert_eq!(at_server.alpn, agreed, "{offered:?} {spoken:?}");
    }
    let ends = shake(&client(&["x"]), &server(&["coap"]));
    assert!(ends.server.is_err());
    match ends.client {
        Err(HandshakeError::Alert { name }) => assert_eq!(name, "no application protocol"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_ends_export_the_same_and_other_labels_contexts_and_connections_do_not() {
    let server = server_config().build().unwrap();
    let (client, server) = shake(&trusting().build().unwrap(), &server).unwrap();
    let export = |end: &dtls::core::Connection, label, context| {
        let mut material = [0; 32];
        end.export_keying_material(label, context, &mut material)
            .map(|()| material)
    };
    let label = "EXPORTER_test";
    let material = export(&client, label, Some(b"x")).unwrap();
    assert_eq!(export(&server, label, Some(b"x")).unwrap(), material);
    for (label, context) in [
        (label, None),
        (label, Some(&b"y"[..])),
        ("other", Some(b"x")),
    ] {
        assert_ne!(export(&server, label, context).unwrap(), material);
    }
    // RFC 5705 §4: labels of the handshake itself are reserved.
    assert!(matches!(
        export(&client, "master secret", None),
        Err(ExportError::OpenSsl(_))
    ));
}

/// A certificate that signs itself, for kinds of key that the test PKI lacks.
fn self_signed(key: &PKey<Private>, digest: MessageDigest) -> Identity {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "localhost").unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_pubkey(key).unwrap();
    let (from, to) = (
        Asn1Time::from_unix(0).unwrap(),
        Asn1Time::days_from_now(9).unwrap(),
    );
    certificate.set_not_before(&from).unwrap();
    certificate.set_not_after(&to).unwrap();
    certificate.sign(key, digest).unwrap();
    let pem = certificate.build().to_pem().unwrap();
    Identity::from_pem(&pem, &key.private_key_to_pem_pkcs8().unwrap()).unwrap()
}

#[test]
fn a_key_is_used_or_refused_when_the_configuration_is_made() {
    let on_curve = |curve| {
        let group = EcGroup::from_curve_name(curve).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    };
    let sha256 = MessageDigest::sha256();
    let server = |identity| ServerConfig::builder(identity).build();
    for key in [
        on_curve(Nid::X9_62_PRIME256V1),
        on_curve(Nid::SECP384R1),
        PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
    ] {
        let server = server(self_signed(&key, sha256)).unwrap();
        shake(&client(Trust::Anyone), &server).unwrap();
    }
    for (key, digest) in [
        (on_curve(Nid::SECP521R1), sha256),
        (PKey::generate_ed25519().unwrap(), MessageDigest::null()),
    ] {
        let error = server(self_signed(&key, digest)).unwrap_err().to_string();
        assert!(error.contains("use ECDSA P-256"), "{error}");
    }
}
