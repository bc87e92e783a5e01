//! Finds keys by a number that is spread well by one multiplication: exchange ids, stream positions, mixed unit ids.
//!
//! Open addressing with linear probing, at most half full: finding, adding and removing each cost a few loads, which is
//! less than a general hash map can do without knowing its keys.

use super::arena::Key;

#[derive(Clone, Copy)]
struct Slot {
    number: u64,
    /// [`Key::NONE`]: empty.
    key: Key,
}

const EMPTY: Slot = Slot {
    number: 0,
    key: Key::NONE,
};

/// Keys by number. Several keys may stand under one number.
pub(super) struct Index {
    /// A power of two.
    slots: Vec<Slot>,
    used: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            slots: vec![EMPTY; 64],
            used: 0,
        }
    }
}

impl Index {
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    /// Where the search for a number begins.
    #[inline]
    fn home(&self, number: u64) -> usize {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> 32 ^ spread >> 52) as usize & self.mask()
    }

    /// The keys under the number.
    #[inline]
    pub fn all(&self, number: u64) -> impl Iterator<Item = Key> {
        let mut at = self.home(number);
        std::iter::from_fn(move || {
            loop {
                let slot = self.slots.get(at).filter(|s| s.key != Key::NONE)?;
                at = (at + 1) & self.mask();
                if slot.number == number {
                    return Some(slot.key);
                }
            }
        })
    }

    /// The key under a number that has at most one.
    #[inline]
    pub fn find(&self, number: u64) -> Option<Key> {
        self.all(number).next()
    }

    #[inline]
    pub fn insert(&mut self, number: u64, key: Key) {
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        self.used += 1;
        self.place(Slot { number, key });
    }

    #[inline]
    fn place(&mut self, new: Slot) {
        let mask = self.mask();
        let mut at = self.home(new.number);
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.key == Key::NONE {
                *slot = new;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let larger = vec![EMPTY; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot.key != Key::NONE {
                self.place(slot);
            }
        }
    }

    /// Removes the key from under the number.
    #[inline]
    pub fn remove(&mut self, number: u64, key: Key) {
        self.take_if(number, |found| found == key);
    }

    /// Removes the key under a number that has at most one.
    #[inline]
    pub fn take(&mut self, number: u64) -> Option<Key> {
        self.take_if(number, |_| true)
    }

    #[inline]
    fn take_if(&mut self, number: u64, is_it: impl Fn(Key) -> bool) -> Option<Key> {
        let mask = self.mask();
        let mut hole = self.home(number);
        let key = loop {
            let slot = self.slots.get(hole).filter(|s| s.key != Key::NONE)?;
            if slot.number == number && is_it(slot.key) {
                break slot.key;
            }
            hole = (hole + 1) & mask;
        };
        self.used -= 1;
        // What stands behind the hole moves into it, unless its search begins behind the hole.
        let mut at = (hole + 1) & mask;
        while let Some(&slot) = self.slots.get(at).filter(|s| s.key != Key::NONE) {
            let from_home = at.wrapping_sub(self.home(slot.number)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.set(hole, slot);
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.set(hole, EMPTY);
        Some(key)
    }

    #[inline]
    fn set(&mut self, at: usize, new: Slot) {
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::correlate::arena::Arena;

    /// Against a map of lists, with few numbers so that they collide, and enough keys to grow.
    #[test]
    fn finds_what_a_map_finds() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut arena, mut index) = (Arena::default(), Index::default());
        let mut map: HashMap<u64, Vec<Key>> = HashMap::new();
        for turn in 0..20_000 {
            let number = rng.u64(..200) << rng.u32(..2);
            let keys = map.entry(number).or_default();
            if rng.u32(..10) < if turn < 5_000 { 7 } else { 4 } {
                let key = arena.insert(());
                keys.push(key);
                index.insert(number, key);
            } else if let Some(at) = rng.usize(..=keys.len()).checked_sub(1) {
                let key = keys.swap_remove(at);
                if keys.is_empty() {
                    assert_eq!(index.take(number), Some(key), "turn {turn}, number {number}");
                    assert_eq!(index.take(number), None, "turn {turn}, number {number}");
                } else {
                    index.remove(number, key);
                }
            }
            index.remove(number + 1000, Key::NONE);
            let mut found: Vec<Key> = index.all(number).collect();
            found.sort_unstable();
            keys.sort_unstable();
            assert_eq!(&found, keys, "turn {turn}, number {number}");
        }
        assert_eq!(index.used, map.values().map(Vec::len).sum::<usize>());
    }
}
