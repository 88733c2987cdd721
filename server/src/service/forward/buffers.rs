//! Buffers for datagrams on their way. A connection needs one only while it passes something on, so
//! connections that wait hold none: 16 KiB less for each. Worker threads.

use std::sync::{Mutex, PoisonError};

/// Buffers kept for the next wake-up; about as many as threads that run at once.
const KEPT: usize = 64;

/// Buffers of one length.
#[derive(Debug)]
pub(super) struct Buffers {
    length: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Makes each when it is first needed.
    pub(super) fn new(length: usize) -> Self {
        Self {
            length,
            free: Mutex::default(),
        }
    }

    /// Lends one. Its bytes are whatever was in it last.
    pub(super) fn lend(&self) -> Lent<'_> {
        let free = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        Lent {
            bytes: free.unwrap_or_else(|| vec![0; self.length]),
            owner: self,
        }
    }
}

/// A buffer that goes back when dropped.
pub(super) struct Lent<'a> {
    pub(super) bytes: Vec<u8>,
    owner: &'a Buffers,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut free = self
            .owner
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_no_more_are_kept_than_is_of_use() {
        let buffers = Buffers::new(100);
        let many: Vec<_> = (0..2 * KEPT).map(|_| buffers.lend()).collect();
        assert!(many.iter().all(|lent| lent.bytes.len() == 100));
        drop(many);
        let kept = || buffers.free.lock().unwrap().len();
        assert_eq!(kept(), KEPT);
        let one = buffers.lend();
        assert_eq!((kept(), one.bytes.len()), (KEPT - 1, 100));
    }
}
