//! Starts programs that are not ours, as the current user, on addresses that only this test has.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::common::{Finished, Program, wait_until};

/// A program, and the Debian package that has it.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

impl Peer {
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(self.program);
        // Daemons are often missing from an ordinary user's PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
        // What is set for other purposes must not change the outcome.
        for name in [
            "OPENSSL_CONF",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "GNUTLS_SYSTEM_PRIORITY_FILE",
            "COAP_DEBUG",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Starts it with the words of this line, none of which may hold a space.
    #[track_caller]
    pub(crate) fn start(self, arguments: &str) -> Program {
        let mut command = self.command();
        command.args(arguments.split_whitespace());
        self.start_command(command)
    }

    #[track_caller]
    pub(crate) fn start_command(self, command: Command) -> Program {
        match Program::start(command) {
            Ok(program) => program,
            Err(error) if error.kind() == io::ErrorKind::NotFound => panic!(
                "`{}` is not installed (Debian package {}); run: make deps",
                self.program, self.package
            ),
            Err(error) => panic!("cannot start {}: {error}", self.program),
        }
    }

    /// Starts it, closes its standard input and waits for its end.
    #[track_caller]
    pub(crate) fn run(self, arguments: &str) -> Finished {
        self.start(arguments).finish()
    }

    /// Starts it, and waits until it has the UDP port on which it serves.
    #[track_caller]
    pub(crate) fn serve(self, arguments: &str, address: SocketAddr) -> Program {
        let program = self.start(arguments);
        wait_until(
            &format!("{} at {address}", self.program),
            || is_bound(address),
            |&bound| bound,
        );
        program
    }
}

/// An address that nobody else has: most programs cannot say which port they found free, so each
/// test process has an address of its own in 127.64.0.0/10, made of its process id.
pub(crate) fn own_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let [_, a, b, c] = process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 64 | (a & 63), b, c);
    SocketAddr::new(IpAddr::V4(ip), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether a UDP socket is bound to exactly this address; from proc(5), where the four bytes of an
/// address are one hexadecimal number in the machine's byte order.
fn is_bound(address: SocketAddr) -> bool {
    let IpAddr::V4(ip) = address.ip() else {
        panic!("{address} is not IPv4");
    };
    let ip = u32::from_ne_bytes(ip.octets());
    let wanted = format!(" {ip:08X}:{:04X} ", address.port());
    fs::read_to_string("/proc/net/udp")
        .unwrap()
        .contains(&wanted)
}
