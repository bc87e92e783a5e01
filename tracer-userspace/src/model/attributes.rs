//! Attributes of one exchange: a list of keys and values over one text buffer, so that building an exchange
//! costs two allocations however many attributes it has.

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
#[derive(Clone, Default, Debug)]
pub struct Attributes {
    text: String,
    entries: Vec<(Key, Stored)>,
}

/// The same keys and values in the same order. Keys are constants, so most are the same by address already.
impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |((a, x), (b, y)): (&(Key, Stored), &(Key, Stored))| (std::ptr::eq(*a, *b) || a == b) && x == y;
        self.entries.len() == other.entries.len()
            && self.text == other.text
            && self.entries.iter().zip(&other.entries).all(same)
    }
}

impl Attributes {
    /// Becomes a copy of `other`, in the memory it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.text.clone_from(&other.text);
        self.entries.clone_from(&other.entries);
    }

    /// A copy with room for `more` attributes, but for no more text.
    #[must_use]
    pub fn copy_with_room(&self, more: usize) -> Self {
        let mut entries = Vec::with_capacity(self.entries.len() + more);
        entries.extend_from_slice(&self.entries);
        Self {
            text: self.text.clone(),
            entries,
        }
    }

    /// Room for a usual exchange.
    #[must_use]
    pub fn with_capacity(entries: usize, text: usize) -> Self {
        Self {
            text: String::with_capacity(text),
            entries: Vec::with_capacity(entries),
        }
    }

    /// Adds text, copied.
    pub fn push_str(&mut self, key: Key, value: &str) {
        let start = self.text.len() as u32;
        self.text.push_str(value);
        self.entries.push((
            key,
            Stored::Text {
                start,
                len: value.len() as u32,
            },
        ));
    }

    /// Adds what `write` appends to the text buffer (formatting without a temporary string).
    pub fn push_with(&mut self, key: Key, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        let len = self.text.len().saturating_sub(start) as u32;
        self.entries.push((
            key,
            Stored::Text {
                start: start as u32,
                len,
            },
        ));
    }

    /// Adds text that lives as long as the program.
    pub fn push_static(&mut self, key: Key, value: &'static str) {
        self.entries.push((key, Stored::Static(value)));
    }

    /// Adds an integer.
    pub fn push_int(&mut self, key: Key, value: i64) {
        self.entries.push((key, Stored::Int(value)));
    }

    /// Adds a floating-point number.
    pub fn push_double(&mut self, key: Key, value: f64) {
        self.entries.push((key, Stored::Double(value)));
    }

    /// Adds a boolean.
    pub fn push_bool(&mut self, key: Key, value: bool) {
        self.entries.push((key, Stored::Bool(value)));
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
        self.entries.iter().map(|(key, stored)| {
            let value = match *stored {
                Stored::Text { start, len } => {
                    let range = start as usize..start as usize + len as usize;
                    Value::Str(self.text.get(range).unwrap_or_default())
                }
                Stored::Static(s) => Value::Str(s),
                Stored::Int(i) => Value::Int(i),
                Stored::Double(d) => Value::Double(d),
                Stored::Bool(b) => Value::Bool(b),
            };
            (*key, value)
        })
    }

    /// Number of attributes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all attributes, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
    }
}
