//! Forged errors are what a kernel would take for real ones.

use etherparse::{Icmpv4Header, Icmpv6Header, NetSlice, SlicedPacket, TransportSlice, icmpv6};
use nix::errno::Errno;

use super::{KINDS, PACKET_TOO_BIG, forge, kinds_of};
use crate::packet::Family;
use crate::packet::Path;

fn path(family: Family) -> Path {
    let (source, destination) = match family {
        Family::Ipv4 => ("10.0.0.1:5000", "10.0.0.2:4433"),
        Family::Ipv6 => ("[fd00::1]:5000", "[fd00::2]:4433"),
    };
    Path {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

#[test]
fn every_kind_parses_back_with_its_quote_and_a_right_checksum() {
    for kind in KINDS {
        let path = path(kind.family);
        let frame = forge(kind, path.destination.ip(), &path, 1280);
        assert_eq!(
            &frame[..6],
            path.source_mac,
            "goes to the sender of the quoted datagram"
        );
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let (icmp_type, code, word, quote) = match (sliced.net.unwrap(), sliced.transport.unwrap())
        {
            (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                assert_eq!(ip.header().source_addr(), path.destination.ip());
                assert_eq!(ip.header().destination_addr(), path.source.ip());
                let header = icmp.header();
                let expected = Icmpv4Header::with_checksum(header.icmp_type, icmp.payload());
                assert_eq!(header.checksum, expected.checksum);
                (
                    icmp.type_u8(),
                    icmp.code_u8(),
                    icmp.bytes5to8(),
                    icmp.payload(),
                )
            }
            (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                assert_eq!(ip.header().source_addr(), path.destination.ip());
                assert_eq!(ip.header().destination_addr(), path.source.ip());
                let header = icmp.header();
                let expected = Icmpv6Header::with_checksum(
                    header.icmp_type,
                    ip.header().source(),
                    ip.header().destination(),
                    icmp.payload(),
                )
                .unwrap();
                assert_eq!(header.checksum, expected.checksum);
                (
                    icmp.type_u8(),
                    icmp.code_u8(),
                    icmp.bytes5to8(),
                    icmp.payload(),
                )
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((icmp_type, code), (kind.icmp_type, kind.code));
        let mtu = if kind.name == PACKET_TOO_BIG { 1280 } else { 0 };
        assert_eq!(u32::from_be_bytes(word), mtu, "{}", kind.name);
        let quoted = SlicedPacket::from_ip(quote).unwrap();
        let Some(TransportSlice::Udp(udp)) = quoted.transport else {
            panic!("{quoted:?}");
        };
        assert_eq!(udp.source_port(), path.source.port());
        assert_eq!(udp.destination_port(), path.destination.port());
    }
}

#[test]
fn types_and_codes_are_those_of_the_protocols() {
    assert_eq!(icmpv6::TYPE_DST_UNREACH, 1);
    let find = |family, name| kinds_of(family).find(|kind| kind.name == name).unwrap();
    let v4 = find(Family::Ipv4, "port-unreachable");
    assert_eq!(
        (v4.icmp_type, v4.code, v4.errno),
        (3, 3, Some(Errno::ECONNREFUSED))
    );
    let v6 = find(Family::Ipv6, "port-unreachable");
    assert_eq!(
        (v6.icmp_type, v6.code, v6.errno),
        (1, 4, Some(Errno::ECONNREFUSED))
    );
}

#[test]
fn no_two_kinds_of_a_family_share_name_or_numbers() {
    for (index, kind) in KINDS.iter().enumerate() {
        for other in &KINDS[..index] {
            assert!(
                kind.family != other.family || kind.name != other.name,
                "{}",
                kind.name
            );
            assert_ne!(
                (kind.family, kind.icmp_type, kind.code),
                (other.family, other.icmp_type, other.code)
            );
        }
    }
}

#[test]
fn mtu_above_16_bits_is_kept_by_icmpv6_and_capped_by_icmp() {
    for (family, expected) in [(Family::Ipv4, 65_535_u32), (Family::Ipv6, 100_000)] {
        let kind = kinds_of(family)
            .find(|kind| kind.name == PACKET_TOO_BIG)
            .unwrap();
        let path = path(family);
        let frame = forge(kind, path.destination.ip(), &path, 100_000);
        let word = if family == Family::Ipv4 {
            14 + 20 + 4
        } else {
            14 + 40 + 4
        };
        assert_eq!(frame[word..word + 4], expected.to_be_bytes());
    }
}
