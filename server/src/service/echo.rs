//! Echo: every datagram comes back (RFC 862). Worker thread.

use dtls::DtlsStream;

use super::{Ending, ServiceError, for_each_datagram};

/// Sends every datagram back.
///
/// # Errors
/// The connection ended out of order.
pub(super) fn serve(stream: &mut DtlsStream) -> Result<Ending, ServiceError> {
    for_each_datagram(stream, |stream, datagram| stream.send(datagram))
}
