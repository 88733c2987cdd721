//! The stateless question: `DTLSv1_listen` fed from memory.
//!
//! One `SSL` serves any number of unverified peers; it keeps nothing about them. A ClientHello
//! without a good cookie is answered with a HelloVerifyRequest; one with a good cookie becomes a
//! [`Connection`] with an `SSL` of its own. Runs on the listener's thread, [`VerifiedHello::accept`]
//! on the connection's.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslContextBuilder, SslStream};

use crate::config::ServerConfig;
use crate::stats::{Counter, Stats};
use crate::{sys, verify};

use super::connection::Connection;
use super::cookie::{CookieJar, UnixSeconds};
use super::reconnect::Reconnect;
use super::record::{client_hello_id, client_hello_sequence, split_record};
use super::slot::Slot;

/// Who sent the hello that OpenSSL asks a cookie for. It travels in the `SSL`, because OpenSSL asks
/// again in `SSL_accept`, on another thread and later: the time is the hello's, so that a cookie
/// found good cannot expire in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) now: UnixSeconds,
    /// Whether it has a live connection. Then the time is not the wall clock's and rotates no keys,
    /// and the new connection watches for nothing.
    pub(crate) live: bool,
}

/// What became of a datagram from a peer without a connection.
#[derive(Debug)]
pub enum HelloOutcome {
    /// Send this HelloVerifyRequest back; no state was kept.
    Answer(Vec<u8>),
    /// The cookie is good: [`VerifiedHello::accept`] makes the connection.
    Verified(VerifiedHello),
    /// Dropped and counted.
    Noise,
}

/// Answers first hellos and recognises verified ones.
#[derive(Debug)]
pub struct HelloVerifier {
    config: Arc<ServerConfig>,
    stats: Arc<Stats>,
    stream: SslStream<Slot>,
    address: sys::ssl::BioAddr,
}

impl HelloVerifier {
    /// A verifier with an `SSL` ready for the first hello.
    ///
    /// # Errors
    /// OpenSSL is out of memory.
    pub fn new(config: Arc<ServerConfig>, stats: Arc<Stats>) -> Result<Self, ErrorStack> {
        let stream = new_stream(&config)?;
        Ok(Self {
            config,
            stats,
            stream,
            address: sys::ssl::BioAddr::new()?,
        })
    }

    /// Takes a datagram that `peer` sent to `local`. `unix_now` goes into cookies, `now` starts the
    /// connection's handshake timeout.
    ///
    /// # Errors
    /// OpenSSL is out of memory; the verifier stays usable.
    pub fn receive(
        &mut self,
        datagram: &[u8],
        peer: SocketAddr,
        local: SocketAddr,
        unix_now: UnixSeconds,
        now: Instant,
    ) -> Result<HelloOutcome, ErrorStack> {
        let outcome = self.receive_uncounted(datagram, peer, local, unix_now, now)?;
        if matches!(outcome, HelloOutcome::Answer(_)) {
            self.stats.count(Counter::HelloVerifyRequests);
        }
        Ok(outcome)
    }

    /// As [`Self::receive`], for who may keep the answer to himself: he counts what he sends.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub(crate) fn receive_uncounted(
        &mut self,
        datagram: &[u8],
        peer: SocketAddr,
        local: SocketAddr,
        unix_now: UnixSeconds,
        now: Instant,
    ) -> Result<HelloOutcome, ErrorStack> {
        let latest = self.config.latest();
        if !Arc::ptr_eq(&latest, &self.config) {
            self.stream = new_stream(&latest)?;
            self.config = latest;
        }
        let listener = Asker {
            peer,
            local,
            now: unix_now,
            live: false,
        };
        self.examine(datagram, listener, now)
    }

    /// Takes a datagram on behalf of `asker`; who sends the answer counts it.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub(crate) fn examine(
        &mut self,
        datagram: &[u8],
        asker: Asker,
        now: Instant,
    ) -> Result<HelloOutcome, ErrorStack> {
        let Some(record) = hello_record(datagram) else {
            self.stats.count(Counter::UnknownPeer);
            return Ok(HelloOutcome::Noise);
        };
        match listen(&mut self.stream, &mut self.address, record, asker)? {
            sys::ssl::Listened::Verified => Ok(HelloOutcome::Verified(VerifiedHello {
                config: Arc::clone(&self.config),
                stats: Arc::clone(&self.stats),
                datagram: datagram.to_vec(),
                asker,
                now,
            })),
            sys::ssl::Listened::NotYet => match self.stream.get_mut().pop() {
                Some(answer) => Ok(HelloOutcome::Answer(answer)),
                None => {
                    self.stats.count(Counter::HellosRejected);
                    Ok(HelloOutcome::Noise)
                }
            },
        }
    }
}

/// A hello whose cookie is good: its sender receives at the address it claims.
#[derive(Debug)]
pub struct VerifiedHello {
    config: Arc<ServerConfig>,
    stats: Arc<Stats>,
    datagram: Vec<u8>,
    asker: Asker,
    now: Instant,
}

impl VerifiedHello {
    /// Makes the connection, which has not answered yet.
    ///
    /// Best on the thread that will run it: `DTLSv1_listen` takes the hello a second time there,
    /// which costs little beside an `SSL` whose memory one thread allocates and another frees.
    ///
    /// # Errors
    /// OpenSSL is out of memory.
    pub fn accept(self) -> Result<Box<Connection>, ErrorStack> {
        let id = client_hello_id(&self.datagram).ok_or_else(ErrorStack::get)?;
        let hello = client_hello_sequence(&self.datagram).zip(split_record(&self.datagram));
        let (sequence, (record, rest)) = hello.ok_or_else(ErrorStack::get)?;
        let mut stream = new_stream(&self.config)?;
        let mut address = sys::ssl::BioAddr::new()?;
        let listened = listen(&mut stream, &mut address, record.bytes, self.asker)?;
        if listened == sys::ssl::Listened::NotYet {
            return Err(ErrorStack::get());
        }
        let Asker { peer, local, .. } = self.asker;
        let ssl = sys::ssl::ssl_mut(&mut stream);
        verify::introduce(ssl, self.config.id(), None, peer)?;
        let settings = self.config.settings();
        let mut connection =
            Connection::accepted(stream, sequence, peer, settings, &self.stats, self.now)?;
        connection.hello = Some(id);
        if !rest.is_empty() {
            connection.receive(rest, self.now);
        }
        if !self.asker.live {
            connection.watch_for_reconnect(Box::new(Reconnect::new(
                self.config,
                self.stats,
                peer,
                local,
                id.random,
                (self.asker.now, self.now),
            )));
        }
        Ok(Box::new(connection))
    }
}

/// The record of a ClientHello that a datagram starts with. Records behind it have to pass the
/// filter.
fn hello_record(datagram: &[u8]) -> Option<&[u8]> {
    client_hello_sequence(datagram)?;
    Some(split_record(datagram)?.0.bytes)
}

/// Feeds a hello to `DTLSv1_listen`.
fn listen(
    stream: &mut SslStream<Slot>,
    address: &mut sys::ssl::BioAddr,
    record: &[u8],
    asker: Asker,
) -> Result<sys::ssl::Listened, ErrorStack> {
    let slot = stream.get_mut();
    slot.inbound().clear();
    slot.inbound().extend_from_slice(record);
    slot.arm();
    let ssl = sys::ssl::ssl_mut(stream);
    ssl.set_ex_data(asker_index()?, asker);
    Ok(sys::ssl::listen(ssl, address))
}

fn new_stream(config: &ServerConfig) -> Result<SslStream<Slot>, ErrorStack> {
    let mut ssl = Ssl::new(config.context())?;
    ssl.set_accept_state();
    SslStream::new(ssl, Slot::default())
}

/// Makes a context ask the jar. The callbacks must not unwind into C, and have nothing to unwind
/// from: OpenSSL's cookie buffer is longer than any cookie.
pub(crate) fn install_cookie_callbacks(context: &mut SslContextBuilder, jar: Arc<CookieJar>) {
    let verifying = Arc::clone(&jar);
    context.set_cookie_generate_cb(move |ssl, cookie| {
        let asker = asker_index()
            .ok()
            .and_then(|index| ssl.ex_data(index).copied());
        let asker = asker.ok_or_else(ErrorStack::get)?;
        jar.issue(asker.peer, asker.local, asker.now, !asker.live, cookie)
    });
    context.set_cookie_verify_cb(move |ssl, cookie| {
        let asker = asker_index()
            .ok()
            .and_then(|index| ssl.ex_data(index).copied());
        asker.is_some_and(|asker| verifying.verify(asker.peer, asker.local, asker.now, cookie))
    });
}

fn asker_index() -> Result<Index<Ssl, Asker>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Asker>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}
