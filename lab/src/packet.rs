//! UDP datagrams inside IP packets inside Ethernet frames: taken apart, built, and repaired.
//!
//! Pure. The relay thread calls it for every frame on the wire, and the engine to forge
//! datagrams. A frame that is not one whole UDP datagram (ARP, neighbour discovery, an IP
//! fragment) gives `None` and is nobody's business but the kernels'.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use etherparse::{
    Ethernet2Header, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, UdpHeader,
};
use serde::{Deserialize, Serialize};

/// Which way a datagram travels; the only names for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a client to the server.
    ToServer,
    /// From the server to a client.
    ToClient,
}

impl Direction {
    /// Both directions, for loops over them.
    pub const BOTH: [Self; 2] = [Self::ToServer, Self::ToClient];

    /// The direction of the answer.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToServer => "to_server",
            Self::ToClient => "to_client",
        })
    }
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IP version 4.
    Ipv4,
    /// IP version 6.
    Ipv6,
}

impl Family {
    /// The version of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// The two ends of one datagram at each layer: all that is needed to build another on its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Ethernet address of the sender.
    pub source_mac: [u8; 6],
    /// Ethernet address of the receiver.
    pub destination_mac: [u8; 6],
    /// Address and port of the sender.
    pub source: SocketAddr,
    /// Address and port of the receiver; the same IP version as the sender's.
    pub destination: SocketAddr,
}

impl Path {
    /// The path of the answer.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source_mac: self.destination_mac,
            destination_mac: self.source_mac,
            source: self.destination,
            destination: self.source,
        }
    }
}

/// One UDP datagram and the path it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// From where to where.
    pub path: Path,
    /// The UDP payload.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The datagram an Ethernet frame carries; `None` if it carries anything but one whole
    /// UDP datagram. Checksums are not looked at.
    #[must_use]
    pub fn from_frame(frame: &'a [u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ethernet(frame).ok()?;
        let ethernet = Ethernet2Header::from_slice(frame).ok()?.0;
        let (source, destination): (IpAddr, IpAddr) = match sliced.net.as_ref()? {
            NetSlice::Ipv4(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            NetSlice::Ipv6(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            NetSlice::Arp(_) => return None,
        };
        if sliced.is_ip_payload_fragmented() {
            return None;
        }
        let Some(TransportSlice::Udp(udp)) = sliced.transport else {
            return None;
        };
        Some(Self {
            path: Path {
                source_mac: ethernet.source,
                destination_mac: ethernet.destination,
                source: SocketAddr::new(source, udp.source_port()),
                destination: SocketAddr::new(destination, udp.destination_port()),
            },
            payload: udp.payload(),
        })
    }

    /// The datagram as an Ethernet frame, all checksums right.
    ///
    /// # Panics
    ///
    /// When the two addresses are of different IP versions or the payload exceeds 65,507 bytes:
    /// no such datagram exists.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let path = &self.path;
        let builder = PacketBuilder::ethernet2(path.source_mac, path.destination_mac);
        let builder = match (path.source.ip(), path.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                builder.ipv4(source.octets(), destination.octets(), HOP_LIMIT)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                builder.ipv6(source.octets(), destination.octets(), HOP_LIMIT)
            }
            (source, destination) => panic!("no packet goes from {source} to {destination}"),
        };
        let builder = builder.udp(path.source.port(), path.destination.port());
        let mut frame = Vec::with_capacity(builder.size(self.payload.len()));
        builder
            .write(&mut frame, self.payload)
            .expect("a UDP datagram of legal size fits a packet");
        frame
    }
}

/// Bytes of the IP packet in an Ethernet frame.
#[must_use]
pub fn ip_length(frame: &[u8]) -> usize {
    frame.len().saturating_sub(Ethernet2Header::LEN)
}

/// Whether a frame carries a part of an IP packet.
#[must_use]
pub fn is_ip_fragment(frame: &[u8]) -> bool {
    SlicedPacket::from_ethernet(frame).is_ok_and(|sliced| sliced.is_ip_payload_fragmented())
}

/// Time to live, or hop limit, of the packets built here: Linux's own default.
pub(crate) const HOP_LIMIT: u8 = 64;

/// Computes the IPv4 header's and the UDP checksum anew; a frame that carries no whole UDP
/// datagram stays as it is.
///
/// A veth device leaves checksums to hardware that does not exist: what a packet socket reads
/// from it has a partial UDP checksum, which the receiving kernel would refuse.
pub fn fix_checksums(frame: &mut [u8]) {
    let Some(part) = UdpPart::of(frame) else {
        return;
    };
    let (header, payload) = frame[part.udp.clone()].split_at(UdpHeader::LEN);
    let Ok((udp, _)) = UdpHeader::from_slice(header) else {
        return;
    };
    let checksum = match part.addresses {
        Addresses::V4(source, destination) => {
            udp.calc_checksum_ipv4_raw(source, destination, payload)
        }
        Addresses::V6(source, destination) => {
            udp.calc_checksum_ipv6_raw(source, destination, payload)
        }
    };
    if let Ok(checksum) = checksum {
        let at = part.udp.start + UDP_CHECKSUM;
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    if let Addresses::V4(..) = part.addresses
        && let Ok((ip, _)) = Ipv4Header::from_slice(&frame[Ethernet2Header::LEN..])
    {
        let at = Ethernet2Header::LEN + IPV4_CHECKSUM;
        frame[at..at + 2].copy_from_slice(&ip.calc_header_checksum().to_be_bytes());
    }
}

/// Which end of a datagram's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEnd {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Writes another address and port at one end of the datagram's path, as a NAT does, and makes the
/// checksums right. A frame that carries no whole UDP datagram of that IP version stays as it is.
pub fn readdress(frame: &mut [u8], end: PathEnd, to: SocketAddr) {
    let Some(part) = UdpPart::of(frame) else {
        return;
    };
    let second = usize::from(end == PathEnd::Destination);
    let mut write = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
    match (&part.addresses, to.ip()) {
        (Addresses::V4(..), IpAddr::V4(ip)) => {
            write(
                Ethernet2Header::LEN + IPV4_SOURCE + 4 * second,
                &ip.octets(),
            );
        }
        (Addresses::V6(..), IpAddr::V6(ip)) => {
            write(
                Ethernet2Header::LEN + IPV6_SOURCE + 16 * second,
                &ip.octets(),
            );
        }
        _ => return,
    }
    write(part.udp.start + 2 * second, &to.port().to_be_bytes());
    fix_checksums(frame);
}

/// Flips single bits of the datagram's payload, each counted modulo the payload's length in
/// bits, and makes the checksums right again, so that the damage reaches the DTLS
/// implementation instead of dying in the kernel.
pub fn flip_bits(frame: &mut [u8], bits: &[u64]) {
    let Some(part) = UdpPart::of(frame) else {
        return;
    };
    let payload = &mut frame[part.udp][UdpHeader::LEN..];
    let length = payload.len() as u64 * 8;
    if length == 0 {
        return;
    }
    for bit in bits {
        let bit = bit % length;
        let byte = usize::try_from(bit / 8).expect("an index into a frame fits usize");
        payload[byte] ^= 0x80 >> (bit % 8);
    }
    fix_checksums(frame);
}

/// Puts these bytes before the payload of the frame's datagram.
pub fn prepend(frame: &mut Vec<u8>, bytes: &[u8]) {
    let longer = Datagram::from_frame(frame).map(|datagram| {
        let payload = [bytes, datagram.payload].concat();
        let path = datagram.path;
        Datagram {
            path,
            payload: &payload,
        }
        .to_frame()
    });
    if let Some(longer) = longer {
        *frame = longer;
    }
}

/// Where the UDP header and payload of a frame lie, and what its pseudo-header says.
struct UdpPart {
    udp: Range<usize>,
    addresses: Addresses,
}

enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

impl UdpPart {
    fn of(frame: &[u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ethernet(frame).ok()?;
        if sliced.is_ip_payload_fragmented() {
            return None;
        }
        let addresses = match sliced.net.as_ref()? {
            NetSlice::Ipv4(ip) => Addresses::V4(ip.header().source(), ip.header().destination()),
            NetSlice::Ipv6(ip) => Addresses::V6(ip.header().source(), ip.header().destination()),
            NetSlice::Arp(_) => return None,
        };
        // A VLAN tag would move the IP header from where the IPv4 checksum is looked for.
        if !sliced.link_exts.is_empty() {
            return None;
        }
        let Some(TransportSlice::Udp(udp)) = sliced.transport else {
            return None;
        };
        // The slice lies inside the frame: its offset is the distance of the two pointers.
        let start = udp.slice().as_ptr() as usize - frame.as_ptr() as usize;
        Some(Self {
            udp: start..start + udp.slice().len(),
            addresses,
        })
    }
}

/// Offset of the checksum in the UDP header (RFC 768).
const UDP_CHECKSUM: usize = 6;
/// Offset of the source address in the IPv4 header (RFC 791 §3.1); the destination's follows.
const IPV4_SOURCE: usize = 12;
/// Offset of the source address in the IPv6 header (RFC 8200 §3); the destination's follows.
const IPV6_SOURCE: usize = 8;
/// Offset of the checksum in the IPv4 header (RFC 791 §3.1).
const IPV4_CHECKSUM: usize = 10;

#[cfg(test)]
mod tests;
