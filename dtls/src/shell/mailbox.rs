//! A bounded channel that a thread can wait for together with a socket: a queue beside an
//! `eventfd(2)`.
//!
//! The queue keeps its place for letters while it is in use. A list that grows at one end and shrinks
//! at the other, as an unbounded channel of `crossbeam-channel` is, would be allocated by the writing
//! thread and freed by the reading one, whose allocator keeps what it has freed: a few kilobytes more
//! for each connection, little by little.
//!
//! The listener reads from one mailbox (other peers' datagrams that landed on a connected socket,
//! hellos that a connection found as it ended); each connection reads from one, its inbox: until its
//! handshake is complete where it has a socket of its own, to its end where it shares one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// What a mailbox holds.
pub(crate) trait Letter {
    /// The bytes it carries, in an allocation of their own.
    fn len(&self) -> usize;
}

impl Letter for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }
}

/// What the allocator adds to a letter's bytes: its header, and up to the next 16.
const PER_ALLOCATION: usize = 32;

/// Letters that the first one makes room for.
const FIRST_ROOM: usize = 4;

/// Room for so many letters is kept when a rush of them is over.
const ROOM_KEPT: usize = 16;

/// The writing end; clones share the mailbox.
#[derive(Debug)]
pub(crate) struct Post<T>(Arc<Shared<T>>);

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Mailbox<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    bell: Arc<Bell>,
    queue: Mutex<Queue<T>>,
    capacity: usize,
}

#[derive(Debug)]
struct Queue<T> {
    letters: VecDeque<T>,
    /// What the letters' own allocations take.
    bytes: usize,
    /// Nobody reads any more.
    closed: bool,
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the reader of a mailbox, and lets it wait.
#[derive(Debug)]
pub(crate) struct Bell {
    eventfd: EventFd,
    /// Whether the eventfd is readable or about to be: saves the system call for every letter but
    /// the first that the reader has not seen.
    rung: AtomicBool,
}

/// Makes a mailbox that takes at most `capacity` bytes of memory: letters, allocations and the room
/// for more letters counted.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn mailbox<T: Letter>(capacity: usize) -> io::Result<(Post<T>, Mailbox<T>)> {
    let bell = Bell {
        eventfd: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        rung: AtomicBool::new(false),
    };
    let queue = Queue {
        letters: VecDeque::new(),
        bytes: 0,
        closed: false,
    };
    let shared = Arc::new(Shared {
        bell: Arc::new(bell),
        queue: Mutex::new(queue),
        capacity,
    });
    Ok((Post(Arc::clone(&shared)), Mailbox(shared)))
}

impl<T: Letter> Post<T> {
    /// Leaves a letter and wakes the reader. `false`: the mailbox is full or gone.
    #[must_use]
    pub(crate) fn send(&self, letter: T) -> bool {
        let mut queue = self.0.queue();
        let Queue {
            letters,
            bytes,
            closed,
        } = &mut *queue;
        let room = if letters.len() < letters.capacity() {
            letters.capacity()
        } else {
            FIRST_ROOM.max(2 * letters.capacity())
        };
        let bytes_then = *bytes + letter.len() + PER_ALLOCATION;
        if bytes_then + room * size_of::<T>() > self.0.capacity || *closed {
            return false;
        }
        letters.reserve_exact(room - letters.len());
        letters.push_back(letter);
        *bytes = bytes_then;
        drop(queue);
        self.0.bell.ring();
        true
    }

    /// Wakes the reader without a letter.
    pub(crate) fn ring(&self) {
        self.0.bell.ring();
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        queue.letters = VecDeque::new();
    }
}

impl<T: Letter> Mailbox<T> {
    /// The next letter, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        let mut queue = self.0.queue();
        let Queue { letters, bytes, .. } = &mut *queue;
        let letter = letters.pop_front()?;
        *bytes -= letter.len() + PER_ALLOCATION;
        if letters.capacity() > 2 * ROOM_KEPT && letters.len() <= letters.capacity() / 4 {
            letters.shrink_to(ROOM_KEPT.max(2 * letters.len()));
        }
        Some(letter)
    }

    /// The next letter after a wait, which has silenced the bell. If more have come, the bell rings
    /// again: whoever stops here to wait for the bell would never hear of them.
    pub(crate) fn take_after_wait(&self) -> Option<T> {
        let letter = self.take();
        if !self.0.queue().letters.is_empty() {
            self.0.bell.ring();
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
        let mut descriptors = vec![readable(self.0.bell.as_fd())];
        descriptors.extend(sockets.map(readable));
        self.poll(&mut descriptors, timeout)
    }

    /// As [`Self::wait`], for nothing but letters.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(crate) fn wait_for_letter(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.poll(&mut [readable(self.0.bell.as_fd())], timeout)
    }

    fn poll(&self, descriptors: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
        match nix::poll::ppoll(descriptors, timeout.map(TimeSpec::from_duration), None) {
            Ok(0) | Err(nix::Error::EINTR) => Ok(()),
            Ok(_) => {
                self.0.bell.silence();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What wakes the reader.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.0.bell
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
        let room = FIRST_ROOM * size_of::<Vec<u8>>();
        let (post, mailbox) = mailbox::<Vec<u8>>(3 * (1000 + PER_ALLOCATION) + room).unwrap();
        for _ in 0..3 {
            assert!(post.send(vec![7; 1000]));
        }
        assert!(!post.send(Vec::new()), "full");
        assert_eq!(mailbox.take(), Some(vec![7; 1000]));
        assert!(post.send(vec![8; 1000]));
        assert!(!post.send(vec![9; 1000]), "full again");
    }

    #[test]
    fn letters_of_any_length_in_any_order_take_no_more_memory_than_a_mailbox_may() {
        // What the allocator gives for so many bytes (glibc).
        let given = |length: usize| (length + 8).next_multiple_of(16).max(32);
        const CAPACITY: usize = 1 << 16;
        let (post, mailbox) = mailbox::<Vec<u8>>(CAPACITY).unwrap();
        let held = || {
            let queue = mailbox.0.queue();
            let letters = queue.letters.iter().map(|letter| given(letter.capacity()));
            letters.sum::<usize>() + given(queue.letters.capacity() * size_of::<Vec<u8>>())
        };
        for (length, left) in [(1, 1), (1400, 5), (25, 100), (1, 0), (16_000, 0)] {
            while post.send(vec![7; length]) {
                assert!(held() <= CAPACITY, "{} bytes, each of {length}", held());
            }
            assert!(held() > CAPACITY / 3, "{} bytes, each of {length}", held());
            while mailbox.0.queue().letters.len() > left {
                mailbox.take();
            }
        }
    }

    #[test]
    fn a_rush_leaves_no_more_room_than_is_of_use_and_a_trickle_needs_no_other() {
        let (post, mailbox) = mailbox::<Vec<u8>>(usize::MAX).unwrap();
        for _ in 0..500 {
            assert!(post.send(vec![7]));
        }
        while mailbox.take().is_some() {}
        let room = || mailbox.0.queue().letters.capacity();
        let kept = room();
        assert!((1..=2 * ROOM_KEPT).contains(&kept), "{kept}");
        for _ in 0..500 {
            assert!(post.send(vec![7]));
            assert_eq!(mailbox.take(), Some(vec![7]));
            assert_eq!(room(), kept);
        }
    }

    #[test]
    fn nothing_is_left_for_a_reader_that_is_gone() {
        let (post, mailbox) = mailbox::<Vec<u8>>(4096).unwrap();
        assert!(post.send(vec![1]));
        drop(mailbox);
        assert!(!post.send(vec![2]));
        assert!(post.0.queue().letters.is_empty());
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
