//! Frames and datagrams, there and back.

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::{Datagram, Path, PathEnd, fix_checksums, flip_bits, readdress};

fn path(v6: bool) -> Path {
    let (source, destination) = if v6 {
        ("[fd00::1]:5000", "[fd00::2]:4433")
    } else {
        ("10.0.0.1:5000", "10.0.0.2:4433")
    };
    Path {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// Whether the UDP checksum, and under IPv4 the header's, are what RFC 768 and 791 ask for.
fn checksums_hold(frame: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
        panic!("{sliced:?}");
    };
    match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            header.header_checksum == header.calc_header_checksum()
                && udp.checksum()
                    == udp
                        .to_header()
                        .calc_checksum_ipv4(&header, udp.payload())
                        .unwrap()
        }
        etherparse::NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            udp.checksum()
                == udp
                    .to_header()
                    .calc_checksum_ipv6(&header, udp.payload())
                    .unwrap()
        }
        etherparse::NetSlice::Arp(_) => unreachable!(),
    }
}

proptest! {
    #[test]
    fn readdressed_datagram_is_as_if_sent_from_or_to_there(
        v6: bool,
        destination: bool,
        port: u16,
        host in 1..255_u8,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let path = path(v6);
        let mut frame = Datagram { path, payload: &payload }.to_frame();
        let ip = if v6 {
            std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into()
        } else {
            std::net::Ipv4Addr::new(198, 51, 100, host).into()
        };
        let to = std::net::SocketAddr::new(ip, port);
        let end = if destination { PathEnd::Destination } else { PathEnd::Source };
        readdress(&mut frame, end, to);
        let moved = if destination {
            Path { destination: to, ..path }
        } else {
            Path { source: to, ..path }
        };
        prop_assert_eq!(&frame, &Datagram { path: moved, payload: &payload }.to_frame());
        prop_assert!(checksums_hold(&frame));
    }

    #[test]
    fn datagram_survives_the_way_into_a_frame_and_back(
        payload in proptest::collection::vec(any::<u8>(), 0..1400),
        v6: bool,
    ) {
        let datagram = Datagram { path: path(v6), payload: &payload };
        let frame = datagram.to_frame();
        prop_assert!(checksums_hold(&frame));
        prop_assert_eq!(Datagram::from_frame(&frame), Some(datagram));
    }

    #[test]
    fn partial_checksum_is_made_whole(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        v6: bool,
        partial: [u8; 2],
    ) {
        let whole = Datagram { path: path(v6), payload: &payload }.to_frame();
        let mut frame = whole.clone();
        let at = frame.len() - payload.len() - 2;
        frame[at..at + 2].copy_from_slice(&partial);
        fix_checksums(&mut frame);
        prop_assert_eq!(frame, whole);
    }

    #[test]
    fn flipped_bits_change_the_payload_and_keep_the_checksums(
        payload in proptest::collection::vec(any::<u8>(), 1..200),
        v6: bool,
        bit: u64,
    ) {
        let mut frame = Datagram { path: path(v6), payload: &payload }.to_frame();
        flip_bits(&mut frame, &[bit]);
        prop_assert!(checksums_hold(&frame));
        let damaged = Datagram::from_frame(&frame).unwrap().payload;
        let flipped: u32 =
            payload.iter().zip(damaged).map(|(was, is)| (was ^ is).count_ones()).sum();
        prop_assert_eq!(flipped, 1);
    }

    #[test]
    fn arbitrary_frames_never_panic(
        mut frame in proptest::collection::vec(any::<u8>(), 0..200),
        ether_type in prop_oneof![Just(None), Just(Some([8, 0])), Just(Some([0x86, 0xdd]))],
    ) {
        if let (Some(ether_type), true) = (ether_type, frame.len() > 14) {
            frame[12..14].copy_from_slice(&ether_type);
            frame[14] = if ether_type == [8, 0] { 0x45 } else { 0x60 };
        }
        let before = Datagram::from_frame(&frame).is_some();
        fix_checksums(&mut frame);
        flip_bits(&mut frame, &[9]);
        prop_assert_eq!(Datagram::from_frame(&frame).is_some(), before);
    }
}

#[test]
fn empty_payload_stays_as_it_is_when_bits_are_to_flip() {
    let mut frame = Datagram {
        path: path(false),
        payload: &[],
    }
    .to_frame();
    let before = frame.clone();
    flip_bits(&mut frame, &[7]);
    assert_eq!(frame, before);
}

#[test]
fn ip_fragment_is_no_datagram() {
    let mut frame = Datagram {
        path: path(false),
        payload: &[1; 64],
    }
    .to_frame();
    // More fragments follow (RFC 791 §3.1): bit 13 of the flags and offset.
    frame[20] = 0x20;
    let before = frame.clone();
    assert_eq!(Datagram::from_frame(&frame), None);
    fix_checksums(&mut frame);
    assert_eq!(frame, before);
}

#[test]
fn echo_request_is_no_datagram() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .icmpv4_echo_request(1, 1)
        .write(&mut frame, b"ping")
        .unwrap();
    assert_eq!(Datagram::from_frame(&frame), None);
}

#[test]
fn bytes_that_are_put_before_a_payload_leave_it_whole() {
    let mut frame = Datagram {
        path: path(false),
        payload: b"payload",
    }
    .to_frame();
    super::prepend(&mut frame, b"before ");
    let datagram = Datagram::from_frame(&frame).unwrap();
    assert_eq!(datagram.payload, b"before payload");
    assert_eq!(datagram.path, path(false));
}
