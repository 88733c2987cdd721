//! A bounded channel that a thread can wait for together with a socket: `crossbeam-channel` beside
//! an `eventfd(2)`.
//!
//! The listener reads from one mailbox (other peers' datagrams that landed on a connected socket);
//! each connection reads from one until its handshake is complete (its own datagrams that landed on
//! the listening socket).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// The writing end; clones share the mailbox.
#[derive(Debug)]
pub(crate) struct Post<T> {
    letters: Sender<T>,
    bell: Arc<EventFd>,
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self {
            letters: self.letters.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    letters: Receiver<T>,
    bell: Arc<EventFd>,
}

/// Makes a mailbox that holds at most `capacity` letters.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn mailbox<T>(capacity: usize) -> io::Result<(Post<T>, Mailbox<T>)> {
    let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let bell = Arc::new(bell);
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    let post = Post {
        letters: sender,
        bell: Arc::clone(&bell),
    };
    Ok((
        post,
        Mailbox {
            letters: receiver,
            bell,
        },
    ))
}

impl<T> Post<T> {
    /// Leaves a letter and wakes the reader. `false`: the mailbox is full or gone.
    #[must_use]
    pub(crate) fn send(&self, letter: T) -> bool {
        self.letters.try_send(letter).is_ok() && {
            self.ring();
            true
        }
    }

    /// Wakes the reader without a letter.
    pub(crate) fn ring(&self) {
        // Fails only when the counter is at its maximum, and then the reader is awake anyway.
        self.bell.write(1).unwrap_or_default();
    }
}

impl<T> Mailbox<T> {
    /// The next letter, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        self.letters.try_recv().ok()
    }

    /// Waits until a socket is readable, the bell has rung, or the time is up.
    ///
    /// # Errors
    /// The kernel has no memory; an interruption is not an error.
    pub(crate) fn wait<'s>(
        &'s self,
        sockets: impl Iterator<Item = BorrowedFd<'s>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let readable = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut descriptors = vec![readable(self.bell.as_fd())];
        for socket in sockets {
            descriptors.push(readable(socket));
        }
        match nix::poll::ppoll(&mut descriptors, timeout.map(TimeSpec::from_duration), None) {
            Ok(0) | Err(nix::Error::EINTR) => Ok(()),
            Ok(_) => {
                // Silences the bell; would block if it has not rung.
                self.bell.read().unwrap_or_default();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
