//! Who waits for what a goroutine does on another's behalf (runtime/chan.go: hchan; runtime/sema.go; sync/waitgroup.go).
//!
//! The frame of the goroutine's own function, at the top of its stack, has what it was told when it began, or the job that it works off:
//! a channel for the reply, a `sync.WaitGroup`, an object or a function that holds one. Such a place tells who waits: its creator,
//! which proves it, or one goroutine alone. Where nobody waits yet, the place itself is told: who is seen there later waits for
//! this, too. Of two places of one type one is left over from the job before, as frames are not cleared: the one that was there already.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, macros::map, maps::LruHashMap};
use tracer_common::{GoOffsets, MAX_GO_CALLERS, RuntimeKind};

use super::{entry, id, in_heap, is_write_loop, parent, read_frame, reads_sockets, senders, startpc, tasks};
use crate::runtime::{FRAME, HELD, OBJECT, PLACES, Tasks, whole};

/// Channels over which workers get their jobs, by process and address: workers were seen to wait there, or others to send.
#[map]
static GO_QUEUES: LruHashMap<[u64; 2], u32> = LruHashMap::with_max_entries(MAX_GO_CALLERS, 0);

/// Where the jobs of a goroutine were awaited, by process and goroutine: that of its last one, and another place that it still had then.
#[map]
static GO_WORKERS: LruHashMap<[u64; 2], [u64; 2]> = LruHashMap::with_max_entries(MAX_GO_CALLERS, 0);

/// Who creates the goroutines of a function, by process and function: [`MANY`] do, or that one alone.
#[map]
static GO_CREATORS: LruHashMap<[u64; 2], u64> = LruHashMap::with_max_entries(MAX_GO_CALLERS, 0);

/// `runtime.g.sched.sp`.
const SCHED_SP: u64 = 56;
/// `hchan.elemtype` lies before `sendx`, `recvx` and `recvq`; from Go 1.23 on there is a timer before it.
const TIMER: u64 = 32;
const WITH_TIMER: u32 = 64;
/// `runtime.semTabSize`, and the size of one entry (a cache line).
const SEMAPHORES: u64 = 251;
const CACHE_LINE: u64 = 64;
/// Depth to which a tree of semaphores is followed.
const DEPTH: usize = 8;
/// What [`go_waiting`] says instead of a goroutine.
pub const MEMBERS: u64 = 1;
/// Set in that of [`GO_WORKERS`]' places which is the last job's; in neither if that is not known.
pub const LAST: u64 = 1;
/// In [`GO_CREATORS`].
const MANY: u64 = u64::MAX;
/// In [`Tasks::many`]: no places are noted.
const PASSING: u64 = 2;
/// In [`Tasks::kinds`]: no channel.
const WAIT_GROUP: u64 = 1;

/// Finds the objects that the outermost of those found has in the frame of its own function: 0 if none are looked for. A server's own
/// goroutine asks for itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_frame(tgid: u64, scratch: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let g = tasks.outermost;
    (tasks.place, tasks.size, tasks.many, tasks.members) = (0, 0, 0, 0);
    (tasks.sender, tasks.sent_by) = (0, [0; 2]);
    (tasks.places, tasks.kinds, tasks.waiting) = ([0; PLACES], [0; PLACES], [0; PLACES]);
    if reads_sockets(tgid, g, &entry.go) {
        return 0;
    }
    if is_passing(tgid, g, &entry.go) {
        tasks.many = PASSING;
    }
    // runtime.g.stack: lo, hi.
    let Some(stack) = tasks.read(g) else { return 0 };
    tasks.stack = stack;
    // Below the stack's pointer lies what was there before.
    let [sp] = tasks.read(g.wrapping_add(SCHED_SP)).unwrap_or([0]);
    tasks.stack[0] = tasks.stack[0].max(sp);
    let Some(first) = read_frame(tasks, stack[1]) else {
        return 0;
    };
    for at in 0..FRAME {
        let held = tasks.frame[at];
        let is_used = first.wrapping_add(8 * at as u64) >= tasks.stack[0];
        tasks.held[at] = if is_used && is_object(tasks, held) {
            held
        } else {
            0
        };
        tasks.held[FRAME + at] = 0;
    }
    1
}

/// Whether goroutines of that kind are made for a job each: different ones create them. A pool's workers have one creator. The stack of a
/// goroutine that ends goes to the next one as it is, with all the places of others' jobs, so that nothing but the creator's own waiting proves
/// one.
#[inline(always)]
fn is_passing(tgid: u64, g: u64, offsets: &GoOffsets) -> bool {
    let key = [tgid, startpc(g, offsets)];
    let creator = parent(g, offsets);
    // SAFETY: a word is not torn.
    match unsafe { GO_CREATORS.get(key) }.copied() {
        Some(MANY) => true,
        Some(known) if known == creator => false,
        Some(_) => {
            let _ = GO_CREATORS.insert(key, MANY, 0);
            true
        }
        None => {
            let _ = GO_CREATORS.insert(key, creator, 0);
            false
        }
    }
}

/// Finds the objects that those found by [`go_frame`] hold: a job that is passed by its address, a function and its variables.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_members(scratch: u64) -> u64 {
    let Some(tasks) = tasks(scratch) else { return 0 };
    tasks.members = 1;
    for at in 0..FRAME {
        tasks.frame[at] = tasks.held[at];
        tasks.held[at] = 0;
    }
    for at in 0..FRAME {
        if tasks.frame[at] == 0 {
            continue;
        }
        // SAFETY: there is room for so many words; the helper refuses bad addresses.
        let failed = unsafe {
            bpf_probe_read_user(
                tasks.object.as_mut_ptr().cast(),
                8 * OBJECT as u32,
                tasks.frame[at] as *const _,
            )
        };
        for word in 0..OBJECT {
            let held = tasks.object[word];
            if failed == 0 && is_object(tasks, held) {
                tasks.held[(tasks.members % HELD as u64) as usize] = held;
                tasks.members += 1;
            }
        }
    }
    1
}

/// Whether that may be the address of an object in the heap.
#[inline(always)]
fn is_object(tasks: &Tasks, held: u64) -> bool {
    let is_on_stack = held >= tasks.stack[0] && held < tasks.stack[1];
    in_heap(tasks, held) && !is_on_stack
}

/// Looks at the objects that were found: the goroutine that waits for what the outermost of those found does, if that is certain;
/// [`MEMBERS`] if what they hold is to be looked at; else 0, and the places are [`go_settle`]'s.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_waiting(tgid: u64, scratch: u64) -> u64 {
    let Some(tasks) = tasks(scratch) else { return 0 };
    for at in 0..HELD {
        let held = tasks.held[at];
        if held != 0 {
            let found = go_waiter(tgid, scratch, held);
            if found != 0 {
                (tasks.place, tasks.places) = (0, [0; PLACES]);
                return found;
            }
        }
    }
    // A channel of pointers may be the one over which jobs come.
    let is_found = tasks.places[0] != 0 && (tasks.size != 8 || tasks.waiting[0] != 0 || tasks.places[1] != 0);
    if tasks.members == 0 && !is_found {
        MEMBERS
    } else {
        0
    }
}

/// The goroutine that waits for what the outermost of those found does, if one alone does, and [`Tasks::place`] where. Else 0, and
/// [`Tasks::places`] has where one may.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_settle(tgid: u64, scratch: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let worker = [tgid, id(tasks.outermost, &entry.go)];
    // SAFETY: a copy; a torn one names neither.
    let before = unsafe { GO_WORKERS.get(worker) }.copied().unwrap_or([0; 2]);
    let [one, two, three] = tasks.kinds;
    if three != 0 && one == two && two == three {
        tasks.many = 1;
    } else if two != 0 && one == two {
        choose(tasks, worker, 0, 1);
    } else if three != 0 && one == three {
        choose(tasks, worker, 0, 2);
    } else if three != 0 && two == three {
        choose(tasks, worker, 1, 2);
    } else if one != 0 {
        let _ = GO_WORKERS.insert(worker, [tasks.places[0] | LAST, tasks.places[1]], 0);
    }
    let mut only = 0;
    for at in 0..PLACES {
        let waits = tasks.waiting[at];
        if waits != 0 && only != 0 && waits != only {
            tasks.many = 1;
        }
        if waits != 0 {
            (only, tasks.place) = (waits, tasks.places[at]);
        }
    }
    if tasks.many != 0 {
        (only, tasks.place, tasks.places) = (0, 0, [0; PLACES]);
    }
    senders::jobs_taken(tasks, worker, before, only != 0);
    only
}

/// Two places of one type: the one that the worker had already before is left over from its last job.
#[inline(always)]
fn choose(tasks: &mut Tasks, worker: [u64; 2], at: usize, other: usize) {
    let (one, two) = (tasks.places[at], tasks.places[other]);
    // SAFETY: a copy; a torn one names neither.
    let known = unsafe { GO_WORKERS.get(worker) }.copied().unwrap_or([0; 2]);
    let [first, second] = [known[0] & !LAST, known[1] & !LAST];
    let had_one = one == first || one == second;
    let had_two = two == first || two == second;
    // Both, in the same order: the same job, or one more for the same place. In another one an address is used again.
    let is_same = one == first && two == second && (known[0] ^ known[1]) & LAST != 0;
    if had_one == had_two && !is_same {
        // Which of them is the newer one shows with the next.
        tasks.many = 1;
        let _ = GO_WORKERS.insert(worker, [one, two], 0);
        return;
    }
    let is_one = if is_same { known[0] & LAST != 0 } else { had_two };
    let gone = if is_one { other } else { at };
    (tasks.places[gone], tasks.kinds[gone], tasks.waiting[gone]) = (0, 0, 0);
    let last = if is_one {
        [one | LAST, two]
    } else {
        [one, two | LAST]
    };
    let _ = GO_WORKERS.insert(worker, last, 0);
}

/// Notes the place if that is a `sync.WaitGroup` or holds one, or if it is a channel of replies. Returns the goroutine that waits there if that
/// is certain: it has created the outermost of those found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_waiter(tgid: u64, scratch: u64, held: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let offsets = &entry.go;
    // sync.WaitGroup: state (counter in the upper half, waiters in the lower one) and semaphore. An errgroup.Group has it behind a word.
    // runtime.hchan: qcount.
    let Some([first, second]) = tasks.read(held) else {
        return 0;
    };
    for (place, state) in [(8, first), (16, second)] {
        if state as u32 == 1 && state >> 32 != 0 && state >> 52 == 0 {
            let place = held.wrapping_add(place);
            let found = semaphore_waiter(tgid, scratch, place);
            if found != 0 {
                return waits_at(tgid, tasks, offsets, found, place, WAIT_GROUP);
            }
        }
    }
    if first as u32 == 0 && first != 0 && first >> 42 == 0 && second == 0 {
        note(tasks, held.wrapping_add(8), WAIT_GROUP, 0);
        return 0;
    }
    let kind = go_channel(tgid, scratch, held);
    if kind == 0 {
        return 0;
    }
    let queues = held.wrapping_add(u64::from(offsets.chan_recvq));
    let Some([receiver, last, sender, _]) = tasks.read(queues) else {
        return 0;
    };
    let key = [tgid, held];
    let g = startpc(tasks.outermost, offsets);
    if sender != 0 {
        // Workers send replies, others send jobs.
        let [sends] = tasks.read(sender).unwrap_or([0]);
        if startpc(sends, offsets) != g {
            let _ = GO_QUEUES.insert(key, 1, 0);
            senders::queue(tasks, sender, kind);
            return 0;
        }
    }
    if receiver != 0 {
        // runtime.sudog.g is its first field.
        let [found] = tasks.read(receiver).unwrap_or([0]);
        // Workers of one kind wait for jobs at a channel that all of them hold.
        if startpc(found, offsets) == g {
            let _ = GO_QUEUES.insert(key, 1, 0);
            return 0;
        }
        if receiver != last || first != 0 {
            return 0;
        }
        return waits_at(tgid, tasks, offsets, found, held, kind);
    }
    // SAFETY: only whether there is one matters.
    if unsafe { GO_QUEUES.get(key) }.is_none() {
        tasks.size = tasks.read(kind).map_or(0, |[size]| size);
        note(tasks, held, kind, 0);
    }
    0
}

/// The address of the type of its values if that is a channel over which replies may come, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_channel(tgid: u64, scratch: u64, held: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let offsets = &entry.go;
    // runtime.hchan: qcount, dataqsiz, buf, elemsize and closed.
    let Some([first, second, _, sizes]) = tasks.read(held) else {
        return 0;
    };
    let (element, closed) = (sizes & 0xffff, sizes >> 32);
    // Channels without values (cancellation, shutdown) tell nothing of who asked whom.
    if second >> 20 != 0 || first > second || closed != 0 || element == 0 || element > 1024 {
        return 0;
    }
    let queues = held.wrapping_add(u64::from(offsets.chan_recvq));
    // runtime.hchan: timer, elemtype, sendx, recvx.
    let Some([timer, kind, sends, receives]) = tasks.read(queues.wrapping_sub(TIMER)) else {
        return 0;
    };
    if sends >= second.max(1) || receives >= second.max(1) || offsets.chan_recvq == WITH_TIMER && timer != 0 {
        return 0;
    }
    // internal/abi.Type.Size_ is its first field.
    let Some([size]) = tasks.read(kind) else { return 0 };
    let Some([receiver, last, sender, last_sender]) = tasks.read(queues) else {
        return 0;
    };
    let is_torn = (receiver == 0) != (last == 0) || (sender == 0) != (last_sender == 0);
    if size != element || is_torn || receiver != 0 && sender != 0 {
        return 0;
    }
    kind
}

/// That this goroutine waits there, unless it waits for jobs as the outermost of those found does, or as a connection does: it, if that is
/// certain, else 0.
#[inline(always)]
fn waits_at(tgid: u64, tasks: &mut Tasks, offsets: &GoOffsets, found: u64, place: u64, kind: u64) -> u64 {
    if found < 4096 || found >> 56 != 0 || found % 8 != 0 {
        return 0;
    }
    if id(found, offsets) == tasks.creator {
        return found;
    }
    let g = tasks.outermost;
    let function = startpc(found, offsets);
    if found != g && function != startpc(g, offsets) && !is_write_loop(tgid, function) {
        note(tasks, place, kind, found);
    }
    0
}

/// That this goroutine waits there, or (0) somebody may.
#[inline(always)]
fn note(tasks: &mut Tasks, place: u64, kind: u64, waits: u64) {
    if tasks.many == PASSING {
        return;
    }
    for at in 0..PLACES {
        if tasks.places[at] == place {
            return;
        }
        if tasks.places[at] == 0 {
            (tasks.places[at], tasks.kinds[at], tasks.waiting[at]) = (place, kind, waits);
            return;
        }
    }
    tasks.many = 1;
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
