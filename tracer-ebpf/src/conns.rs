//! The connection table: what user space has decided about each connection, and its current run.

use core::arch::asm;

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray},
};
use tracer_common::{ConnState, MAX_CONNS, counter};

use crate::relay;

/// By socket cookie.
#[map]
static CONNS: LruHashMap<u64, ConnState> = LruHashMap::with_max_entries(MAX_CONNS, 0);

/// See [`unlisted`].
#[map]
static UNLISTED: PerCpuArray<ConnState> = PerCpuArray::with_max_entries(1, 0);

/// Bytes moved on Unix sockets by socket cookie, modulo 2^32: [sent, received]. Apart from `CONNS`, whose values user
/// space rewrites: a count lost to such a race would never heal.
#[map]
static UNIX_BYTES: LruHashMap<u64, [u32; 2]> = LruHashMap::with_max_entries(16_384, 0);

/// Indexed by `tracer_common::counter`.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Its only entry is not 0 while user space wants to hear of no message, on no connection.
#[map]
static PAUSED: Array<u32> = Array::with_max_entries(1, 0);

/// Whether messages are passed over at present.
#[inline(always)]
pub fn is_paused() -> bool {
    // SAFETY: an entry of an array is there as long as the program.
    PAUSED.get_ptr(0).is_some_and(|paused| unsafe { paused.read_volatile() } != 0)
}

/// Adds 1 to a counter of this CPU; its value before.
#[inline(always)]
pub fn count(index: u32) -> u64 {
    match COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's slot of a per-CPU array; an interrupting program may count between load and
        // store, and then one of two counts is lost.
        Some(slot) if !relay::is_preempted() => unsafe {
            let before = *slot;
            *slot = before.wrapping_add(1);
            before
        },
        // All that others count in a time slice would be.
        Some(slot) => {
            // SAFETY: this CPU's slot, which other programs may change at any time, each in one instruction.
            unsafe {
                asm!("lock *(u64 *)({slot} + 0) += {one}", slot = in(reg) slot, one = in(reg) 1u64, options(nostack))
            };
            // SAFETY: as above.
            unsafe { slot.read_volatile() }
        }
        None => 0,
    }
}

/// The state of a connection, if it has one.
#[inline(always)]
pub fn find(cookie: u64) -> Option<&'static mut ConnState> {
    // SAFETY: an entry stays memory of this map while the program runs (RCU); fields may change under us, and each
    // of them is read or written alone.
    CONNS.get_ptr_mut(cookie).map(|state| unsafe { &mut *state })
}

/// The state of a connection; makes an undecided one if it has none.
#[inline(always)]
pub fn find_or_create(cookie: u64) -> Option<&'static mut ConnState> {
    if let Some(state) = find(cookie) {
        return Some(state);
    }
    create(cookie, &ConnState::undecided());
    find(cookie)
}

/// An undecided state of a connection that is not in the table; nobody finds it again.
#[inline(always)]
pub fn unlisted() -> Option<&'static mut ConnState> {
    // SAFETY: this CPU's slot. A program that interrupts this one may change the run in it, and then too much is captured.
    let state = UNLISTED.get_ptr_mut(0).map(|state| unsafe { &mut *state })?;
    *state = ConnState::undecided();
    Some(state)
}

/// Stores a state unless there is one.
#[inline(always)]
pub fn create(cookie: u64, state: &ConnState) {
    const BPF_NOEXIST: u64 = 1;
    let _ = CONNS.insert(cookie, state, BPF_NOEXIST);
}

/// Forgets a connection.
#[inline(always)]
pub fn remove(cookie: u64) {
    let _ = CONNS.remove(cookie);
}

/// Adds to the byte counts of a Unix socket; [sent, received] before.
#[inline(always)]
pub fn count_unix_bytes(cookie: u64, direction: usize, len: u32) -> [u32; 2] {
    if UNIX_BYTES.get_ptr_mut(cookie).is_none() {
        let _ = UNIX_BYTES.insert(cookie, [0; 2], 0);
    }
    match UNIX_BYTES.get_ptr_mut(cookie) {
        // SAFETY: as in `find`.
        Some(bytes) => unsafe {
            let before = *bytes;
            // Not by index: the compiler may build its address in a way that the verifier refuses.
            let count = bytes.cast::<u32>().add(direction & 1);
            count.write(count.read().wrapping_add(len));
            before
        },
        None => [0; 2],
    }
}
