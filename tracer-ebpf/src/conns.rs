//! The connection tables: what user space has decided about each connection, and its current run.

use core::arch::asm;

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray},
};
use tracer_common::{
    ConnState, Limits, MAX_CONNS, MAX_MORE_CONNS, MAX_POLICIES, PolicyNumber, counter, decision, owner, place,
};

use crate::{flag::Flag, layout, relay};

/// `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h, Linux 5.5).
const IN_MEMORY_OF_USER_SPACE: u32 = 1 << 10;

/// By [`place`].
#[map]
static CONNS: Array<ConnState> = Array::with_max_entries(MAX_CONNS, IN_MEMORY_OF_USER_SPACE);

/// Connections that have no place there, by socket cookie.
#[map]
static MORE_CONNS: LruHashMap<u64, ConnState> = LruHashMap::with_max_entries(MAX_MORE_CONNS, 0);

/// By [`PolicyNumber`].
#[map]
static POLICIES: Array<Limits> = Array::with_max_entries(MAX_POLICIES, 0);

/// See [`unlisted`].
#[map]
static UNLISTED: PerCpuArray<ConnState> = PerCpuArray::with_max_entries(1, 0);

/// Bytes moved on Unix sockets by socket cookie, modulo 2^32: [sent, received]. Apart from the states, which user
/// space rewrites: a count lost to such a race would never heal.
#[map]
static UNIX_BYTES: LruHashMap<u64, [u32; 2]> = LruHashMap::with_max_entries(16_384, 0);

/// Indexed by `tracer_common::counter`.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Set while user space wants to hear of no message, on no connection.
#[unsafe(link_section = ".data.paused")]
#[unsafe(no_mangle)]
static PAUSED: Flag = Flag::new();

/// Whether messages are passed over at present.
#[inline(always)]
pub fn is_paused() -> bool {
    PAUSED.is_set()
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
    if let Some(state) = place_of(cookie)
        && decision(state.owner, cookie).is_some()
    {
        return Some(state);
    }
    find_more(cookie)
}

/// The state of a connection; makes an undecided one if it has none. `ends`: whether we are told when it does ([`remove`]).
#[inline(always)]
pub fn find_or_create(cookie: u64, ends: bool) -> Option<&'static mut ConnState> {
    // What tells nobody that it ends never has a place.
    let found = if ends { find(cookie) } else { find_more(cookie) };
    if found.is_some() {
        return found;
    }
    create(cookie, PolicyNumber::UNDECIDED, ends);
    if ends { find(cookie) } else { find_more(cookie) }
}

/// The place of a connection, whosever it is. None with the back end `syscall`: its programs are so many and so long that old kernels do not
/// walk both tables.
#[inline(always)]
fn place_of(cookie: u64) -> Option<&'static mut ConnState> {
    if layout::HAS_PLACES.load() == 0 {
        return None;
    }
    // SAFETY: an element stays memory of its map while the program runs; fields may change under us, and each of them is read or
    // written alone.
    CONNS
        .get_ptr_mut(place(cookie))
        .map(|state| unsafe { &mut *state })
}

#[inline(always)]
fn find_more(cookie: u64) -> Option<&'static mut ConnState> {
    // SAFETY: as in `place_of`; here by RCU.
    MORE_CONNS.get_ptr_mut(cookie).map(|state| unsafe { &mut *state })
}

/// An undecided state of a connection that is not in the tables; nobody finds it again.
#[inline(always)]
pub fn unlisted() -> Option<&'static mut ConnState> {
    // SAFETY: this CPU's slot. A program that interrupts this one may change the run in it, and then too much is captured.
    let state = UNLISTED.get_ptr_mut(0).map(|state| unsafe { &mut *state })?;
    *state = ConnState::new(0, PolicyNumber::UNDECIDED);
    Some(state)
}

/// Makes a state of a connection that has none.
#[inline(always)]
pub fn create(cookie: u64, number: PolicyNumber, ends: bool) {
    const BPF_NOEXIST: u64 = 1;
    let new = ConnState::new(cookie, number);
    // Two CPUs that take one place at once leave it to one of them; the other connection's next look finds it taken.
    if ends && let Some(state) = place_of(cookie) {
        if decision(state.owner, cookie).is_some() {
            return;
        }
        if state.owner == 0 {
            *state = ConnState { owner: 0, ..new };
            // The owner comes last: from then on user space may decide.
            // SAFETY: a field of the element.
            unsafe { core::ptr::write_volatile(&raw mut state.owner, new.owner) };
            return;
        }
    }
    let _ = MORE_CONNS.insert(cookie, &new, BPF_NOEXIST);
}

/// Forgets a connection.
#[inline(always)]
pub fn remove(cookie: u64) {
    if let Some(state) = place_of(cookie)
        && decision(state.owner, cookie).is_some()
    {
        state.owner = 0;
        return;
    }
    let _ = MORE_CONNS.remove(cookie);
}

/// What is decided about a connection.
#[inline(always)]
pub fn decided(state: &ConnState) -> PolicyNumber {
    PolicyNumber(state.owner as u16)
}

/// Whether its messages make no events.
#[inline(always)]
pub fn is_ignored(state: &ConnState) -> bool {
    decided(state) == PolicyNumber::IGNORE
}

/// From now on they make none.
#[inline(always)]
pub fn ignore(state: &mut ConnState) {
    state.owner = owner(state.owner, PolicyNumber::IGNORE);
}

/// How much is captured of a connection about which that is decided.
#[inline(always)]
pub fn limits(number: PolicyNumber) -> Option<&'static Limits> {
    POLICIES.get(u32::from(number.0))
}

/// Adds to the byte counts of a Unix socket; [sent, received] before.
#[inline(always)]
pub fn count_unix_bytes(cookie: u64, direction: usize, len: u32) -> [u32; 2] {
    if UNIX_BYTES.get_ptr_mut(cookie).is_none() {
        let _ = UNIX_BYTES.insert(cookie, [0; 2], 0);
    }
    match UNIX_BYTES.get_ptr_mut(cookie) {
        // SAFETY: as in `place_of`.
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
