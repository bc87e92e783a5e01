//! Who waits for what a pool's thread works on (java.util.concurrent): the thread that will go on when it is done.
//!
//! What a pool runs lies on its thread's stack, in the outermost frames: a `FutureTask`, which names its runner and who waits; or an
//! `AsyncRun` or `AsyncSupply`, and behind it the `CompletableFuture` that it completes, whose `stack` leads over what depends on it to
//! the `Signaller` of the thread that waits for the last of them. Frames keep what they had in places that they do not use now, so
//! only the first such object is believed, and only behind that which completes it. Where it was found is tried first the next time: the frames
//! of one pool's threads are alike.
//!
//! Who waits for one may hold others ([`held`](super::held)).
//!
//! A collector moves objects while threads are in the kernel. What is read meanwhile is not believed; and every step looks at the class
//! of what it comes to.

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use tracer_common::{JavaFutures, MAX_THREADS, MESSAGE_PROGRAMS, RuntimeKind, THREAD_UNIT};

use super::{
    current, held,
    objects::{
        DEPENDENT, FUTURE, RUN, SECOND, SIGNALLER, TASK, bounded, decode, in_heap, is_moving, java_is,
        java_kind, reference,
    },
};
use crate::{
    buffers::read_user,
    runtime::{entry, has_recipe, pointer, thread_pointer},
    unit::Thread,
};

/// The slot for programs that see no message, or none that moved.
const TAKE: u64 = MESSAGE_PROGRAMS as u64;

/// Words of a stack that are looked at: windows of so many, from the thread's control block downwards.
pub const WINDOW: usize = 64;
const WINDOWS: u64 = 12;
/// Steps of a walk, and futures that it still has to look at.
const STEPS: u64 = 28;
const TODO: usize = 4;
/// After so many vain looks at a thread's stack only every so many-th event takes another.
const MAX_MISSES: u32 = 6;
const SELDOM: u32 = 32;

/// What [`java_begin`] and [`java_place`] say comes next.
const NOTHING: u64 = 0;
const SCAN: u64 = 1;
const WALK: u64 = 2;
const PLACE: u64 = 3;

/// Places that are told together with who waits.
pub const TOGETHER: usize = 2;

/// The walk's waiter if there are several.
pub const SEVERAL: u64 = 1;

/// Threads by their ids in the kernel.
#[map]
static JAVA_THREADS: LruHashMap<u32, Known> = LruHashMap::with_max_entries(MAX_THREADS, 0);

/// Those ids, by process and thread pointer.
#[map]
static JAVA_POINTERS: LruHashMap<[u64; 2], u32> = LruHashMap::with_max_entries(MAX_THREADS, 0);

/// What is remembered of a thread.
#[derive(Clone, Copy)]
#[repr(C)]
struct Known {
    /// Its thread pointer.
    control: u64,
    tgid: u32,
    /// How far below its thread pointer it keeps what it works on, and how ([`Form`]); 0 = not known.
    place: u32,
    /// Likewise what completes that; 0 = what the thread was made to run does.
    run_place: u32,
    /// How often nothing was found.
    misses: u32,
}

/// How a reference lies in a word of a stack: in the two lowest bits of its place.
const WHOLE: u64 = 0;
const LOW: u64 = 1;
const HIGH: u64 = 2;
const FORM: u64 = 3;

#[repr(C)]
pub struct Walk {
    pub futures: JavaFutures,
    /// Thread group and thread.
    pub thread: u64,
    /// Its thread pointer.
    control: u64,
    /// Its `JavaThread`.
    native: u64,
    /// Where it has kept its work before, and what completes that.
    known: [u64; 2],
    /// Not to look elsewhere.
    seldom: u64,
    /// Whether what completes a future was found, where, and where the future is.
    runs: u64,
    run_place: u64,
    place: u64,
    /// The first object of the walk.
    pub found: u64,
    /// What is looked at next of what depends on a future.
    completion: u64,
    todo: [u64; TODO],
    count: u64,
    /// The `Thread` that waits, and its `JavaThread`.
    waiter: u64,
    pub waiter_native: u64,
    /// The unit that waits, and since when it is known to.
    pub unit: u64,
    pub since: u64,
    /// How often objects were moved.
    pub collections: u64,
    /// An array in which the one who waits may hold more, whether what it waits for is in there, and what others have worked on.
    pub array: u64,
    pub is_listed: u64,
    pub worked: [u64; TOGETHER],
    /// Places where the one who waits takes what they have made.
    pub together: [u64; TOGETHER],
    pub words: [u64; WINDOW],
}

impl Walk {
    /// Whether somebody was found to wait, though not which unit that is.
    #[inline(always)]
    pub fn waiter_is_told(&self) -> bool {
        self.waiter != 0
    }
}

#[map]
static JAVA_WALKS: PerCpuArray<Walk> = PerCpuArray::with_max_entries(TAKE as u32 + 1, 0);

#[inline(always)]
pub fn walk(slot: u64) -> Option<&'static mut Walk> {
    if !has_recipe(RuntimeKind::JAVA) {
        return None;
    }
    // SAFETY: this CPU's slot of this number; nobody else uses it meanwhile.
    JAVA_WALKS
        .get_ptr_mut(slot as u32)
        .map(|slot| unsafe { &mut *slot })
}

/// The unit that waits for what the current thread works on, as [`tracer_common::Submitters`] names it; 0 if that is not known. `thread` is
/// its thread group and its own id.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_waiter(thread: u64, slot: u64) -> u64 {
    let mut next = java_begin(thread, slot);
    if next == NOTHING {
        return 0;
    }
    if next == PLACE {
        next = java_place(slot);
    }
    if next == SCAN {
        for window in 0..WINDOWS {
            next = java_window(slot, window);
            if next != SCAN {
                break;
            }
        }
    }
    java_remember(slot);
    if next != WALK {
        return 0;
    }
    for _ in 0..STEPS {
        if java_step(slot) == 0 {
            break;
        }
    }
    let unit = java_unit(thread, slot);
    if unit == 0 {
        return held::java_holder(slot);
    }
    if held::java_holds(slot, unit) != 0 {
        for window in 0..held::WINDOWS {
            if held::java_held_window(slot, window) == 0 {
                break;
            }
        }
    }
    unit
}

/// Since when the unit that was found last is known to wait.
#[inline(always)]
pub fn since(slot: u64) -> u64 {
    walk(slot).map_or(0, |walk| walk.since)
}

/// The same for a thread that takes a connection, and since when.
#[inline(always)]
pub fn waiter_of_taker(thread: Thread) -> [u64; 2] {
    let waiter = java_waiter(u64::from(thread.tgid) << 32 | u64::from(thread.tid), TAKE);
    [waiter, since(TAKE)]
}

/// Prepares a walk.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_begin(thread: u64, slot: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return NOTHING;
    };
    let Some(entry) = entry(thread >> 32, RuntimeKind::JAVA) else {
        return NOTHING;
    };
    if entry.java.futures.thread.get() == 0 {
        return NOTHING;
    }
    let control = thread_pointer();
    let Some(known) = known(thread, control) else {
        return NOTHING;
    };
    walk.futures = entry.java.futures;
    walk.thread = thread;
    walk.control = control;
    walk.native = current(&entry.java);
    walk.runs = 0;
    walk.run_place = 0;
    walk.place = 0;
    walk.found = 0;
    walk.completion = 0;
    walk.count = 0;
    walk.waiter = 0;
    walk.waiter_native = 0;
    walk.unit = 0;
    walk.array = 0;
    walk.together = [0; TOGETHER];
    // SAFETY: no arguments.
    walk.since = unsafe { bpf_ktime_get_ns() };
    walk.collections = u64::from(read_user::<u32>(walk.futures.collections.get()).unwrap_or(0));
    if walk.native == 0 {
        return NOTHING;
    }
    walk.known = [u64::from(known.place), u64::from(known.run_place)];
    walk.seldom = 0;
    if known.misses >= MAX_MISSES && known.misses % SELDOM != 0 {
        walk.seldom = 1;
    }
    PLACE
}

/// Looks where the thread has kept its work before.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_place(slot: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return NOTHING;
    };
    let [place, run_place] = walk.known;
    if place != 0 {
        if run_place != 0 {
            java_look(slot, run_place);
        } else {
            java_made_for(slot);
        }
        if java_look(slot, place) == WALK {
            return WALK;
        }
        walk.runs = 0;
        walk.run_place = 0;
    }
    if walk.seldom != 0 {
        return NOTHING;
    }
    java_made_for(slot);
    SCAN
}

/// What is known of the thread; it is new if its thread pointer is.
#[inline(always)]
fn known(thread: u64, control: u64) -> Option<&'static mut Known> {
    let tid = thread as u32;
    let tgid = (thread >> 32) as u32;
    if let Some(known) = JAVA_THREADS.get_ptr_mut(tid) {
        // SAFETY: an entry stays memory of this map while the program runs.
        let known = unsafe { &mut *known };
        if known.control == control && known.tgid == tgid {
            return Some(known);
        }
    }
    let known = Known {
        control,
        tgid,
        place: 0,
        run_place: 0,
        misses: 0,
    };
    let _ = JAVA_THREADS.insert(tid, known, 0);
    let _ = JAVA_POINTERS.insert([u64::from(tgid), control], tid, 0);
    // SAFETY: as above.
    JAVA_THREADS.get_ptr_mut(tid).map(|known| unsafe { &mut *known })
}

/// Keeps where the work was found, or that it was not.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_remember(slot: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let Some(known) = JAVA_THREADS.get_ptr_mut(walk.thread as u32) else {
        return 0;
    };
    // SAFETY: an entry stays memory of this map while the program runs; fields may change under us, and what is found by wrong ones is
    // looked at like anything else.
    let known = unsafe { &mut *known };
    if walk.found == 0 {
        known.misses = known.misses.wrapping_add(1);
    } else {
        known.misses = 0;
        known.place = walk.place as u32;
        known.run_place = walk.run_place as u32;
    }
    1
}

/// Looks at one window of the stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_window(slot: u64, window: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return NOTHING;
    };
    let bytes = 8 * WINDOW as u64;
    let far = (window + 1) * bytes;
    // SAFETY: there is room for so many words; the helper refuses bad addresses.
    let failed = unsafe {
        bpf_probe_read_user(
            walk.words.as_mut_ptr().cast(),
            bytes as u32,
            walk.control.wrapping_sub(far) as *const _,
        )
    };
    if failed != 0 {
        return NOTHING;
    }
    for back in 1..=WINDOW {
        let found = java_word(slot, far, (WINDOW - back) as u64);
        if found != SCAN {
            return found;
        }
    }
    SCAN
}

/// Looks at one word of the window that begins `far` below the thread pointer.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_word(slot: u64, far: u64, at: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return NOTHING;
    };
    let word = walk.words[bounded::<WINDOW>(at)];
    if word == 0 {
        return SCAN;
    }
    let place = far - at * 8;
    let o = &walk.futures;
    if in_heap(o, word) {
        return java_object(slot, word, place | WHOLE);
    }
    if o.compressed == 0 || word >> 32 == 0x7fff || word >> 40 == 0x7f {
        return SCAN; // no references, or an address of something else
    }
    let low = decode(o, word & 0xffff_ffff);
    if in_heap(o, low) {
        let found = java_object(slot, low, place | LOW);
        if found != SCAN {
            return found;
        }
    }
    let high = decode(o, word >> 32);
    if in_heap(o, high) {
        return java_object(slot, high, place | HIGH);
    }
    SCAN
}

/// Looks at what lies at one place of the stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_look(slot: u64, place: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return NOTHING;
    };
    let word = read_user::<u64>(walk.control.wrapping_sub(place & !FORM)).unwrap_or(0);
    let o = &walk.futures;
    let object = match place & FORM {
        WHOLE => word,
        LOW => decode(o, word & 0xffff_ffff),
        _ => decode(o, word >> 32),
    };
    if !in_heap(o, object) {
        return SCAN;
    }
    java_object(slot, object, place)
}

/// Looks at an object that the stack names: whether it is what the thread works on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_object(slot: u64, object: u64, place: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return NOTHING;
    };
    let kind = java_kind(slot, object);
    let o = &walk.futures;
    match kind {
        RUN | DEPENDENT if walk.runs == 0 && (kind == RUN || slot == TAKE) => {
            walk.runs = kind;
            walk.run_place = place;
            return SCAN;
        }
        FUTURE if walk.runs != 0 => {
            if reference(o, object, o.result) != 0 {
                // What is run is over: what follows may be of others. Who takes a connection then is, as far as was seen, what goes on
                // after it.
                return if slot == TAKE { SCAN } else { NOTHING };
            }
        }
        TASK if read_user::<u32>(object.wrapping_add(u64::from(o.state))) == Some(0) => {
            let runner = reference(o, object, o.runner);
            if runner == 0 || read_user::<u64>(runner.wrapping_add(u64::from(o.native))) != Some(walk.native)
            {
                return SCAN;
            }
        }
        _ => return SCAN,
    }
    walk.place = place;
    walk.found = object;
    walk.todo[0] = object;
    walk.count = 1;
    WALK
}

/// Notes if the thread was made to run what completes a future (`ThreadPerTaskExecutor`).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_made_for(slot: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let o = &walk.futures;
    let handle = pointer(walk.native.wrapping_add(u64::from(o.object))).unwrap_or(0);
    let mut object = pointer(handle).unwrap_or(0);
    if o.holder != 0 && object != 0 {
        object = reference(o, object, o.holder);
    }
    if object == 0 || o.target == 0 {
        return 0;
    }
    let target = reference(o, object, o.target);
    let kind = java_kind(slot, target);
    if kind == RUN || (kind == DEPENDENT && slot == TAKE) {
        walk.runs = kind;
    }
    0
}

/// Goes one step along what depends on what was found: 0 where it ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_step(slot: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let o = &walk.futures;
    let completion = walk.completion;
    if completion == 0 {
        if walk.count == 0 || walk.count > TODO as u64 {
            return 0;
        }
        walk.count -= 1;
        let next = walk.todo[bounded::<TODO>(walk.count)];
        match java_kind(slot, next) {
            FUTURE => walk.completion = reference(o, next, o.stack),
            TASK => return java_task(slot, next),
            _ => {}
        }
        return 1;
    }
    let mut dependent = 0;
    match java_kind(slot, completion) {
        SIGNALLER => {
            let thread = reference(o, completion, o.signalled);
            if !waits(walk, thread) {
                return 0;
            }
        }
        DEPENDENT => dependent = reference(&walk.futures, completion, o.dependent_at),
        SECOND => {
            let base = reference(o, completion, o.base);
            if base != 0 {
                dependent = reference(&walk.futures, base, walk.futures.dependent_at);
            }
        }
        _ => {}
    }
    let o = &walk.futures;
    if dependent != 0 {
        if walk.count >= TODO as u64 {
            walk.waiter = SEVERAL;
            return 0;
        }
        walk.todo[bounded::<TODO>(walk.count)] = dependent;
        walk.count += 1;
    }
    walk.completion = reference(o, completion, o.next);
    1
}

/// Who waits for a `FutureTask`. Returns 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_task(slot: u64, task: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let o = &walk.futures;
    if o.waiting == 0 {
        return 0;
    }
    let mut node = reference(o, task, o.waiters);
    for _ in 0..3 {
        if node == 0 {
            break;
        }
        let o = &walk.futures;
        let thread = reference(o, node, o.waiting);
        node = reference(o, node, o.waiting_next);
        if !waits(walk, thread) {
            break;
        }
    }
    0
}

/// Notes that the thread waits; whether it is the only one. 0 is nobody.
#[inline(always)]
fn waits(walk: &mut Walk, thread: u64) -> bool {
    if thread == 0 || thread == walk.waiter {
        return true;
    }
    let is_first = walk.waiter == 0;
    walk.waiter = if is_first { thread } else { SEVERAL };
    is_first
}

/// The unit that was found to wait, if what was read is believed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_unit(of: u64, slot: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| walk.thread == of) else {
        return 0; // programs may be preempted
    };
    let o = &walk.futures;
    let thread = walk.waiter;
    if thread <= SEVERAL || !in_heap(o, thread) {
        return 0;
    }
    let native = read_user::<u64>(thread.wrapping_add(u64::from(o.native))).unwrap_or(0);
    let unit = if native == 0 {
        // None of the system's: the class says whether it is a virtual one.
        if o.virtual_thread.get() == 0 || java_is(slot, thread, o.virtual_thread.get(), 3) == 0 {
            return 0;
        }
        read_user::<u64>(thread.wrapping_add(u64::from(o.thread_id))).unwrap_or(0)
    } else {
        if native == walk.native || java_is(slot, thread, o.thread.get(), 1) == 0 {
            return 0;
        }
        let handle = pointer(native.wrapping_add(u64::from(o.object))).unwrap_or(0);
        if pointer(handle) != Some(thread) {
            return 0;
        }
        walk.waiter_native = native;
        let system = pointer(native.wrapping_add(u64::from(o.system))).unwrap_or(0);
        let control = pointer(system.wrapping_add(u64::from(o.control))).unwrap_or(0);
        let key = [walk.thread >> 32, control];
        // SAFETY: a copy.
        match unsafe { JAVA_POINTERS.get(key) } {
            Some(tid) => THREAD_UNIT | u64::from(*tid),
            None => 0,
        }
    };
    if is_moving(walk) { 0 } else { unit }
}
