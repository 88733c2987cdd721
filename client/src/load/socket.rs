//! A connection's socket: never waits, and counts what it had no room for. Runs on the worker's
//! thread.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

/// Connected to a server.
#[derive(Debug)]
pub(crate) struct Socket {
    udp: UdpSocket,
    /// Datagrams for which it had no room, by the kernel's latest word.
    dropped: u32,
}

/// Where a worker's datagrams arrive.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) datagram: Vec<u8>,
    /// For the kernel's word about drops.
    control: Vec<u8>,
}

impl Inbox {
    /// With room for the largest datagram.
    pub(crate) fn new() -> Self {
        Self {
            datagram: vec![0; 1 << 16],
            control: cmsg_space!(u32),
        }
    }
}

/// What a look at a socket found.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A datagram of so many bytes, and how many were dropped since the one before.
    Datagram(usize, u32),
    /// Nothing.
    Nothing,
    /// An ICMP error: a hint that anyone may forge.
    Icmp,
}

impl Socket {
    /// From `source`, or an address and port of the system's choice.
    pub(crate) fn open(source: Option<SocketAddr>, peer: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let udp = UdpSocket::bind(source.unwrap_or(any))?;
        udp.connect(peer)?;
        udp.set_nonblocking(true)?;
        setsockopt(&udp, sockopt::RxqOvfl, &1)?;
        Ok(Self { udp, dropped: 0 })
    }

    /// Its own address.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// To wait for.
    pub(crate) fn udp(&self) -> &UdpSocket {
        &self.udp
    }

    /// Takes a datagram.
    pub(crate) fn recv(&mut self, inbox: &mut Inbox) -> Arrival {
        loop {
            let mut parts = [IoSliceMut::new(&mut inbox.datagram)];
            let control = Some(inbox.control.as_mut_slice());
            match recvmsg::<()>(self.udp.as_raw_fd(), &mut parts, control, MsgFlags::empty()) {
                Ok(message) => {
                    // Told with the datagram that follows a drop (SO_RXQ_OVFL, socket(7)).
                    let told = message
                        .cmsgs()
                        .into_iter()
                        .flatten()
                        .find_map(|it| match it {
                            ControlMessageOwned::RxqOvfl(total) => Some(total),
                            _ => None,
                        });
                    let total = told.unwrap_or(self.dropped);
                    let more = total.wrapping_sub(self.dropped);
                    self.dropped = total;
                    return Arrival::Datagram(message.bytes, more);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Arrival::Nothing,
                Err(_) => return Arrival::Icmp,
            }
        }
    }

    /// Sends a datagram; says how often an ICMP error was in the way, and whether it is out.
    pub(crate) fn send(&self, datagram: &[u8]) -> (u32, bool) {
        let Err(error) = self.udp.send(datagram) else {
            return (0, true);
        };
        let icmp = u32::from(error.kind() != io::ErrorKind::WouldBlock);
        // An ICMP error that waits in the socket swallows the datagram: the second try is the first
        // that counts.
        (icmp, self.udp.send(datagram).is_ok())
    }
}
