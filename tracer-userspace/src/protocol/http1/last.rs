//! The last head of a lane, and what was read from it. Clients and servers on a connection that is kept alive send the same head
//! again and again: comparing is much cheaper than reading.

use std::ops::Range;

/// Longest head that is kept, in bytes: it is held for every connection.
const MAX_KEPT: usize = 1_024;

/// A head, and what was read from it.
#[derive(Default)]
pub struct Last<T> {
    /// The whole head, its empty line included; empty if none is kept.
    head: Vec<u8>,
    /// The value of `Date`, which tells nothing and changes every second.
    date: Range<usize>,
    /// What was read.
    pub told: T,
}

impl<T> Last<T> {
    /// The length of the head that `bytes` begin with, if it is the kept one but for the value of `Date`.
    pub fn recall(&mut self, bytes: &[u8]) -> Option<usize> {
        let head = bytes.get(..self.head.len()).filter(|head| !head.is_empty())?;
        (head == self.head || self.differs_in_date(head)).then_some(head.len())
    }

    /// Whether `head` differs in the value of `Date` only; then it is the one to compare with from now on.
    #[cold]
    fn differs_in_date(&mut self, head: &[u8]) -> bool {
        let Range { start, end } = self.date;
        let same = head.get(..start) == self.head.get(..start) && head.get(end..) == self.head.get(end..);
        let (Some(new), Some(kept)) = (head.get(start..end), self.head.get_mut(start..end)) else {
            return false;
        };
        // Without a line end in the value, the same lines are where they were.
        let found = same && !new.contains(&b'\n');
        if found {
            kept.copy_from_slice(new);
        }
        found
    }

    /// Keeps a whole head, from which [`Self::told`] was read.
    pub fn keep(&mut self, head: &[u8], date: Range<usize>) {
        self.head.clear();
        if head.len() <= MAX_KEPT {
            self.head.extend_from_slice(head);
            self.date = date;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_recalled_where_it_would_be_read_the_same() {
        let head = b"HTTP/1.1 200 OK\r\nDate: Sat, 21\r\nServer: s\r\n\r\n";
        let date = 22..30;
        assert_eq!(&head[date.clone()], b" Sat, 21");
        let rows: &[(&[u8], bool)] = &[
            (head, true),
            (b"HTTP/1.1 200 OK\r\nDate: Sun, 22\r\nServer: s\r\n\r\n", true),
            (b"HTTP/1.1 200 OK\r\nDate: Sat, 21\r\nServer: s\r\n\r\nbody", true),
            (b"HTTP/1.1 200 OK\r\nDate: Sat, 21\r\nServer: t\r\n\r\n", false),
            (b"HTTP/1.1 201 OK\r\nDate: Sat, 21\r\nServer: s\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nDate: Sat, 1\r\nServer: s\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nDate: \r\nA: b\r\nServer: s\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nDate: Sa\n\n21\r\nServer: s\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nDate: Sat, 21\r\nServer: s\r\n\r", false),
            (b"", false),
        ];
        let mut last = Last::<()>::default();
        assert_eq!(last.recall(head), None);
        last.keep(head, date);
        for (bytes, wanted) in rows {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(last.recall(bytes), wanted.then_some(head.len()), "{shown:?}");
        }
        last.keep(&[b'x'; MAX_KEPT + 1], 0..0);
        assert_eq!(last.recall(&[b'x'; MAX_KEPT + 1]), None);
    }
}
