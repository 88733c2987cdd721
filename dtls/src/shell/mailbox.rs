//! A bounded channel that a thread can wait for together with a socket: `crossbeam-channel` beside
//! an `eventfd(2)`.
//!
//! The listener reads from one mailbox (other peers' datagrams that landed on a connected socket,
//! hellos that a connection found as it ended); each connection reads from one, its inbox: until its
//! handshake is complete where it has a socket of its own, to its end where it shares one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// What a mailbox holds.
pub(crate) trait Letter {
    /// The bytes it carries; what it costs beside them is added.
    fn len(&self) -> usize;
}

impl Letter for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }
}

/// What a letter costs beside its bytes, so that many short ones are bounded too.
const PER_LETTER: usize = 64;

/// The writing end; clones share the mailbox.
#[derive(Debug)]
pub(crate) struct Post<T> {
    letters: Sender<T>,
    shared: Arc<Shared>,
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self {
            letters: self.letters.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    letters: Receiver<T>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bell: Arc<Bell>,
    /// What the letters in it cost.
    bytes: AtomicUsize,
    capacity: usize,
}

/// Wakes the reader of a mailbox, and lets it wait.
#[derive(Debug)]
pub(crate) struct Bell {
    eventfd: EventFd,
    /// Whether the eventfd is readable or about to be: saves the system call for every letter but
    /// the first that the reader has not seen.
    rung: AtomicBool,
}

/// Makes a mailbox that holds at most `capacity` bytes.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn mailbox<T: Letter>(capacity: usize) -> io::Result<(Post<T>, Mailbox<T>)> {
    let bell = Bell {
        eventfd: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        rung: AtomicBool::new(false),
    };
    // Bounded by bytes: a channel bounded by letters allocates room for all of them at once.
    let (sender, receiver) = crossbeam_channel::unbounded();
    let shared = Arc::new(Shared {
        bell: Arc::new(bell),
        bytes: AtomicUsize::new(0),
        capacity,
    });
    let post = Post {
        letters: sender,
        shared: Arc::clone(&shared),
    };
    Ok((
        post,
        Mailbox {
            letters: receiver,
            shared,
        },
    ))
}

impl<T: Letter> Post<T> {
    /// Leaves a letter and wakes the reader. `false`: the mailbox is full or gone.
    #[must_use]
    pub(crate) fn send(&self, letter: T) -> bool {
        let cost = letter.len() + PER_LETTER;
        let Shared {
            bell,
            bytes,
            capacity,
        } = &*self.shared;
        if bytes.fetch_add(cost, Ordering::Relaxed) + cost > *capacity
            || self.letters.send(letter).is_err()
        {
            bytes.fetch_sub(cost, Ordering::Relaxed);
            return false;
        }
        bell.ring();
        true
    }

    /// Wakes the reader without a letter.
    pub(crate) fn ring(&self) {
        self.shared.bell.ring();
    }
}

impl<T: Letter> Mailbox<T> {
    /// The next letter, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        let letter = self.letters.try_recv().ok()?;
        let cost = letter.len() + PER_LETTER;
        self.shared.bytes.fetch_sub(cost, Ordering::Relaxed);
        Some(letter)
    }

    /// The next letter after a wait, which has silenced the bell. If more have come, the bell rings
    /// again: whoever stops here to wait for the bell would never hear of them.
    pub(crate) fn take_after_wait(&self) -> Option<T> {
        let letter = self.take();
        if !self.letters.is_empty() {
            self.shared.bell.ring();
        }
        letter
    }

    /// Waits until a socket is readable, the bell has rung, or the time is up. Afterwards the bell
    /// is silent: look for letters before the next wait.
    ///
    /// # Errors
    /// The kernel has no memory; an interruption is not an error.
    pub(crate) fn wait<'s>(
        &'s self,
        sockets: impl Iterator<Item = BorrowedFd<'s>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut descriptors = vec![readable(self.shared.bell.as_fd())];
        descriptors.extend(sockets.map(readable));
        self.poll(&mut descriptors, timeout)
    }

    /// As [`Self::wait`], for nothing but letters.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(crate) fn wait_for_letter(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.poll(&mut [readable(self.shared.bell.as_fd())], timeout)
    }

    fn poll(&self, descriptors: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
        match nix::poll::ppoll(descriptors, timeout.map(TimeSpec::from_duration), None) {
            Ok(0) | Err(nix::Error::EINTR) => Ok(()),
            Ok(_) => {
                self.shared.bell.silence();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What wakes the reader.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.shared.bell
    }
}

impl Bell {
    /// Makes the present or next wait of the reader end.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is at its maximum, and then the reader is awake anyway.
            self.eventfd.write(1).unwrap_or_default();
        }
    }

    fn silence(&self) {
        // Would block if it has not rung.
        self.eventfd.read().unwrap_or_default();
        // After the read: in the other order a letter in between would ring, be read away here, and
        // no later one would ring again. A letter that comes before this line does not ring, but
        // the reader looks for letters after it.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

fn readable(descriptor: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(descriptor, PollFlags::POLLIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_takes_as_many_bytes_as_it_may_hold_and_more_once_some_are_taken() {
        let (post, mailbox) = mailbox::<Vec<u8>>(3 * (1000 + PER_LETTER)).unwrap();
        for _ in 0..3 {
            assert!(post.send(vec![7; 1000]));
        }
        assert!(!post.send(Vec::new()), "full");
        assert_eq!(mailbox.take(), Some(vec![7; 1000]));
        assert!(post.send(vec![8; 1000]));
        assert!(!post.send(vec![9; 1000]), "full again");
    }

    #[test]
    fn every_letter_wakes_a_reader_that_waits_for_ever() {
        const LETTERS: u32 = 20_000;
        let (post, mailbox) = mailbox::<Vec<u8>>(usize::MAX).unwrap();
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < LETTERS {
                match mailbox.take() {
                    Some(_) => seen += 1,
                    None => mailbox.wait_for_letter(None).unwrap(),
                }
            }
        });
        for n in 0..LETTERS {
            assert!(post.send(n.to_be_bytes().to_vec()));
            // Now and then the reader catches up and goes to sleep.
            if n % 64 == 0 {
                std::thread::yield_now();
            }
        }
        reader.join().unwrap();
    }

    #[test]
    fn the_bell_is_readable_exactly_while_letters_are_unseen() {
        let (post, mailbox) = mailbox::<Vec<u8>>(4096).unwrap();
        let is_readable = || {
            let mut descriptors = [readable(mailbox.bell().as_fd())];
            let timeout = TimeSpec::from_duration(Duration::ZERO);
            nix::poll::ppoll(&mut descriptors, Some(timeout), None).unwrap() == 1
        };
        assert!(!is_readable());
        assert!(post.send(vec![1]) && post.send(vec![2]));
        assert!(is_readable());
        mailbox.take().unwrap();
        assert!(is_readable(), "one is left");
        mailbox.take().unwrap();
        mailbox.wait_for_letter(Some(Duration::ZERO)).unwrap();
        assert!(!is_readable());
        assert!(post.send(vec![3]));
        assert!(is_readable());
    }
}
