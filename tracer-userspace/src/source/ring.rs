//! One BPF ring buffer, read in place.
//!
//! The layout is that of kernel/bpf/ringbuf.c: a page with the consumer's position, a page with the producer's,
//! then the data, mapped twice in a row so that a record which wraps around is contiguous. Positions count bytes
//! since the start and only grow. aya's own reader holds one record at a time; merging several rings needs to
//! look at the records of all of them before any is given back.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use crate::mapping::Mapping;

/// Set in a record's length while the program still writes it (include/uapi/linux/bpf.h).
const BUSY: u32 = 1 << 31;
/// Set when the program has thrown it away.
const DISCARD: u32 = 1 << 30;
/// Bytes before each record: its length, and a word for the kernel.
const PREFIX: usize = 8;

/// What lies at a position of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// A record of `len` bytes; the next one starts at `next`.
    Record {
        /// Position of the record's first byte.
        start: usize,
        /// Bytes.
        len: usize,
        /// Position of the next slot.
        next: usize,
    },
    /// Thrown away by the program.
    Discarded {
        /// Position of the next slot.
        next: usize,
    },
    /// Reserved, not yet written.
    Busy,
    /// Nothing yet.
    Empty,
}

/// A mapped ring.
pub struct Ring {
    fd: OwnedFd,
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    capacity: usize,
}

impl Ring {
    /// Maps a ring of `capacity` bytes (a power of two).
    pub fn new(fd: OwnedFd, capacity: usize) -> io::Result<Self> {
        use std::os::fd::AsFd as _;
        // SAFETY: no memory is involved.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)?;
        if !capacity.is_power_of_two() || capacity < page {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let consumer = Mapping::new(fd.as_fd(), page, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        let producer = Mapping::new(fd.as_fd(), page + 2 * capacity, page, libc::PROT_READ)?;
        Ok(Self {
            fd,
            consumer,
            producer,
            page,
            capacity,
        })
    }

    /// The ring's descriptor, for polling.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Bytes that it holds at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn consumer(&self) -> &AtomicUsize {
        // SAFETY: the first word of the consumer page, mapped for as long as `self` lives.
        unsafe { self.consumer.start().cast().as_ref() }
    }

    fn producer(&self) -> &AtomicUsize {
        // SAFETY: the first word of the producer page, mapped for as long as `self` lives.
        unsafe { self.producer.start().cast().as_ref() }
    }

    /// Where reading goes on.
    pub fn position(&self) -> usize {
        self.consumer().load(Ordering::Relaxed)
    }

    /// Where writing goes on.
    pub fn end(&self) -> usize {
        self.producer().load(Ordering::Acquire)
    }

    /// Looks at the slot at `position`, which lies before `end`.
    pub fn look(&self, position: usize, end: usize) -> Slot {
        if position == end {
            return Slot::Empty;
        }
        let at = self.page + (position & (self.capacity - 1));
        // SAFETY: `at` is at most the page and one capacity into a mapping of the page and two.
        let word = unsafe { self.producer.start().add(at) };
        // SAFETY: records start at multiples of 8, and the kernel only changes the length atomically.
        let length = unsafe { word.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
        if length & BUSY != 0 {
            return Slot::Busy;
        }
        let len = (length & !DISCARD) as usize;
        let next = position.wrapping_add((len + PREFIX).next_multiple_of(8));
        if length & DISCARD != 0 {
            return Slot::Discarded { next };
        }
        Slot::Record {
            start: position.wrapping_add(PREFIX),
            len,
            next,
        }
    }

    /// The bytes of a record that [`Self::look`] reported. They stay until [`Self::release`] passes them; `&mut self`
    /// there keeps such slices from outliving it. A record longer than the ring (another layout) is empty.
    pub fn bytes(&self, start: usize, len: usize) -> &[u8] {
        if len > self.capacity {
            return &[];
        }
        let at = self.page + (start & (self.capacity - 1));
        // SAFETY: the data is mapped twice, so a record that starts within one capacity and is no longer than that is
        // within the mapping.
        let start = unsafe { self.producer.start().add(at) };
        // SAFETY: the record is complete (not busy), and the kernel writes nothing there before it is released.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Gives everything before `position` back to the kernel.
    pub fn release(&mut self, position: usize) {
        self.consumer().store(position, Ordering::Release);
    }
}
