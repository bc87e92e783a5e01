//! A bounded map that forgets what was not asked for lately.

use hashbrown::HashMap;

/// Two generations: what is asked for moves to the young one; when that is full, the old one is forgotten. So the most
/// recent `capacity` entries are always there, twice as many at most, and a look-up writes nothing in the usual case.
pub struct Cache<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
    capacity: usize,
}

impl<V: Clone> Cache<V> {
    /// An empty cache of that many recent entries.
    pub fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity,
        }
    }

    /// The value of `key`.
    pub fn get(&mut self, key: u64) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(value.clone());
        }
        let value = self.old.remove(&key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: u64) {
        self.young.remove(&key);
        self.old.remove(&key);
    }

    /// Remembers a value.
    pub fn insert(&mut self, key: u64, value: V) {
        if self.young.len() >= self.capacity {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_entries_stay_and_others_go() {
        let mut cache = Cache::new(10);
        for key in 0..1_000 {
            cache.insert(key, key);
            assert_eq!(cache.get(5.min(key)), Some(5.min(key)), "an entry in use stays");
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.get(999), Some(999));
        assert_eq!(cache.get(990), Some(990));
        assert_eq!(cache.get(500), None);
    }
}
