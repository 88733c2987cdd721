//! The only unsafe code of the project: OpenSSL calls and callbacks that `openssl` lacks, and
//! socket options.
//!
//! Each wrapper is one safe function per C call, named as OpenSSL or the kernel names it, and holds
//! no state of its own. Runs on whichever thread calls it: an `SSL` is only ever reached through
//! `&mut`, so OpenSSL's rule of one thread per object is kept by the borrow checker.
#![expect(
    unsafe_code,
    reason = "the one address of unsafe code in this workspace"
)]

mod ffi;
pub(crate) mod callbacks;
pub(crate) mod ssl;
pub(crate) mod udp;
