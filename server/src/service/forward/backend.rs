//! Where the datagrams go: a name or an address, looked up at the start and again as connections
//! come. Main thread at the start, then worker threads and, while a name is looked up, one thread
//! for that.
//!
//! A look-up may hang for as long as the host's resolver pleases. So there is one at a time, on a
//! thread of its own; a new connection waits a moment for it and goes on with the last known
//! addresses otherwise.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dtls::{ByName, DtlsStream};
use nix::libc;

use crate::complaint::Complaint;
use crate::stats::{Counter, Stats};

use super::ports::Taken;

/// How long the answer of a look-up is used. The answer's own time to live is not told by
/// `getaddrinfo(3)`.
const REFRESH: Duration = Duration::from_secs(30);

/// How long new connections wait for a look-up, counted from its beginning.
const PATIENCE: Duration = Duration::from_secs(1);

type LookUp = Box<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// A backend's name and its addresses.
pub(crate) struct Backend {
    name: String,
    look_up: LookUp,
    /// An address needs no second look.
    literal: bool,
    state: Mutex<State>,
    /// Rung when a look-up has ended.
    answered: Condvar,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

struct State {
    addresses: Arc<[SocketAddr]>,
    asked: Instant,
    asking: bool,
}

/// Why there is no socket towards the backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Each UDP socket needs a local port.
    #[error(
        "no local port is left for a connection to the backend {backend}: {source}; widen \
         net.ipv4.ip_local_port_range, or lower --max-connections"
    )]
    PortsExhausted {
        /// As it was typed.
        backend: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Anything else.
    #[error("no socket towards the backend {backend} ({address}): {source}")]
    Socket {
        /// As it was typed.
        backend: String,
        /// The address tried last.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// A listener's backends: which one is a client's says the name that it asks for.
#[derive(Debug)]
pub(crate) struct Backends {
    by_name: ByName<Arc<Backend>>,
    /// Of all other clients.
    others: Arc<Backend>,
}

impl Backends {
    /// One for everybody.
    pub(crate) fn new(backend: Backend) -> Self {
        Self {
            by_name: ByName::default(),
            others: Arc::new(backend),
        }
    }

    /// One for those who ask for `name`.
    ///
    /// # Errors
    /// The name is none, or is there already.
    pub(crate) fn add(&mut self, name: &str, backend: Backend) -> Result<(), dtls::ConfigError> {
        self.by_name.insert(name, Arc::new(backend))
    }

    /// That of a client.
    pub(super) fn of(&self, stream: &DtlsStream) -> &Arc<Backend> {
        if self.by_name.is_empty() {
            return &self.others;
        }
        let name = stream.info().server_name;
        let own = name.and_then(|name| self.by_name.find(&name));
        own.unwrap_or(&self.others)
    }
}

impl fmt::Display for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.others.name())?;
        match self.by_name.len() {
            0 => Ok(()),
            names => write!(f, " and {names} by name"),
        }
    }
}

/// A socket that only the backend can send to.
#[derive(Debug)]
pub(super) struct Connected {
    /// Does not block.
    pub(super) socket: UdpSocket,
    _port: Taken,
}

impl Backend {
    /// Looks `name` up, which is `HOST:PORT`.
    ///
    /// # Errors
    /// It has no address.
    pub(crate) fn resolve(name: &str) -> io::Result<Self> {
        Self::with_look_up(name, Box::new(|name| Ok(name.to_socket_addrs()?.collect())))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the look-up waits in real time, and its answer ages in it"
    )]
    fn with_look_up(name: &str, look_up: LookUp) -> io::Result<Self> {
        let addresses = ask(&look_up, name)?;
        Ok(Self {
            name: name.to_owned(),
            look_up,
            literal: name.parse::<SocketAddr>().is_ok(),
            state: Mutex::new(State {
                addresses,
                asked: Instant::now(),
                asking: false,
            }),
            answered: Condvar::new(),
        })
    }

    /// As it was typed.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A socket connected to the first of the backend's addresses that this host has a route to.
    ///
    /// # Errors
    /// No socket, no port or no route is to be had.
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection begins: its worker looks how old the backend's addresses are"
    )]
    pub(super) fn connect(self: &Arc<Self>, stats: &Arc<Stats>) -> Result<Connected, ConnectError> {
        let addresses = self.addresses(Instant::now(), stats);
        let mut failed = None;
        for &address in addresses.iter() {
            match connected(address) {
                Ok(connected) => return Ok(connected),
                Err(source) => failed = Some((address, source)),
            }
        }
        let (address, source) = failed.expect("a backend has an address");
        let backend = self.name.clone();
        // connect(2) and bind(2): no free port is EAGAIN from the one and EADDRINUSE or
        // EADDRNOTAVAIL from the other.
        Err(match source.raw_os_error() {
            Some(libc::EAGAIN | libc::EADDRINUSE | libc::EADDRNOTAVAIL) => {
                ConnectError::PortsExhausted { backend, source }
            }
            _ => ConnectError::Socket {
                backend,
                address,
                source,
            },
        })
    }

    /// The addresses to use at `now`.
    fn addresses(self: &Arc<Self>, now: Instant, stats: &Arc<Stats>) -> Arc<[SocketAddr]> {
        let mut state = self.lock();
        if !self.literal && !state.asking && now.saturating_duration_since(state.asked) >= REFRESH {
            state.asked = now;
            let (backend, stats) = (Arc::clone(self), Arc::clone(stats));
            let asking = thread::Builder::new()
                .name("resolver".to_owned())
                .spawn(move || backend.ask_again(&stats));
            state.asking = asking.is_ok();
        }
        let left = (state.asked + PATIENCE).saturating_duration_since(now);
        let (state, _) = self
            .answered
            .wait_timeout_while(state, left, |state| state.asking)
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.addresses)
    }

    fn ask_again(&self, stats: &Stats) {
        static COMPLAINT: Complaint = Complaint::new();
        let answer = ask(&self.look_up, &self.name);
        let mut state = self.lock();
        match answer {
            Ok(addresses) => {
                if state.addresses != addresses {
                    log::info!("the backend {} is at {addresses:?} now", self.name);
                    state.addresses = addresses;
                }
            }
            Err(error) => {
                stats.count(Counter::BackendLookupsFailed);
                COMPLAINT.make(&format_args!(
                    "cannot look up the backend {}: {error}; its last known addresses are used",
                    self.name
                ));
            }
        }
        state.asking = false;
        drop(state);
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks a name up; no address at all is an error.
fn ask(look_up: &LookUp, name: &str) -> io::Result<Arc<[SocketAddr]>> {
    let addresses = look_up(name)?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses.into())
}

fn connected(backend: SocketAddr) -> io::Result<Connected> {
    let any: IpAddr = match backend {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(backend)?;
    socket.set_nonblocking(true)?;
    Ok(Connected {
        socket,
        _port: Taken::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_without_an_address_is_an_error() {
        let error = Backend::with_look_up("nowhere:1", Box::new(|_| Ok(Vec::new()))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn a_look_up_is_repeated_after_its_time_and_a_failed_one_changes_nothing() {
        let (answers, asked) = mpsc::channel::<io::Result<Vec<SocketAddr>>>();
        let asked = Mutex::new(asked);
        answers.send(Ok(vec![address("192.0.2.1:53")])).unwrap();
        let look_up: LookUp = Box::new(move |_| asked.lock().unwrap().recv().unwrap());
        let backend = Arc::new(Backend::with_look_up("dns.test:53", look_up).unwrap());
        let (start, stats) = (Instant::now(), Arc::new(Stats::default()));
        let seen = |after| backend.addresses(start + after, &stats)[0].to_string();

        // The channel is empty: a look-up now would hang.
        assert_eq!(seen(REFRESH / 2), "192.0.2.1:53");
        answers.send(Ok(vec![address("192.0.2.2:53")])).unwrap();
        assert_eq!(seen(REFRESH * 2), "192.0.2.2:53");
        answers.send(Err(io::ErrorKind::TimedOut.into())).unwrap();
        assert_eq!(seen(REFRESH * 4), "192.0.2.2:53");
        assert_eq!(stats.get(Counter::BackendLookupsFailed), 1);
        assert_eq!(seen(REFRESH * 4 + REFRESH / 2), "192.0.2.2:53");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn a_look_up_that_hangs_delays_new_connections_for_a_moment_only() {
        let (release, asked) = mpsc::channel::<()>();
        let (asked, first) = (Mutex::new(asked), Mutex::new(true));
        let look_up: LookUp = Box::new(move |_| {
            if !std::mem::take(&mut *first.lock().unwrap()) {
                // Ends with the test.
                assert!(asked.lock().unwrap().recv().is_err());
            }
            Ok(vec![address("192.0.2.1:53")])
        });
        let backend = Arc::new(Backend::with_look_up("dns.test:53", look_up).unwrap());
        let stats = Arc::new(Stats::default());
        let begun = Instant::now();
        let later = begun + REFRESH * 2;
        assert_eq!(backend.addresses(later, &stats).len(), 1);
        let waited = begun.elapsed();
        assert!(waited < PATIENCE * 10, "{waited:?}");
        // The second one asks no second time and waits no longer.
        assert_eq!(backend.addresses(later + PATIENCE, &stats).len(), 1);
        drop(release);
    }

    #[test]
    fn an_address_is_never_looked_up_again() {
        let backend = Backend::resolve("[::1]:9").unwrap();
        assert!(backend.literal);
    }
}
