//! Sessions: resumed with shared and rotated ticket keys, and never beyond what they prove.

#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod common;

use std::sync::Arc;

use common::ends::{SERVER, UNIX, clock, session, shake, shake_with};
use common::{EchoServer, anchors, assert_echo, client, connector, identity, server_config};
use dtls::core::{Connection, HelloOutcome, HelloVerifier, Progress};
use dtls::{
    ClientAuth, ClientConfig, PskKey, ServerConfig, ServerConfigBuilder, Session, SharedSecret,
    TicketKey, TicketKeys, Trust,
};
use dtls_certs::Profile;

fn keys() -> TicketKeys {
    TicketKeys::new(TicketKey::random().unwrap())
}

fn build(config: ServerConfigBuilder, keys: &TicketKeys) -> ServerConfig {
    config.ticket_keys(keys).build().unwrap()
}

fn first(client: &ClientConfig, server: &ServerConfig) -> Session {
    session(shake(client, server).unwrap().0)
}

fn resumes(client: &ClientConfig, server: &ServerConfig, session: &Session) -> bool {
    let (at_client, at_server) = shake_with("localhost", Some(session), client, server).infos();
    assert_eq!(at_client.resumed, at_server.resumed);
    assert_eq!(at_client.verified, client_verifies(&at_client));
    at_client.resumed
}

/// Full or resumed, the server's certificate or key has been seen.
fn client_verifies(info: &dtls::HandshakeInfo) -> bool {
    info.psk_identity.is_some() || !info.peer_chain.is_empty()
}

#[test]
fn two_listeners_that_share_keys_resume_each_others_sessions() {
    let keys = keys();
    let listeners: [EchoServer; 2] =
        [(), ()].map(|()| EchoServer::start("127.0.0.1:0", build(server_config(), &keys)));
    let stranger = EchoServer::start("127.0.0.1:0", server_config().build().unwrap());
    let connector = connector();
    let mut stream = connector
        .connect("localhost", listeners[0].address)
        .unwrap();
    assert_echo(&mut stream, b"first");
    let session = stream.session().unwrap();
    drop(stream);
    for (address, resumed) in [
        (listeners[1].address, true),
        (listeners[0].address, true),
        (stranger.address, false),
    ] {
        let mut stream = connector.resume("localhost", address, &session).unwrap();
        assert_eq!(stream.info().resumed, resumed);
        assert_echo(&mut stream, b"again");
    }
}

#[test]
fn a_ticket_survives_one_rotation_but_not_two() {
    let keys = keys();
    let (client, server) = (
        client(Trust::Anchors(anchors())),
        build(server_config(), &keys),
    );
    let session = first(&client, &server);
    assert!(resumes(&client, &server, &session));
    keys.rotate(TicketKey::random().unwrap());
    assert!(resumes(&client, &server, &session));
    keys.rotate(TicketKey::random().unwrap());
    assert!(!resumes(&client, &server, &session));
}

#[test]
fn a_ticket_of_the_previous_key_is_replaced_when_it_is_used() {
    let keys = keys();
    let (client, server) = (
        client(Trust::Anchors(anchors())),
        build(server_config(), &keys),
    );
    let old = first(&client, &server);
    keys.rotate(TicketKey::random().unwrap());
    let (resumed, _) = shake_with("localhost", Some(&old), &client, &server).unwrap();
    assert!(resumed.info().resumed);
    let renewed = session(resumed);
    keys.rotate(TicketKey::random().unwrap());
    assert!(!resumes(&client, &server, &old));
    assert!(resumes(&client, &server, &renewed));
}

#[test]
fn the_clients_certificate_is_known_after_a_resumption() {
    let server = server_config().client_ca(anchors());
    let server = build(server, &keys());
    let client = ClientConfig::builder(Trust::Anchors(anchors()))
        .identity(identity(Profile::CLIENT))
        .build()
        .unwrap();
    let session = first(&client, &server);
    let (_, info) = shake_with("localhost", Some(&session), &client, &server).infos();
    assert!(info.resumed && info.verified);
    assert_eq!(info.peer_chain[0].names, Profile::CLIENT.names());
}

#[test]
fn a_session_made_under_another_policy_is_not_resumed_though_the_keys_are_shared() {
    let keys = keys();
    let trust = || Trust::Anchors(anchors());
    let other = || Trust::check("other", |_| Ok(()));
    let psk = |_: &[u8]| PskKey::new([1; 32]).ok();
    // A client that can satisfy all of them.
    let client = ClientConfig::builder(trust())
        .identity(identity(Profile::CLIENT))
        .build()
        .unwrap();
    let servers = [
        build(server_config(), &keys),
        build(server_config().psk(psk), &keys),
        build(
            server_config().client_auth(ClientAuth::Optional(trust())),
            &keys,
        ),
        build(
            server_config().client_auth(ClientAuth::Required(trust())),
            &keys,
        ),
        build(
            server_config().client_auth(ClientAuth::Required(trust().and(other()))),
            &keys,
        ),
        build(
            server_config().client_auth(ClientAuth::Required(other())),
            &keys,
        ),
    ];
    for (made, server) in servers.iter().enumerate() {
        let session = first(&client, server);
        for (offered, server) in servers.iter().enumerate() {
            assert_eq!(
                resumes(&client, server, &session),
                made == offered,
                "made at {made}, offered to {offered}"
            );
        }
    }
}

#[test]
fn servers_that_share_a_secret_resume_each_others_sessions_across_a_rotation() {
    let [old, new] = [1, 2].map(|id| SharedSecret::from_hex(id, &format!("{id:064}")).unwrap());
    let shared = |current, other| {
        let config = server_config().shared_secrets(current, other);
        config.build().unwrap()
    };
    let client = client(Trust::Anchors(anchors()));
    let session = first(&client, &shared(&old, None));
    for (server, resumed) in [
        (shared(&old, None), true),
        (shared(&old, Some(&new)), true),
        (shared(&new, Some(&old)), true),
        (shared(&new, None), false),
    ] {
        assert_eq!(resumes(&client, &server, &session), resumed);
    }
}

/// Whether a client that `asking` has asked for its cookie may show it to `taking`.
fn takes_cookie_of(taking: (&ServerConfig, &str), asking: (&ServerConfig, &str)) -> bool {
    let (config, now) = (client(Trust::Anchors(anchors())), clock());
    let peer = "192.0.2.1:4000".parse().unwrap();
    let server = SERVER.parse().unwrap();
    let mut client =
        Connection::connect(&config, "localhost", server, None, &Arc::default(), now).unwrap();
    let [first, second] = [asking, taking].map(|(config, local)| {
        let mut verifier = HelloVerifier::new(Arc::new(config.clone()), Arc::default()).unwrap();
        assert_eq!(client.handshake(now).unwrap(), Progress::Waiting);
        let hello = client.transmit().unwrap();
        let local = local.parse().unwrap();
        let outcome = verifier.receive(&hello, peer, local, UNIX, now).unwrap();
        if let HelloOutcome::Answer(answer) = &outcome {
            client.receive(answer, now);
        }
        outcome
    });
    assert!(matches!(first, HelloOutcome::Answer(_)));
    matches!(second, HelloOutcome::Verified(_))
}

#[test]
fn a_server_takes_a_cookie_of_another_one_that_shares_its_secret_and_of_no_other() {
    let [secret, foreign] = ["a", "b"].map(|digit| {
        let secret = SharedSecret::from_hex(1, &digit.repeat(64)).unwrap();
        server_config().shared_secrets(&secret, None)
    });
    let [secret, foreign] = [secret, foreign].map(|config| config.build().unwrap());
    // Behind a load balancer that rewrites the destination each has an address of its own.
    for second in [SERVER, "192.0.2.10:4433"] {
        assert!(takes_cookie_of((&secret, second), (&secret, SERVER)));
        assert!(!takes_cookie_of((&foreign, second), (&secret, SERVER)));
    }
}

#[test]
fn a_configuration_inherits_keys_that_change_by_themselves_and_no_others() {
    let client = client(Trust::Anchors(anchors()));
    let secret = SharedSecret::from_hex(1, &"a".repeat(64)).unwrap();
    for (what, old, tickets, cookies) in [
        ("own keys", server_config(), true, true),
        (
            "given ticket keys",
            server_config().ticket_keys(&keys()),
            false,
            true,
        ),
        (
            "a shared secret",
            server_config().shared_secrets(&secret, None),
            false,
            false,
        ),
    ] {
        let old = old.build().unwrap();
        let next = server_config().keys_of(&old).build().unwrap();
        let session = first(&client, &old);
        assert_eq!(resumes(&client, &next, &session), tickets, "{what}");
        let taken = takes_cookie_of((&next, SERVER), (&old, SERVER));
        assert_eq!(taken, cookies, "{what}");
    }
    let given = keys();
    let session = first(&client, &build(server_config(), &given));
    let old = server_config().build().unwrap();
    let next = server_config().ticket_keys(&given).keys_of(&old).build();
    assert!(
        resumes(&client, &next.unwrap(), &session),
        "what is given counts"
    );
}

#[test]
fn a_session_is_resumed_only_under_the_scope_it_was_made_under() {
    let keys = keys();
    let scoped = |scope: &[u8]| build(server_config().session_scope(scope), &keys);
    let client = client(Trust::Anchors(anchors()));
    let session = first(&client, &scoped(b"list 1"));
    assert!(resumes(&client, &scoped(b"list 1"), &session));
    assert!(!resumes(&client, &scoped(b"list 2"), &session));
    assert!(!resumes(&client, &build(server_config(), &keys), &session));
}

#[test]
fn a_session_is_resumed_only_for_the_name_it_was_made_for() {
    let server = build(
        server_config().identity_for("server.lab", identity(Profile::SERVER)),
        &keys(),
    );
    let client = client(Trust::Anchors(anchors()));
    let session = first(&client, &server);
    let (info, _) = shake_with("server.lab", Some(&session), &client, &server).infos();
    assert!(!info.resumed && info.verified);
    assert!(resumes(&client, &server, &session));
}

#[test]
fn a_session_of_a_careless_configuration_does_not_help_a_strict_one() {
    // Without the guard, the certificate that Anyone took would count for Anchors.
    let bad = ServerConfig::builder(identity(Profile::SERVER_OTHER_CA))
        .build()
        .unwrap();
    let careless = client(Trust::Anyone);
    let session = first(&careless, &bad);
    let strict = client(Trust::Anchors(anchors()));
    shake_with("localhost", Some(&session), &strict, &bad).refused_by_client();
}

#[test]
fn a_pre_shared_keys_session_is_resumed_and_keeps_its_identity() {
    let psk = |_: &[u8]| PskKey::new([1; 32]).ok();
    let server = build(ServerConfig::psk_builder(psk), &keys());
    let client = ClientConfig::psk_builder("sensor-17", PskKey::new([1; 32]).unwrap())
        .build()
        .unwrap();
    let session = first(&client, &server);
    let (_, info) = shake_with("localhost", Some(&session), &client, &server).infos();
    assert!(info.resumed && info.verified);
    assert_eq!(info.psk_identity.as_deref(), Some(&b"sensor-17"[..]));
}
