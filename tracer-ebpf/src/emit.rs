//! Ring buffers: one for each CPU modulo their number.
//!
//! An event wakes nobody (a wake-up costs more than all the rest of it): the reader comes by on a timer. It is woken when a ring
//! is half full, and by the first event after a long sleep.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_ringbuf_query, bpf_ringbuf_reserve, bpf_ringbuf_submit,
    },
    macros::map,
    maps::RingBuf,
};
use tracer_common::{EventHeader, SIZE_CLASSES, counter};

use crate::{
    conns::count,
    flag::Flag,
    layout,
    opaque::{blur, opaque, zero},
};

macro_rules! rings {
    ($($name:ident),+) => { $( #[map] static $name: RingBuf = RingBuf::with_byte_size(4096, 0); )+ };
}
rings!(RING0, RING1, RING2, RING3, RING4, RING5, RING6, RING7);

/// Set while the reader sleeps for long because nothing comes: the next event wakes it. User space sets it, programs clear it.
#[unsafe(link_section = ".data.asleep")]
#[unsafe(no_mangle)]
static READER_ASLEEP: Flag = Flag::new();

/// Writes 0 to these words of a record. The compiler would call a function that writes the zeros byte by byte, and takes stack; and old
/// kernels take no loop that it makes of what says so.
macro_rules! clear {
    ($words:expr, $($at:literal),+) => {
        $(
            // SAFETY: a record begins with a header, and these are words of it.
            let word = unsafe { $words.add($at) };
            // SAFETY: as above.
            unsafe { word.write_volatile(0) };
        )+
    };
}
pub(crate) use clear;

/// The fill of a ring is looked at once in so many events (a power of two), and for every large one.
const LOOK_EVERY: u64 = 32;
const LARGE: u64 = 4_096;

/// Memory of one event: a header, then `capacity` bytes.
pub struct Record {
    start: *mut u8,
    pub capacity: u64,
    ring: *mut core::ffi::c_void,
    /// Events of this CPU before this one.
    before: u64,
}

impl Record {
    #[inline(always)]
    pub fn header(&self) -> *mut EventHeader {
        self.start.cast()
    }

    /// The header, made all zeros.
    #[inline(always)]
    pub fn blank(&mut self) -> &mut EventHeader {
        const { assert!(EventHeader::SIZE == 19 * 8) };
        let words = self.start.cast::<u64>();
        clear!(
            words, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18
        );
        // SAFETY: as above; zeros are a header.
        unsafe { &mut *self.header() }
    }

    /// Where the payload goes.
    #[inline(always)]
    pub fn payload(&self) -> *mut u8 {
        // SAFETY: every record is a header and at least 0 bytes after it.
        unsafe { self.start.add(EventHeader::SIZE) }
    }

    /// Hands the event to user space.
    #[inline(always)]
    pub fn submit(self) {
        // Decided last, so that what comes before is not walked once for each answer.
        let wake = self.wake();
        // SAFETY: `start` came from `bpf_ringbuf_reserve`.
        unsafe { bpf_ringbuf_submit(self.start.cast(), wake) };
    }

    /// Whether the reader is woken.
    #[inline(always)]
    fn wake(&self) -> u64 {
        // Two CPUs may both see it, and then both wake the reader.
        if READER_ASLEEP.is_set() {
            READER_ASLEEP.set(false);
            return u64::from(BPF_RB_FORCE_WAKEUP);
        }
        if self.before % LOOK_EVERY == 0 || self.capacity >= LARGE {
            // SAFETY: `ring` is a ring-buffer map.
            let waiting = unsafe { bpf_ringbuf_query(self.ring, u64::from(BPF_RB_AVAIL_DATA)) };
            if waiting > layout::WAKE_ABOVE.wide() {
                return u64::from(BPF_RB_FORCE_WAKEUP);
            }
        }
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

/// This CPU's ring.
#[inline(always)]
fn ring() -> *mut core::ffi::c_void {
    // SAFETY: no arguments.
    let cpu = opaque(u64::from(unsafe { bpf_get_smp_processor_id() })) & layout::RING_MASK.wide();
    // A chain of comparisons and not a table: a table of map addresses cannot be relocated.
    let ring = if cpu == 0 {
        &raw const RING0
    } else if opaque(cpu) == 1 {
        &raw const RING1
    } else if opaque(cpu) == 2 {
        &raw const RING2
    } else if opaque(cpu) == 3 {
        &raw const RING3
    } else if opaque(cpu) == 4 {
        &raw const RING4
    } else if opaque(cpu) == 5 {
        &raw const RING5
    } else if opaque(cpu) == 6 {
        &raw const RING6
    } else {
        &raw const RING7
    };
    ring.cast_mut().cast()
}

/// The smallest size class that holds `need` bytes, or the largest there is.
#[inline(always)]
fn size_class(need: u64) -> u64 {
    let [none, tiny, small, medium, page, large, largest] = SIZE_CLASSES;
    let class = if need == none as u64 {
        none
    } else if opaque(need) <= tiny as u64 {
        tiny
    } else if opaque(need) <= small as u64 {
        small
    } else if opaque(need) <= medium as u64 {
        medium
    } else if opaque(need) <= page as u64 {
        page
    } else if opaque(need) <= large as u64 {
        large
    } else {
        largest
    };
    class as u64
}

/// Reserves an event with room for `need` bytes of payload, or for as many as there can be. `None` (counted) if the
/// ring is full.
#[inline(always)]
pub fn reserve(need: u64) -> Option<Record> {
    let capacity = size_class(need);
    let ring = ring();
    let before = blur(count(counter::EVENTS), zero());
    // SAFETY: `ring` is a ring-buffer map and the size is a constant on every path.
    let start = unsafe { bpf_ringbuf_reserve(ring, EventHeader::SIZE as u64 + capacity, 0) };
    if start.is_null() {
        count(counter::RING_FULL);
        return None;
    }
    Some(Record {
        start: start.cast(),
        capacity,
        ring,
        before,
    })
}
