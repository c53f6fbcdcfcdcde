//! Remembers positive answers of the cluster for a minute, so that a listing is not three calls to the API server.
//! Negative ones are asked again: a right that was just given works at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

const LIFETIME_MS: i64 = 60_000;
/// Bounds memory when someone sends a new token with every request.
const CAPACITY: usize = 4_096;

pub(super) struct Cache<K, V> {
    entries: Mutex<HashMap<K, (V, i64)>>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::new(HashMap::new()) }
    }

    pub(super) fn get(&self, key: &K, now: i64) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    pub(super) fn put(&self, key: K, value: V, now: i64) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CAPACITY {
            entries.retain(|_, (_, until)| now < *until);
        }
        if entries.len() < CAPACITY {
            entries.insert(key, (value, now + LIFETIME_MS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_after_a_minute_and_stays_bounded() {
        let cache = Cache::new();
        cache.put(0_usize, "yes", 1_000);
        assert_eq!(cache.get(&0, 60_999), Some("yes"));
        assert_eq!(cache.get(&0, 61_000), None);
        for key in 1..=CAPACITY {
            cache.put(key, "yes", 2_000);
        }
        assert_eq!(cache.get(&CAPACITY, 2_000), None, "full");
        cache.put(CAPACITY, "yes", 100_000);
        assert_eq!(cache.get(&CAPACITY, 100_000), Some("yes"), "what was void made room");
    }
}
