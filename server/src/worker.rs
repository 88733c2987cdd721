//! One connection from the hand-off to its end. Worker thread.
//!
//! Path: `Incoming` → handshake → [`Service::serve`] → close.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dtls::{DtlsStream, HandshakeError, HandshakeInfo, Incoming, StreamHandle};
use log::Level;

use crate::pool::Enlisted;
use crate::service::Service;
use crate::stats::Stats;

/// What all workers of a listener have in common.
#[derive(Debug)]
pub(crate) struct Context {
    /// The listener's address.
    pub(crate) listener: SocketAddr,
    pub(crate) service: Service,
    pub(crate) stats: Arc<Stats>,
}

/// The next connection's number, over all listeners.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Serves one connection. `enlist` makes it stoppable.
pub(crate) fn serve<'a>(
    incoming: Incoming,
    context: &Context,
    enlist: impl FnOnce(StreamHandle) -> Enlisted<'a>,
) {
    let mut about = About {
        connection: NEXT.fetch_add(1, Ordering::Relaxed),
        peer: incoming.peer_addr(),
        listener: context.listener,
    };
    let _enlisted = enlist(incoming.handle());
    let handshaking = context.stats.handshake();
    let accepted = incoming.accept();
    drop(handshaking);
    match accepted {
        Ok(mut stream) => {
            // To a service, a client that starts over is a connection that ends and another one.
            loop {
                context.stats.handshake_done(&stream);
                about.tell_connected(&stream);
                match context.service.serve(&mut stream) {
                    Ok(ending) => about.tell(&ending),
                    Err(error) => about.tell(&format_args!("failed to {error}")),
                }
                if !stream.accept_reconnect() {
                    break;
                }
                about.connection = NEXT.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(HandshakeError::Stopped) => about.tell(&"stopped in its handshake"),
        Err(error) => about.tell(&format_args!("failed to {error}")),
    }
}

/// Which connection a line of the log is about.
struct About {
    connection: u64,
    peer: SocketAddr,
    listener: SocketAddr,
}

impl About {
    /// What became of it.
    fn tell(&self, what: &dyn Display) {
        log::debug!(
            connection = self.connection,
            peer:% = self.peer,
            listener:% = self.listener;
            "{what}"
        );
    }

    /// What the handshake agreed on.
    fn tell_connected(&self, stream: &DtlsStream) {
        if !log::log_enabled!(Level::Info) {
            return;
        }
        let info = stream.info();
        let client = info.peer_chain.first().map(|leaf| leaf.subject.as_str());
        log::info!(
            connection = self.connection,
            peer:% = self.peer,
            listener:% = self.listener,
            version = info.version,
            cipher = info.cipher,
            group = info.group.unwrap_or("-"),
            resumed = info.resumed,
            handshake_seconds = info.time.as_secs_f64(),
            retransmissions = info.retransmissions,
            client = client.unwrap_or("-"),
            server_name = info.server_name.as_deref().unwrap_or("-");
            "connected, {}", describe(&info)
        );
    }
}

/// What the handshake agreed on, in a few words.
fn describe(info: &HandshakeInfo) -> String {
    let client = info
        .peer_chain
        .first()
        .map_or_else(String::new, |leaf| format!(", client {}", leaf.subject));
    format!(
        "{} {} {}, {} handshake in {:.1?}, {} retransmissions{client}",
        info.version,
        info.cipher,
        info.group.unwrap_or("-"),
        if info.resumed { "resumed" } else { "full" },
        info.time,
        info.retransmissions,
    )
}
