//! Whether a job was made for what was read last on its connection, or before that: work that goes on after its answer looks like work for the
//! next request there. Objects that a thread makes lie one behind the other in memory that it has for itself
//! (gc/shared/threadLocalAllocBuffer.hpp), and who reads a request makes the job for it.

use super::walk::{Walk, walk};
use crate::{buffers::read_user, runtime::pointer};
use aya_ebpf::{macros::map, maps::LruHashMap};

/// By socket cookie.
#[map]
static JAVA_READS: LruHashMap<u64, Read> = LruHashMap::with_max_entries(16_384, 0);

/// What is remembered of the last read on a connection.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Read {
    /// Who read (`JavaThread`), and how often objects had been moved then.
    native: u64,
    collections: u64,
    /// The memory that it had, and where its next object would have come.
    start: u64,
    end: u64,
    next: u64,
    /// Since then the loop that has read was seen to hand a call on for its sake.
    is_served: u64,
}

/// The walk's thread reads from the connection.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_read(thread: u64, slot: u64, cookie: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| walk.thread == thread && walk.futures.channel.get() != 0)
    else {
        return 0;
    };
    let [start, end] = buffer(walk, walk.native);
    walk.read = Read {
        native: walk.native,
        collections: walk.collections,
        start,
        end,
        next: next_object(walk, walk.native),
        is_served: 0,
    };
    let _ = JAVA_READS.insert(cookie, &walk.read, 0);
    1
}

/// A loop hands a call on for the sake of what it has read from the connection.
#[inline(always)]
pub fn serves(cookie: u64) {
    if let Some(read) = JAVA_READS.get_ptr_mut(cookie) {
        // SAFETY: an entry stays memory of this map while the program runs.
        unsafe { (*read).is_served = 1 };
    }
}

/// Whether that was seen since the last read there.
#[inline(always)]
pub fn is_served(cookie: u64) -> bool {
    // SAFETY: as above.
    JAVA_READS
        .get_ptr(cookie)
        .is_some_and(|read| unsafe { (*read).is_served } != 0)
}

/// What [`weigh`] says: nothing is known, the object was made before the last read on the connection, that is not known, or after it.
pub const EARLIER: u64 = 1;
pub const UNCERTAIN: u64 = 2;
pub const CERTAIN: u64 = 3;

/// Whether the object was made before or after what was read last on the connection of that cookie.
#[inline(always)]
pub fn weigh(walk: &Walk, cookie: u64, object: u64) -> u64 {
    // SAFETY: an entry stays memory of this map while the program runs. A torn one says something of another read there.
    let Some(read) = JAVA_READS
        .get_ptr(cookie)
        .map(|read| unsafe { &*read })
        .filter(|read| object != 0 && read.next != 0 && read.collections == walk.collections)
    else {
        return UNCERTAIN;
    };
    if (read.start..read.next).contains(&object) {
        return EARLIER;
    }
    let [start, _] = buffer(walk, read.native);
    let is_in_next = start != read.start && (start..next_object(walk, read.native)).contains(&object);
    if (read.next..read.end).contains(&object) || is_in_next {
        CERTAIN
    } else {
        UNCERTAIN
    }
}

#[inline(always)]
fn buffer(walk: &Walk, native: u64) -> [u64; 2] {
    walk.futures
        .buffer
        .map(|field| pointer(native.wrapping_add(u64::from(field))).unwrap_or(0))
}

#[inline(always)]
fn next_object(walk: &Walk, native: u64) -> u64 {
    read_user(native.wrapping_add(u64::from(walk.futures.made))).unwrap_or(0)
}
