//! From what a thread works on to who waits for it: over the futures that depend on it to the `Signaller` of a thread, or to the nodes of those
//! that wait for a `FutureTask`.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tracer_common::{JavaFutures, MESSAGE_PROGRAMS, RuntimeKind, THREAD_UNIT};

use super::{
    objects::{
        DEPENDENT, FUTURE, SECOND, SIGNALLER, TASK, bounded, in_heap, is_moving, java_is, java_kind,
        reference,
    },
    reads::Read,
    waits::JAVA_POINTERS,
};
use crate::{
    buffers::read_user,
    runtime::{has_recipe, pointer},
};

/// The slots for programs that see no message, or none that moved; and for what sees threads wake others.
pub const TAKE: u64 = MESSAGE_PROGRAMS as u64;
pub const WAKE: u64 = TAKE + 1;

/// What a stack is looked through for: what the thread works on, what it completes, the job that it works off.
pub const WORK: u64 = 0;
pub const STAGES: u64 = 1;
pub const JOB: u64 = 2;

/// Words of a stack that are looked at: windows of so many, from the thread's control block downwards.
pub const WINDOW: usize = 64;
/// Steps of a walk, and futures that it still has to look at.
const STEPS: u64 = 28;
const TODO: usize = 4;
/// Functions that are looked at of those that follow.
pub const FUNCTIONS: usize = 8;
/// Jobs that are looked at.
pub const JOBS: usize = 16;
/// Places that are told together with who waits.
pub const TOGETHER: usize = 2;
/// The walk's waiter if there are several.
pub const SEVERAL: u64 = 1;

#[repr(C)]
pub struct Walk {
    pub futures: JavaFutures,
    /// Thread group and thread.
    pub thread: u64,
    /// Its thread pointer.
    pub control: u64,
    /// Where the part of its stack begins that is in use, if that matters.
    pub used_from: u64,
    /// Its `JavaThread`.
    pub native: u64,
    /// Where it has kept its work before, and what completes that.
    pub known: [u64; 2],
    /// Not to look elsewhere.
    pub seldom: u64,
    /// [`WORK`], [`STAGES`] or [`JOB`].
    pub looks_for: u64,
    /// Whether what completes a future was found, where, and where the future is.
    pub runs: u64,
    pub run_place: u64,
    pub place: u64,
    /// The first object of the walk.
    pub found: u64,
    /// What is looked at next of what depends on a future.
    completion: u64,
    todo: [u64; TODO],
    count: u64,
    /// The `Thread` that waits, and where the innermost frame of its stack begins (0: not known).
    waiter: u64,
    pub frames: u64,
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
    /// Functions that will be called when what is followed is complete.
    pub functions: [u64; FUNCTIONS],
    calls: u64,
    /// What was found that leads to connections, how many, and what [`weigh`](super::reads::weigh) said of the one that weighs most.
    pub jobs: [Job; JOBS],
    pub jobs_found: u64,
    /// Whether to leave out what was not made for one request.
    pub only_made: u64,
    pub weight: u64,
    /// That one, and its connection; not 0: others that weigh as much lead to other ones.
    pub job: u64,
    pub connection: u64,
    pub several: u64,
    /// Whether any was made for an earlier request.
    pub earlier: u64,
    /// What is noted of a read.
    pub read: Read,
    /// The process and the class of an object that is looked at.
    pub key: [u64; 2],
    pub words: [u64; WINDOW],
}

/// What leads to a connection.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Job {
    pub object: u64,
    pub channel: u64,
    /// The object, if it was made for one request, else 0.
    pub made: u64,
    pub place: u64,
}

impl Walk {
    /// Forgets what was found.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.looks_for = WORK;
        (self.functions, self.calls) = ([0; FUNCTIONS], 0);
        self.runs = 0;
        self.run_place = 0;
        self.place = 0;
        self.found = 0;
        self.completion = 0;
        self.count = 0;
        self.waiter = 0;
        self.frames = 0;
        self.unit = 0;
        self.array = 0;
        self.together = [0; TOGETHER];
    }

    /// Forgets what leads to connections.
    #[inline(always)]
    pub fn forget_jobs(&mut self) {
        (self.jobs_found, self.weight, self.several, self.earlier) = (0, 0, 0, 0);
        self.only_made = 0;
    }

    /// The walk begins there.
    #[inline(always)]
    pub fn begin_at(&mut self, object: u64) {
        self.completion = 0;
        self.todo[0] = object;
        self.count = 1;
    }

    /// Whether a window of its stack lies wholly where nothing is in use.
    #[inline(always)]
    pub fn is_unused(&self, window: u64) -> bool {
        self.control.wrapping_sub(window * 8 * WINDOW as u64) <= self.used_from
    }

    /// Whether somebody was found to wait, though not which unit that is.
    #[inline(always)]
    pub fn waiter_is_told(&self) -> bool {
        self.waiter != 0
    }
}

#[map]
static JAVA_WALKS: PerCpuArray<Walk> = PerCpuArray::with_max_entries(WAKE as u32 + 1, 0);

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

/// Follows what depends on where the walk begins.
#[inline(always)]
pub fn follow(slot: u64) {
    for _ in 0..STEPS {
        if java_step(slot) == 0 {
            break;
        }
    }
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
        DEPENDENT => {
            dependent = reference(o, completion, o.dependent_at);
            if walk.looks_for == STAGES {
                walk.functions[bounded::<FUNCTIONS>(walk.calls)] = reference(o, completion, o.function);
                walk.calls += 1;
            }
        }
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
pub extern "C" fn java_unit(of: u64, slot: u64) -> u64 {
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
        walk.frames = unmounted(&walk.futures, thread);
        read_user::<u64>(thread.wrapping_add(u64::from(walk.futures.thread_id))).unwrap_or(0)
    } else {
        if native == walk.native || java_is(slot, thread, o.thread.get(), 1) == 0 {
            return 0;
        }
        let handle = pointer(native.wrapping_add(u64::from(o.object))).unwrap_or(0);
        if pointer(handle) != Some(thread) {
            return 0;
        }
        let top = native.wrapping_add(u64::from(o.last_frame));
        walk.frames = pointer(top).unwrap_or(0);
        let o = &walk.futures;
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

/// Where the innermost frame of a virtual thread begins, if it is not mounted: its stack lies in an object then (jdk.internal.vm.StackChunk). Of one
/// that runs the object has frames that are not in use any more.
#[inline(always)]
fn unmounted(o: &JavaFutures, thread: u64) -> u64 {
    if o.chunk_stack == 0 || reference(o, thread, o.carrier) != 0 {
        return 0;
    }
    let continuation = reference(o, thread, o.continuation);
    let chunk = reference(o, continuation, o.chunk);
    if continuation == 0 || chunk == 0 {
        return 0;
    }
    let words = read_user::<u32>(chunk.wrapping_add(u64::from(o.chunk_top))).unwrap_or(0);
    chunk
        .wrapping_add(u64::from(o.chunk_stack))
        .wrapping_add(u64::from(words) * 8)
}
