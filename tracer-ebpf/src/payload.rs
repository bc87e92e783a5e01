//! Copies a message's bytes from the process's buffers into an event.
//!
//! One buffer is copied straight into the ring. Several vectors are gathered in scratch memory first: the verifier
//! bounds the position and the length of a copy, but not their sum, and would have to walk the vectors anew for every
//! size of event.

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::map,
    maps::PerCpuArray,
};
use tracer_common::{Direction, MAX_IOVECS, SIZE_CLASSES, TAIL_BYTES};

use crate::{
    buffers::{Buffers, Vectors},
    emit::Record,
    opaque::{at_most, opaque},
};

const TAIL: u64 = TAIL_BYTES as u64;
const LARGEST: u64 = SIZE_CLASSES[SIZE_CLASSES.len() - 1] as u64;

/// Room for gathered bytes. A per-CPU map value may have 32 KiB (PCPU_MIN_UNIT_SIZE), and the walk takes some of it. A copy
/// starts in the first half and is no longer than half; the tail, from two vectors, lies behind both.
const SCRATCH: usize = (32 << 10) - 64;
const HALF: u64 = (SCRATCH as u64 - 2 * TAIL) / 2;

/// Scratch memory: gathered bytes, and how far the walk along the vectors has come. Kept in a map and not on the stack: the
/// verifier forgets what it knows of numbers in a map, so that each step of the walk looks the same to it.
#[repr(C)]
struct Scratch {
    /// Bytes to copy.
    wanted: u64,
    /// Bytes copied.
    at: u64,
    /// Bytes of the message that lie in vectors not visited yet.
    left: u64,
    fault: u64,
    /// Where the last bytes seen lie, and those before them.
    previous: Piece,
    last: Piece,
    bytes: [u8; SCRATCH],
}

/// Part of a message in one vector.
#[derive(Clone, Copy)]
#[repr(C)]
struct Piece {
    base: u64,
    size: u64,
}

const _: () = assert!(size_of::<Scratch>() <= 32 << 10);

/// One for each direction: their programs may interrupt each other.
#[map]
static SCRATCHES: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

/// What to copy, and how many bytes that is.
#[derive(Clone, Copy)]
pub struct Wanted {
    source: Source,
    head: u64,
    tail: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The process's buffer of so many bytes.
    User { base: u64, len: u64 },
    /// Gathered already.
    Scratch(*const u8),
    /// There is nothing to copy.
    None,
}

/// Why there is no payload, or less than was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Nothing,
    /// The process's memory did not give it.
    Fault,
    /// There is no buffer of the process to read.
    Unavailable,
}

impl Wanted {
    pub const NOTHING: Self = Self {
        source: Source::None,
        head: 0,
        tail: 0,
    };

    /// `head` bytes from the start of a message of `len` bytes, and a tail if that is not all.
    #[inline(always)]
    pub fn new(buffers: Buffers, len: u64, head: u64, direction: Direction) -> (Self, Missing) {
        match buffers {
            Buffers::One { base } => (Self::one(base, len, head), Missing::Nothing),
            Buffers::Many(vectors) => match vectors.entry(0) {
                // The first vector holds the whole message: one buffer.
                Some([base, size]) if size >= len => (Self::one(base, len, head), Missing::Nothing),
                Some(_) => match gather(&vectors, len, head, direction) {
                    Some(wanted) => (wanted, Missing::Nothing),
                    None => (Self::NOTHING, Missing::Fault),
                },
                None => (Self::NOTHING, Missing::Fault),
            },
            Buffers::Unavailable => (Self::NOTHING, Missing::Unavailable),
        }
    }

    #[inline(always)]
    fn one(base: u64, len: u64, head: u64) -> Self {
        // With a tail the head must leave room for it, however large the event may be.
        let head = if head < len {
            at_most(head, LARGEST - TAIL)
        } else {
            at_most(head, LARGEST)
        };
        let tail = at_most(len - head, TAIL);
        Self {
            source: Source::User { base, len },
            head,
            tail,
        }
    }

    /// Bytes of payload that the event must hold.
    #[inline(always)]
    pub fn room(&self) -> u64 {
        self.head + self.tail
    }

    /// Copies into the event: (bytes from the start, bytes from the end), or `None` if the process's memory did not give
    /// them.
    #[inline(always)]
    pub fn copy(&self, record: &Record) -> Option<(u32, u32)> {
        match self.source {
            Source::None => Some((0, 0)),
            Source::Scratch(from) => {
                let all = at_most(at_most(self.head + self.tail, record.capacity), SCRATCH as u64);
                // SAFETY: `from` is scratch memory of at least `all` bytes, and the record has room for as many.
                let failed =
                    unsafe { bpf_probe_read_kernel(record.payload().cast(), all as u32, from.cast()) };
                (failed == 0).then_some((self.head as u32, self.tail as u32))
            }
            Source::User { base, len } => {
                let head = at_most(self.head, record.capacity);
                copy(record.payload(), head, base)?;
                if self.tail == 0 || record.capacity < TAIL {
                    return Some((head as u32, 0));
                }
                let tail = at_most(self.tail, TAIL);
                let end = at_most(head, record.capacity - TAIL);
                // SAFETY: `end` is at least a tail before the end of the record.
                let to = unsafe { record.payload().add(end as usize) };
                copy(to, tail, base.wrapping_add(len).wrapping_sub(tail))?;
                Some((end as u32, tail as u32))
            }
        }
    }
}

#[inline(always)]
fn gather(vectors: &Vectors, len: u64, head: u64, direction: Direction) -> Option<Wanted> {
    let scratch = SCRATCHES.get_ptr_mut(direction as u32)?;
    // SAFETY: this CPU's slot; only this program uses it, and a program does not interrupt itself
    // (kernel/trace/bpf_trace.c: __bpf_trace_run).
    let walked = unsafe { &mut *scratch };
    walked.wanted = if head < HALF { head } else { HALF };
    walked.at = 0;
    walked.left = len;
    walked.fault = 0;
    walked.previous = Piece { base: 0, size: 0 };
    walked.last = Piece { base: 0, size: 0 };
    let mut index = 0;
    while index < MAX_IOVECS as u64 && index < vectors.count && walked.left > 0 {
        visit(walked, vectors.entry(index));
        index = opaque(index + 1); // or the compiler writes the loop out
    }
    if walked.fault != 0 {
        return None;
    }
    let source = Source::Scratch(walked.bytes.as_ptr());
    let at = at_most(walked.at, 2 * HALF);
    // Vectors beyond the last that is followed hold the end: there is no tail then.
    if walked.left > 0 || at >= len {
        return Some(Wanted {
            source,
            head: at,
            tail: 0,
        });
    }
    let want = at_most(len - at, TAIL);
    let second = at_most(walked.last.size, want);
    let first = at_most(walked.previous.size, want - second);
    // SAFETY: `at` is at least two tails before the end of the bytes.
    let to = unsafe { walked.bytes.as_mut_ptr().add(at as usize) };
    copy(
        to,
        at_most(first, TAIL),
        walked.previous.end().wrapping_sub(first),
    )?;
    // SAFETY: as above; `first` is at most one tail.
    let to = unsafe { to.add(at_most(first, TAIL) as usize) };
    copy(to, at_most(second, TAIL), walked.last.end().wrapping_sub(second))?;
    Some(Wanted {
        source,
        head: at,
        tail: first + second,
    })
}

impl Piece {
    #[inline(always)]
    fn end(self) -> u64 {
        self.base.wrapping_add(self.size)
    }
}

/// Takes up one vector.
#[inline(always)]
fn visit(walked: &mut Scratch, entry: Option<[u64; 2]>) {
    let Some([base, size]) = entry else {
        walked.fault = 1;
        walked.left = 0;
        return;
    };
    let size = if size < walked.left { size } else { walked.left };
    if size == 0 {
        return;
    }
    walked.left -= size;
    walked.previous = walked.last;
    walked.last = Piece { base, size };
    if walked.at < walked.wanted {
        let rest = walked.wanted - walked.at;
        let take = at_most(if size < rest { size } else { rest }, HALF);
        let from = at_most(walked.at, HALF);
        // SAFETY: both `from` and `take` are at most half of the bytes.
        let to = unsafe { walked.bytes.as_mut_ptr().add(from as usize) };
        if copy(to, take, base).is_none() {
            walked.fault = 1;
            walked.left = 0;
            return;
        }
        walked.at = from + take;
    }
}

/// Copies `len` bytes from the process's memory; nothing to do for 0.
#[inline(always)]
fn copy(to: *mut u8, len: u64, from: u64) -> Option<()> {
    if len == 0 {
        return Some(());
    }
    // SAFETY: the verifier proves that `to` has room for `len` bytes.
    let failed = unsafe { bpf_probe_read_user(to.cast(), len as u32, from as *const _) };
    (failed == 0).then_some(())
}
