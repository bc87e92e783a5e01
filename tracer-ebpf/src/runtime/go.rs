//! Goroutines (runtime/runtime2.go: g, hchan, sudog). A pooled HTTP client writes on the connection's `writeLoop`; who asked
//! waits for that goroutine's write-error channel.
//!
//! Who asked may do so on another's behalf. Two things at the top of its stack tell: a `sync.WaitGroup` for which the goroutine waits that
//! created it, and a channel of replies from which one goroutine alone waits to receive (a worker's job has it). The former is how
//! a goroutine is found by its id; where nobody waits yet, the response's receive is the second chance.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::{Direction, GoOffsets, MAX_GO_CALLERS, RuntimeKind};

use super::{Tasks, entry, pointer, thread_pointer, whole};
use crate::buffers::read_user;

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

/// Reads the goroutine on the current thread and who waits for it into [`super::TASKS`]: 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_go(tgid: u64, scratch: u64, cookie: u64) -> u64 {
    read::<true>(tgid, scratch, cookie)
}

/// Likewise, without those who wait for the one that waits.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_go_caller(tgid: u64, scratch: u64, cookie: u64) -> u64 {
    read::<false>(tgid, scratch, cookie)
}

#[inline(always)]
fn read<const FOLLOW: bool>(tgid: u64, scratch: u64, cookie: u64) -> u64 {
    let Some(entry) = entry(tgid, RuntimeKind::GO) else {
        return 0;
    };
    let offsets = &entry.go;
    // SAFETY: as in `read_tasks`.
    let Some(tasks) = super::TASKS
        .get_ptr_mut(scratch as u32)
        .map(|tasks| unsafe { &mut *tasks })
    else {
        return 0;
    };
    let slot = thread_pointer().wrapping_add_signed(i64::from(offsets.g_tls));
    let Some(g) = pointer(slot) else {
        return 0;
    };
    tasks.task = id(g, offsets);
    let mut outermost = g;
    if offsets.write_loop_chan != 0 {
        let found = callers::<FOLLOW>(tgid, scratch, g, cookie, offsets, tasks);
        if found != 0 {
            outermost = found;
        }
    }
    if offsets.parent_goid != 0 {
        tasks.creator = read_user(outermost.wrapping_add(u64::from(offsets.parent_goid))).unwrap_or(0);
    }
    1
}

/// Notes who waits for the goroutine `g`, which moves bytes over that connection; the `g` of the outermost, 0 if nobody does.
#[inline(always)]
fn callers<const FOLLOW: bool>(
    tgid: u64,
    scratch: u64,
    g: u64,
    cookie: u64,
    offsets: &GoOffsets,
    tasks: &mut Tasks,
) -> u64 {
    let is_send = crate::relay::direction(scratch) == Direction::Send as u64;
    let caller = if is_send {
        waiter(g, offsets)
    } else {
        note_reader(tgid, g, offsets);
        remembered(cookie, offsets)
    };
    let Some(caller) = caller else { return 0 };
    tasks.awaiters[0] = id(caller, offsets);
    if !FOLLOW || offsets.parent_goid == 0 || reads_sockets(tgid, caller, offsets) {
        return caller;
    }
    let second = go_waiting(tgid, caller);
    if second == 0 {
        if is_send {
            let _ = GO_CALLERS.insert(cookie, [caller, tasks.awaiters[0]], 0);
        }
        return caller;
    }
    tasks.awaiters[1] = id(second, offsets);
    if reads_sockets(tgid, second, offsets) {
        return second;
    }
    let third = go_waiting(tgid, second);
    if third == 0 {
        return second;
    }
    tasks.awaiters[2] = id(third, offsets);
    third
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
    read_user(g.wrapping_add(u64::from(offsets.parent_goid)).wrapping_add(STARTPC)).unwrap_or(0)
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

/// The goroutine that waits for what this one does, 0 if none does or two might.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_waiting(tgid: u64, g: u64) -> u64 {
    let Some(entry) = entry(tgid, RuntimeKind::GO) else {
        return 0;
    };
    let offsets = &entry.go;
    let Some(low) = pointer(g) else { return 0 };
    let Some(high) = pointer(g.wrapping_add(u64::from(offsets.stack_hi))) else {
        return 0;
    };
    let sp = read_user::<u64>(g.wrapping_add(SCHED_SP)).unwrap_or(0);
    let parent = read_user::<u64>(g.wrapping_add(u64::from(offsets.parent_goid))).unwrap_or(0);
    let own = startpc(g, offsets);
    let mut only = 0;
    for word in 1..=WORDS {
        let place = high.wrapping_sub(word * 8);
        // Below the stack's pointer lies what was there before.
        if place < sp {
            break;
        }
        let Some(held) = pointer(place) else { continue };
        if (held ^ g) >> HEAP_BITS != 0 || (held >= low && held < high) {
            continue;
        }
        let found = go_waiter(tgid, held, parent);
        if found & CERTAIN != 0 {
            return found & !CERTAIN;
        }
        // Workers of one kind wait for jobs at a channel that all of them hold.
        if found == 0 || found == g || startpc(found, offsets) == own {
            continue;
        }
        if only != 0 && only != found {
            return 0;
        }
        only = found;
    }
    only
}

/// The goroutine that waits for what lies there, if that is a `sync.WaitGroup` or holds one and `parent` waits for it, or if it is a
/// channel of replies and only one waits.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_waiter(tgid: u64, held: u64, parent: u64) -> u64 {
    let Some(entry) = entry(tgid, RuntimeKind::GO) else {
        return 0;
    };
    let offsets = &entry.go;
    // sync.WaitGroup: state (counter in the upper half, waiters in the lower one) and semaphore. An errgroup.Group has it behind a word.
    // runtime.hchan: qcount, dataqsiz, buf, elemsize and closed.
    let Some([first, second, _, sizes]) = read_user::<[u64; 4]>(held) else {
        return 0;
    };
    for (place, state) in [(8, first), (16, second)] {
        if state as u32 == 1 && state >> 32 != 0 && state >> 52 == 0 {
            let found = semaphore_waiter(tgid, held.wrapping_add(place));
            if found != 0 && id(found, offsets) == parent {
                return found | CERTAIN;
            }
        }
    }
    let (element, closed) = (sizes & 0xffff, sizes >> 32);
    // Channels without values (cancellation, shutdown) tell nothing of who asked whom.
    if first != 0 || second >> 20 != 0 || closed != 0 || element == 0 || element > 1024 {
        return 0;
    }
    let Some([waits, last]) = read_user::<[u64; 2]>(held.wrapping_add(u64::from(offsets.chan_recvq))) else {
        return 0;
    };
    if waits == 0 || waits != last || waits % 8 != 0 {
        return 0;
    }
    let Some(found) = pointer(waits) else { return 0 };
    if id(found, offsets) == parent {
        return found | CERTAIN;
    }
    found
}

/// The goroutine that waits for the semaphore (runtime/sema.go: semtable, a tree by address in each entry), 0 if none is found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn semaphore_waiter(tgid: u64, address: u64) -> u64 {
    let Some(entry) = entry(tgid, RuntimeKind::GO) else {
        return 0;
    };
    let table = whole(entry.go.semtable);
    if table == 0 {
        return 0;
    }
    // semaRoot: lock, treap.
    let root = table.wrapping_add((address >> 3) % SEMAPHORES * CACHE_LINE).wrapping_add(8);
    let mut next = pointer(root);
    for _ in 0..DEPTH {
        let Some(node) = next else { return 0 };
        // g, next (greater addresses), prev (lesser ones).
        let Some([g, greater, lesser]) = read_user::<[u64; 3]>(node) else {
            return 0;
        };
        let waits_for = read_user::<u64>(node.wrapping_add(u64::from(entry.go.sudog_elem))).unwrap_or(0);
        if waits_for == address {
            return g & !7;
        }
        let branch = if address < waits_for { lesser } else { greater };
        next = (branch >= 4096 && branch >> 56 == 0 && branch % 8 == 0).then_some(branch);
    }
    0
}

#[inline(always)]
fn id(g: u64, offsets: &GoOffsets) -> u64 {
    read_user(g.wrapping_add(u64::from(offsets.goid))).unwrap_or(0)
}
