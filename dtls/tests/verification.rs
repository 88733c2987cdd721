//! Whom each end believes: authorities, revocation, names, pins, known peers, checks of one's own.

#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::sync::{Arc, Mutex};

use common::ends::{SERVER, shake, shake_with};
use common::{PKI, anchors, client, identity, server_config};
use dtls::{
    ClientAuth, ClientConfig, Fingerprint, HandshakeError, Identity, KnownPeers, ServerConfig,
    Trust, TrustAnchors,
};
use dtls_certs::{Flaw, Profile};

fn server_showing(identity: Identity) -> ServerConfig {
    ServerConfig::builder(identity).build().unwrap()
}

fn pin(identity: &Identity) -> Fingerprint {
    identity.fingerprint().unwrap().parse().unwrap()
}

fn with_crls() -> TrustAnchors {
    let crls = PKI.crl_pem().unwrap();
    anchors().crl_pem(crls.as_bytes()).unwrap()
}

/// A server that asks clients for certificates.
fn asking(auth: ClientAuth) -> ServerConfig {
    server_config().client_auth(auth).build().unwrap()
}

fn client_showing(profile: Profile) -> ClientConfig {
    ClientConfig::builder(Trust::Anchors(anchors()))
        .identity(identity(profile))
        .build()
        .unwrap()
}

#[test]
fn every_flaw_of_a_certificate_is_refused_in_openssls_words() {
    for profile in Profile::ALL {
        let Some(flaw) = profile.flaw else { continue };
        // A server that would show an expired certificate does not start.
        if matches!(flaw, Flaw::Expired | Flaw::NotYetValid) {
            assert!(ServerConfig::builder(identity(profile)).build().is_err());
            continue;
        }
        let client = client(Trust::Anchors(with_crls()));
        let reason = shake(&client, &server_showing(identity(profile))).refused_by_client();
        assert_eq!(reason, flaw.verify_error().1, "{}", profile.name);
    }
}

#[test]
fn a_client_with_an_expired_certificate_is_refused() {
    // `client` with the flaw of `server-expired`.
    let expired = Profile {
        flaw: Some(Flaw::Expired),
        ..Profile::CLIENT
    };
    let server = asking(ClientAuth::Required(Trust::Anchors(anchors())));
    let reason = shake(&client_showing(expired), &server).refused_by_server();
    assert_eq!(reason, "certificate has expired");
}

#[test]
fn a_good_chain_passes_under_revocation_lists_and_says_its_names() {
    let client = client(Trust::Anchors(with_crls()));
    let (info, _) = shake(&client, &server_showing(identity(Profile::SERVER))).infos();
    assert!(info.verified);
    assert_eq!(info.peer_chain[0].names, Profile::SERVER.names());
    assert!(!info.peer_chain[0].der.is_empty());
}

#[test]
fn a_revoked_certificate_passes_only_where_nobody_looks_it_up() {
    let server = server_showing(identity(Profile::SERVER_REVOKED));
    shake(&client(Trust::Anchors(anchors())), &server).unwrap();
}

#[test]
fn a_missing_revocation_list_refuses_and_names_the_remedy() {
    // The first list is the intermediate's; the root's is missing.
    let crls = PKI.crl_pem().unwrap();
    let end = crls.find("-----END X509 CRL-----").unwrap() + 22;
    let anchors = anchors().crl_pem(&crls.as_bytes()[..end]).unwrap();
    let server = server_showing(identity(Profile::SERVER));
    let reason = shake(&client(Trust::Anchors(anchors)), &server).refused_by_client();
    assert!(
        reason.contains("unable to get certificate CRL") && reason.contains("every authority"),
        "{reason}"
    );
}

#[test]
fn text_without_a_revocation_list_is_refused() {
    assert!(anchors().crl_pem(b"").is_err());
    assert!(anchors().crl_pem(PKI.ca_pem().as_bytes()).is_err());
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    assert!(anchors().crl_pem(broken.as_bytes()).is_err());
}

#[test]
fn an_address_is_a_name_too() {
    let client = client(Trust::Anchors(anchors()));
    let server = server_showing(identity(Profile::SERVER));
    for (name, good) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("[::1]", true),
        ("127.0.0.2", false),
        ("::2", false),
    ] {
        let ends = shake_with(name, None, &client, &server);
        assert_eq!(ends.client.is_ok(), good, "{name}");
    }
}

#[test]
fn a_pin_takes_its_certificate_whatever_is_wrong_with_it_and_no_other() {
    for profile in [
        Profile::SERVER_OTHER_CA,
        Profile::SERVER_WRONG_NAME,
        Profile::SERVER,
    ] {
        let pinned = identity(profile);
        let client = client(Trust::Pins(vec![pin(&pinned)]));
        let (info, _) = shake(&client, &server_showing(pinned)).infos();
        assert!(info.verified, "{}", profile.name);
        assert_eq!(info.verification, "ok");
        let reason = shake(&client, &server_showing(identity(profile))).refused_by_client();
        assert!(reason.contains("not among the pinned"), "{reason}");
    }
    let nobody = client(Trust::Pins(Vec::new()));
    shake(&nobody, &server_showing(identity(Profile::SERVER))).refused_by_client();
}

#[test]
fn or_takes_what_either_takes_and_and_what_both_do() {
    let (good, foreign) = (
        identity(Profile::SERVER),
        identity(Profile::SERVER_OTHER_CA),
    );
    let ca = || Trust::Anchors(anchors());
    let pins = || Trust::Pins(vec![pin(&foreign)]);
    let third = identity(Profile::SERVER_OTHER_CA);
    for (trust, by_ca, by_pin, by_none) in [
        (ca().or(pins()), true, true, false),
        (pins().or(ca()), true, true, false),
        (ca().and(pins()), false, false, false),
        (ca().and(Trust::Pins(vec![pin(&good)])), true, false, false),
        (Trust::Anyone.and(pins()), false, true, false),
        (Trust::Anyone.or(pins()), true, true, true),
    ] {
        let client = client(trust.clone());
        for (shown, expected) in [(&good, by_ca), (&foreign, by_pin), (&third, by_none)] {
            let ends = shake(&client, &server_showing(shown.clone()));
            assert_eq!(ends.client.is_ok(), expected, "{trust:?} {shown:?}");
        }
    }
}

#[test]
fn what_anyone_takes_is_not_verified() {
    let server = server_showing(identity(Profile::SERVER_OTHER_CA));
    let (info, _) = shake(&client(Trust::Anyone), &server).infos();
    assert!(!info.verified);
    assert_eq!(info.verification, Flaw::OtherAuthority.verify_error().1);
}

#[test]
fn a_check_sees_chain_verdict_name_and_address_and_has_the_last_word() {
    type Seen = (usize, Result<(), &'static str>, Option<String>, String);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let recorder = Arc::clone(&seen);
    let check = Trust::check("recorder", move |presented| {
        recorder.lock().unwrap().push((
            presented.chain.len(),
            presented.verdict,
            presented.name.map(str::to_owned),
            presented.address.to_string(),
        ));
        Ok(())
    });
    let server = server_showing(identity(Profile::SERVER_OTHER_CA));
    let (info, _) = shake(&client(check.clone()), &server).infos();
    assert!(info.verified);
    let server = server_showing(identity(Profile::SERVER));
    shake(&client(Trust::Anchors(anchors()).and(check)), &server).unwrap();
    let (name, address) = (Some("localhost".to_owned()), SERVER.to_owned());
    let other_ca = Err(Flaw::OtherAuthority.verify_error().1);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (2, other_ca, name.clone(), address.clone()),
            (3, Ok(()), name, address)
        ]
    );
}

#[test]
fn a_checks_refusal_is_the_error_and_a_panic_refuses() {
    let server = server_showing(identity(Profile::SERVER));
    let picky = Trust::Anchors(anchors()).and(Trust::check("picky", |_| Err("no".to_owned())));
    let ends = shake(&client(picky), &server);
    match &ends.server {
        // The chain is good but not wanted.
        Err(HandshakeError::Alert { name }) => assert_eq!(*name, "bad certificate"),
        other => panic!("{other:?}"),
    }
    assert_eq!(ends.refused_by_client(), "the check \"picky\": no");
    let broken = Trust::check("broken", |_| panic!("on purpose"));
    let reason = shake(&client(broken), &server).refused_by_client();
    assert!(reason.contains("panicked"), "{reason}");
}

#[test]
fn a_server_is_noted_on_first_use_taken_again_and_refused_when_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known_peers");
    let trust = || Trust::KnownPeers(KnownPeers::open(&path).unwrap());
    let first = identity(Profile::SERVER_OTHER_CA);
    let server = server_showing(first.clone());
    shake(&client(trust()), &server).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("localhost:4433 {}\n", pin(&first)));
    shake(&client(trust()), &server).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let changed = server_showing(identity(Profile::SERVER_OTHER_CA));
    let reason = shake(&client(trust()), &changed).refused_by_client();
    let place = format!("line 1 of {}", path.display());
    assert!(
        reason.contains(&place) && reason.contains("delete that line"),
        "{reason}"
    );
    // Another name is another server.
    shake_with("server.lab", None, &client(trust()), &changed).unwrap();
}

#[test]
fn a_server_that_fails_to_prove_its_key_is_not_noted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known_peers");
    let known = Trust::KnownPeers(KnownPeers::open(&path).unwrap());
    let no = Trust::check("no", |_| Err("no".to_owned()));
    let server = server_showing(identity(Profile::SERVER));
    shake(&client(known.clone().and(no)), &server).refused_by_client();
    assert!(!path.exists());
    // What the CA vouches for needs no note.
    shake(&client(Trust::Anchors(anchors()).or(known)), &server).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_file_that_cannot_be_written_fails_the_handshake_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone").join("known_peers");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let trust = Trust::KnownPeers(KnownPeers::open(&path).unwrap());
    std::fs::remove_dir(path.parent().unwrap()).unwrap();
    let server = server_showing(identity(Profile::SERVER));
    match shake(&client(trust), &server).client {
        Err(HandshakeError::Verification { reason }) => {
            assert!(reason.contains(&path.display().to_string()), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_servers_trust_in_clients_cannot_be_a_known_peers_file() {
    let dir = tempfile::tempdir().unwrap();
    let known = KnownPeers::open(dir.path().join("known_peers")).unwrap();
    let trust = Trust::Anchors(anchors()).or(Trust::KnownPeers(known));
    let refused = server_config()
        .client_auth(ClientAuth::Required(trust))
        .build();
    assert!(refused.is_err());
}

#[test]
fn a_client_certificate_is_off_optional_or_required() {
    let trust = || Trust::Anchors(anchors());
    let (bare, showing) = (client(trust()), client_showing(Profile::CLIENT));
    let foreign = Profile {
        flaw: Some(Flaw::OtherAuthority),
        ..Profile::CLIENT
    };
    let foreign = client_showing(foreign);
    let names = |auth: ClientAuth, client: &ClientConfig| {
        let ends = shake(client, &asking(auth));
        if ends.client.is_err() {
            return Err(ends.server.map(drop).unwrap_err());
        }
        let (_, info) = ends.infos();
        let leaf = info.peer_chain.into_iter().next();
        assert_eq!(info.verified, leaf.is_some());
        Ok(leaf.map(|leaf| leaf.names))
    };
    for client in [&bare, &showing, &foreign] {
        assert_eq!(names(ClientAuth::Off, client).unwrap(), None);
    }
    let known = Profile::CLIENT.names();
    let optional = || ClientAuth::Optional(trust());
    assert_eq!(names(optional(), &bare).unwrap(), None);
    assert_eq!(names(optional(), &showing).unwrap().unwrap(), known);
    let bad = Err(HandshakeError::Verification {
        reason: Flaw::OtherAuthority.verify_error().1.to_owned(),
    });
    let text = |refusal: Result<_, HandshakeError>| refusal.map_err(|error| error.to_string());
    assert_eq!(text(names(optional(), &foreign)), text(bad));
    let required = || ClientAuth::Required(trust());
    assert_eq!(names(required(), &showing).unwrap().unwrap(), known);
    assert!(names(required(), &foreign).is_err());
    let error = names(required(), &bare).unwrap_err().to_string();
    assert!(error.contains("did not return a certificate"), "{error}");
}

#[test]
fn a_server_can_pin_its_clients() {
    let (known, stranger) = (identity(Profile::CLIENT), identity(Profile::CLIENT));
    let server = asking(ClientAuth::Required(Trust::Pins(vec![pin(&known)])));
    let showing = |identity| {
        ClientConfig::builder(Trust::Anchors(anchors()))
            .identity(identity)
            .build()
            .unwrap()
    };
    let (_, info) = shake(&showing(known), &server).infos();
    assert!(info.verified);
    shake(&showing(stranger), &server).refused_by_server();
}
