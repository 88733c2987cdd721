//! Which socket errors are ICMP messages in disguise, and what to do about them: nothing.
//!
//! Anyone on the Internet can forge an ICMP error (RFC 5927), so none may end or hurry a
//! connection; the timers decide. Linux reports one on the next call on a connected socket,
//! whichever it is: a receive loses nothing, a send loses its datagram, so it is sent again. Pure.

use std::io;

/// Whether the kernel reports an ICMP error, and nothing about this host or call.
///
/// `icmp(7)` and net/ipv4/icmp.c `icmp_err_convert`: unreachable host, network, port and protocol;
/// parameter problem is EPROTO; ICMPv6 1/1, 1/5 and 1/6 are EACCES; too big is EMSGSIZE.
/// ECONNRESET is what other systems report for an unreachable port.
pub(crate) fn is_icmp(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPROTO
                | libc::EACCES
                | libc::EMSGSIZE
        )
    )
}

/// Whether a receive should simply be repeated or waited for.
pub(crate) fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// Whether a receive found nothing within its time.
pub(crate) fn is_empty(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
