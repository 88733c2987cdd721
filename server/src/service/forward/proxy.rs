//! The PROXY protocol's header, version 2, which tells the backend who the client is
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2). Worker thread.

use std::net::SocketAddr;

use clap::ValueEnum;
use proxy_header::{ProxiedAddress, ProxyHeader};
use serde::{Deserialize, Serialize};

/// Which datagrams to the backend begin with a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyProtocol {
    /// None
    #[default]
    None,
    /// The first of each connection, and the first after the backend's port was found closed
    First,
    /// Every one
    Every,
}

/// Where a datagram begins in a buffer: after room for the longest header, that of IPv6.
pub(super) const ROOM: usize = 16 + 36;

/// What every header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// One connection's header, and whether the next datagram needs it.
#[derive(Debug)]
pub(super) struct Header {
    when: ProxyProtocol,
    bytes: Vec<u8>,
    due: bool,
}

impl Header {
    /// The header of a connection of `client` to our `server`.
    pub(super) fn new(when: ProxyProtocol, client: SocketAddr, server: SocketAddr) -> Self {
        let mut bytes = Vec::new();
        if when != ProxyProtocol::None {
            let header = ProxyHeader::with_address(ProxiedAddress::datagram(client, server));
            header
                .encode_v2(&mut bytes)
                .expect("both ends of a connection have one address family");
        }
        Self {
            when,
            bytes,
            due: when != ProxyProtocol::None,
        }
    }

    /// Writes the header into a buffer, right before [`ROOM`].
    pub(super) fn write(&self, buffer: &mut [u8]) {
        buffer[ROOM - self.bytes.len()..ROOM].copy_from_slice(&self.bytes);
    }

    /// Where the next datagram to the backend begins in the buffer, with or without header.
    ///
    /// A client's own datagram that looks like a header gets ours before it: a backend that takes
    /// headers would believe it.
    pub(super) fn start(&self, datagram: &[u8]) -> usize {
        let forged = self.when == ProxyProtocol::First && datagram.starts_with(SIGNATURE);
        if self.due || forged {
            ROOM - self.bytes.len()
        } else {
            ROOM
        }
    }

    /// The header has been sent.
    pub(super) fn sent(&mut self) {
        self.due = self.when == ProxyProtocol::Every;
    }

    /// The backend cannot know the header any more.
    pub(super) fn forgotten(&mut self) {
        self.due = self.when != ProxyProtocol::None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(when: ProxyProtocol, client: &str, server: &str) -> Header {
        Header::new(when, client.parse().unwrap(), server.parse().unwrap())
    }

    #[test]
    fn a_header_is_the_one_of_the_specification_for_both_families() {
        let signature = b"\r\n\r\n\0\r\nQUIT\n";
        let v4 = header(ProxyProtocol::First, "192.0.2.7:40000", "198.51.100.1:5684");
        // Version 2, command PROXY; AF_INET, DGRAM; 12 bytes.
        let mut expected = signature.to_vec();
        expected.extend([0x21, 0x12, 0, 12]);
        expected.extend([192, 0, 2, 7, 198, 51, 100, 1]);
        expected.extend([0x9c, 0x40, 0x16, 0x34]);
        assert_eq!(v4.bytes, expected);

        let v6 = header(ProxyProtocol::First, "[2001:db8::7]:1", "[2001:db8::1]:2");
        let mut expected = signature.to_vec();
        expected.extend([0x21, 0x22, 0, 36]);
        for last in [7, 1] {
            expected.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        expected.extend([0, 1, 0, 2]);
        assert_eq!(v6.bytes, expected);
    }

    #[test]
    fn a_client_cannot_pass_a_header_of_its_own_off_as_ours() {
        let mut first = header(ProxyProtocol::First, "192.0.2.7:1", "192.0.2.1:2");
        first.sent();
        let forged = [SIGNATURE, &[0x21, 0x12, 0, 0]].concat();
        assert_eq!(ROOM - first.start(&forged), 28);
        first.sent();
        assert_eq!(first.start(b"data"), ROOM);
        let none = header(ProxyProtocol::None, "192.0.2.7:1", "192.0.2.1:2");
        assert_eq!(none.start(&forged), ROOM, "such a backend takes no headers");
    }

    #[test]
    fn first_is_the_first_datagram_and_the_first_after_the_backend_was_away() {
        let mut first = header(ProxyProtocol::First, "192.0.2.7:1", "192.0.2.1:2");
        assert_eq!(ROOM - first.start(b"data"), 28);
        first.sent();
        assert_eq!(first.start(b"data"), ROOM);
        first.forgotten();
        assert_eq!(ROOM - first.start(b"data"), 28);

        let mut every = header(ProxyProtocol::Every, "[::1]:1", "[::1]:2");
        assert_eq!(every.start(b"data"), 0);
        every.sent();
        assert_eq!(every.start(b"data"), 0);

        let mut none = header(ProxyProtocol::None, "[::1]:1", "[::1]:2");
        none.forgotten();
        assert_eq!(none.start(b"data"), ROOM);
    }
}
