//! UDP sockets: one address family for all of them, two ways to share a port, and the local address
//! of each datagram.
//!
//! Every socket is AF_INET6 where the host has IPv6, IPv4 peers being v4-mapped: in that family the
//! kernel (6.13 and later) keeps the listening socket first in its hash chain, which is what keeps
//! strangers' datagrams away from a socket that is bound but not yet connected. Runs on the
//! listener's thread, and on the client's.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::PortSharing;
use crate::error::BindError;
use crate::sys;
use crate::sys::udp::TooLong;

/// A datagram's addresses, in the sockets' family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FourTuple {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// A bound socket without a peer.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    socket: UdpSocket,
    local: SocketAddr,
}

impl ListeningSocket {
    /// Binds `address`, and shares the port as `sharing` says with sockets made by [`connected`],
    /// or with nobody.
    pub(crate) fn bind(
        address: SocketAddr,
        sharing: Option<PortSharing>,
    ) -> Result<Self, BindError> {
        let at = |step| {
            move |source| BindError::Io {
                address,
                step,
                source,
            }
        };
        let family = in_family(address);
        // A second server of the same user would silently take half of the datagrams: ask for the
        // port alone before sharing it.
        let alone = new_socket(family, TooLong::Fragmented).map_err(at("socket"))?;
        if sharing.is_none() {
            prepare_for_many(&alone, family).map_err(at("setsockopt"))?;
        }
        alone
            .bind(&family.into())
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => BindError::InUse(address),
                io::ErrorKind::PermissionDenied => BindError::NotPermitted(address),
                io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address),
                _ => BindError::Io {
                    address,
                    step: "bind",
                    source,
                },
            })?;
        let Some(sharing) = sharing else {
            return Self::bound(alone).map_err(at("getsockname"));
        };
        let family = match (
            alone.local_addr().map_err(at("getsockname"))?.as_socket(),
            family,
        ) {
            // Port 0 asks for any port; it must not change when the socket is made again.
            (Some(bound), mut family) => {
                family.set_port(bound.port());
                family
            }
            (None, family) => family,
        };
        drop(alone);
        Self::bind_shared(family, sharing).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Io {
                address,
                step: "bind",
                source,
            },
        })
    }

    /// Binds one more listening socket of the same group.
    pub(crate) fn bind_shared(local: SocketAddr, sharing: PortSharing) -> io::Result<Self> {
        let socket = new_socket(local, TooLong::Fragmented)?;
        share(&socket, sharing)?;
        report_destination(&socket, local)?;
        socket.bind(&local.into())?;
        if sharing == PortSharing::ReusePort {
            sys::udp::select_first_of_group(socket.as_fd())?;
        }
        Self::bound(socket)
    }

    fn bound(socket: Socket) -> io::Result<Self> {
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    /// The bound address, in the sockets' family.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether datagrams to any local address arrive here.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.local.ip().to_canonical().is_unspecified()
    }

    /// Reads a datagram, without waiting.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, FourTuple)> {
        let mut control = self
            .is_wildcard()
            .then(|| nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo));
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            control.as_deref_mut(),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let peer = received
            .address
            .as_ref()
            .and_then(std_address)
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "datagram without a source address",
                )
            })?;
        let mut local = self.local;
        if !self.is_wildcard() {
            return Ok((received.bytes, FourTuple { peer, local }));
        }
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    // A link-local address means nothing without its interface.
                    let scope = if ip.is_unicast_link_local() {
                        info.ipi6_ifindex
                    } else {
                        0
                    };
                    local = SocketAddrV6::new(ip, self.local.port(), 0, scope).into();
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    local.set_ip(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                _ => {}
            }
        }
        Ok((received.bytes, FourTuple { peer, local }))
    }

    /// Sends a datagram from the address that the peer sent to; `wait` says whether for as long as
    /// the kernel's buffer is full.
    pub(crate) fn send(&self, datagram: &[u8], to: FourTuple, wait: bool) -> io::Result<()> {
        let (v6, v4);
        let source = match to.local {
            _ if !self.is_wildcard() => None,
            SocketAddr::V6(local) => {
                v6 = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: local.ip().octets(),
                    },
                    ipi6_ifindex: local.scope_id(),
                };
                Some(ControlMessage::Ipv6PacketInfo(&v6))
            }
            SocketAddr::V4(local) => {
                v4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(local.ip().octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                Some(ControlMessage::Ipv4PacketInfo(&v4))
            }
        };
        let flags = if wait {
            MsgFlags::empty()
        } else {
            MsgFlags::MSG_DONTWAIT
        };
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(datagram)],
            source.as_slice(),
            flags,
            Some(&SockaddrStorage::from(to.peer)),
        )?;
        Ok(())
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A server's socket for one peer: bound to the listening address, connected to the peer.
pub(crate) fn connected(tuple: FourTuple, sharing: PortSharing) -> io::Result<UdpSocket> {
    let socket = new_socket(tuple.peer, TooLong::Refused)?;
    share(&socket, sharing)?;
    socket.bind(&tuple.local.into())?;
    socket.connect(&tuple.peer.into())?;
    Ok(socket.into())
}

/// A client's socket: any local port, connected to the server.
pub(crate) fn client(server: SocketAddr) -> io::Result<(UdpSocket, SocketAddr)> {
    let server = in_family(server);
    let socket = new_socket(server, TooLong::Refused)?;
    socket.connect(&server.into())?;
    let socket = UdpSocket::from(socket);
    // The kernel's word: the unspecified address means the loopback to it.
    let server = socket.peer_addr()?;
    Ok((socket, server))
}

/// What the kernel says of a datagram that it seems to have refused for its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The interface towards the peer takes packets of so many bytes; from here on the kernel cuts
    /// longer ones into fragments.
    Interface(u16),
    /// It has left: it was not the interface that spoke before.
    Sent,
    /// It says nothing; the datagram has not left.
    Unknown,
}

/// Sends a datagram once more, asking who refuses it.
///
/// The number that the kernel would name without a refusal (`IP_MTU`) is what it believes of the path,
/// and anyone can forge that. The socket's error queue names the origin of each error (`ip(7)`,
/// `IP_RECVERR`): what the kernel itself found when it looked at the interface is of local origin, and no
/// ICMP message is. Where the queue is not asked for it stays empty, as it does but for this moment.
pub(crate) fn ask_interface(socket: &UdpSocket, peer: SocketAddr, datagram: &[u8]) -> Judgement {
    let v4 = peer.ip().to_canonical().is_ipv4();
    if explain_errors(socket, v4, true).is_err() {
        return Judgement::Unknown;
    }
    let sent = socket.send(datagram).is_ok();
    let interface_mtu = if sent { None } else { local_refusal(socket) };
    // Empties the queue, too. It cannot fail where the opposite did not.
    explain_errors(socket, v4, false).unwrap_or_default();
    let Some(interface_mtu) = interface_mtu else {
        return if sent {
            Judgement::Sent
        } else {
            Judgement::Unknown
        };
    };
    let given_in = if v4 {
        sys::udp::set_too_long_v4(socket.as_fd(), TooLong::Fragmented)
    } else {
        sys::udp::set_too_long_v6(socket.as_fd(), TooLong::Fragmented)
    };
    match given_in {
        Ok(()) => Judgement::Interface(u16::try_from(interface_mtu).unwrap_or(u16::MAX)),
        Err(_) => Judgement::Unknown,
    }
}

fn explain_errors(socket: &UdpSocket, v4: bool, explain: bool) -> nix::Result<()> {
    if v4 {
        setsockopt(socket, sockopt::Ipv4RecvErr, &explain)
    } else {
        setsockopt(socket, sockopt::Ipv6RecvErr, &explain)
    }
}

/// Errors looked through for the kernel's own; forged ones may have come before it.
const EXPLAINED: usize = 16;

/// What the interface takes, if the error queue holds a refusal of the kernel's own.
fn local_refusal(socket: &UdpSocket) -> Option<u32> {
    for _ in 0..EXPLAINED {
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let received = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut [],
            Some(&mut control),
            MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
        );
        for message in received.ok()?.cmsgs().ok()? {
            // The family of the socket, not of the peer, says which.
            let (ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _)) = message
            else {
                continue;
            };
            let own = error.ee_origin == libc::SO_EE_ORIGIN_LOCAL;
            if own && i32::try_from(error.ee_errno) == Ok(libc::EMSGSIZE) {
                return Some(error.ee_info);
            }
        }
    }
    None
}

/// The address in the family that all sockets have.
fn in_family(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if has_ipv6() => {
            SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
        }
        other => other,
    }
}

/// What this host's IPv6 sockets can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ipv6 {
    Absent,
    /// IPv4 peers too, unless told otherwise.
    Dual,
    /// IPv4 peers too, but only when told so (the sysctl `net.ipv6.bindv6only`).
    DualOnRequest,
}

fn ipv6() -> Ipv6 {
    static IPV6: OnceLock<Ipv6> = OnceLock::new();
    *IPV6.get_or_init(|| match Socket::new(Domain::IPV6, Type::DGRAM, None) {
        Ok(socket) if matches!(socket.only_v6(), Ok(false)) => Ipv6::Dual,
        Ok(socket) if socket.set_only_v6(false).is_ok() => Ipv6::DualOnRequest,
        _ => Ipv6::Absent,
    })
}

fn has_ipv6() -> bool {
    ipv6() != Ipv6::Absent
}

/// A socket for `address`, be it the local or the peer's. Each connection makes one,
/// so only the options that this address needs are set.
fn new_socket(address: SocketAddr, too_long: TooLong) -> io::Result<Socket> {
    let domain = if has_ipv6() {
        Domain::IPV6
    } else {
        Domain::IPV4
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    let wildcard = address.ip().is_unspecified();
    let v4 = address.ip().to_canonical().is_ipv4();
    if domain == Domain::IPV6 && (v4 || wildcard) && ipv6() == Ipv6::DualOnRequest {
        socket.set_only_v6(false)?;
    }
    if v4 || wildcard {
        sys::udp::set_too_long_v4(socket.as_fd(), too_long)?;
    }
    if !v4 && domain == Domain::IPV6 {
        sys::udp::set_too_long_v6(socket.as_fd(), too_long)?;
    }
    Ok(socket)
}

/// Options of a socket that carries the datagrams of all connections.
fn prepare_for_many(socket: &Socket, local: SocketAddr) -> io::Result<()> {
    report_destination(socket, local)?;
    // The kernel gives less where `rmem_max` and `wmem_max` say so (`socket(7)`), and does not mind.
    socket.set_recv_buffer_size(SHARED_BUFFER)?;
    socket.set_send_buffer_size(SHARED_BUFFER)
}

/// Bytes asked for in each direction of a shared socket: some 1,800 datagrams of full size.
const SHARED_BUFFER: usize = 4 << 20;

fn share(socket: &Socket, sharing: PortSharing) -> io::Result<()> {
    match sharing {
        PortSharing::ReusePort => socket.set_reuse_port(true),
        PortSharing::ReuseAddr => socket.set_reuse_address(true),
    }
}

/// Makes a wildcard socket tell which address each datagram was sent to.
fn report_destination(socket: &Socket, local: SocketAddr) -> io::Result<()> {
    if !local.ip().to_canonical().is_unspecified() {
        return Ok(());
    }
    if has_ipv6() {
        // Gives v4-mapped destinations too.
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v6 = address
        .as_sockaddr_in6()
        .map(|&v6: &SockaddrIn6| SocketAddrV6::from(v6).into());
    v6.or_else(|| {
        address
            .as_sockaddr_in()
            .map(|&v4: &SockaddrIn| SocketAddr::V4(v4.into()))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const INSIDE: &str = "DTLS_TEST_INSIDE_NAMESPACE";
    const NAME: &str =
        "shell::socket::tests::the_interface_is_asked_and_not_what_is_believed_of_the_path";

    /// Runs itself again in a namespace, where the loopback takes 1500 bytes and the kernel believes of
    /// the way to one address that it takes 600, as after a forged "packet too big".
    #[test]
    fn the_interface_is_asked_and_not_what_is_believed_of_the_path() {
        if std::env::var_os(INSIDE).is_none() {
            let setup = "ip link set lo mtu 1500 up && \
                         ip route add local 127.0.0.5 dev lo table local mtu 600 && \
                         exec \"$0\" --exact \"$1\"";
            let output = Command::new("unshare")
                .args(["--user", "--map-root-user", "--net", "sh", "-c", setup])
                .arg(std::env::current_exe().unwrap())
                .arg(NAME)
                .env(INSIDE, "yes")
                .output()
                .expect("util-linux has unshare");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && said.contains("1 passed"),
                "in a namespace (allowed? see /proc/sys/user/max_user_namespaces): {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            return;
        }
        for (address, believed) in [
            ("127.0.0.5:0", 600),
            ("127.0.0.1:0", 1500),
            ("[::1]:0", 1500),
        ] {
            let server = UdpSocket::bind(address).unwrap();
            let (socket, peer) = client(server.local_addr().unwrap()).unwrap();
            if peer.ip().to_canonical().is_ipv4() {
                let mtu = nix::sys::socket::getsockopt(&socket, sockopt::IpMtu).unwrap();
                assert_eq!(mtu, believed, "{address}");
            }
            let asked = |length| ask_interface(&socket, peer, &vec![7; length]);
            assert_eq!(asked(1000), Judgement::Sent, "{address}");
            assert_eq!(server.recv(&mut [0; 2000]).unwrap(), 1000);
            assert_eq!(asked(1600), Judgement::Interface(1500), "{address}");
            // In fragments from now on.
            assert_eq!(asked(1600), Judgement::Sent, "{address}");
            assert_eq!(server.recv(&mut [0; 2000]).unwrap(), 1600);
        }
    }
}
