//! What is found out once, by the first run that needs it. Run's thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A value for each key. Runs that need the same one wait for whoever finds it out; others do not.
#[derive(Debug)]
pub(super) struct PerKey<K, V>(Mutex<BTreeMap<K, Arc<Mutex<Option<V>>>>>);

impl<K, V> Default for PerKey<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone, V: Clone> PerKey<K, V> {
    /// The value of this key, from `find` if nobody has found it before. An error is not kept: who comes
    /// next tries again.
    pub(super) fn get<E>(&self, key: K, find: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let slot = Arc::clone(lock(&self.0).entry(key).or_default());
        let mut slot = lock(&slot);
        if let Some(value) = &*slot {
            return Ok(value.clone());
        }
        let value = find()?;
        *slot = Some(value.clone());
        Ok(value)
    }

    /// All that was found, in order of the keys; what is being found out is left out.
    pub(super) fn found(&self) -> Vec<(K, V)> {
        let slots = lock(&self.0);
        let found = slots.iter().filter_map(|(key, slot)| {
            let value = slot.try_lock().ok()?.clone()?;
            Some((key.clone(), value))
        });
        found.collect()
    }
}

/// A run that panicked has found nothing, which the next one may.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn slow_answer_holds_up_nobody_who_needs_another() {
        let per_key = PerKey::<&str, u32>::default();
        let (other_found, waits) = crossbeam_channel::bounded(1);
        std::thread::scope(|scope| {
            let (started, slow_has_begun) = crossbeam_channel::bounded(1);
            let per_key = &per_key;
            let slow = scope.spawn(move || {
                per_key.get("slow", || {
                    started.send(()).unwrap();
                    waits.recv_timeout(Duration::from_secs(10))
                })
            });
            slow_has_begun.recv().unwrap();
            assert_eq!(per_key.get("other", || Ok::<_, ()>(2)), Ok(2));
            assert_eq!(per_key.found(), [("other", 2)]);
            other_found.send(1).unwrap();
            assert_eq!(slow.join().unwrap(), Ok(1), "the other one waited for it");
        });
        assert_eq!(per_key.found(), [("other", 2), ("slow", 1)]);
    }

    #[test]
    fn answer_is_found_once_and_an_error_is_tried_again() {
        let per_key = PerKey::default();
        assert_eq!(per_key.get("it", || Err("no")), Err("no"));
        assert_eq!(per_key.get("it", || Ok::<_, &str>(1)), Ok(1));
        assert_eq!(per_key.get("it", || Err("asked twice")), Ok(1));
    }
}
