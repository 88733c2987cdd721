//! The plain UDP service behind the server: it sends everything back. A thread of its own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{Failure, roomy};

/// A running service; ends when dropped.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Backend {
    pub(crate) fn start() -> Result<Self, Failure> {
        let socket = roomy(UdpSocket::bind("127.0.0.1:0")?)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let (counts, done) = (
            Arc::new(Counts::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, end) = (Arc::clone(&counts), Arc::clone(&done));
        let thread = std::thread::Builder::new()
            .name("backend".to_owned())
            .spawn(move || {
                let mut datagram = vec![0; 1 << 16];
                while !end.load(Ordering::Relaxed) {
                    // A time-out, or an ICMP error about a client's connection that has ended.
                    let Ok((length, from)) = socket.recv_from(&mut datagram) else {
                        continue;
                    };
                    counted.received.fetch_add(1, Ordering::Relaxed);
                    let answer = || socket.send_to(&datagram[..length], from);
                    if answer().or_else(|_| answer()).is_ok() {
                        counted.sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })?;
        Ok(Self {
            address,
            counts,
            done,
            thread: Some(thread),
        })
    }

    /// Datagrams so far.
    pub(crate) fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }

    /// Answers so far.
    pub(crate) fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}
