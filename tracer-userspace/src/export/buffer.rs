//! The buffer that spans are written into.
//!
//! Appending to a `Vec` piece by piece checks and updates its length in memory every time. Here a span is written through a
//! [`Cursor`] over memory that is initialised once: where it is too short, the buffer grows and the span is written again.

/// Memory for one span at least.
const ROOM: usize = 4096;

/// Bytes, written span by span.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// Nothing written, in memory that is there already; what it holds does not matter.
    pub fn over(memory: Vec<u8>) -> Self {
        Self {
            bytes: memory,
            len: 0,
        }
    }

    /// The memory, and how much of it was written.
    pub fn into_parts(self) -> (Vec<u8>, usize) {
        (self.bytes, self.len)
    }

    /// What was written, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What was written.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Forgets what was written and keeps so much memory at most.
    pub fn clear(&mut self, keep: usize) {
        self.len = 0;
        if self.bytes.len() > keep {
            self.bytes.truncate(keep);
            self.bytes.shrink_to_fit();
        }
    }

    /// Appends what `write` writes. It is called again with more room if it returns `None`.
    #[inline(always)]
    pub fn append(&mut self, mut write: impl FnMut(&mut Cursor<'_>) -> Option<()>) {
        let mut room = ROOM;
        loop {
            if self.bytes.len() - self.len < room {
                self.grow(room);
            }
            let mut cursor = Cursor {
                rest: self.bytes.get_mut(self.len..).unwrap_or_default(),
            };
            if write(&mut cursor).is_some() {
                let left = cursor.rest.len();
                self.len = self.bytes.len() - left;
                return;
            }
            room *= 4;
        }
    }

    #[cold]
    fn grow(&mut self, room: usize) {
        let len = (self.len + room).next_power_of_two();
        self.bytes.resize(len, 0);
    }
}

/// A place in a buffer. Every method returns `None` where there is not enough room.
pub(super) struct Cursor<'a> {
    pub rest: &'a mut [u8],
}

impl<'a> Cursor<'a> {
    /// The next `n` bytes, to be written by the caller.
    #[inline(always)]
    pub fn room(&mut self, n: usize) -> Option<&'a mut [u8]> {
        let (room, rest) = std::mem::take(&mut self.rest).split_at_mut_checked(n)?;
        self.rest = rest;
        Some(room)
    }

    /// Writes a piece of known size.
    #[inline(always)]
    pub fn put<const N: usize>(&mut self, piece: &[u8; N]) -> Option<()> {
        let (room, rest) = std::mem::take(&mut self.rest).split_first_chunk_mut::<N>()?;
        *room = *piece;
        self.rest = rest;
        Some(())
    }

    /// Calls a function that is not inlined. It gets a cursor of its own, so that this one can stay in registers.
    #[inline(always)]
    pub fn call(&mut self, write: impl FnOnce(&mut Cursor<'a>) -> Option<()>) -> Option<()> {
        let mut own = Cursor {
            rest: std::mem::take(&mut self.rest),
        };
        write(&mut own)?;
        self.rest = own.rest;
        Some(())
    }

    /// Writes what `write` writes, and gives it back.
    #[inline(always)]
    pub fn recorded(&mut self, write: impl FnOnce(&mut Cursor<'_>) -> Option<()>) -> Option<&'a [u8]> {
        let room = std::mem::take(&mut self.rest);
        let total = room.len();
        let mut inner = Cursor { rest: &mut *room };
        write(&mut inner)?;
        let len = total - inner.rest.len();
        let (written, rest) = room.split_at_mut_checked(len)?;
        self.rest = rest;
        Some(written)
    }

    /// Writes what `write` writes, with `byte` in place of its first byte, or alone if there is none.
    #[inline(always)]
    pub fn replace_first(
        &mut self,
        byte: u8,
        write: impl FnOnce(&mut Cursor<'_>) -> Option<()>,
    ) -> Option<()> {
        let room = std::mem::take(&mut self.rest);
        let total = room.len();
        let mut inner = Cursor { rest: &mut *room };
        write(&mut inner)?;
        let len = (total - inner.rest.len()).max(1);
        *room.first_mut()? = byte;
        self.rest = room.get_mut(len..)?;
        Some(())
    }

    /// Writes a piece; most are short.
    #[inline(always)]
    pub fn copy(&mut self, piece: &[u8]) -> Option<()> {
        copy(self.room(piece.len())?, piece);
        Some(())
    }
}

/// Copies `from` to `to`, which is as long. Up to 32 bytes go as two pieces that may overlap: a call costs more than that.
#[inline(always)]
pub(super) fn copy(to: &mut [u8], from: &[u8]) {
    #[inline(always)]
    fn ends<const N: usize>(to: &mut [u8], from: &[u8]) {
        if let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
            if let Some(to) = to.first_chunk_mut::<N>() {
                *to = *first;
            }
            if let Some(to) = to.last_chunk_mut::<N>() {
                *to = *last;
            }
        }
    }
    if to.len() != from.len() {
        return;
    }
    match from.len() {
        16..=32 => ends::<16>(to, from),
        8..=15 => ends::<8>(to, from),
        4..=7 => ends::<4>(to, from),
        2..=3 => ends::<2>(to, from),
        1 => ends::<1>(to, from),
        _ => to.copy_from_slice(from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_every_length() {
        let source: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        let mut buffer = Buffer::default();
        let mut expected = Vec::new();
        for len in (0..100).chain([1000, 4096, 5000, 20_000]) {
            let piece = &source[..len];
            buffer.append(|out| {
                out.copy(piece)?;
                out.put(b"|")
            });
            expected.extend_from_slice(piece);
            expected.push(b'|');
            assert_eq!(buffer.as_slice(), expected);
            assert_eq!(buffer.len(), expected.len());
        }
        buffer.clear(10);
        assert_eq!((buffer.as_slice(), buffer.bytes.len()), (&b""[..], 10));
        buffer.append(|out| out.copy(b"again"));
        assert_eq!(buffer.as_slice(), b"again");
    }
}
