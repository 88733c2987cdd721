//! Declarations and constants that `openssl-sys` lacks. Nothing here runs.

use std::ffi::{c_char, c_int, c_uint, c_void};

use openssl_sys::{SSL, SSL_CIPHER};

// <openssl/ssl.h>
pub(super) const SSL_CTRL_SET_MAX_CERT_LIST: c_int = 51;
pub(super) const DTLS_CTRL_GET_TIMEOUT: c_int = 73;
pub(super) const DTLS_CTRL_HANDLE_TIMEOUT: c_int = 74;
pub(super) const SSL_CTRL_GET_NEGOTIATED_GROUP: c_int = 134;

/// Opaque; only its address is passed on.
#[repr(C)]
pub(super) struct BioAddr {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    /// `DTLSv1_listen(3)`. `peer` must not be null.
    pub(super) fn DTLSv1_listen(ssl: *mut SSL, peer: *mut BioAddr) -> c_int;
    /// `DTLS_set_timer_cb(3)`. The callback is asked for the next timer in microseconds, given the
    /// last one, or 0 for the first.
    pub(super) fn DTLS_set_timer_cb(ssl: *mut SSL, callback: TimerCallback);
    /// `DTLS_get_data_mtu(3)`.
    pub(super) fn DTLS_get_data_mtu(ssl: *const SSL) -> usize;
    /// `SSL_get_pending_cipher(3)`.
    pub(super) fn SSL_get_pending_cipher(ssl: *const SSL) -> *const SSL_CIPHER;
    /// `SSL_has_pending(3)`.
    pub(super) fn SSL_has_pending(ssl: *const SSL) -> c_int;
    /// `SSL_alert_desc_string_long(3)`; the string is static.
    pub(super) fn SSL_alert_desc_string_long(value: c_int) -> *const c_char;
    /// `BIO_ADDR_new(3)`.
    pub(super) fn BIO_ADDR_new() -> *mut BioAddr;
    /// `BIO_ADDR_free(3)`.
    pub(super) fn BIO_ADDR_free(address: *mut BioAddr);
    /// `OPENSSL_thread_stop(3)`.
    pub(super) fn OPENSSL_thread_stop();
    /// `OBJ_nid2sn(3)`; the string is static.
    pub(super) fn OBJ_nid2sn(nid: c_int) -> *const c_char;
}

/// `DTLS_timer_cb` of <openssl/ssl.h>.
pub(super) type TimerCallback = unsafe extern "C" fn(ssl: *mut SSL, last_us: c_uint) -> c_uint;

/// The type of the pointer argument of `SSL_ctrl(3)`.
pub(super) type Parg = *mut c_void;
