//! A slab whose keys do not survive what they name.

/// Names an entry of an [`Arena`]. Once the entry is removed the key finds nothing, also after its place was reused.
/// One word, so that keys are compared at once: the place in the lower half, its generation in the upper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Key(u64);

impl Key {
    /// Finds nothing in any arena.
    pub const NONE: Self = Self(u32::MAX as u64);

    #[inline]
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    #[inline]
    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    #[inline]
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::NONE
    }
}

struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// Entries of one kind, stored densely; removed places are reused.
pub(super) struct Arena<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Arena<T> {
    /// The key that the next entry will have.
    pub fn next_key(&self) -> Key {
        let place = self
            .free
            .last()
            .and_then(|&index| Some((index, self.places.get(index as usize)?)));
        match place {
            Some((index, place)) => Key::new(index, place.generation),
            None => Key::new(self.places.len() as u32, 0),
        }
    }

    #[inline]
    pub fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            debug_assert!(place.value.is_none(), "a free place holds nothing");
            place.value = Some(value);
            return Key::new(index, place.generation);
        }
        let index = self.places.len() as u32;
        self.places.push(Place {
            generation: 0,
            value: Some(value),
        });
        Key::new(index, 0)
    }

    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index())?;
        if place.generation == key.generation() {
            place.value.as_ref()
        } else {
            None
        }
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index())?;
        if place.generation == key.generation() {
            place.value.as_mut()
        } else {
            None
        }
    }

    /// Drops the entry where it lies.
    pub fn remove(&mut self, key: Key) {
        if let Some(place) = self.places.get_mut(key.index())
            && place.generation == key.generation()
            && place.value.is_some()
        {
            place.value = None;
            place.generation = place.generation.wrapping_add(1);
            self.free.push(key.index() as u32);
        }
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn keys(&self) -> Vec<Key> {
        let used = self.places.iter().enumerate().filter(|(_, p)| p.value.is_some());
        used.map(|(index, place)| Key::new(index as u32, place.generation))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_outlive_its_entry() {
        let mut arena = Arena::default();
        let next = arena.next_key();
        let a = arena.insert("a");
        assert_eq!(a, next);
        arena.remove(a);
        let next = arena.next_key();
        let b = arena.insert("b");
        assert_eq!(b, next);
        assert_eq!((a.index(), arena.len()), (b.index(), 1));
        assert_eq!((arena.get(a), arena.get(b)), (None, Some(&"b")));
        arena.remove(a);
        assert_eq!(arena.len(), 1);
        assert_eq!(arena.get(Key::NONE), None);
    }
}
