//! The replay window of RFC 6347 §4.1.2.6 over heartbeat records. Pure.

/// Which of the last 64 record numbers have been seen.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// One more than the highest number seen; zero before the first.
    next: u64,
    /// Bit `n` stands for the number `next - 1 - n`.
    seen: u64,
}

impl Window {
    /// Whether a number has not been seen and is not too old to know.
    pub(crate) fn is_new(&self, number: u64) -> bool {
        match self.age(number) {
            None => true,
            Some(age) => age < 64 && self.seen >> age & 1 == 0,
        }
    }

    /// Notes a number of an authenticated record.
    pub(crate) fn mark(&mut self, number: u64) {
        match self.age(number) {
            Some(age) if age < 64 => self.seen |= 1 << age,
            Some(_) => {}
            None => {
                let step = u32::try_from(number + 1 - self.next).unwrap_or(u32::MAX);
                self.seen = self.seen.checked_shl(step).unwrap_or(0) | 1;
                self.next = number + 1;
            }
        }
    }

    /// How far a number lies behind the highest; `None`: ahead of it.
    fn age(&self, number: u64) -> Option<u64> {
        self.next.checked_sub(number + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_new_once_within_64_of_the_highest() {
        let mut window = Window::default();
        for number in [0, 5, 3] {
            assert!(window.is_new(number));
            window.mark(number);
            assert!(!window.is_new(number));
        }
        window.mark(100);
        assert!(!window.is_new(100 - 64));
        assert!(window.is_new(100 - 63));
        let last = (1 << 48) - 1;
        window.mark(last);
        assert!(!window.is_new(last));
        assert!(window.is_new(last - 1));
    }

    proptest! {
        #[test]
        fn a_window_agrees_with_a_set(numbers in proptest::collection::vec(0_u64..200, 0..100)) {
            let mut window = Window::default();
            let mut seen = HashSet::new();
            for number in numbers {
                let highest = seen.iter().max().copied().unwrap_or(0);
                let expected = number + 64 > highest && !seen.contains(&number);
                prop_assert_eq!(window.is_new(number), expected);
                if expected {
                    window.mark(number);
                    seen.insert(number);
                }
            }
        }
    }
}
