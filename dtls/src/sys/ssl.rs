//! OpenSSL's DTLS calls: `DTLSv1_listen`, the retransmission timer, sizes and names.
//!
//! Runs on the thread that owns the `SSL`.

use std::ffi::{CStr, c_int, c_uint};
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslCipherRef, SslContextBuilder, SslRef, SslSessionRef, SslStream};
use openssl::x509::X509CrlRef;
use openssl::x509::store::X509StoreBuilderRef;

use super::ffi;

/// What `DTLSv1_listen(3)` made of the datagram in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listened {
    /// A ClientHello with a good cookie; the `SSL` is ready for `SSL_accept`.
    Verified,
    /// Answered with a HelloVerifyRequest, or rejected; the `SSL` is ready for the next datagram.
    NotYet,
}

/// A `BIO_ADDR` for `DTLSv1_listen`, which insists on one although the slot knows the peer itself.
#[derive(Debug)]
pub(crate) struct BioAddr(ptr::NonNull<ffi::BioAddr>);

impl BioAddr {
    /// Allocates one.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new() -> Result<Self, ErrorStack> {
        // SAFETY: takes no arguments; a null return is handled below.
        let address = unsafe { ffi::BIO_ADDR_new() };
        ptr::NonNull::new(address)
            .map(Self)
            .ok_or_else(ErrorStack::get)
    }
}

impl Drop for BioAddr {
    fn drop(&mut self) {
        // SAFETY: made by BIO_ADDR_new in `new`, owned by this value alone, freed once.
        unsafe { ffi::BIO_ADDR_free(self.0.as_ptr()) }
    }
}

// SAFETY: a BIO_ADDR is plain memory without ties to the thread that allocated it.
unsafe impl Send for BioAddr {}

/// The `SSL` of a stream, for calls that change it; `SslStream` itself lends it only shared.
pub(crate) fn ssl_mut<S>(stream: &mut SslStream<S>) -> &mut SslRef {
    let ssl = stream.ssl().as_ptr();
    // SAFETY: the stream owns the SSL and is borrowed exclusively for as long as the result lives.
    unsafe { SslRef::from_ptr_mut(ssl) }
}

/// Feeds the datagram in the stream's slot to `DTLSv1_listen(3)` and empties the error queue.
///
/// A negative return (an unreadable datagram) is [`Listened::NotYet`]: the `SSL` stays usable.
pub(crate) fn listen(ssl: &mut SslRef, address: &mut BioAddr) -> Listened {
    // SAFETY: `ssl` is live and exclusively borrowed, `address` is a live BIO_ADDR; OpenSSL writes
    // only into these two.
    let returned = unsafe { ffi::DTLSv1_listen(ssl.as_ptr(), address.0.as_ptr()) };
    clear_errors();
    if returned == 1 {
        Listened::Verified
    } else {
        Listened::NotYet
    }
}

/// Time left until OpenSSL wants [`handle_timeout`], or `None` while no timer runs
/// (`DTLSv1_get_timeout(3)`). Less than 15 ms is reported as zero.
pub(crate) fn get_timeout(ssl: &SslRef) -> Option<Duration> {
    let mut left = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let argument: ffi::Parg = ptr::from_mut(&mut left).cast();
    // SAFETY: DTLS_CTRL_GET_TIMEOUT writes one timeval through the pointer, which is valid.
    let running =
        unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), ffi::DTLS_CTRL_GET_TIMEOUT, 0, argument) };
    (running == 1).then(|| {
        let seconds = u64::try_from(left.tv_sec).unwrap_or(0);
        let micros = u64::try_from(left.tv_usec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    })
}

/// When flights are sent again: after `initial`, then after twice the last time, but never more
/// than `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetransmissionTimer {
    pub(crate) initial: Duration,
    pub(crate) longest: Duration,
}

impl RetransmissionTimer {
    /// The time that follows `last`; zero asks for the first.
    pub(crate) fn after(self, last: Duration) -> Duration {
        if last.is_zero() {
            self.initial
        } else {
            (2 * last).min(self.longest)
        }
    }
}

/// Replaces OpenSSL's schedule of retransmissions (`DTLS_set_timer_cb(3)`).
///
/// # Errors
/// Out of memory.
pub(crate) fn set_timer(ssl: &mut SslRef, timer: RetransmissionTimer) -> Result<(), ErrorStack> {
    ssl.set_ex_data(timer_index()?, timer);
    // SAFETY: the callback is a plain function and lives for ever; what it reads was stored above.
    unsafe { ffi::DTLS_set_timer_cb(ssl.as_ptr(), next_timer) };
    Ok(())
}

fn timer_index() -> Result<Index<Ssl, RetransmissionTimer>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, RetransmissionTimer>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

/// OpenSSL's question for the next timer. Does not unwind: it neither indexes nor unwraps.
unsafe extern "C" fn next_timer(ssl: *mut openssl_sys::SSL, last_us: c_uint) -> c_uint {
    // SAFETY: OpenSSL passes the SSL whose timer it sets, which is live and used by this thread.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    let timer = timer_index().ok().and_then(|index| ssl.ex_data(index));
    let last = Duration::from_micros(last_us.into());
    let next = timer.map_or(Duration::from_secs(1), |timer| timer.after(last));
    c_uint::try_from(next.as_micros()).unwrap_or(c_uint::MAX)
}

/// What `DTLSv1_handle_timeout(3)` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The timer had not expired yet.
    NotYet,
    /// The last flight was written again.
    Resent,
    /// OpenSSL gave up: too many expiries.
    GaveUp,
}

/// Retransmits the last flight if its timer has expired and doubles the timer.
pub(crate) fn handle_timeout(ssl: &mut SslRef) -> Expired {
    clear_errors();
    // SAFETY: DTLS_CTRL_HANDLE_TIMEOUT takes no pointer; `ssl` is live and exclusively borrowed.
    let returned = unsafe {
        openssl_sys::SSL_ctrl(
            ssl.as_ptr(),
            ffi::DTLS_CTRL_HANDLE_TIMEOUT,
            0,
            ptr::null_mut(),
        )
    };
    match returned {
        0 => Expired::NotYet,
        1.. => Expired::Resent,
        _ => Expired::GaveUp,
    }
}

/// Bytes of application data that fit into one datagram of the current MTU (`DTLS_get_data_mtu(3)`);
/// zero before a cipher is in use.
pub(crate) fn data_mtu(ssl: &SslRef) -> usize {
    // SAFETY: reads fields of a live SSL.
    unsafe { ffi::DTLS_get_data_mtu(ssl.as_ptr()) }
}

/// Whether OpenSSL still holds unprocessed records (`SSL_has_pending(3)`).
pub(crate) fn has_pending(ssl: &SslRef) -> bool {
    // SAFETY: reads fields of a live SSL.
    unsafe { ffi::SSL_has_pending(ssl.as_ptr()) == 1 }
}

/// The cipher that the running handshake has agreed on (`SSL_get_pending_cipher(3)`).
pub(crate) fn pending_cipher(ssl: &SslRef) -> Option<&SslCipherRef> {
    // SAFETY: reads a field of a live SSL.
    let cipher = unsafe { ffi::SSL_get_pending_cipher(ssl.as_ptr()) };
    if cipher.is_null() {
        return None;
    }
    // SAFETY: ciphers live in OpenSSL's static table, longer than any SSL.
    Some(unsafe { SslCipherRef::from_ptr(cipher.cast_mut()) })
}

/// OpenSSL's short name of the key-exchange group in use, such as `X25519`.
pub(crate) fn negotiated_group(ssl: &SslRef) -> Option<&'static str> {
    let argument: ffi::Parg = ptr::null_mut();
    // SAFETY: SSL_CTRL_GET_NEGOTIATED_GROUP ignores the pointer and returns a NID.
    let nid = unsafe {
        openssl_sys::SSL_ctrl(
            ssl.as_ptr(),
            ffi::SSL_CTRL_GET_NEGOTIATED_GROUP,
            0,
            argument,
        )
    };
    let nid = c_int::try_from(nid).ok().filter(|&nid| nid > 0)?;
    // SAFETY: a table look-up; unknown numbers give null, which is handled below.
    let name = unsafe { ffi::OBJ_nid2sn(nid) };
    if name.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated string of OpenSSL's static object table.
    unsafe { CStr::from_ptr(name) }.to_str().ok()
}

/// The name of an alert description (RFC 5246 §7.2), such as `bad certificate`.
pub(crate) fn alert_name(description: u8) -> &'static str {
    // SAFETY: a table look-up over an int.
    let name = unsafe { ffi::SSL_alert_desc_string_long(c_int::from(description)) };
    if name.is_null() {
        return "unknown";
    }
    // SAFETY: a static NUL-terminated string.
    unsafe { CStr::from_ptr(name) }
        .to_str()
        .unwrap_or("unknown")
}

/// Limits the bytes of a peer's certificate chain, and with it what a forged message header can
/// make OpenSSL allocate (`SSL_CTX_set_max_cert_list(3)`).
pub(crate) fn set_max_cert_list(context: &mut SslContextBuilder, bytes: u32) {
    // SAFETY: the control takes a number and no pointer; the context is live.
    unsafe {
        openssl_sys::SSL_CTX_ctrl(
            context.as_ptr(),
            ffi::SSL_CTRL_SET_MAX_CERT_LIST,
            bytes.into(),
            ptr::null_mut(),
        )
    };
}

/// Offers a session for resumption (`SSL_set_session(3)`).
///
/// # Errors
/// OpenSSL refuses the session.
pub(crate) fn set_session(ssl: &mut SslRef, session: &SslSessionRef) -> Result<(), ErrorStack> {
    // SAFETY: the crate marks it unsafe because a session of another context could outlive what it
    // refers to; OpenSSL takes its own reference, and compares the session id context on use.
    unsafe { ssl.set_session(session) }
}

/// Takes the certificates and keys of the context off this connection (`SSL_certs_clear(3)`).
pub(crate) fn certs_clear(ssl: &mut SslRef) {
    // SAFETY: frees what the live, exclusively borrowed SSL owns; the context keeps its own.
    unsafe { ffi::SSL_certs_clear(ssl.as_ptr()) }
}

/// Says which sessions this connection may resume (`SSL_set_session_id_context(3)`).
///
/// # Errors
/// Never with at most 32 bytes.
pub(crate) fn set_session_id_context(
    ssl: &mut SslRef,
    context: &[u8; 32],
) -> Result<(), ErrorStack> {
    // SAFETY: OpenSSL copies 32 bytes of a live array into the live, exclusively borrowed SSL.
    let returned = unsafe { ffi::SSL_set_session_id_context(ssl.as_ptr(), context.as_ptr(), 32) };
    done(returned)
}

/// The server_name extension of the ClientHello being processed, as it came
/// (`SSL_client_hello_get0_ext(3)`); only inside the ClientHello callback.
pub(crate) fn client_hello_server_name(ssl: &mut SslRef) -> Option<&[u8]> {
    let mut start = ptr::null();
    let mut length = 0;
    // SAFETY: outside the callback OpenSSL returns 0; inside, it sets both to a part of the hello.
    let found = unsafe {
        openssl_sys::SSL_client_hello_get0_ext(
            ssl.as_ptr(),
            ffi::TLSEXT_TYPE_SERVER_NAME,
            &raw mut start,
            &raw mut length,
        )
    };
    if found != 1 || start.is_null() {
        return None;
    }
    // SAFETY: OpenSSL vouches for `length` bytes at `start`, which live as long as the hello: at
    // least until the callback returns, and the result cannot outlive the callback's borrow.
    Some(unsafe { std::slice::from_raw_parts(start, length) })
}

/// Whether the master secret is bound to the handshake (`SSL_get_extms_support(3)`, RFC 7627).
pub(crate) fn has_extended_master_secret(ssl: &SslRef) -> bool {
    // SAFETY: a control without a pointer that reads the session of a live SSL.
    unsafe { openssl_sys::SSL_get_extms_support(ssl.as_ptr()) == 1 }
}

/// Sets what a server tells clients before they choose an identity
/// (`SSL_CTX_use_psk_identity_hint(3)`).
///
/// # Errors
/// The hint is longer than OpenSSL takes.
pub(crate) fn use_psk_identity_hint(
    context: &mut SslContextBuilder,
    hint: &CStr,
) -> Result<(), ErrorStack> {
    // SAFETY: OpenSSL copies the NUL-terminated string; the context is exclusively borrowed.
    let returned = unsafe { ffi::SSL_CTX_use_psk_identity_hint(context.as_ptr(), hint.as_ptr()) };
    done(returned)
}

/// Adds a revocation list to a store (`X509_STORE_add_crl(3)`).
///
/// # Errors
/// Out of memory.
pub(crate) fn add_crl(store: &mut X509StoreBuilderRef, crl: &X509CrlRef) -> Result<(), ErrorStack> {
    // SAFETY: both are live; the store takes a reference of its own to the list.
    let returned = unsafe { ffi::X509_STORE_add_crl(store.as_ptr(), crl.as_ptr()) };
    done(returned)
}

fn done(returned: c_int) -> Result<(), ErrorStack> {
    if returned == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// Empties the calling thread's error queue. `SSL_read` and `SSL_write` do not, and a stale entry
/// turns "want read" into what looks like a fatal error.
pub(crate) fn clear_errors() {
    // SAFETY: works on the calling thread's own queue.
    unsafe { openssl_sys::ERR_clear_error() }
}

/// Gives OpenSSL's per-thread state of the calling thread back (13 KiB in 3.6); it is made anew on
/// need (`OPENSSL_thread_stop(3)`).
pub(crate) fn thread_stop() {
    // SAFETY: frees the calling thread's own state; no reference into it is held by safe code.
    unsafe { ffi::OPENSSL_thread_stop() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retransmission_timer_doubles_up_to_the_longest() {
        let seconds = Duration::from_secs;
        let timer = RetransmissionTimer {
            initial: seconds(1),
            longest: seconds(60),
        };
        let mut last = Duration::ZERO;
        let schedule: Vec<u64> = std::iter::repeat_with(|| {
            last = timer.after(last);
            last.as_secs()
        })
        .take(8)
        .collect();
        assert_eq!(schedule, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
