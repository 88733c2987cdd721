//! Socket calls that fail because a test says so, in place of the real call: the kernel would need
//! forged ICMP messages, another operating system or an empty memory for it. In builds without
//! `testing` every call is real. Runs on the connection's thread, which has a plan of its own.

use std::io;

/// A call on a connected socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "public with `testing`")
)]
pub enum Call {
    /// `recvfrom(2)`.
    Receive,
    /// `send(2)`.
    Send,
}

/// Notes a call; the error it is to report instead of doing anything.
#[cfg(not(feature = "testing"))]
pub(crate) fn due(_: Call) -> Option<io::Error> {
    None
}

#[cfg(feature = "testing")]
pub(crate) use plan::due;
#[cfg(feature = "testing")]
pub use plan::{calls_made, fail_call};

#[cfg(feature = "testing")]
mod plan {
    use std::cell::{Cell, RefCell};

    use super::{Call, io};

    thread_local! {
        static BAD: RefCell<Vec<(Call, u32, i32)>> = const { RefCell::new(Vec::new()) };
        static MADE: Cell<[u32; 2]> = const { Cell::new([0; 2]) };
    }

    /// Lets the `nth` call of this kind that the calling thread makes from now on report `errno`.
    pub fn fail_call(call: Call, nth: u32, errno: i32) {
        BAD.with_borrow_mut(|bad| bad.push((call, MADE.get()[call as usize] + nth, errno)));
    }

    /// How many receives and sends the calling thread has made, failed ones included.
    #[must_use]
    pub fn calls_made() -> [u32; 2] {
        MADE.get()
    }

    pub(crate) fn due(call: Call) -> Option<io::Error> {
        let mut made = MADE.get();
        made[call as usize] += 1;
        MADE.set(made);
        BAD.with_borrow_mut(|bad| {
            let nth = made[call as usize];
            let index = bad.iter().position(|it| (it.0, it.1) == (call, nth))?;
            Some(io::Error::from_raw_os_error(bad.swap_remove(index).2))
        })
    }
}
