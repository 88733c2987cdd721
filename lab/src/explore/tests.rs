//! Exploring finds nothing in sound ends, finds what was planted, and shrinks it to what matters.

use super::*;
use crate::packet::Direction;
use crate::sim::Position;
use crate::wire::Fate;

fn stage(shape: Shape, defect: Option<Defect>) -> Stage {
    Stage::new(shape, defect).expect("OpenSSL and a PKI")
}

fn drop_at(direction: Direction, ordinal: u64) -> Fault {
    Fault::Fate(Position { direction, ordinal }, Fate::Dropped)
}

#[test]
fn no_duplicate_replay_or_order_breaks_a_psk_handshake() {
    let stage = stage(Shape::PskSplit, None);
    for kind in [Kind::Duplicates, Kind::Permutations, Kind::Replays] {
        let explored = stage.explore(kind, 2, &|| ()).unwrap();
        assert_eq!(explored.failed, 0, "{explored:#?}");
        assert_eq!(explored.cases, stage.space(kind).len());
    }
}

#[test]
fn no_socket_error_ends_a_connection_in_any_state() {
    let explored = stage(Shape::Psk, None)
        .explore(Kind::Errno, 2, &|| ())
        .unwrap();
    assert_eq!(explored.failed, 0, "{explored:#?}");
}

#[test]
fn no_icmp_error_ends_or_moves_anything_at_any_step() {
    let stage = stage(Shape::Psk, None);
    let explored = stage.explore(Kind::Icmp, 2, &|| ()).unwrap();
    assert_eq!((explored.failed, explored.late), (0, 0), "{explored:#?}");
}

#[test]
fn every_case_of_a_resumed_handshake_resumes() {
    let stage = stage(Shape::Resumed, None);
    for _ in 0..3 {
        let played = play(&stage.cast, &[]).unwrap();
        let resumed = |sent: &crate::sim::world::Sent| sent.place.is_some_and(|it| it.resumed);
        assert!(played.sent.iter().any(resumed), "{played:#?}");
    }
}

#[test]
fn icmp_errors_that_have_a_flight_repeated_are_found_and_told() {
    let stage = stage(Shape::Psk, Some(Defect::IcmpRepeatsFlight));
    let explored = stage.explore(Kind::Icmp, 2, &|| ()).unwrap();
    assert!(explored.failed > 0, "{explored:#?}");
    let first = &explored.shown[0];
    assert!(
        first.words[0].starts_with("send the client a forged ipv4"),
        "{first:#?}"
    );
    assert!(
        first.replay.contains("explore --space icmp --case"),
        "{first:#?}"
    );
}

#[test]
fn socket_errors_that_end_connections_are_found_and_told() {
    let stage = stage(Shape::Psk, Some(Defect::FatalErrno));
    let explored = stage.explore(Kind::Errno, 2, &|| ()).unwrap();
    assert!(explored.failed >= 64, "{explored:#?}");
    let first = &explored.shown[0];
    assert_eq!(
        first.words,
        ["let the client's 1st receive fail with ECONNREFUSED"]
    );
}

#[test]
fn failing_list_is_shrunk_to_the_hello_verify_requests_that_matter() {
    let stage = stage(Shape::Psk, Some(Defect::TwoHelloVerifyRequests));
    // Two of these kill it, because the server answers no third hello; the others are beside the point.
    let faults = [
        drop_at(Direction::ToServer, 4),
        drop_at(Direction::ToClient, 1),
        Fault::Fate(
            Position {
                direction: Direction::ToServer,
                ordinal: 1,
            },
            Fate::Duplicated { copies: 0 },
        ),
        drop_at(Direction::ToClient, 2),
        drop_at(Direction::ToClient, 7),
    ];
    let (finding, ladder) = stage.play_one(&faults).unwrap();
    assert!(finding.failed);
    assert_eq!(
        finding.words,
        [
            "drop the 1st HelloVerifyRequest",
            "drop the 2nd HelloVerifyRequest"
        ]
    );
    assert_eq!(
        finding.replay_minimal,
        "dtls-lab explore --faults 'to_client#1=drop,to_client#2=drop' --handshake psk --defect two-hello-verify-requests"
    );
    assert!(ladder[0].contains("ClientHello"), "{ladder:#?}");
}

#[test]
fn two_plays_of_the_same_faults_are_alike_in_every_datagram() {
    let stage = stage(Shape::Full, None);
    let faults = [
        drop_at(Direction::ToClient, 2),
        drop_at(Direction::ToServer, 3),
    ];
    let (first, second) = (
        play(&stage.cast, &faults).unwrap(),
        play(&stage.cast, &faults).unwrap(),
    );
    assert_eq!(first, second);
    assert!(first.sent.len() > 8);
}
