//! Where a chunk stands in its direction's stream.

use crate::model::Mark;

/// A hole larger than this is no hole but a position that can't be trusted (positions are modulo 2^32).
const MAX_GAP: u32 = 1 << 30;

/// How a chunk joins what came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// It follows directly (or it is the first, or the socket tells no positions).
    Next,
    /// This many bytes before it passed unseen.
    Gap(u32),
    /// Its first bytes, this many, came already.
    Overlap(u32),
    /// All of it came already.
    Duplicate,
    /// Its position tells nothing: the stream continues at an unknown place.
    Unknown,
}

/// The position of one direction.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stream {
    next: Option<u32>,
}

impl Stream {
    /// Whether bytes before `pos` have not come yet.
    #[must_use]
    pub fn lacks(&self, pos: u32) -> bool {
        self.next
            .is_some_and(|next| (1..=MAX_GAP).contains(&pos.wrapping_sub(next)))
    }

    /// Whether the byte at `pos` is the one that comes next.
    #[must_use]
    pub fn continues(&self, pos: u32) -> bool {
        self.next == Some(pos)
    }

    /// Says how a chunk of `len` bytes at `mark` joins, and moves on behind it.
    pub fn place(&mut self, mark: &Mark, len: u32) -> Order {
        if !mark.has_position {
            return Order::Next;
        }
        let end = mark.pos.wrapping_add(len);
        let Some(next) = self.next.replace(end) else {
            return Order::Next;
        };
        let ahead = mark.pos.wrapping_sub(next);
        if ahead == 0 {
            return Order::Next;
        }
        if ahead <= MAX_GAP {
            return Order::Gap(ahead);
        }
        let behind = next.wrapping_sub(mark.pos);
        if behind > MAX_GAP {
            return Order::Unknown;
        }
        if behind >= len {
            // Nothing new: stay where we were.
            self.next = Some(next);
            return Order::Duplicate;
        }
        Order::Overlap(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_find_their_place() {
        // (next before, position, length) -> (order, next after)
        let rows: &[(Option<u32>, u32, u32, Order, u32)] = &[
            (None, 7, 3, Order::Next, 10),
            (Some(10), 10, 5, Order::Next, 15),
            (Some(10), 12, 5, Order::Gap(2), 17),
            (Some(u32::MAX), 4, 1, Order::Gap(5), 5),
            (Some(10), 8, 5, Order::Overlap(2), 13),
            (Some(2), u32::MAX, 5, Order::Overlap(3), 4),
            (Some(10), 5, 5, Order::Duplicate, 10),
            (Some(10), 0, 3, Order::Duplicate, 10),
            (Some(0), 1 << 31, 4, Order::Unknown, (1 << 31) + 4),
            (Some(0), (1 << 30) + 1, 1, Order::Unknown, (1 << 30) + 2),
        ];
        for &(next, pos, len, order, after) in rows {
            let mut stream = Stream { next };
            let mark = Mark {
                pos,
                has_position: true,
                ..Mark::default()
            };
            assert_eq!(stream.place(&mark, len), order, "{next:?} {pos} {len}");
            assert_eq!(stream.next, Some(after), "{next:?} {pos} {len}");
        }
    }

    #[test]
    fn without_positions_everything_is_next() {
        let mut stream = Stream::default();
        let mark = Mark::default();
        assert_eq!(stream.place(&mark, 4), Order::Next);
        assert_eq!(stream.place(&mark, 4), Order::Next);
    }
}
