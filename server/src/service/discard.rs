//! Discard: every datagram is read and forgotten (RFC 863). Worker thread.

use dtls::DtlsStream;

use super::{Ending, ServiceError, for_each_datagram};

/// Reads and forgets.
///
/// # Errors
/// The connection ended out of order.
pub(super) fn serve(stream: &mut DtlsStream) -> Result<Ending, ServiceError> {
    for_each_datagram(stream, |_, _| Ok(()))
}
