//! Goroutines (runtime/runtime2.go: g, hchan, sudog). A pooled HTTP client writes on the connection's `writeLoop`; who asked
//! waits for that goroutine's write-error channel.
//!
//! Who asked may do so on another's behalf. Two things at the top of its stack tell: a `sync.WaitGroup` for which the goroutine waits that
//! created it, and a channel of replies from which one goroutine alone waits to receive (a worker's job has it). The former is how
//! a goroutine is found by its id; where nobody waits yet, the response's receive is the second chance.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::{Direction, GoOffsets, MAX_GO_CALLERS, RuntimeKind};

use super::{Tasks, entry, pointer, thread_pointer, whole};
use crate::{buffers::read_user, relay};

/// Who asked a client's connection, by its cookie: `g` and its id. Only those for whom nobody was found to wait.
#[map]
static GO_CALLERS: LruHashMap<u64, [u64; 2]> = LruHashMap::with_max_entries(MAX_GO_CALLERS, 0);

/// Goroutines that read sockets themselves, by process and function: servers are such, and call on their own behalf.
#[map]
static GO_READERS: LruHashMap<[u64; 2], u32> = LruHashMap::with_max_entries(MAX_GO_CALLERS, 0);

/// `runtime.g.sched.sp`.
const SCHED_SP: u64 = 56;
/// `runtime.g.startpc` lies behind `parentGoid`, `gopc` and `ancestors`.
const STARTPC: u64 = 24;
/// Words at the top of a stack that are looked at: the frame of the goroutine's own function.
const WORDS: u64 = 32;
/// Go's heap lies together: pointers into it differ in these bits alone.
const HEAP_BITS: u64 = 36;
/// `runtime.semTabSize`, and the size of one entry (a cache line).
const SEMAPHORES: u64 = 251;
const CACHE_LINE: u64 = 64;
/// Depth to which a tree of semaphores is followed.
const DEPTH: usize = 8;
/// Set in what [`go_waiter`] returns if it is certain.
const CERTAIN: u64 = 1;

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
            let waits = go_waiting(tgid, scratch);
            if go_step(tgid, scratch, cookie, waits) != CHAIN {
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
        let caller = if relay::direction(scratch) == Direction::Send as u64 {
            waiter(g, offsets)
        } else {
            note_reader(tgid, g, offsets);
            remembered(cookie, offsets)
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
        return KNOWN;
    }
    let waiter = id(waits, offsets);
    if is_first {
        tasks.awaiters[1] = waiter;
    } else {
        tasks.awaiters[2] = waiter;
    }
    tasks.outermost = waits;
    tasks.creator = parent(waits, offsets);
    CHAIN
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

/// Who asked this connection last, if nobody was found to wait for it then.
#[inline(always)]
fn remembered(cookie: u64, offsets: &GoOffsets) -> Option<u64> {
    // SAFETY: an entry stays memory of this map while the program runs.
    let [caller, known] = *unsafe { GO_CALLERS.get(cookie) }?;
    let _ = GO_CALLERS.remove(cookie);
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

#[inline(always)]
fn note_reader(tgid: u64, g: u64, offsets: &GoOffsets) {
    let key = [tgid, startpc(g, offsets)];
    // SAFETY: only whether there is one matters.
    if unsafe { GO_READERS.get(key) }.is_none() {
        let _ = GO_READERS.insert(key, 1, 0);
    }
}

#[inline(always)]
fn reads_sockets(tgid: u64, g: u64, offsets: &GoOffsets) -> bool {
    // SAFETY: only whether there is one matters.
    unsafe { GO_READERS.get([tgid, startpc(g, offsets)]) }.is_some()
}

/// The goroutine that waits for what the outermost of those found does, 0 if none does or two might. A server's own asks for itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_waiting(tgid: u64, scratch: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let g = tasks.outermost;
    if reads_sockets(tgid, g, &entry.go) {
        return 0;
    }
    // runtime.g.stack: lo, hi.
    let Some(stack) = tasks.read(g) else { return 0 };
    tasks.stack = stack;
    // Below the stack's pointer lies what was there before.
    let [sp] = tasks.read(g.wrapping_add(SCHED_SP)).unwrap_or([0]);
    tasks.stack[0] = tasks.stack[0].max(sp);
    tasks.only = 0;
    for word in 1..=WORDS {
        let place = tasks.stack[1].wrapping_sub(word * 8);
        if place < tasks.stack[0] {
            break;
        }
        let Some([held]) = tasks.read(place) else { continue };
        let is_on_stack = held >= tasks.stack[0] && held < tasks.stack[1];
        if held % 8 != 0 || (held ^ tasks.outermost) >> HEAP_BITS != 0 || is_on_stack {
            continue;
        }
        let found = go_waiter(tgid, scratch, held);
        if found & CERTAIN != 0 {
            return found & !CERTAIN;
        }
        if found == 0 {
            continue;
        }
        if tasks.only != 0 && tasks.only != found {
            return 0;
        }
        tasks.only = found;
    }
    tasks.only
}

/// The goroutine that waits for what lies there, if that is a `sync.WaitGroup` or holds one and the creator of the outermost waits for
/// it, or if it is a channel of replies and only one waits.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_waiter(tgid: u64, scratch: u64, held: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let offsets = &entry.go;
    // sync.WaitGroup: state (counter in the upper half, waiters in the lower one) and semaphore. An errgroup.Group has it behind a word.
    // runtime.hchan: qcount, dataqsiz, buf, elemsize and closed.
    let Some([first, second, _, sizes]) = tasks.read(held) else {
        return 0;
    };
    for (place, state) in [(8, first), (16, second)] {
        if state as u32 == 1 && state >> 32 != 0 && state >> 52 == 0 {
            let found = semaphore_waiter(tgid, scratch, held.wrapping_add(place));
            if found != 0 && id(found, offsets) == tasks.creator {
                return found | CERTAIN;
            }
        }
    }
    let (element, closed) = (sizes & 0xffff, sizes >> 32);
    // Channels without values (cancellation, shutdown) tell nothing of who asked whom.
    if first != 0 || second >> 20 != 0 || closed != 0 || element == 0 || element > 1024 {
        return 0;
    }
    let Some([waits, last]) = tasks.read(held.wrapping_add(u64::from(offsets.chan_recvq))) else {
        return 0;
    };
    if waits == 0 || waits != last || waits % 8 != 0 {
        return 0;
    }
    // runtime.sudog.g is its first field.
    let Some([found]) = tasks.read(waits) else {
        return 0;
    };
    if found < 4096 || found >> 56 != 0 || found % 8 != 0 {
        return 0;
    }
    if id(found, offsets) == tasks.creator {
        return found | CERTAIN;
    }
    // Workers of one kind wait for jobs at a channel that all of them hold.
    let g = tasks.outermost;
    if found == g || startpc(found, offsets) == startpc(g, offsets) {
        return 0;
    }
    found
}

/// The goroutine that waits for the semaphore (runtime/sema.go: semtable, a tree by address in each entry), 0 if none is found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn semaphore_waiter(tgid: u64, scratch: u64, address: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let table = whole(entry.go.semtable);
    if table == 0 {
        return 0;
    }
    // semaRoot: lock, treap.
    let root = table
        .wrapping_add((address >> 3) % SEMAPHORES * CACHE_LINE)
        .wrapping_add(8);
    let [mut node] = tasks.read(root).unwrap_or([0]);
    for _ in 0..DEPTH {
        if node < 4096 || node >> 56 != 0 || node % 8 != 0 {
            return 0;
        }
        let [waits_for] = tasks
            .read(node.wrapping_add(u64::from(entry.go.sudog_elem)))
            .unwrap_or([0]);
        // g, next (greater addresses), prev (lesser ones).
        let Some([g, greater, lesser]) = tasks.read(node) else {
            return 0;
        };
        if waits_for == address {
            return g & !7;
        }
        node = if address < waits_for { lesser } else { greater };
    }
    0
}

#[inline(always)]
fn parent(g: u64, offsets: &GoOffsets) -> u64 {
    read_user(g.wrapping_add(u64::from(offsets.parent_goid))).unwrap_or(0)
}

#[inline(always)]
fn id(g: u64, offsets: &GoOffsets) -> u64 {
    read_user(g.wrapping_add(u64::from(offsets.goid))).unwrap_or(0)
}
