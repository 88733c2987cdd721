//! Network namespaces: a server's, a client's, and between them the wire's, joined by two veth pairs.
//!
//! Every run builds its own three, on its own thread, so runs in parallel cannot meet. A thread enters
//! a namespace and the processes it then starts are born there. What is left in an end's namespace when
//! its run is over is killed, whoever started it; then the kernel takes the namespace and its
//! interfaces away with the last process and descriptor in it.
//!
//! No TUN device: its node is closed to ordinary users on many machines, whereas veth and AF_PACKET
//! need no node at all.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::packet::Family;

/// Why the namespaces of a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// Environment: user namespaces are switched off or used up, and we are not root.
    #[error(
        "this machine does not let an ordinary user make network namespaces ({0}): \
         run as root, or set `sysctl kernel.unprivileged_userns_clone=1` (Debian) or \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu), \
         or raise `sysctl user.max_user_namespaces`"
    )]
    UserNamespace(Errno),
    /// Environment: the ids could not be mapped into the new user namespace.
    #[error(
        "cannot write {file} ({source}): run as root, or allow user namespaces \
         (`sysctl kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu)"
    )]
    IdMap {
        /// The file under `/proc/self`.
        file: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Environment: a network namespace was refused although user namespaces were not.
    #[error(
        "cannot make a network namespace ({0}): run as root outside a restricted container, \
         or raise `sysctl user.max_net_namespaces`"
    )]
    NetNamespace(Errno),
    /// Local: a thread could not enter or open a namespace it made.
    #[error("cannot enter a network namespace of our own ({0})")]
    Enter(std::io::Error),
    /// Environment: the `ip` command is missing.
    #[error("cannot run `ip` ({0}): install iproute2 (`apt-get install iproute2`, or `make deps`)")]
    NoIpCommand(std::io::Error),
    /// Environment: `ip` refused one of our commands.
    #[error(
        "`ip` failed in the {place} namespace: {message}; does this kernel have veth (`modprobe veth`)?"
    )]
    Ip {
        /// Which of the three namespaces.
        place: &'static str,
        /// Its last words on stderr.
        message: String,
    },
    /// Environment: the kernel keeps its choice of ports to itself.
    #[error("cannot write {PORT_RANGE} in a namespace of our own ({0}): is /proc/sys read-only?")]
    PortRange(std::io::Error),
    /// Environment: the kernel has no IPv6.
    #[error("this kernel has no IPv6 (`sysctl net.ipv6.conf.all.disable_ipv6`)")]
    NoIpv6,
}

/// Makes sure that this process may create network namespaces.
///
/// Root usually may; anybody else first moves into a user namespace of their own, where they are root.
/// Call it in `main` before the first thread starts: the kernel refuses it afterwards.
///
/// # Errors
///
/// [`NamespaceError::UserNamespace`] or [`NamespaceError::IdMap`] where the machine forbids it.
pub fn claim_privileges() -> Result<(), NamespaceError> {
    // A probe on a thread of its own: its namespace ends with it.
    let allowed = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
    if matches!(allowed, Ok(Ok(()))) {
        return Ok(());
    }
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(NamespaceError::UserNamespace)?;
    // The kernel wants setgroups closed before an ordinary user may map a group.
    write_proc("/proc/self/setgroups", "deny")?;
    write_proc("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_proc("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    match std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errno)) => Err(NamespaceError::NetNamespace(errno)),
        Err(_) => Err(NamespaceError::NetNamespace(Errno::UnknownErrno)),
    }
}

fn write_proc(file: &'static str, text: &str) -> Result<(), NamespaceError> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut handle| handle.write_all(text.as_bytes()))
        .map_err(|source| NamespaceError::IdMap { file, source })
}

/// The namespaces of endpoints that exist now, by their inode numbers, of all threads.
fn inhabited() -> MutexGuard<'static, BTreeSet<u64>> {
    static INHABITED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    INHABITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every process in any namespace of the lab; which they were.
pub(crate) fn kill_all_inhabitants() -> BTreeSet<u32> {
    let namespaces = inhabited().clone();
    kill_inhabitants(&|inode| namespaces.contains(&inode))
}

/// Kills the processes whose namespace is one of these, whoever started them; which they were.
fn kill_inhabitants(of: &dyn Fn(u64) -> bool) -> BTreeSet<u32> {
    let own = std::process::id();
    let mut killed = BTreeSet::new();
    // One that is just being forked appears in the next round.
    for _ in 0..MOST_ROUNDS {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let found: Vec<u32> = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own && !killed.contains(pid))
            // What has ended and was not waited for has no namespace any more.
            .filter(|pid| {
                std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|it| of(it.ino()))
            })
            .collect();
        if found.is_empty() {
            break;
        }
        for pid in found {
            let target = i32::try_from(pid).map(Pid::from_raw);
            if let Err(errno) = target
                .map_err(|_| Errno::ESRCH)
                .and_then(|pid| kill(pid, Signal::SIGKILL))
            {
                log::debug!("cannot kill process {pid}: {errno}");
            }
            killed.insert(pid);
        }
    }
    killed
}

/// How often those that a dying process has just started are looked for.
const MOST_ROUNDS: usize = 20;

/// One network namespace, alive as long as this value or a process in it.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
    /// By which the kernel tells it from others.
    inode: u64,
}

impl Namespace {
    /// Makes one and leaves the calling thread in it.
    pub(crate) fn new() -> Result<Self, NamespaceError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(NamespaceError::NetNamespace)?;
        let handle = File::open("/proc/thread-self/ns/net").map_err(NamespaceError::Enter)?;
        let inode = handle.metadata().map_err(NamespaceError::Enter)?.ino();
        Ok(Self { handle, inode })
    }

    /// Moves the calling thread into this namespace; what it starts from now on is born there.
    ///
    /// # Errors
    ///
    /// [`NamespaceError::Enter`] when the kernel refuses.
    pub fn enter(&self) -> Result<(), NamespaceError> {
        setns(&self.handle, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NamespaceError::Enter(errno.into()))
    }

    /// A path by which another process of the same user can name this namespace.
    fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
    }
}

/// The three namespaces of one run, wired up and addressed.
#[derive(Debug)]
pub struct Network {
    /// Where the server lives: `10.99.0.1`, `fd99::1`.
    pub server: Namespace,
    /// Where the client lives: `10.99.0.2`, `fd99::2`.
    pub client: Namespace,
    /// Where our relay stands, with one end of each veth pair and no address.
    pub wire: Namespace,
}

/// The relay's ends of the two veth pairs.
pub const WIRE_TO_SERVER: &str = "to-server";
/// See [`WIRE_TO_SERVER`].
pub const WIRE_TO_CLIENT: &str = "to-client";
/// Ethernet addresses of the two endpoints. Locally administered, fixed: the neighbour tables are
/// written by hand so that no ARP or neighbour discovery has to cross a broken wire.
pub const SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x99, 0x01];
/// See [`SERVER_MAC`].
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x99, 0x02];
/// Name of the endpoint's interface inside its namespace.
const ENDPOINT_LINK: &str = "lab0";

/// The server's address in `family`.
pub fn server_addr(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(10, 99, 0, 1).into(),
        Family::Ipv6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The client's address in `family`.
pub fn client_addr(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(10, 99, 0, 2).into(),
        Family::Ipv6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2).into(),
    }
}

/// The address of the router that the wire pretends to be, in `family`.
pub fn router_addr(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(10, 99, 0, 254).into(),
        Family::Ipv6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0xfe).into(),
    }
}

/// An address beyond the wire, among those that stand in documents (RFC 5737, RFC 3849): the nth that a
/// client gets from a NAT. The server's default route leads there.
pub fn foreign_addr(family: Family, number: usize) -> IpAddr {
    let host = u8::try_from(number % 250).expect("below 250") + 1;
    match family {
        Family::Ipv4 => Ipv4Addr::new(198, 51, 100, host).into(),
        Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

impl Network {
    /// Makes and joins the three namespaces; the calling thread ends up in the wire's.
    ///
    /// # Errors
    ///
    /// See [`NamespaceError`]; all of them are the environment's.
    pub fn build(family: Family) -> Result<Self, NamespaceError> {
        let server = Namespace::new()?;
        let client = Namespace::new()?;
        let wire = Namespace::new()?;
        if family == Family::Ipv6
            && !std::path::Path::new("/proc/thread-self/net/if_inet6").exists()
        {
            return Err(NamespaceError::NoIpv6);
        }
        ip_batch("wire's", &wire_commands(&server, &client))?;
        server.enter()?;
        let (us, them) = (server_addr(family), client_addr(family));
        ip_batch("server's", &endpoint_commands(us, them, CLIENT_MAC, family))?;
        client.enter()?;
        ip_batch("client's", &endpoint_commands(them, us, SERVER_MAC, family))?;
        wire.enter()?;
        inhabited().extend([server.inode, client.inode]);
        Ok(Self {
            server,
            client,
            wire,
        })
    }
}

impl Network {
    /// Kills what the programs have left behind in the namespaces of both ends; how many that were.
    pub fn kill_inhabitants(&self) -> usize {
        let ours = [self.server.inode, self.client.inode];
        kill_inhabitants(&|inode| ours.contains(&inode)).len()
    }

    /// Leaves the client's namespace one port to choose, so that each program there gets the same as
    /// the one before it.
    ///
    /// # Errors
    ///
    /// [`NamespaceError::PortRange`] when the kernel refuses.
    pub fn single_client_port(&self) -> Result<(), NamespaceError> {
        self.client.enter()?;
        // Under /proc/sys/net a thread sees its own namespace; IPv6 follows the same file.
        std::fs::write(PORT_RANGE, "45684 45684").map_err(NamespaceError::PortRange)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.kill_inhabitants();
        let mut inhabited = inhabited();
        inhabited.remove(&self.server.inode);
        inhabited.remove(&self.client.inode);
    }
}

/// First and last port for sockets that ask for none; ip(7).
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

fn wire_commands(server: &Namespace, client: &Namespace) -> String {
    let mut commands = String::new();
    for (wire_end, namespace, mac) in [
        (WIRE_TO_SERVER, server, SERVER_MAC),
        (WIRE_TO_CLIENT, client, CLIENT_MAC),
    ] {
        commands += &format!(
            "link add name {wire_end} type veth peer name {ENDPOINT_LINK} address {} netns {}\n\
             link set {wire_end} addrgenmode none\n\
             link set {wire_end} up\n",
            mac_text(mac),
            namespace.path()
        );
    }
    commands
}

fn endpoint_commands(us: IpAddr, them: IpAddr, their_mac: [u8; 6], family: Family) -> String {
    let (prefix, nodad) = match family {
        Family::Ipv4 => (24, ""),
        // Duplicate address detection would hold the address back for a second.
        Family::Ipv6 => (64, " nodad"),
    };
    let mac = mac_text(their_mac);
    // The default route makes the forger's foreign addresses plausible to a strict reverse-path filter.
    format!(
        "link set lo up\n\
         link set {ENDPOINT_LINK} addrgenmode none\n\
         link set {ENDPOINT_LINK} up\n\
         addr add {us}/{prefix} dev {ENDPOINT_LINK}{nodad}\n\
         neigh add {them} lladdr {mac} dev {ENDPOINT_LINK} nud permanent\n\
         route add default via {them} dev {ENDPOINT_LINK}\n"
    )
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Where `ip` and `tc` are found: Debian keeps them in /sbin, which is not on an ordinary user's path.
pub(crate) fn administrators_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// Runs one `ip -batch` in the calling thread's namespace.
fn ip_batch(place: &'static str, commands: &str) -> Result<(), NamespaceError> {
    let mut ip = Command::new("ip")
        .env("PATH", administrators_path())
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NamespaceError::NoIpCommand)?;
    if let Some(mut stdin) = ip.stdin.take() {
        // A write error means `ip` ended early; its stderr below says why.
        if let Err(error) = stdin.write_all(commands.as_bytes()) {
            log::debug!("ip closed its input early: {error}");
        }
    }
    let output = ip.wait_with_output().map_err(NamespaceError::NoIpCommand)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', "; ");
    Err(NamespaceError::Ip { place, message })
}
