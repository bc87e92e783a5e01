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
    maps::LruHashMap,
};
use tracer_common::{MAX_THREADS, RuntimeKind};

use super::{
    current, held, jobs,
    objects::{DEPENDENT, FUTURE, RUN, TASK, bounded, decode, in_heap, java_kind, reference},
    stages,
    walk::{JOB, STAGES, TAKE, WINDOW, WORK, Walk, follow, java_unit, walk},
};
use crate::{
    buffers::read_user,
    runtime::{entry, pointer, thread_pointer},
    unit::Thread,
};

/// Windows of a stack that are looked at.
const WINDOWS: u64 = 12;
/// After so many vain looks at a thread's stack only every so many-th event takes another.
const MAX_MISSES: u32 = 6;
const SELDOM: u32 = 32;

/// What [`java_begin`] and [`java_place`] say comes next.
pub const NOTHING: u64 = 0;
pub const SCAN: u64 = 1;
const WALK: u64 = 2;
const PLACE: u64 = 3;

/// Threads by their ids in the kernel.
#[map]
static JAVA_THREADS: LruHashMap<u32, Known> = LruHashMap::with_max_entries(MAX_THREADS, 0);

/// Those ids, by process and thread pointer.
#[map]
pub static JAVA_POINTERS: LruHashMap<[u64; 2], u32> = LruHashMap::with_max_entries(MAX_THREADS, 0);

/// What is remembered of a thread.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Known {
    /// Its thread pointer.
    control: u64,
    tgid: u32,
    /// How far below its thread pointer it keeps what it works on, and how ([`Form`]); 0 = not known.
    place: u32,
    /// Likewise what completes that; 0 = what the thread was made to run does.
    run_place: u32,
    /// How often nothing was found, by what was looked for ([`Walk::looks_for`](super::walk::Walk::looks_for)).
    pub misses: [u32; 3],
    /// Like [`Self::place`], for what it works off for a connection's sake; another place where such was, what that was, and how many were in a row.
    pub job_place: u32,
    pub next_place: u32,
    pub next_job: u64,
    pub votes: u32,
    padding: u32,
    /// What it works off so, for which connection, how often objects had been moved then, and when that was seen first.
    pub job: u64,
    pub connection: u64,
    pub collections: u64,
    pub since: u64,
}

/// How a reference lies in a word of a stack: in the two lowest bits of its place.
const WHOLE: u64 = 0;
const LOW: u64 = 1;
const HIGH: u64 = 2;
pub const FORM: u64 = 3;

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
    follow(slot);
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

/// The unit that waits for what a thread does that takes a connection, or the connection on which that will be answered; and since when.
#[inline(always)]
pub fn waiter_of_taker(thread: Thread) -> [u64; 2] {
    let both = u64::from(thread.tgid) << 32 | u64::from(thread.tid);
    let mut waiter = java_waiter(both, TAKE);
    if waiter == 0 {
        waiter = jobs::of_current(both, TAKE);
    }
    [waiter, since(TAKE)]
}

/// Prepares a walk.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_begin(thread: u64, slot: u64) -> u64 {
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
    walk.clear();
    // SAFETY: no arguments.
    walk.since = unsafe { bpf_ktime_get_ns() };
    walk.collections = u64::from(read_user::<u32>(walk.futures.collections.get()).unwrap_or(0));
    if walk.native == 0 {
        return NOTHING;
    }
    walk.known = [u64::from(known.place), u64::from(known.run_place)];
    walk.seldom = u64::from(is_vain(known.misses[WORK as usize]));
    PLACE
}

/// Whether that was vain so often that it is left out this time.
#[inline(always)]
pub fn is_vain(misses: u32) -> bool {
    misses >= MAX_MISSES && misses % SELDOM != 0
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
        misses: [0; 3],
        job_place: 0,
        next_place: 0,
        next_job: 0,
        votes: 0,
        padding: 0,
        job: 0,
        connection: 0,
        collections: 0,
        since: 0,
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
    let Some(known) = remembered(walk) else { return 0 };
    if missed(known, WORK, walk.found == 0) {
        return 0;
    }
    known.place = walk.place as u32;
    known.run_place = walk.run_place as u32;
    1
}

/// What is remembered of the walk's thread.
#[inline(always)]
pub fn remembered(walk: &Walk) -> Option<&'static mut Known> {
    // SAFETY: an entry stays memory of this map while the program runs; fields may change under us, and what is found by wrong ones is
    // looked at like anything else.
    JAVA_THREADS
        .get_ptr_mut(walk.thread as u32)
        .map(|known| unsafe { &mut *known })
}

/// Counts what was looked for in vain, and says whether it was.
#[inline(always)]
pub fn missed(known: &mut Known, looked_for: u64, is_missed: bool) -> bool {
    let misses = &mut known.misses[looked_for as usize];
    *misses = if is_missed { misses.wrapping_add(1) } else { 0 };
    is_missed
}

/// Looks at the windows in which something is in use, for what [`Walk::looks_for`] says.
#[inline(always)]
pub fn scan_used(slot: u64, walk: &Walk) {
    for window in 0..WINDOWS {
        if walk.is_unused(window) || java_window(slot, window) != SCAN {
            break;
        }
    }
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
        return object_at(slot, walk, word, place | WHOLE);
    }
    if o.compressed == 0 || word >> 32 == 0x7fff || word >> 40 == 0x7f {
        return SCAN; // no references, or an address of something else
    }
    let low = decode(o, word & 0xffff_ffff);
    if in_heap(o, low) {
        let found = object_at(slot, walk, low, place | LOW);
        if found != SCAN {
            return found;
        }
    }
    let high = decode(o, word >> 32);
    if in_heap(o, high) {
        return object_at(slot, walk, high, place | HIGH);
    }
    SCAN
}

/// Looks at an object that the stack names, as what is looked for wants it.
#[inline(always)]
fn object_at(slot: u64, walk: &Walk, object: u64, place: u64) -> u64 {
    if walk.looks_for == JOB {
        jobs::java_job_of(slot, object, place);
        return SCAN;
    }
    java_object(slot, object, place)
}

/// Looks at what lies at one place of the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_look(slot: u64, place: u64) -> u64 {
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
    object_at(slot, walk, object, place)
}

/// Looks at an object that the stack names: whether it is what the thread works on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_object(slot: u64, object: u64, place: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return NOTHING;
    };
    let kind = java_kind(slot, object);
    if walk.looks_for == STAGES {
        if kind == DEPENDENT {
            stages::java_stage(object, walk.control.wrapping_sub(place & !FORM));
        }
        return SCAN;
    }
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
    walk.begin_at(object);
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
