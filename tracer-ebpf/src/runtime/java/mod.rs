//! Java on HotSpot (runtime/javaThread.hpp): which virtual thread is mounted on the thread that runs, ([`waits`]) who waits for what it
//! works on, and ([`offers`]) whose work a pool's thread is woken for.

pub mod held;
pub mod jobs;
mod objects;
pub mod offers;
pub mod reads;
pub mod stages;
pub mod waits;
mod walk;

use tracer_common::JavaOffsets;

use super::{pointer, thread_pointer};
use crate::buffers::read_user;

/// `threadId()` of the mounted virtual thread; 0 on a platform thread, and where that can't be told.
#[inline(always)]
pub fn virtual_thread(offsets: &JavaOffsets) -> u64 {
    mounted(offsets).unwrap_or(0)
}

#[inline(always)]
fn mounted(offsets: &JavaOffsets) -> Option<u64> {
    if offsets.owner_id == 0 && offsets.tid == 0 {
        return None; // a version without virtual threads
    }
    let thread = native(offsets)?;
    let at = |offset: u32| thread.wrapping_add(u64::from(offset));
    if offsets.owner_id != 0 {
        let continuation = read_user::<u64>(at(offsets.continuation))?;
        return if continuation == 0 {
            None
        } else {
            read_user(at(offsets.owner_id))
        };
    }
    let current = id(at(offsets.current), offsets)?;
    let carrier = id(at(offsets.carrier), offsets)?;
    (current != carrier).then_some(current)
}

/// `tid` of the thread object behind the handle that lies there.
#[inline(always)]
fn id(handle: u64, offsets: &JavaOffsets) -> Option<u64> {
    let object = pointer(pointer(handle)?)?;
    read_user(object.wrapping_add(u64::from(offsets.tid)))
}

/// The running thread's `JavaThread`.
#[inline(always)]
fn native(offsets: &JavaOffsets) -> Option<u64> {
    native_of(offsets, thread_pointer())
}

/// That of the thread with that thread pointer.
#[inline(always)]
fn native_of(offsets: &JavaOffsets, control: u64) -> Option<u64> {
    if offsets.thread == 0 {
        return None;
    }
    // The thread control block's second word, in glibc and musl.
    let vector = pointer(control.wrapping_add(8))?;
    let block = pointer(vector.wrapping_add(u64::from(offsets.tls_block)))?;
    pointer(block.wrapping_add(u64::from(offsets.thread)))
}

#[inline(always)]
fn current(offsets: &JavaOffsets) -> u64 {
    native(offsets).unwrap_or(0)
}
