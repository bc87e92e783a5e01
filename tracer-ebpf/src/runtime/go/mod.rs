//! Goroutines (runtime/runtime2.go: g, hchan, sudog). A pooled HTTP client writes on the connection's `writeLoop`; who asked
//! waits for that goroutine's write-error channel.
//!
//! Who asked may do so on another's behalf: [`waits`] looks for those that wait for it. Where nobody waits yet, or nobody was seen to ask
//! ([`asker`]), the response's receive is the second chance.

mod asker;
mod senders;
mod waits;

use aya_ebpf::{helpers::generated::bpf_probe_read_user, macros::map, maps::LruHashMap};
use tracer_common::{Direction, GoOffsets, MAX_GO_CALLERS, PLACE_UNIT, RuntimeKind};

use super::{FRAME, Tasks, entry, pointer, thread_pointer};
use crate::{buffers::read_user, relay};

/// Who asked a client's connection, by its cookie: `g` and its id. Only those for whom nobody was found to wait; [`UNSEEN`] if nobody was
/// found to ask.
#[map]
static GO_CALLERS: LruHashMap<u64, [u64; 2]> = LruHashMap::with_max_entries(MAX_GO_CALLERS, 0);

/// Goroutines that read sockets themselves, by process and function: servers are such, and call on their own behalf. Or [`WRITES`].
#[map]
static GO_READERS: LruHashMap<[u64; 2], u32> = LruHashMap::with_max_entries(MAX_GO_CALLERS, 0);

/// In [`GO_READERS`]: goroutines that read sockets, and those that write for whoever asks (`writeLoop`).
const READS: u32 = 1;
const WRITES: u32 = 2;
/// In [`GO_CALLERS`].
const UNSEEN: [u64; 2] = [0; 2];
/// Go's heap lies together: pointers into it differ in these bits alone.
const HEAP_BITS: u64 = 36;
/// `runtime.g.startpc` lies behind `parentGoid`, `gopc` and `ancestors`.
const STARTPC: u64 = 24;

/// What [`go_begin`] and [`go_step`] say: there is no goroutine, all is known, somebody may wait for the one found last.
const NOTHING: u64 = 0;
const KNOWN: u64 = 1;
const CHAIN: u64 = 2;
/// Goroutines that wait for each other, beyond the first.
const STEPS: usize = 2;

/// Reads the goroutine on the current thread, and those that wait for it and (`follow`) for each other, into [`super::TASKS`]: 0 if
/// there is none.
///
/// The functions below work one after the other on that, and read into it, not into memory of their own: the kernel gives a program and
/// all that it calls 512 bytes of stack.
#[inline(always)]
pub fn find(tgid: u64, scratch: u64, cookie: u64, follow: bool) -> u64 {
    let found = go_begin(tgid, scratch, cookie);
    if follow && found == CHAIN {
        for _ in 0..STEPS {
            let mut waits = 0;
            if waits::go_frame(tgid, scratch) != 0 {
                waits = waits::go_waiting(tgid, scratch);
                if waits == waits::MEMBERS {
                    waits::go_members(scratch);
                    waits = waits::go_waiting(tgid, scratch);
                }
                if waits == 0 {
                    waits = waits::go_settle(tgid, scratch);
                }
            }
            let step = go_step(tgid, scratch, cookie, waits);
            for _ in 0..senders::SENDERS {
                if senders::go_sender(tgid, scratch) == 0 {
                    break;
                }
            }
            if step != CHAIN {
                break;
            }
        }
    }
    found
}

#[inline(always)]
fn tasks(scratch: u64) -> Option<&'static mut Tasks> {
    // SAFETY: as in `read_tasks`.
    super::TASKS
        .get_ptr_mut(scratch as u32)
        .map(|tasks| unsafe { &mut *tasks })
}

/// The goroutine that moves bytes, and the one that asked its connection.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_begin(tgid: u64, scratch: u64, cookie: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return NOTHING;
    };
    let offsets = &entry.go;
    let slot = thread_pointer().wrapping_add_signed(i64::from(offsets.g_tls));
    let Some(g) = pointer(slot) else {
        return NOTHING;
    };
    tasks.task = id(g, offsets);
    tasks.outermost = g;
    let mut next = KNOWN;
    if offsets.write_loop_chan != 0 {
        let function = [tgid, startpc(g, offsets)];
        let does = does(function);
        let caller = if relay::direction(scratch) == Direction::Send as u64 {
            // What reads sockets itself is no `writeLoop`: a server's goroutine has one's old channel in its frame if it got such a stack.
            let caller = if does == READS {
                None
            } else {
                waiter(g, offsets)
            };
            if caller.is_some() && does == 0 {
                let _ = GO_READERS.insert(function, WRITES, 0);
            } else if caller.is_none() && does == WRITES {
                let _ = GO_CALLERS.insert(cookie, UNSEEN, 0);
            }
            caller
        } else {
            // Whatever lies at the top of its stack.
            if does != READS {
                let _ = GO_READERS.insert(function, READS, 0);
            }
            remembered(tgid, scratch, cookie, offsets)
        };
        if let Some(caller) = caller {
            tasks.awaiters[0] = id(caller, offsets);
            tasks.outermost = caller;
            next = CHAIN;
        }
    }
    if offsets.parent_goid != 0 {
        tasks.creator = parent(tasks.outermost, offsets);
        return next;
    }
    KNOWN
}

/// Takes up the goroutine `waits`, which waits for the outermost of those found; 0 if nobody does.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_step(tgid: u64, scratch: u64, cookie: u64, waits: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return NOTHING;
    };
    let offsets = &entry.go;
    let is_first = tasks.awaiters[1] == 0;
    if waits == 0 {
        if is_first
            && !reads_sockets(tgid, tasks.outermost, offsets)
            && relay::direction(scratch) == Direction::Send as u64
        {
            let _ = GO_CALLERS.insert(cookie, [tasks.outermost, tasks.awaiters[0]], 0);
        }
        let [sender, since] = tasks.sent_by;
        if sender != 0 {
            tell(tasks, sender);
            tasks.held(since);
        }
        let [one, two, three] = tasks.places;
        tell_place(tasks, one);
        tell_place(tasks, two);
        tell_place(tasks, three);
        return KNOWN;
    }
    tell_place(tasks, tasks.place);
    tell(tasks, id(waits, offsets));
    if tasks.place == 0 {
        tasks.creator = parent(waits, offsets);
    }
    tasks.outermost = waits;
    CHAIN
}

/// One more that waits.
#[inline(always)]
fn tell(tasks: &mut Tasks, unit: u64) {
    if tasks.awaiters[1] == 0 {
        tasks.awaiters[1] = unit;
    } else if tasks.awaiters[2] == 0 {
        tasks.awaiters[2] = unit;
    } else if tasks.awaiters[3] == 0 {
        tasks.awaiters[3] = unit;
    }
}

/// One more place where somebody waits or will.
#[inline(always)]
fn tell_place(tasks: &mut Tasks, place: u64) {
    if place != 0 {
        tell(tasks, place | PLACE_UNIT);
    }
}

/// The goroutine that waits to receive from the channel kept at the top of `g`'s stack.
#[inline(always)]
fn waiter(g: u64, offsets: &GoOffsets) -> Option<u64> {
    let top = pointer(g.wrapping_add(u64::from(offsets.stack_hi)))?;
    let channel = pointer(top.wrapping_sub(u64::from(offsets.write_loop_chan)))?;
    let sudog = pointer(channel.wrapping_add(u64::from(offsets.chan_recvq)))?;
    // runtime.sudog.g is its first field.
    let caller = pointer(sudog)?;
    (caller != g).then_some(caller)
}

/// Who asked this connection last, if nobody was found to wait for it then, or to ask.
#[inline(always)]
fn remembered(tgid: u64, scratch: u64, cookie: u64, offsets: &GoOffsets) -> Option<u64> {
    // SAFETY: an entry stays memory of this map while the program runs.
    let asked = *unsafe { GO_CALLERS.get(cookie) }?;
    let _ = GO_CALLERS.remove(cookie);
    if asked == UNSEEN {
        let caller = asker::go_asker(tgid, scratch);
        return (caller != 0).then_some(caller);
    }
    let [caller, known] = asked;
    // The memory of a goroutine that has ended is used again.
    (id(caller, offsets) == known).then_some(caller)
}

#[inline(always)]
fn startpc(g: u64, offsets: &GoOffsets) -> u64 {
    read_user(
        g.wrapping_add(u64::from(offsets.parent_goid))
            .wrapping_add(STARTPC),
    )
    .unwrap_or(0)
}

/// What goroutines of a function do: [`READS`], [`WRITES`], 0 = not known.
#[inline(always)]
fn does(function: [u64; 2]) -> u32 {
    // SAFETY: a word is not torn.
    unsafe { GO_READERS.get(function) }.copied().unwrap_or(0)
}

#[inline(always)]
fn reads_sockets(tgid: u64, g: u64, offsets: &GoOffsets) -> bool {
    does([tgid, startpc(g, offsets)]) == READS
}

#[inline(always)]
fn is_write_loop(tgid: u64, function: u64) -> bool {
    does([tgid, function]) == WRITES
}

/// Reads the top of a stack into [`Tasks::frame`]: where that begins, `None` if it can't be read.
#[inline(always)]
fn read_frame(tasks: &mut Tasks, top: u64) -> Option<u64> {
    let first = top.wrapping_sub(8 * FRAME as u64);
    // SAFETY: there is room for so many words; the helper refuses bad addresses.
    let failed = unsafe {
        bpf_probe_read_user(
            tasks.frame.as_mut_ptr().cast(),
            8 * FRAME as u32,
            first as *const _,
        )
    };
    (failed == 0).then_some(first)
}

/// Whether that may be the address of an object in the heap, as goroutines are.
#[inline(always)]
fn in_heap(tasks: &Tasks, address: u64) -> bool {
    address != 0 && address % 8 == 0 && (address ^ tasks.outermost) >> HEAP_BITS == 0
}

#[inline(always)]
fn parent(g: u64, offsets: &GoOffsets) -> u64 {
    read_user(g.wrapping_add(u64::from(offsets.parent_goid))).unwrap_or(0)
}

#[inline(always)]
fn id(g: u64, offsets: &GoOffsets) -> u64 {
    read_user(g.wrapping_add(u64::from(offsets.goid))).unwrap_or(0)
}
