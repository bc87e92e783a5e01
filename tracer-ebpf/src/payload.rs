//! Copies a message's bytes from the process's buffers into an event.
//!
//! One buffer, or two that hold the whole message, are copied straight into the ring. More vectors are gathered in scratch
//! memory first: the verifier bounds the position and the length of a copy, but not their sum, and would have to walk the
//! vectors anew for every size of event.
//!
//! What looks at vectors is a function of its own with numbers for arguments ([`look_at_vectors`], [`take_up`]): the verifier walks
//! such a function once, and not once for every way that leads to it.

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::map,
    maps::PerCpuArray,
};
use tracer_common::{MAX_IOVECS, SIZE_CLASSES, TAIL_BYTES};

use crate::{
    buffers::{Buffers, Vectors},
    emit::Record,
    opaque::{at_most, blur, opaque, smaller},
};

const TAIL: u64 = TAIL_BYTES as u64;
const LARGEST: u64 = SIZE_CLASSES[SIZE_CLASSES.len() - 1] as u64;

/// Room for gathered bytes. A per-CPU map value may have 32 KiB (PCPU_MIN_UNIT_SIZE), and the walk takes some of it. A copy
/// starts in the first half and is no longer than half; the tail, from two vectors, lies behind both.
const SCRATCH: usize = (32 << 10) - 72;
const HALF: u64 = (SCRATCH as u64 - 2 * TAIL) / 2;

/// Scratch memory: gathered bytes, and how far the walk along the vectors has come.
#[repr(C)]
struct Scratch {
    /// Bytes to copy.
    wanted: u64,
    /// Bytes copied.
    at: u64,
    /// Bytes of the message that lie in vectors not visited yet.
    left: u64,
    fault: u64,
    /// Where the last bytes seen lie, and those before them. After [`found::PAIR`]: the two vectors.
    previous: Piece,
    last: Piece,
    /// Bytes from the end, behind those from the start.
    tail: u64,
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

/// By [`crate::message::Moved::scratch`]: one for each direction, or more if user space says so.
#[map]
static SCRATCHES: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

/// Bits of that number.
const SCRATCH_BITS: u32 = 5;

/// What [`look_at_vectors`] found; anything else is the address of the one buffer that holds the message.
mod found {
    /// The process's memory did not give its vectors or their bytes.
    pub const FAULT: u64 = 0;
    /// Two buffers hold the message.
    pub const PAIR: u64 = 1;
    /// The bytes are in scratch memory.
    pub const GATHERED: u64 = 2;
}

/// What to copy, and how many bytes that is. Numbers only, and no kinds of which each would be a way of its own to the verifier;
/// all 0 where there is nothing to copy.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Bytes from the start, and from the end.
    head: u64,
    tail: u64,
    /// Bytes that the event must have room for.
    room: u64,
    /// Of the head, so many bytes lie in the process's first buffer and the others in the second; the tail ends where the message
    /// ends.
    first: u64,
    in_first: u64,
    second: u64,
    end: u64,
    /// 1 if they were gathered in scratch memory.
    gathered: u64,
}

/// Why there is no payload, or less than was asked for.
#[derive(Clone, Copy)]
#[repr(u64)]
pub enum Missing {
    Nothing = 0,
    /// The process's memory did not give it.
    Fault = 1,
    /// There is no buffer of the process to read.
    Unavailable = 2,
}

impl Wanted {
    pub const NOTHING: Self = Self {
        head: 0,
        tail: 0,
        room: 0,
        first: 0,
        in_first: 0,
        second: 0,
        end: 0,
        gathered: 0,
    };

    /// `head` bytes from the start of a message of `len` bytes, and a tail if that is not all.
    #[inline(always)]
    pub fn new(buffers: Buffers, len: u64, head: u64, scratch: u32) -> (Self, Missing) {
        match buffers {
            Buffers::One { base } => (Self::one(base, len, head), Missing::Nothing),
            Buffers::Many(vectors) => {
                let Vectors {
                    first, count, skip, ..
                } = vectors;
                let bits = vectors.bits() << SCRATCH_BITS | u64::from(scratch);
                let found = look_at_vectors(first, count, skip, len << 32 | head, bits);
                Self::found(found, len, head, scratch)
            }
            Buffers::Unavailable => (Self::NOTHING, Missing::Unavailable),
        }
    }

    #[inline(always)]
    fn found(found: u64, len: u64, head: u64, scratch: u32) -> (Self, Missing) {
        if found > found::GATHERED {
            return (Self::one(found, len, head), Missing::Nothing);
        }
        let Some(scratch) = SCRATCHES.get_ptr(scratch) else {
            return (Self::NOTHING, Missing::Fault);
        };
        // SAFETY: this CPU's slot, which only this program uses.
        let scratch = unsafe { &*scratch };
        if found == found::PAIR {
            return (
                Self::pair(scratch.previous, scratch.last, len, head),
                Missing::Nothing,
            );
        }
        if found != found::GATHERED {
            return (Self::NOTHING, Missing::Fault);
        }
        let wanted = Self {
            head: scratch.at,
            tail: scratch.tail,
            room: scratch.at + scratch.tail,
            gathered: 1,
            ..Self::NOTHING
        };
        (wanted, Missing::Nothing)
    }

    #[inline(always)]
    fn one(base: u64, len: u64, head: u64) -> Self {
        // The head leaves room for a tail, however large the event may be.
        let head = smaller(head, LARGEST - TAIL);
        let tail = smaller(len - head, TAIL);
        Self {
            head,
            tail,
            room: head + tail,
            first: base,
            in_first: head,
            second: 0,
            end: base.wrapping_add(len),
            gathered: 0,
        }
    }

    /// The two vectors hold the message, and the second one the whole tail.
    #[inline(always)]
    fn pair(first: Piece, second: Piece, len: u64, head: u64) -> Self {
        let tail = smaller(len - head, TAIL);
        let in_first = smaller(first.size, head);
        // The first part lies in the first quarter: each part has a bound of its own then, and the verifier sees that they fit. First
        // vectors tend to be short, headers before a body.
        let rest = head - in_first + tail;
        let room = (in_first * 4).max(rest + rest / 2);
        Self {
            head,
            tail,
            room,
            first: first.base,
            in_first,
            second: second.base,
            end: second.base.wrapping_add(len - first.size),
            gathered: 0,
        }
    }

    /// The same, of which the verifier knows nothing.
    #[inline(always)]
    pub fn blurred(self, zero: u64) -> Self {
        Self {
            head: blur(self.head, zero),
            tail: blur(self.tail, zero),
            room: blur(self.room, zero),
            first: blur(self.first, zero),
            in_first: blur(self.in_first, zero),
            second: blur(self.second, zero),
            end: blur(self.end, zero),
            gathered: blur(self.gathered, zero),
        }
    }

    /// Bytes of payload that the event must hold.
    #[inline(always)]
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Copies into the event: (bytes from the start, bytes from the end), or `None` if the process's memory did not give
    /// them.
    ///
    /// Every part fits, because the event was reserved for [`Self::room`]; what is compared with the record's capacity here is for
    /// the verifier. It walks on from each comparison that could go both ways, and so what could not be is a fault, which ends
    /// the copy, and not another length.
    #[inline(always)]
    pub fn copy(&self, record: &Record, scratch: u32) -> Option<(u64, u64)> {
        if self.gathered != 0 {
            let scratch = SCRATCHES.get_ptr(scratch)?;
            // SAFETY: this CPU's slot, which only this program uses.
            let from = unsafe { &*scratch }.bytes.as_ptr();
            let all = within(within(self.room, record.capacity)?, SCRATCH as u64)?;
            // SAFETY: the scratch memory has at least `all` bytes, and the record has room for as many.
            let failed = unsafe { bpf_probe_read_kernel(record.payload().cast(), all as u32, from.cast()) };
            return (failed == 0).then_some((self.head, self.tail));
        }
        copy(
            record.payload(),
            within(self.in_first, record.capacity)?,
            self.first,
        )?;
        if self.head > self.in_first {
            let quarter = record.capacity / 4;
            let from = within(self.in_first, quarter)?;
            // SAFETY: at most a quarter of the record.
            let to = unsafe { record.payload().add(from as usize) };
            let rest = within(self.head - self.in_first, record.capacity - quarter)?;
            copy(to, rest, self.second)?;
        }
        if self.tail != 0 && record.capacity >= TAIL {
            let tail = within(self.tail, TAIL)?;
            let at = within(self.head, record.capacity - TAIL)?;
            // SAFETY: `at` is at least a tail before the end of the record.
            let to = unsafe { record.payload().add(at as usize) };
            copy(to, tail, self.end.wrapping_sub(tail))?;
        }
        Some((self.head, self.tail))
    }
}

/// `value`, if it is at most `max`; the comparison stays.
#[inline(always)]
fn within(value: u64, max: u64) -> Option<u64> {
    let value = opaque(value);
    (value <= max).then_some(value)
}

/// Looks at the vectors of a message: where its bytes lie ([`found`]), of which there are `lengths >> 32` and the first
/// `lengths & 0xffff_ffff` are wanted. `bits`: the number of the scratch memory, then [`Vectors::bits`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_at_vectors(first: u64, count: u64, skip: u64, lengths: u64, bits: u64) -> u64 {
    let vectors = Vectors::new(first, count, skip, bits >> SCRATCH_BITS);
    let (len, head) = (lengths >> 32, lengths & 0xffff_ffff);
    let Some([base, size]) = vectors.entry(0) else {
        return found::FAULT;
    };
    // The first vector holds the whole message: one buffer.
    if size >= len {
        return if base > found::GATHERED {
            base
        } else {
            found::FAULT
        };
    }
    let Some(scratch) = SCRATCHES.get_ptr_mut(scratch_number(bits)) else {
        return found::FAULT;
    };
    // SAFETY: this CPU's slot; no program that uses it runs while another one does (`crate::relay::scratch`).
    let walked = unsafe { &mut *scratch };
    let tail = (len - head).min(TAIL);
    if count >= 2 && size <= LARGEST / 4 && head <= LARGEST / 4 {
        let Some([next, room]) = vectors.entry(1) else {
            return found::FAULT;
        };
        if room >= len - size && len - size >= tail {
            walked.previous = Piece { base, size };
            walked.last = Piece {
                base: next,
                size: room,
            };
            return found::PAIR;
        }
    }
    walked.wanted = if head < HALF { head } else { HALF };
    walked.at = 0;
    walked.left = len;
    walked.fault = 0;
    walked.tail = 0;
    walked.previous = Piece { base: 0, size: 0 };
    walked.last = Piece { base: 0, size: 0 };
    let mut index = 0;
    while index < MAX_IOVECS as u64 && index < count {
        if take_up(first, index, skip, bits) == 0 {
            break;
        }
        index = opaque(index + 1); // or the compiler writes the loop out
    }
    if walked.fault != 0 {
        return found::FAULT;
    }
    let at = at_most(walked.at, 2 * HALF);
    // Vectors beyond the last that is followed hold the end: there is no tail then.
    if walked.left > 0 || at >= len {
        return found::GATHERED;
    }
    let want = at_most(len - at, TAIL);
    let second = at_most(walked.last.size, want);
    let first = at_most(walked.previous.size, want - second);
    // SAFETY: `at` is at least two tails before the end of the bytes.
    let to = unsafe { walked.bytes.as_mut_ptr().add(at as usize) };
    if copy(
        to,
        at_most(first, TAIL),
        walked.previous.end().wrapping_sub(first),
    )
    .is_none()
    {
        return found::FAULT;
    }
    // SAFETY: as above; `first` is at most one tail.
    let to = unsafe { to.add(at_most(first, TAIL) as usize) };
    if copy(to, at_most(second, TAIL), walked.last.end().wrapping_sub(second)).is_none() {
        return found::FAULT;
    }
    walked.tail = first + second;
    found::GATHERED
}

impl Piece {
    #[inline(always)]
    fn end(self) -> u64 {
        self.base.wrapping_add(self.size)
    }
}

#[inline(always)]
fn scratch_number(bits: u64) -> u32 {
    (bits & ((1 << SCRATCH_BITS) - 1)) as u32
}

/// Takes up the vector `index`: 0 if that was all of the message, or a fault.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_up(first: u64, index: u64, skip: u64, bits: u64) -> u64 {
    let Some(scratch) = SCRATCHES.get_ptr_mut(scratch_number(bits)) else {
        return 0;
    };
    // SAFETY: as in `look_at_vectors`.
    let walked = unsafe { &mut *scratch };
    let Some([base, size]) = Vectors::new(first, 0, skip, bits >> SCRATCH_BITS).entry(index) else {
        walked.fault = 1;
        return 0;
    };
    let size = if size < walked.left { size } else { walked.left };
    if size == 0 {
        return u64::from(walked.left != 0);
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
            return 0;
        }
        walked.at = from + take;
    }
    walked.left
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
