//! Attributes of one exchange: a list of keys and values over one text buffer, so that building an exchange
//! costs two allocations however many attributes it has.

use std::sync::Arc;

/// Attribute names are constants of the semantic conventions.
pub type Key = &'static str;

/// One attribute's value, borrowed from its [`Attributes`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// Text.
    Str(&'a str),
    /// Integer.
    Int(i64),
    /// Floating point.
    Double(f64),
    /// Boolean.
    Bool(bool),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Stored {
    Text { start: u32, len: u32 },
    Static(&'static str),
    Int(i64),
    Double(f64),
    Bool(bool),
}

/// An ordered list of attributes; a key appears at most once if callers use [`Attributes::set`].
///
/// Exchanges of one connection mostly begin with the same attributes: [`Attributes::share`] makes copies of those cheap, and
/// comparing the copies too.
#[derive(Default, Debug)]
pub struct Attributes {
    /// The first attributes, if they are shared.
    shared: Option<Arc<List>>,
    /// Integers behind them, which cost no memory of their own.
    numbers: Numbers,
    /// Those behind all these.
    own: List,
}

/// A few integers: what differs between the exchanges of a connection are mostly its status and its sizes.
#[derive(Clone, Copy, Default, Debug)]
struct Numbers {
    entries: [(Key, i64); Self::MOST],
    len: usize,
}

impl Numbers {
    const MOST: usize = 3;

    fn get(&self) -> &[(Key, i64)] {
        self.entries.get(..self.len).unwrap_or_default()
    }

    /// Adds one. False if there is no room.
    #[inline]
    fn push(&mut self, key: Key, value: i64) -> bool {
        let Some(free) = self.entries.get_mut(self.len) else {
            return false;
        };
        *free = (key, value);
        self.len += 1;
        true
    }
}

/// Keys are constants, so most are the same by address already.
impl PartialEq for Numbers {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let same = |((a, x), (b, y)): (&(Key, i64), &(Key, i64))| x == y && (std::ptr::eq(*a, *b) || a == b);
        self.len == other.len && self.get().iter().zip(other.get()).all(same)
    }
}

#[derive(Clone, Default, Debug)]
struct List {
    text: String,
    entries: Vec<(Key, Stored)>,
}

/// Keys are constants, so most are the same by address already.
impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |((a, x), (b, y)): (&(Key, Stored), &(Key, Stored))| (std::ptr::eq(*a, *b) || a == b) && x == y;
        self.entries.len() == other.entries.len()
            && self.text == other.text
            && self.entries.iter().zip(&other.entries).all(same)
    }
}

/// Most copies are made of what is shared and nothing else, and then there is no list to copy.
impl Clone for Attributes {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            numbers: self.numbers,
            own: if self.own.entries.is_empty() {
                List::default()
            } else {
                self.own.clone()
            },
        }
    }
}

/// The same keys and values in the same order.
impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        match (&self.shared, &other.shared) {
            (Some(one), Some(another))
                if one.entries.len() == another.entries.len() && self.has_parts_of(other) =>
            {
                self.numbers == other.numbers
                    && self.own == other.own
                    && (Arc::ptr_eq(one, another) || one == another)
            }
            _ => self.len() == other.len() && self.iter().eq(other.iter()),
        }
    }
}

impl Attributes {
    /// Whether as many are integers, and as many are not.
    fn has_parts_of(&self, other: &Self) -> bool {
        self.numbers.len == other.numbers.len && self.own.entries.len() == other.own.entries.len()
    }

    /// Becomes a copy of `other`, in the memory it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.shared.clone_from(&other.shared);
        self.numbers = other.numbers;
        self.own.text.clone_from(&other.own.text);
        self.own.entries.clone_from(&other.own.entries);
    }

    /// From now on copies share what is there so far. A second call changes nothing.
    pub fn share(&mut self) {
        if self.shared.is_none() {
            let mut list = List::default();
            list.entries.reserve_exact(self.len());
            for (key, value) in self.numbers.get() {
                list.entries.push((key, Stored::Int(*value)));
            }
            let own = std::mem::take(&mut self.own);
            (list.text, self.numbers) = (own.text, Numbers::default());
            list.entries.extend(own.entries);
            self.shared = Some(Arc::new(list));
        }
    }

    /// Room for a usual exchange.
    #[must_use]
    pub fn with_capacity(entries: usize, text: usize) -> Self {
        Self {
            shared: None,
            numbers: Numbers::default(),
            own: List {
                text: String::with_capacity(text),
                entries: Vec::with_capacity(entries),
            },
        }
    }

    /// Adds text, copied.
    pub fn push_str(&mut self, key: Key, value: &str) {
        let start = self.own.text.len() as u32;
        self.own.text.push_str(value);
        self.own.entries.push((
            key,
            Stored::Text {
                start,
                len: value.len() as u32,
            },
        ));
    }

    /// Adds what `write` appends to the text buffer (formatting without a temporary string).
    pub fn push_with(&mut self, key: Key, write: impl FnOnce(&mut String)) {
        let start = self.own.text.len();
        write(&mut self.own.text);
        let len = self.own.text.len().saturating_sub(start) as u32;
        self.own.entries.push((
            key,
            Stored::Text {
                start: start as u32,
                len,
            },
        ));
    }

    /// Adds text that lives as long as the program.
    pub fn push_static(&mut self, key: Key, value: &'static str) {
        self.own.entries.push((key, Stored::Static(value)));
    }

    /// Adds an integer.
    #[inline]
    pub fn push_int(&mut self, key: Key, value: i64) {
        // The order is kept: behind what is not an integer there are no numbers.
        if !self.own.entries.is_empty() || !self.numbers.push(key, value) {
            self.own.entries.push((key, Stored::Int(value)));
        }
    }

    /// Adds a floating-point number.
    pub fn push_double(&mut self, key: Key, value: f64) {
        self.own.entries.push((key, Stored::Double(value)));
    }

    /// Adds a boolean.
    pub fn push_bool(&mut self, key: Key, value: bool) {
        self.own.entries.push((key, Stored::Bool(value)));
    }

    /// The value of `key`, if set (a linear search: lists are short).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The text of `key`, if it is set and text.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::Str(s)) => Some(s),
            _ => None,
        }
    }

    /// The integer of `key`, if it is set and an integer.
    #[must_use]
    pub fn get_int(&self, key: &str) -> Option<i64> {
        match self.get(key) {
            Some(Value::Int(i)) => Some(i),
            _ => None,
        }
    }

    /// All attributes, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Value<'_>)> {
        let shared = self.shared.iter().flat_map(|list| list.iter());
        let numbers = self.numbers.get().iter();
        shared
            .chain(numbers.map(|(key, value)| (*key, Value::Int(*value))))
            .chain(self.own.iter())
    }

    /// Asks `differs` about every attribute whose value is not the same in `other`. False as soon as it says so, or where the keys are not
    /// the same in the same order.
    #[inline]
    pub fn is_like(&self, other: &Self, mut differs: impl FnMut(Key, Value<'_>) -> bool) -> bool {
        match (&self.shared, &other.shared) {
            (Some(one), Some(another)) if Arc::ptr_eq(one, another) => {}
            (Some(one), Some(another)) => {
                if !one.is_like(another, &mut differs) {
                    return false;
                }
            }
            (None, None) => {}
            _ => return false,
        }
        if !self.has_parts_of(other) {
            return false;
        }
        for ((key, value), (other_key, other_value)) in self.numbers.get().iter().zip(other.numbers.get()) {
            if !std::ptr::eq(*key, *other_key) && key != other_key {
                return false;
            }
            if value != other_value && differs(key, Value::Int(*value)) {
                return false;
            }
        }
        self.own.entries.is_empty() || self.own.is_like(&other.own, &mut differs)
    }

    /// Number of attributes.
    #[must_use]
    pub fn len(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |list| list.entries.len());
        shared + self.numbers.len + self.own.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all attributes, keeps the memory that is not shared.
    pub fn clear(&mut self) {
        self.shared = None;
        self.numbers = Numbers::default();
        self.own.text.clear();
        self.own.entries.clear();
    }
}

impl List {
    fn is_like(&self, other: &Self, differs: &mut impl FnMut(Key, Value<'_>) -> bool) -> bool {
        if self.entries.len() != other.entries.len() {
            return false;
        }
        for ((key, stored), (other_key, other_stored)) in self.entries.iter().zip(&other.entries) {
            if !std::ptr::eq(*key, *other_key) && key != other_key {
                return false;
            }
            let same = match (stored, other_stored) {
                (Stored::Int(one), Stored::Int(another)) => one == another,
                (Stored::Static(one), Stored::Static(another)) if std::ptr::eq(*one, *another) => true,
                _ => self.value(*stored) == other.value(*other_stored),
            };
            if !same && differs(key, self.value(*stored)) {
                return false;
            }
        }
        true
    }

    #[inline]
    fn value(&self, stored: Stored) -> Value<'_> {
        match stored {
            Stored::Text { start, len } => {
                let range = start as usize..start as usize + len as usize;
                Value::Str(self.text.get(range).unwrap_or_default())
            }
            Stored::Static(s) => Value::Str(s),
            Stored::Int(i) => Value::Int(i),
            Stored::Double(d) => Value::Double(d),
            Stored::Bool(b) => Value::Bool(b),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Key, Value<'_>)> {
        self.entries
            .iter()
            .map(|(key, stored)| (*key, self.value(*stored)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(shared: Option<usize>, last: i64) -> Attributes {
        let mut attributes = Attributes::default();
        attributes.push_int("first", 7);
        for (index, (key, value)) in [("a", "x"), ("b", ""), ("c", "yz")].into_iter().enumerate() {
            if shared == Some(index) {
                attributes.share();
            }
            attributes.push_str(key, value);
        }
        for (index, key) in ["d", "e", "f", "g"].into_iter().enumerate() {
            if shared == Some(3 + index) {
                attributes.share();
            }
            attributes.push_int(key, last);
        }
        attributes
    }

    #[test]
    fn sharing_changes_nothing_that_can_be_seen() {
        let plain = build(None, 1);
        let listed: Vec<_> = plain.iter().collect();
        assert_eq!(
            listed.iter().map(|(key, _)| *key).collect::<String>(),
            "firstabcdefg"
        );
        for shared in [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(6)] {
            let one = build(shared, 1);
            assert_eq!(one.iter().collect::<Vec<_>>(), listed, "{shared:?}");
            assert_eq!((one.len(), one.get_str("c")), (8, Some("yz")), "{shared:?}");
            let mut copied = Attributes::default();
            copied.copy_from(&one);
            for same in [&plain, &one.clone(), &copied] {
                assert_eq!(&one, same, "{shared:?}");
                assert_eq!(same, &one, "{shared:?}");
            }
            for other in [None, Some(1), Some(2), Some(3), Some(5)] {
                assert_eq!(one, build(other, 1), "{shared:?} {other:?}");
                assert_ne!(one, build(other, 2), "{shared:?} {other:?}");
            }
            copied.clear();
            assert!(copied.is_empty() && copied.iter().next().is_none());
        }
    }
}
