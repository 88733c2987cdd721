//! Which socket errors are ICMP messages in disguise, and what to do about them: nothing.
//!
//! Anyone on the Internet can forge an ICMP error (RFC 5927), so none may end or hurry a
//! connection; the timers decide. Linux reports one on the next call on a connected socket,
//! whichever it is: a receive loses nothing, a send loses its datagram, so it is sent again. Pure.

use std::io;

/// Whether a socket's error is an ICMP message that the kernel reports, and nothing about this host or
/// call.
///
/// `icmp(7)` and net/ipv4/icmp.c `icmp_err_convert`: unreachable host, network, port and protocol;
/// parameter problem is EPROTO; ICMPv6 1/1, 1/5 and 1/6 are EACCES; too big is EMSGSIZE.
/// ECONNRESET is what other systems report for an unreachable port.
#[must_use]
pub fn is_icmp(error: &io::Error) -> bool {
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

/// Whether a datagram was too long, as the interface says it or a message of ICMP's.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What each ICMP message becomes on a connected socket (`icmp_err_convert` of net/ipv4/icmp.c and
    /// `icmpv6_err_convert` of net/ipv6/icmp.c, seen on Linux 6.1 and 6.18), and what other systems say.
    const MESSAGES: [(&str, i32); 19] = [
        ("v4 3/0, 3/6, 3/9 network unreachable", libc::ENETUNREACH),
        ("v4 3/1, 3/10, 3/13 host unreachable", libc::EHOSTUNREACH),
        ("v4 3/2 protocol unreachable", libc::ENOPROTOOPT),
        ("v4 3/3 port unreachable", libc::ECONNREFUSED),
        ("v4 3/4 too big", libc::EMSGSIZE),
        ("v4 3/5 source route failed", libc::EOPNOTSUPP),
        ("v4 3/7 host unknown", libc::EHOSTDOWN),
        ("v4 3/8 host isolated", libc::ENONET),
        ("v4 11/0 time exceeded", libc::EHOSTUNREACH),
        ("v4 12/0 parameter problem", libc::EPROTO),
        ("v6 1/0 no route", libc::ENETUNREACH),
        ("v6 1/1, 1/5, 1/6 prohibited", libc::EACCES),
        ("v6 1/2, 1/3 address unreachable", libc::EHOSTUNREACH),
        ("v6 1/4 port unreachable", libc::ECONNREFUSED),
        ("v6 2/0 too big", libc::EMSGSIZE),
        ("v6 3/0, 3/1 time exceeded", libc::EHOSTUNREACH),
        ("v6 4/0, 4/1 parameter problem", libc::EPROTO),
        ("FreeBSD, macOS: port unreachable", libc::ECONNREFUSED),
        ("Windows: port unreachable", libc::ECONNRESET),
    ];

    #[test]
    fn every_errno_is_an_icmp_error_exactly_if_an_icmp_message_becomes_it() {
        // The kernel's errnos end at 4095 (MAX_ERRNO); the rest of the range is sampled.
        let sampled = (0..31).flat_map(|bit| [1 << bit, -1 << bit]);
        for errno in (-4096..=4096).chain(sampled).chain([i32::MIN, i32::MAX]) {
            let error = io::Error::from_raw_os_error(errno);
            let named = MESSAGES.iter().find(|(_, its)| *its == errno);
            assert_eq!(is_icmp(&error), named.is_some(), "{errno}: {error}");
            let ways = [is_icmp(&error), is_interrupted(&error), is_empty(&error)];
            let taken = ways.into_iter().filter(|&taken| taken).count();
            assert!(taken <= 1, "{errno} is two things at once: {error}");
        }
    }

    #[test]
    fn an_error_of_this_host_or_of_the_call_is_no_icmp_error() {
        for errno in [
            libc::EBADF,
            libc::ENOTCONN,
            libc::EINVAL,
            libc::ENOMEM,
            libc::ENOBUFS,
            libc::ENETDOWN,
            libc::EPERM,
            libc::EPIPE,
        ] {
            assert!(!is_icmp(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        assert!(!is_icmp(&io::Error::other("no errno at all")));
    }
}
