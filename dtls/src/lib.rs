//! Blocking DTLS 1.2 on OpenSSL.
