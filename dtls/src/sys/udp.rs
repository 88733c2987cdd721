//! Socket options that neither `std` nor `socket2` nor `nix` offer, and a receive buffer that
//! costs no memory before a datagram reaches it.
//!
//! Runs on whichever thread makes the socket or waits for it.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockRef;

/// The largest datagram taken: the largest record of TLS 1.2 with its header.
const LARGEST: usize = (1 << 14) + 2048 + 13;

/// A received datagram. Its memory is only touched as far as datagrams reach: a zeroed buffer would
/// keep 18 KiB of every held connection resident, and one on the stack nearly as much.
pub(crate) struct Datagram {
    bytes: Box<[MaybeUninit<u8>]>,
    /// So many of `bytes` are initialised.
    length: usize,
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Datagram {
    /// An empty datagram.
    pub(crate) fn empty() -> Self {
        Self {
            bytes: Box::new_uninit_slice(LARGEST),
            length: 0,
        }
    }

    /// Receives into this buffer (`recvfrom(2)`), waiting for as long as the socket's receive
    /// timeout says or not at all. The source is `None` where the kernel reports none, as on a
    /// socket whose receiving side was shut down.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn recv_from(
        &mut self,
        socket: BorrowedFd<'_>,
        wait: bool,
    ) -> io::Result<Option<SocketAddr>> {
        self.length = 0;
        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
        let socket = SockRef::from(&socket);
        let (length, source) = socket.recv_from_with_flags(&mut self.bytes, flags)?;
        self.length = length;
        Ok(source.as_socket())
    }

    /// Becomes a copy of `bytes`, as far as they fit.
    pub(crate) fn copy_from(&mut self, bytes: &[u8]) {
        self.length = bytes.len().min(LARGEST);
        self.bytes[..self.length].write_copy_of_slice(&bytes[..self.length]);
    }

    /// What was received.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `length` is only ever set to what recvfrom(2) reported to have written from the
        // start, or to what was copied there.
        unsafe { self.bytes[..self.length].assume_init_ref() }
    }
}

/// What becomes of a datagram longer than the interface takes. Either way packets leave without
/// don't-fragment, and a forged "packet too big" changes nothing: the kernel does not look at what it
/// believes of the path (`ip(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooLong {
    /// It is refused with EMSGSIZE (`IP_PMTUDISC_INTERFACE`).
    Refused,
    /// It leaves in fragments (`IP_PMTUDISC_OMIT`).
    Fragmented,
}

/// Chooses for IPv4 peers; counts on an IPv6 socket for v4-mapped ones.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_too_long_v4(socket: BorrowedFd<'_>, too_long: TooLong) -> io::Result<()> {
    let mode = match too_long {
        TooLong::Refused => libc::IP_PMTUDISC_INTERFACE,
        TooLong::Fragmented => libc::IP_PMTUDISC_OMIT,
    };
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &mode)
}

/// Chooses for IPv6 peers (`ipv6(7)`).
///
/// # Errors
/// The kernel's.
pub(crate) fn set_too_long_v6(socket: BorrowedFd<'_>, too_long: TooLong) -> io::Result<()> {
    let mode = match too_long {
        TooLong::Refused => libc::IPV6_PMTUDISC_INTERFACE,
        TooLong::Fragmented => libc::IPV6_PMTUDISC_OMIT,
    };
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &mode)
}

/// Gives every datagram of this socket's SO_REUSEPORT group that no connected socket claims to the
/// group's first member (`socket(7)`, `SO_ATTACH_REUSEPORT_CBPF`): a one-instruction classic BPF
/// program, "return 0".
///
/// # Errors
/// The kernel's; `ENOPROTOOPT` before Linux 4.5.
pub(crate) fn select_first_of_group(socket: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_RET_K: u16 = 0x06;
    let mut program = [libc::sock_filter {
        code: BPF_RET_K,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let descriptor = FilterProgram {
        length: 1,
        padding: Default::default(),
        instructions: program.as_mut_ptr(),
    };
    set(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &descriptor,
    )
}

/// `struct sock_fprog` of <linux/filter.h>, its padding spelt out: the kernel is given those bytes too,
/// so they should be some.
#[repr(C)]
struct FilterProgram {
    length: u16,
    padding: [u8; size_of::<usize>() - size_of::<u16>()],
    instructions: *mut libc::sock_filter,
}

const _: () = assert!(size_of::<FilterProgram>() == size_of::<libc::sock_fprog>());

fn set<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the borrow's life; the kernel reads `length` bytes at
    // `value`, a live reference of that size, and keeps no pointer (it copies the BPF program).
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if returned == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
