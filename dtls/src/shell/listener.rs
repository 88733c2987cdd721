//! The listener: a bound address from which verified peers come.
//!
//! One thread calls [`DtlsListener::accept`] in a loop and does nothing else. Where each connection
//! has a socket of its own, that thread is also the one that reads from the listening sockets. Where
//! connections share the listening socket, a thread of the listener's own reads, because all
//! connections depend on it: whether or not anyone accepts, and after closing until the last
//! connection has ended.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use crate::config::{ServerConfig, Transport};
use crate::error::{AcceptError, BindError};
use crate::stats::{Counter, Stats};

use super::reception::{Common, Reception};
use super::stream::Incoming;

/// Verified peers waiting to be accepted, where a thread of its own reads.
const WAITING: usize = 1024;

/// A bound address that accepts DTLS connections.
pub struct DtlsListener {
    common: Common,
    reader: Reader,
}

/// Who reads from the listening sockets.
enum Reader {
    /// The thread that accepts.
    Caller(Box<Reception>),
    /// A thread yet to be started, so that it inherits what the first thread to accept has made of
    /// itself: privileges, scheduling, a sandbox.
    Ready(Box<Reception>),
    /// A thread of its own.
    Thread(Receiver<io::Result<Box<Incoming>>>),
    /// A thread could not be started.
    Nobody,
}

impl fmt::Debug for DtlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsListener")
            .field("local", &self.common.local)
            .finish_non_exhaustive()
    }
}

/// Ends a listener, or changes it, from another thread.
#[derive(Clone)]
pub struct ListenerHandle(Common);

impl fmt::Debug for ListenerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ListenerHandle")
            .field(&self.0.local)
            .finish()
    }
}

impl ListenerHandle {
    /// Makes the present or next [`DtlsListener::accept`] fail with [`AcceptError::Closed`].
    /// Connections go on.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.stray_post.ring();
    }

    /// Makes new connections use `config`, those included with which a client starts over; live
    /// ones go on as they are. How sockets share the port, which transport they use, and
    /// the limits to strangers stay.
    ///
    /// Give it [the keys](crate::ServerConfigBuilder::keys_of) of the configuration before, or
    /// clients that are about to send their cookie have to ask again, and sessions end.
    pub fn replace_config(&self, config: ServerConfig) {
        self.0.successor.set(config);
    }
}

impl DtlsListener {
    /// Binds `address`. Port 0 takes any free port, see [`Self::local_addr`]. The wildcard address
    /// answers each peer from the address it sent to; `[::]` takes IPv4 too.
    ///
    /// # Errors
    /// The port is taken, not permitted, or the address is not this host's.
    pub fn bind(address: SocketAddr, config: ServerConfig) -> Result<Self, BindError> {
        let transport = config.transport();
        let reception = Box::new(Reception::bind(address, config)?);
        Ok(Self {
            common: reception.common().clone(),
            reader: match transport {
                Transport::Connected => Reader::Caller(reception),
                Transport::Shared => Reader::Ready(reception),
            },
        })
    }

    /// Asks `admit` before any hello is answered, with its sender's address and the number of
    /// connections alive: those of [`Self::connections`], so peers that wait to be accepted count.
    /// Where it says no, the hello is dropped and counted; the client will repeat it.
    pub fn set_admission(&mut self, admit: impl FnMut(SocketAddr, usize) -> bool + Send + 'static) {
        let admission = &self.common.admission;
        *admission.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(admit);
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.common.local
    }

    /// The counters of this listener and all its connections.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.common.stats)
    }

    /// A handle that closes or changes this listener from another thread.
    #[must_use]
    pub fn handle(&self) -> ListenerHandle {
        ListenerHandle(self.common.clone())
    }

    /// Connections of this listener that are alive: handshakes are included, and verified peers that
    /// wait to be accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.common.routes.len()
    }

    /// Waits for the next peer whose address is verified.
    ///
    /// # Errors
    /// The listener is closed, its socket broken, or there is no thread for
    /// [`Transport::Shared`]. Noise, ICMP and a failed hand-off are counted.
    pub fn accept(&mut self) -> Result<Incoming, AcceptError> {
        loop {
            let stats = &self.common.stats;
            if self.common.closed.load(Ordering::SeqCst) {
                self.forget_waiting();
                return Err(AcceptError::Closed);
            }
            match &mut self.reader {
                Reader::Caller(reception) => {
                    if let Some(incoming) = reception.step()? {
                        stats.count(Counter::ConnectionsAccepted);
                        return Ok(incoming);
                    }
                }
                Reader::Ready(_) => self.start_reader()?,
                Reader::Thread(verified) => {
                    match verified.recv() {
                        Ok(incoming) => {
                            let incoming = *incoming?;
                            stats.count(Counter::ConnectionsAccepted);
                            return Ok(incoming);
                        }
                        // The thread lets go when it sees that the listener is closed.
                        Err(_) if self.common.closed.load(Ordering::SeqCst) => {}
                        Err(_) => self.reader = Reader::Nobody,
                    }
                }
                Reader::Nobody => {
                    return Err(io::Error::other("the listener's thread has ended").into());
                }
            }
        }
    }

    /// Lets go of the verified peers that nobody will accept: the listener's thread waits for their
    /// connections to end. One that it is about to add finds the channel gone.
    fn forget_waiting(&mut self) {
        if let Reader::Thread(verified) = &self.reader {
            for incoming in verified.try_iter() {
                if incoming.is_ok() {
                    self.common.stats.count(Counter::HellosRefused);
                }
            }
            self.reader = Reader::Nobody;
        }
    }

    fn start_reader(&mut self) -> io::Result<()> {
        let reader = std::mem::replace(&mut self.reader, Reader::Nobody);
        if let Reader::Ready(reception) = reader {
            let (sender, verified) = crossbeam_channel::bounded(WAITING);
            thread::Builder::new()
                .name("receiver".to_owned())
                .spawn(move || read(*reception, sender))?;
            self.reader = Reader::Thread(verified);
        }
        Ok(())
    }
}

impl Drop for DtlsListener {
    /// A thread of its own must hear that nobody accepts any more.
    fn drop(&mut self) {
        self.handle().close();
    }
}

/// A listener's own thread: reads until the listener is closed and the last connection has ended.
fn read(mut reception: Reception, verified: Sender<io::Result<Box<Incoming>>>) {
    let mut verified = Some(verified);
    loop {
        if reception.is_closed() {
            verified = None;
            if reception.common().routes.len() == 0 {
                return;
            }
        }
        match (reception.step(), &verified) {
            (Ok(Some(incoming)), Some(verified)) => {
                if verified.try_send(Ok(Box::new(incoming))).is_err() {
                    // As many wait as may; the client's next hello asks again.
                    reception.common().stats.count(Counter::HandoffsFailed);
                }
            }
            (Ok(_), _) => {}
            (Err(error), verified) => {
                if let Some(verified) = verified {
                    // Full: who accepts finds the end of the channel instead.
                    drop(verified.try_send(Err(error)));
                }
                return;
            }
        }
    }
}
