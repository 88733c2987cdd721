//! The virtual clock of the simulator: OpenSSL reads time only through `gettimeofday(2)`, and a
//! program that defines this symbol itself gives every OpenSSL linked into it another time.
//!
//! Each thread has a clock of its own, so simulations run side by side. A thread that simulates
//! nothing, and whatever does not ask by this call, sees the real time. This is the only unsafe
//! code of the lab.
#![expect(
    unsafe_code,
    reason = "a C symbol is defined and written through its pointer"
)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc::timeval;

thread_local! {
    /// Time since 1970 as this thread's simulation has it; `None` where none runs.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// While it lives, OpenSSL's time on this thread is what [`VirtualTime::set`] said last.
#[derive(Debug)]
pub(crate) struct VirtualTime {
    /// Bound to the thread whose clock it holds.
    not_send: PhantomData<*const ()>,
}

impl VirtualTime {
    /// Stops this thread's clock at `now`, counted from 1970.
    pub(crate) fn start(now: Duration) -> Self {
        // Keeps the linker from dropping the symbol, and C's own from taking its place.
        std::hint::black_box(gettimeofday as *const ());
        NOW.set(Some(now));
        Self {
            not_send: PhantomData,
        }
    }

    /// Moves this thread's clock.
    pub(crate) fn set(&self, now: Duration) {
        NOW.set(Some(now));
    }
}

impl Drop for VirtualTime {
    fn drop(&mut self) {
        NOW.set(None);
    }
}

/// The time of the real clock, from 1970.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// `gettimeofday(2)`. Does not unwind: a thread-local without a destructor is always there.
#[unsafe(no_mangle)]
extern "C" fn gettimeofday(into: *mut timeval, _timezone: *mut c_void) -> c_int {
    let now = NOW.get().unwrap_or_else(unix_time);
    let time = timeval {
        tv_sec: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(now.subsec_micros()),
    };
    if !into.is_null() {
        // SAFETY: the caller passes null or, as gettimeofday(2) demands, a timeval of its own to
        // write to; nothing is read through the pointer and it is not kept.
        unsafe { into.write(time) };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Duration {
        let mut time = timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        assert_eq!(gettimeofday(&raw mut time, std::ptr::null_mut()), 0);
        Duration::from_secs(time.tv_sec.try_into().unwrap())
            + Duration::from_micros(time.tv_usec.try_into().unwrap())
    }

    #[test]
    fn clock_stands_still_for_its_thread_and_runs_for_the_others() {
        let virtual_now = Duration::from_micros(1_234_567);
        let time = VirtualTime::start(virtual_now);
        assert_eq!(asked(), virtual_now);
        time.set(2 * virtual_now);
        assert_eq!(asked(), 2 * virtual_now);
        let elsewhere = std::thread::spawn(asked).join().unwrap();
        assert!(elsewhere.as_secs() > 1_000_000_000);
        drop(time);
        assert!(asked().as_secs() > 1_000_000_000);
    }
}
