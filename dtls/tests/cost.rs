//! What a handshake takes on the wire, as both ends count it. Single-threaded, in memory.

mod common;

use common::ends::{session, shake, shake_with};
use common::{anchors, client, server_config};
use dtls::Trust;

#[test]
fn both_ends_count_the_same_datagrams_and_bytes_but_for_the_hello_exchange() {
    let config = client(Trust::Anchors(anchors()));
    let server = server_config().build().unwrap();
    let (first, other) = shake(&config, &server).unwrap();
    let (ours, theirs) = (first.handshake_cost(), other.handshake_cost());
    // The listener answers the first hello and takes the second; the server's end begins after.
    assert_eq!(ours.datagrams_sent, theirs.datagrams_received + 2);
    assert_eq!(ours.datagrams_received, theirs.datagrams_sent + 1);
    assert!(ours.bytes_sent > theirs.bytes_received);
    assert!(ours.bytes_received > theirs.bytes_sent);
    assert!(ours.cookie_round_trip.unwrap() <= first.handshake_time().unwrap());
    assert_eq!(theirs.cookie_round_trip, None);

    // Of an abbreviated handshake the client's Finished is the last datagram.
    let (second, other) = shake_with("localhost", Some(&session(first)), &config, &server).unwrap();
    assert!(second.info().resumed);
    let (ours, theirs) = (second.handshake_cost(), other.handshake_cost());
    assert_eq!(ours.datagrams_sent, theirs.datagrams_received + 2);
    assert_eq!(ours.datagrams_received, theirs.datagrams_sent + 1);
    assert_eq!(ours.retransmissions, 0);
}
