//! Callbacks that OpenSSL makes and `openssl` cannot set: the verdict on a certificate chain, the
//! keys of session tickets, the strength of a cipher.
//!
//! Each is a trampoline from C into one safe function of a trait. None can unwind into C: a panic
//! on the safe side is caught and counts as "no". They run on the thread of the connection that
//! OpenSSL is working on.

use std::ffi::{c_int, c_uchar, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::OnceLock;

use foreign_types::ForeignTypeRef;
use openssl::ssl::{SslCipherRef, SslContextBuilder, SslRef};
use openssl::x509::{X509StoreContextRef, X509VerifyResult};
use openssl_sys::{EVP_CIPHER_CTX, EVP_MAC_CTX, SSL, SSL_CIPHER, SSL_CTX, X509_STORE_CTX};
use zeroize::Zeroizing;

use super::ffi;

/// Calls `f`; a panic becomes `None`, since it must not cross C.
pub(crate) fn guard<T>(f: impl FnOnce() -> T) -> Option<T> {
    // What `f` may leave half done is only looked at by code that copes with poisoned locks.
    catch_unwind(AssertUnwindSafe(f)).ok()
}

/// Says whether a peer's certificate chain is good enough.
pub(crate) trait CertificateJudge {
    /// Has the last word; what it leaves as the store's error becomes the connection's verdict and
    /// chooses the alert.
    fn judge(store: &mut X509StoreContextRef) -> bool;
}

/// Asks `J` about every certificate chain (`SSL_CTX_set_cert_verify_callback(3)`), instead of
/// OpenSSL's own verification.
pub(crate) fn set_cert_judge<J: CertificateJudge>(context: &mut SslContextBuilder) {
    // SAFETY: the context is exclusively borrowed; the callback is a static function and ignores
    // its argument.
    unsafe {
        ffi::SSL_CTX_set_cert_verify_callback(context.as_ptr(), cert_verify::<J>, ptr::null_mut());
    }
}

unsafe extern "C" fn cert_verify<J: CertificateJudge>(
    store: *mut X509_STORE_CTX,
    _: *mut c_void,
) -> c_int {
    // SAFETY: OpenSSL passes the store context it has made for this one verification, live and
    // used by nobody else until the callback returns.
    let store = unsafe { X509StoreContextRef::from_ptr_mut(store) };
    let accepted = guard(|| J::judge(store)).unwrap_or_else(|| {
        // Whatever OpenSSL found: nothing may look like a good verdict now.
        store.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
        false
    });
    c_int::from(accepted)
}

/// The error of a certificate that somebody refuses although its chain is good; the alert will be
/// "bad certificate".
pub(crate) fn cert_rejected() -> X509VerifyResult {
    // SAFETY: the number only has to be one of OpenSSL's, and this one is in every version.
    unsafe { X509VerifyResult::from_raw(ffi::X509_V_ERR_CERT_REJECTED) }
}

/// One key of session tickets.
#[derive(Clone)]
pub(crate) struct TicketSecret {
    pub(crate) name: [u8; 16],
    pub(crate) hmac: Zeroizing<[u8; 32]>,
    pub(crate) aes: Zeroizing<[u8; 32]>,
}

/// What a ticket's key name led to.
pub(crate) enum TicketLookup {
    /// The ticket is good as it is.
    Current(TicketSecret),
    /// Good, and the client is given a new one.
    Renew(TicketSecret),
    /// Nobody's: a full handshake.
    Unknown,
}

/// Keeps the keys of session tickets.
pub(crate) trait TicketKeeper {
    /// The key for new tickets; without one, no ticket is given.
    fn current(ssl: &SslRef) -> Option<TicketSecret>;
    /// The key of this name.
    fn find(ssl: &SslRef, name: &[u8; 16]) -> TicketLookup;
}

/// Asks `K` for the keys of session tickets (`SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`).
pub(crate) fn set_ticket_keeper<K: TicketKeeper>(context: &mut SslContextBuilder) {
    // SAFETY: the context is exclusively borrowed; the callback is a static function.
    unsafe { ffi::SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), ticket_key::<K>) };
}

unsafe extern "C" fn ticket_key<K: TicketKeeper>(
    ssl: *mut SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut EVP_MAC_CTX,
    encrypting: c_int,
) -> c_int {
    const NO_TICKET: c_int = 0;
    const GOOD: c_int = 1;
    const GOOD_AND_RENEW: c_int = 2;
    // SAFETY: OpenSSL passes the connection it is working on; nobody else uses it meanwhile.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    let name = name.cast::<[u8; 16]>();
    let (secret, answer) = if encrypting == 1 {
        let Some(secret) = guard(|| K::current(ssl)).flatten() else {
            return NO_TICKET;
        };
        // SAFETY: OpenSSL passes room for a key name of 16 bytes; bytes have no alignment.
        unsafe { name.write(secret.name) };
        let mut fresh = [0; 16];
        if openssl::rand::rand_bytes(&mut fresh).is_err() {
            return NO_TICKET;
        }
        // SAFETY: OpenSSL passes room for EVP_MAX_IV_LENGTH, 16 bytes.
        unsafe { iv.cast::<[u8; 16]>().write(fresh) };
        (secret, GOOD)
    } else {
        // SAFETY: OpenSSL has checked that the ticket holds a key name and an IV.
        let name = unsafe { name.read() };
        match guard(|| K::find(ssl, &name)) {
            Some(TicketLookup::Current(secret)) => (secret, GOOD),
            Some(TicketLookup::Renew(secret)) => (secret, GOOD_AND_RENEW),
            Some(TicketLookup::Unknown) | None => return NO_TICKET,
        }
    };
    // SAFETY: a static table's entry.
    let aes_256_cbc = unsafe { openssl_sys::EVP_aes_256_cbc() };
    let init = if encrypting == 1 {
        openssl_sys::EVP_EncryptInit_ex
    } else {
        openssl_sys::EVP_DecryptInit_ex
    };
    // SAFETY: OpenSSL passes a live cipher context; key and IV are of the cipher's lengths and are
    // copied; no engine.
    let ready = unsafe {
        init(
            cipher,
            aes_256_cbc,
            ptr::null_mut(),
            secret.aes.as_ptr(),
            iv,
        )
    };
    if ready != 1 {
        return NO_TICKET;
    }
    // SAFETY: both strings are static and NUL-terminated; OpenSSL only reads the second.
    let digest = unsafe {
        ffi::OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), c"SHA256".as_ptr().cast_mut(), 0)
    };
    // SAFETY: returns a constant.
    let end = unsafe { openssl_sys::OSSL_PARAM_construct_end() };
    let parameters = [digest, end];
    // SAFETY: OpenSSL passes a live HMAC context; the key is copied; the array ends as it must.
    let ready = unsafe {
        openssl_sys::EVP_MAC_init(
            mac,
            secret.hmac.as_ptr(),
            secret.hmac.len(),
            parameters.as_ptr(),
        )
    };
    if ready == 1 { answer } else { NO_TICKET }
}

/// OpenSSL's own security callback, which is the same function for every context.
static DEFAULT_SECURITY: OnceLock<ffi::SecurityCallback> = OnceLock::new();

/// Lets the suites with CCM and short tags pass at security level 2. OpenSSL rates them 64 bits for their short tag
/// and offers them at level 0 only, where weak certificates, keys and digests would pass too.
pub(crate) fn permit_ccm8(context: &mut SslContextBuilder) {
    // SAFETY: reads a field of the live context.
    let default = unsafe { ffi::SSL_CTX_get_security_callback(context.as_ptr()) };
    let Some(default) = default else { return };
    // A context is asked before it is changed, so this is OpenSSL's, the first time and always.
    DEFAULT_SECURITY.get_or_init(|| default);
    // SAFETY: the context is exclusively borrowed; the callback is a static function.
    unsafe { ffi::SSL_CTX_set_security_callback(context.as_ptr(), security) };
}

unsafe extern "C" fn security(
    ssl: *const SSL,
    context: *const SSL_CTX,
    operation: c_int,
    bits: c_int,
    nid: c_int,
    other: *mut c_void,
    data: *mut c_void,
) -> c_int {
    let about_a_cipher =
        operation & ffi::SSL_SECOP_OTHER_TYPE == ffi::SSL_SECOP_OTHER_CIPHER && !other.is_null();
    if about_a_cipher {
        // SAFETY: for these operations `other` is an SSL_CIPHER of OpenSSL's static table.
        let cipher = unsafe { SslCipherRef::from_ptr(other.cast::<SSL_CIPHER>()) };
        if cipher.name().ends_with("-CCM8") {
            return 1;
        }
    }
    match DEFAULT_SECURITY.get() {
        // SAFETY: OpenSSL's own callback with OpenSSL's own arguments.
        Some(default) => unsafe { default(ssl, context, operation, bits, nid, other, data) },
        None => 0,
    }
}
