//! One end of the wire: a raw packet socket on an interface of the wire's namespace, and one that watches
//! what leaves by that interface. Relay thread.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc::PACKET_OUTGOING;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind,
    recvfrom, send, setsockopt, socket, sockopt,
};

/// A socket that reads and writes whole Ethernet frames on one interface.
#[derive(Debug)]
pub(super) struct Port {
    socket: OwnedFd,
    sees: Sees,
    /// The priority of what was sent last.
    priority: Cell<i32>,
}

/// Which frames of its interface a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sees {
    /// Those that arrive.
    Arriving,
    /// Those that leave, once they have left the interface's queue.
    Leaving,
}

impl Port {
    /// Opens `interface` of the calling thread's namespace.
    pub(super) fn open(interface: &str, sees: Sees) -> io::Result<Self> {
        let address = getifaddrs()?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface}"))
            })?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )?;
        // Room for a burst of every client at once. Forcing past rmem_max needs the real root.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        // getifaddrs leaves the protocol 0, with which bind keeps the socket's own; see packet(7).
        debug_assert_eq!(address.protocol(), 0);
        debug_assert!(address.len() > 0);
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self {
            socket,
            sees,
            priority: Cell::new(0),
        })
    }

    /// The next frame that it is for, if any.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
                Ok((length, from)) => {
                    // A socket is shown copies that a qdisc made of its own frames.
                    let leaving = from.is_some_and(|from| from.pkttype() == PACKET_OUTGOING);
                    if leaving == (self.sees == Sees::Leaving) {
                        return Ok(Some(length));
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends one frame with this priority; whether the kernel took it.
    pub(super) fn send_with_priority(&self, frame: &[u8], priority: i32) -> io::Result<bool> {
        if self.priority.replace(priority) != priority {
            setsockopt(&self.socket, sockopt::Priority, &priority)?;
        }
        self.send(frame)
    }

    /// Sends one frame; whether the kernel took it.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<bool> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            // A full queue loses a frame, as a real wire would.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Bytes; 64 clients with a flight of six datagrams each need about 1 MB of kernel accounting.
const RECEIVE_BUFFER: usize = 8 << 20;
