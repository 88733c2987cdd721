//! The hello extension by which both ends agree on heartbeats (RFC 6520 §2).
//!
//! The callbacks run inside OpenSSL's handshake on the connection's thread; they cannot unwind.

use std::sync::OnceLock;

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{ExtensionContext, Ssl, SslAlert, SslContextBuilder, SslRef};

/// The extension's number (RFC 6520 §6).
const HEARTBEAT: u16 = 15;

/// What the peer said about requests to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerMode {
    /// It answers them.
    AllowedToSend = 1,
    /// It must not be asked, but may ask.
    NotAllowedToSend = 2,
}

/// Makes a context offer heartbeats, or agree to them: the peer may ask us.
pub(crate) fn install(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    let index = index()?;
    context.add_custom_ext(
        HEARTBEAT,
        ExtensionContext::CLIENT_HELLO | ExtensionContext::TLS1_2_SERVER_HELLO,
        |_, _, _| Ok(Some([PeerMode::AllowedToSend as u8])),
        move |ssl, _, mode, _| {
            let mode = match mode {
                [1] => PeerMode::AllowedToSend,
                [2] => PeerMode::NotAllowedToSend,
                // RFC 6520 §2: an unknown mode must end the handshake.
                _ => return Err(SslAlert::ILLEGAL_PARAMETER),
            };
            ssl.set_ex_data(index, mode);
            Ok(())
        },
    )
}

/// What the peer said in its hello, if it knows heartbeats and we offered them.
pub(crate) fn peer_mode(ssl: &SslRef) -> Option<PeerMode> {
    ssl.ex_data(index().ok()?).copied()
}

fn index() -> Result<Index<Ssl, PeerMode>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, PeerMode>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}
