//! Forged ICMP errors: every kind that Linux may hand to a UDP socket, as data, and the frames.
//!
//! Pure; the engine calls it to inject. The kernel checks only the addresses and ports in the
//! quote, so whoever knows or guesses the 4-tuple can send these: an ICMP error is a hint that an
//! outsider may forge (RFC 8085 §5.2), never a fact.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use nix::errno::Errno;
use serde::Serialize;

use crate::packet::Family;
use crate::packet::{Datagram, HOP_LIMIT, Path};

/// One kind of ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// ICMP for IPv4, ICMPv6 for IPv6.
    pub family: Family,
    /// The type.
    #[serde(rename = "type")]
    pub icmp_type: u8,
    /// The code.
    pub code: u8,
    /// What scenarios call it; kinds of both families that mean the same share the name.
    pub name: &'static str,
    /// What a connected UDP socket reports on its next call, without `IP_RECVERR`; `None` if
    /// nothing. Seen on Linux 6.18 and 6.1.
    #[serde(skip)]
    pub errno: Option<Errno>,
}

/// Every kind the forger knows, both families.
pub const KINDS: &[Kind] = &[
    v4(3, 0, "net-unreachable", None),
    v4(3, 1, "host-unreachable", None),
    v4(3, 2, "protocol-unreachable", Some(Errno::ENOPROTOOPT)),
    v4(3, 3, "port-unreachable", Some(Errno::ECONNREFUSED)),
    v4(3, 4, PACKET_TOO_BIG, Some(Errno::EMSGSIZE)),
    v4(3, 5, "source-route-failed", None),
    v4(3, 6, "net-unknown", Some(Errno::ENETUNREACH)),
    v4(3, 7, "host-unknown", Some(Errno::EHOSTDOWN)),
    v4(3, 8, "host-isolated", Some(Errno::ENONET)),
    v4(3, 9, "net-prohibited", Some(Errno::ENETUNREACH)),
    v4(3, 10, "host-prohibited", Some(Errno::EHOSTUNREACH)),
    v4(3, 11, "net-unreachable-for-tos", None),
    v4(3, 12, "host-unreachable-for-tos", None),
    v4(3, 13, "admin-prohibited", Some(Errno::EHOSTUNREACH)),
    v4(
        3,
        14,
        "host-precedence-violation",
        Some(Errno::EHOSTUNREACH),
    ),
    v4(3, 15, "precedence-cutoff", Some(Errno::EHOSTUNREACH)),
    v4(4, 0, "source-quench", None),
    v4(11, 0, "time-exceeded", None),
    v4(11, 1, "reassembly-time-exceeded", None),
    v4(12, 0, "parameter-problem", Some(Errno::EPROTO)),
    v6(1, 0, "net-unreachable", None),
    v6(1, 1, "admin-prohibited", Some(Errno::EACCES)),
    v6(1, 3, "host-unreachable", None),
    v6(1, 4, "port-unreachable", Some(Errno::ECONNREFUSED)),
    v6(1, 5, "source-policy-failed", Some(Errno::EACCES)),
    v6(1, 6, "reject-route", Some(Errno::EACCES)),
    v6(2, 0, PACKET_TOO_BIG, Some(Errno::EMSGSIZE)),
    v6(3, 0, "time-exceeded", None),
    v6(3, 1, "reassembly-time-exceeded", None),
    v6(4, 0, "parameter-problem", Some(Errno::EPROTO)),
    v6(4, 1, "unknown-next-header", Some(Errno::EPROTO)),
];

/// Name of the only kind that carries an MTU.
pub const PACKET_TOO_BIG: &str = "packet-too-big";

const fn v4(icmp_type: u8, code: u8, name: &'static str, errno: Option<Errno>) -> Kind {
    Kind {
        family: Family::Ipv4,
        icmp_type,
        code,
        name,
        errno,
    }
}

const fn v6(icmp_type: u8, code: u8, name: &'static str, errno: Option<Errno>) -> Kind {
    Kind {
        family: Family::Ipv6,
        ..v4(icmp_type, code, name, errno)
    }
}

/// The kinds of one family, in order of type and code.
pub fn kinds_of(family: Family) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(move |kind| kind.family == family)
}

/// The ICMP error `kind` about the datagram that went along `quoted`, as an Ethernet frame to
/// the sender of that datagram; it claims to come from `source`. `mtu` is what a
/// packet-too-big announces and means nothing for other kinds.
///
/// # Panics
///
/// When `source` or the 4-tuple is not of the kind's IP version.
#[must_use]
pub fn forge(kind: &Kind, source: IpAddr, quoted: &Path, mtu: u32) -> Vec<u8> {
    build(kind, source, quoted, mtu, &guessed_quote(quoted))
}

/// The packet-too-big with which the router at `router` answers the sender of `frame`, which went
/// along `path` and is longer than `mtu`.
///
/// # Panics
///
/// When `router` and `path` are of different IP versions.
#[must_use]
pub fn packet_too_big(router: IpAddr, path: &Path, frame: &[u8], mtu: u16) -> Vec<u8> {
    let family = Family::of(path.source.ip());
    let kind = kinds_of(family).find(|kind| kind.name == PACKET_TOO_BIG);
    let kind = kind.expect("both families have it");
    // As much of the packet as RFC 1812 §4.3.2.3 asks for.
    let packet = &frame[etherparse::Ethernet2Header::LEN..];
    let quote = &packet[..packet.len().min(LONGEST_QUOTE)];
    build(kind, router, path, mtu.into(), quote)
}

/// Bytes of a packet that a router quotes, so that its answer stays within 576 bytes.
const LONGEST_QUOTE: usize = 528;

fn build(kind: &Kind, source: IpAddr, quoted: &Path, mtu: u32, quote: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(quoted.destination_mac, quoted.source_mac);
    // The second word: the MTU of a packet-too-big, zero (unused, or pointer 0) elsewhere. ICMP
    // keeps the MTU in its lower half (RFC 1191 §4), ICMPv6 has the whole word (RFC 4443 §3.2).
    let word = if kind.name == PACKET_TOO_BIG { mtu } else { 0 };
    let word = match kind.family {
        Family::Ipv4 => u32::from(u16::try_from(word).unwrap_or(u16::MAX)),
        Family::Ipv6 => word,
    }
    .to_be_bytes();
    let mut frame = Vec::new();
    let written = match (source, quoted.source.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) if kind.family == Family::Ipv4 => builder
            .ipv4(source.octets(), target.octets(), HOP_LIMIT)
            .icmpv4_raw(kind.icmp_type, kind.code, word)
            .write(&mut frame, quote),
        (IpAddr::V6(source), IpAddr::V6(target)) if kind.family == Family::Ipv6 => builder
            .ipv6(source.octets(), target.octets(), HOP_LIMIT)
            .icmpv6_raw(kind.icmp_type, kind.code, word)
            .write(&mut frame, quote),
        (source, target) => {
            panic!("no {:?} error goes from {source} to {target}", kind.family)
        }
    };
    written.expect("an error of a hundred bytes fits a packet");
    frame
}

/// The IP header, UDP header and first bytes of a datagram along `path`, as far as an outsider can
/// guess them.
fn guessed_quote(path: &Path) -> Vec<u8> {
    let datagram = Datagram {
        path: *path,
        payload: &QUOTED_PAYLOAD,
    };
    datagram
        .to_frame()
        .split_off(etherparse::Ethernet2Header::LEN)
}

/// What an outsider would guess of the payload: the start of an epoch-1 record.
const QUOTED_PAYLOAD: [u8; 8] = [23, 0xfe, 0xfd, 0, 1, 0, 0, 0];

#[cfg(test)]
mod tests;
