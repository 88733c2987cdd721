//! Declarations and constants that `openssl-sys` lacks. Nothing here runs.

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};

use openssl_sys::{
    EVP_CIPHER_CTX, EVP_MAC_CTX, OSSL_PARAM, SSL, SSL_CIPHER, SSL_CTX, X509_CRL, X509_STORE,
    X509_STORE_CTX,
};

// <openssl/ssl.h>
pub(super) const SSL_CTRL_SET_MAX_CERT_LIST: c_int = 51;
pub(super) const DTLS_CTRL_GET_TIMEOUT: c_int = 73;
pub(super) const DTLS_CTRL_HANDLE_TIMEOUT: c_int = 74;
pub(super) const SSL_CTRL_GET_NEGOTIATED_GROUP: c_int = 134;
pub(super) const SSL_SECOP_OTHER_TYPE: c_int = -0x1_0000;
pub(super) const SSL_SECOP_OTHER_CIPHER: c_int = 1 << 16;

// <openssl/tls1.h>
pub(super) const TLSEXT_TYPE_SERVER_NAME: c_uint = 0;

// <openssl/x509_vfy.h>
pub(super) const X509_V_ERR_CERT_REJECTED: c_int = 28;

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
    /// `SSL_certs_clear(3)`.
    pub(super) fn SSL_certs_clear(ssl: *mut SSL);
    /// `SSL_set_session_id_context(3)`; at most 32 bytes, copied.
    pub(super) fn SSL_set_session_id_context(
        ssl: *mut SSL,
        context: *const c_uchar,
        length: c_uint,
    ) -> c_int;
    /// `SSL_CTX_use_psk_identity_hint(3)`; the string is copied.
    pub(super) fn SSL_CTX_use_psk_identity_hint(
        context: *mut SSL_CTX,
        hint: *const c_char,
    ) -> c_int;
    /// `X509_STORE_add_crl(3)`; takes a reference of its own.
    pub(super) fn X509_STORE_add_crl(store: *mut X509_STORE, crl: *mut X509_CRL) -> c_int;
    /// `SSL_CTX_set_cert_verify_callback(3)`.
    pub(super) fn SSL_CTX_set_cert_verify_callback(
        context: *mut SSL_CTX,
        callback: unsafe extern "C" fn(*mut X509_STORE_CTX, *mut c_void) -> c_int,
        argument: *mut c_void,
    );
    /// `SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`.
    pub(super) fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
        context: *mut SSL_CTX,
        callback: TicketKeyCallback,
    ) -> c_int;
    /// `SSL_CTX_get_security_callback(3)`.
    pub(super) fn SSL_CTX_get_security_callback(
        context: *const SSL_CTX,
    ) -> Option<SecurityCallback>;
    /// `SSL_CTX_set_security_callback(3)`.
    pub(super) fn SSL_CTX_set_security_callback(context: *mut SSL_CTX, callback: SecurityCallback);
    /// `OSSL_PARAM_construct_utf8_string(3)`; a length of 0 means NUL-terminated.
    pub(super) fn OSSL_PARAM_construct_utf8_string(
        key: *const c_char,
        string: *mut c_char,
        length: usize,
    ) -> OSSL_PARAM;
}

/// `DTLS_timer_cb` of <openssl/ssl.h>.
pub(super) type TimerCallback = unsafe extern "C" fn(ssl: *mut SSL, last_us: c_uint) -> c_uint;

/// `SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`: key name of 16 bytes, IV of 16 bytes.
pub(super) type TicketKeyCallback = unsafe extern "C" fn(
    *mut SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut EVP_CIPHER_CTX,
    *mut EVP_MAC_CTX,
    c_int,
) -> c_int;

/// `SSL_CTX_set_security_callback(3)`: operation, bits, NID, what is judged, ex data.
pub(super) type SecurityCallback = unsafe extern "C" fn(
    *const SSL,
    *const SSL_CTX,
    c_int,
    c_int,
    c_int,
    *mut c_void,
    *mut c_void,
) -> c_int;

/// The type of the pointer argument of `SSL_ctrl(3)`.
pub(super) type Parg = *mut c_void;
