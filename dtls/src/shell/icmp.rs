//! Which socket errors are ICMP messages in disguise, and what to do about them: nothing.
//!
//! Anyone on the Internet can forge an ICMP error (RFC 5927), so none may end or hurry a
//! connection; the timers decide. Linux reports one on the next call on a connected socket,
//! whichever it is: a receive loses nothing, a send loses its datagram, so it is sent again. Pure.

use std::io;

use crate::stats::{Counter, Stats};

/// What an error of a call on a connected UDP socket means to its connection; for whoever carries the
/// datagrams of a [`core::Connection`](crate::core::Connection) himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketError {
    /// Call again: it was interrupted, or the host was in trouble for a moment.
    Again,
    /// Nothing has come within the socket's time.
    Empty,
    /// An ICMP error in disguise: a hint that anyone may forge. Count it and call again.
    Icmp,
    /// The socket is of no more use.
    Broken,
}

impl SocketError {
    /// Judges `error`.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        if is_interrupted(error) || is_shortage(error) {
            Self::Again
        } else if is_empty(error) {
            Self::Empty
        } else if is_icmp(error) {
            Self::Icmp
        } else {
            Self::Broken
        }
    }
}

/// What became of a datagram at the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// The kernel took it.
    Sent,
    /// The kernel did not: as good as lost on the way, and the timers know what to do about that.
    Lost,
    /// The interface says twice that it is too long; ICMP's word would be spoken once.
    TooLong,
}

/// Sends a datagram by `attempt`, or loses it. Counts what became of it, but for one that is too long:
/// the caller may have another way.
pub fn send_or_lose(mut attempt: impl FnMut() -> io::Result<usize>, stats: &Stats) -> Sending {
    let mut too_long = 0;
    // A pending ICMP error takes the place of the first attempt: the kernel reports it and does
    // not send.
    for _ in 0..2 {
        match attempt() {
            Ok(_) => {
                stats.add(Counter::IcmpOnSend, too_long);
                stats.count(Counter::DatagramsSent);
                return Sending::Sent;
            }
            Err(error) if is_too_long(&error) => too_long += 1,
            Err(error) if is_icmp(&error) => stats.count(Counter::IcmpOnSend),
            Err(error) if is_interrupted(&error) => {}
            Err(_) => break,
        }
    }
    if too_long == 2 {
        return Sending::TooLong;
    }
    stats.add(Counter::IcmpOnSend, too_long);
    stats.count(Counter::DatagramsUnsent);
    Sending::Lost
}

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

/// Whether the host itself is in trouble that passes: no memory for this call, an interface that is
/// down. The next call may do better.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOBUFS | libc::ENOMEM | libc::ENETDOWN)
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
