//! One connection from the hand-off to its end. Worker thread.
//!
//! Path: `Incoming` → handshake → [`Service::serve`] → close.

use std::sync::Arc;

use dtls::{DtlsStream, HandshakeError, Incoming, StreamHandle};
use log::Level;

use crate::pool::Enlisted;
use crate::service::Service;
use crate::stats::Stats;

/// What all workers of a listener have in common.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) service: Service,
    pub(crate) stats: Arc<Stats>,
}

/// Serves one connection. `enlist` makes it stoppable.
pub(crate) fn serve<'a>(
    incoming: Incoming,
    context: &Context,
    enlist: impl FnOnce(StreamHandle) -> Enlisted<'a>,
) {
    let peer = incoming.peer_addr();
    let _enlisted = enlist(incoming.handle());
    match incoming.accept() {
        Ok(mut stream) => {
            // To a service, a client that starts over is a connection that ends and another one.
            loop {
                if log::log_enabled!(Level::Info) {
                    log::info!("{peer}: connected, {}", describe(&stream));
                }
                match context.service.serve(&mut stream) {
                    Ok(ending) => log::debug!("{peer}: {ending}"),
                    Err(error) => log::debug!("{peer}: failed to {error}"),
                }
                if !stream.accept_reconnect() {
                    break;
                }
            }
        }
        Err(HandshakeError::Stopped) => log::debug!("{peer}: stopped in its handshake"),
        Err(error) => log::debug!("{peer}: failed to {error}"),
    }
}

/// What the handshake agreed on, on one line.
fn describe(stream: &DtlsStream) -> String {
    let info = stream.info();
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
