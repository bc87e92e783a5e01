//! The body of a request: pieces that are sent one after the other and never joined, because copying them would cost as much as
//! writing some of the spans' fields. Their memory is used again.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::export::buffer::Buffer;

/// Bytes of memory that a pool keeps.
const KEPT_BYTES: usize = 4 << 20;

/// Memory for pieces, which comes back once the last copy of a piece is dropped.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Free>>);

#[derive(Default)]
struct Free {
    memory: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// An empty buffer in memory that was used before, if there is some.
    pub fn buffer(&self) -> Buffer {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = free.memory.pop().unwrap_or_default();
        free.bytes -= memory.len();
        Buffer::over(memory)
    }

    /// What was written to the buffer behind the first `from` bytes.
    pub fn piece(&self, buffer: Buffer, from: usize) -> Bytes {
        let (memory, len) = buffer.into_parts();
        let mut bytes = Bytes::from_owner(Owner {
            memory,
            pool: self.clone(),
        });
        bytes.truncate(len);
        bytes.split_off(from.min(len))
    }

    fn take_back(&self, memory: Vec<u8>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.bytes + memory.len() <= KEPT_BYTES {
            free.bytes += memory.len();
            free.memory.push(memory);
        }
    }
}

struct Owner {
    memory: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.pool.take_back(std::mem::take(&mut self.memory));
    }
}

/// The pieces. Copies share them.
#[derive(Clone, Default)]
pub(super) struct Body {
    /// Last first.
    pieces: Vec<Bytes>,
    len: usize,
}

impl Body {
    /// These pieces in their order.
    pub fn new(mut pieces: Vec<Bytes>) -> Self {
        let len = pieces.iter().map(Bytes::len).sum();
        pieces.reverse();
        Self { pieces, len }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The pieces in their order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().rev()
    }

    /// All of it in one piece.
    pub fn joined(&self) -> Bytes {
        match self.pieces.as_slice() {
            [piece] => piece.clone(),
            _ => {
                let mut all = Vec::with_capacity(self.len);
                self.pieces().for_each(|piece| all.extend_from_slice(piece));
                all.into()
            }
        }
    }

    /// The same in memory of its own and of the right size: a body that has to wait gives back what others can use.
    pub fn set_aside(&mut self) {
        let mut own = Vec::with_capacity(self.len);
        self.pieces().for_each(|piece| own.extend_from_slice(piece));
        self.pieces = vec![own.into()];
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::new(vec![bytes])
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop();
        self.len -= piece.as_ref().map_or(0, Bytes::len);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_with_the_last_copy() {
        let pool = Pool::default();
        let mut buffer = pool.buffer();
        buffer.append(|out| out.copy(b"head-and-spans"));
        let memory = buffer.as_slice().as_ptr();
        let piece = pool.piece(buffer, 5);
        assert_eq!(&piece[..], b"and-spans");
        let mut body = Body::new(vec![piece, Bytes::from_static(b"!")]);
        assert_eq!((body.len(), &body.joined()[..]), (10, &b"and-spans!"[..]));
        let copy = body.clone();
        body.set_aside();
        assert_eq!(
            (body.pieces().count(), &body.joined()[..]),
            (1, &b"and-spans!"[..])
        );
        assert_ne!(
            pool.buffer().as_slice().as_ptr(),
            memory,
            "the copy still holds it"
        );
        drop(copy);
        let mut again = pool.buffer();
        assert_eq!(again.as_slice(), b"");
        again.append(|out| out.copy(b"x"));
        assert_eq!(again.as_slice().as_ptr(), memory);
    }

    #[test]
    fn a_pool_keeps_no_more_than_its_bound() {
        let pool = Pool::default();
        let pieces: Vec<Bytes> = (0..10)
            .map(|_| {
                let mut buffer = pool.buffer();
                buffer.append(|out| out.room(1 << 20).map(|_| ()));
                pool.piece(buffer, 0)
            })
            .collect();
        drop(pieces);
        let kept = pool.0.lock().unwrap().bytes;
        assert!(kept > 0 && kept <= KEPT_BYTES, "{kept}");
    }
}
