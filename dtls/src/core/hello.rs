//! The stateless question: `DTLSv1_listen` fed from memory.
//!
//! One `SSL` serves any number of unverified peers; it keeps nothing about them. A ClientHello
//! without a good cookie is answered with a HelloVerifyRequest; one with a good cookie uses the
//! `SSL` up and turns it into a [`Connection`]. Runs on the listener's thread.

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
use super::record::{client_hello_random, client_hello_sequence, split_record};
use super::slot::Slot;

/// Who sent the hello that OpenSSL asks a cookie for. It travels in the `SSL`, because OpenSSL asks
/// again in `SSL_accept`, on another thread and later: the time is the hello's, so that a cookie
/// found good cannot expire in between.
#[derive(Debug, Clone, Copy)]
struct Asker {
    peer: SocketAddr,
    local: SocketAddr,
    now: UnixSeconds,
    /// Whether this time may make the jar rotate its keys.
    rotates: bool,
}

/// What became of a datagram from a peer without a connection.
#[derive(Debug)]
pub enum HelloOutcome {
    /// Send this HelloVerifyRequest back; no state was kept.
    Answer(Vec<u8>),
    /// The cookie is good: a new connection, which has not answered yet.
    Verified(Box<Connection>),
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
    /// connection's handshake timeout. The connection watches for a client that starts over.
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
        let asker = Asker {
            peer,
            local,
            now: unix_now,
            rotates: true,
        };
        let mut outcome = self.examine(datagram, asker, now)?;
        if let HelloOutcome::Verified(connection) = &mut outcome
            && let Some(hello) = client_hello_random(datagram)
        {
            connection.watch_for_reconnect(Box::new(Reconnect::new(
                Arc::clone(&self.config),
                Arc::clone(&self.stats),
                peer,
                local,
                hello,
                (unix_now, now),
            )));
        }
        Ok(outcome)
    }

    /// The same for a hello on a live connection: the new one does not watch, and the time, which
    /// is not the wall clock's, rotates no keys.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub(crate) fn receive_again(
        &mut self,
        datagram: &[u8],
        peer: SocketAddr,
        local: SocketAddr,
        unix_now: UnixSeconds,
        now: Instant,
    ) -> Result<HelloOutcome, ErrorStack> {
        let asker = Asker {
            peer,
            local,
            now: unix_now,
            rotates: false,
        };
        self.examine(datagram, asker, now)
    }

    fn examine(
        &mut self,
        datagram: &[u8],
        asker: Asker,
        now: Instant,
    ) -> Result<HelloOutcome, ErrorStack> {
        let hello = client_hello_sequence(datagram).zip(split_record(datagram));
        let Some((sequence, (record, rest))) = hello else {
            self.stats.count(Counter::UnknownPeer);
            return Ok(HelloOutcome::Noise);
        };
        let slot = self.stream.get_mut();
        slot.inbound().clear();
        // The hello alone: records behind it have to pass the filter.
        slot.inbound().extend_from_slice(record.bytes);
        slot.arm();
        let ssl = sys::ssl::ssl_mut(&mut self.stream);
        ssl.set_ex_data(asker_index()?, asker);
        match sys::ssl::listen(ssl, &mut self.address) {
            sys::ssl::Listened::Verified => {
                let next = new_stream(&self.config)?;
                let mut stream = std::mem::replace(&mut self.stream, next);
                let ssl = sys::ssl::ssl_mut(&mut stream);
                let peer = asker.peer;
                verify::introduce(ssl, self.config.id(), None, peer)?;
                let settings = self.config.settings();
                let mut connection =
                    Connection::accepted(stream, sequence, peer, settings, &self.stats, now)?;
                if !rest.is_empty() {
                    connection.receive(rest, now);
                }
                Ok(HelloOutcome::Verified(Box::new(connection)))
            }
            sys::ssl::Listened::NotYet => match self.stream.get_mut().pop() {
                Some(answer) => {
                    self.stats.count(Counter::HelloVerifyRequests);
                    Ok(HelloOutcome::Answer(answer))
                }
                None => {
                    self.stats.count(Counter::HellosRejected);
                    Ok(HelloOutcome::Noise)
                }
            },
        }
    }
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
        jar.issue(asker.peer, asker.local, asker.now, asker.rotates, cookie)
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
