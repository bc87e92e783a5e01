//! asyncio Tasks (CPython's Modules/_asynciomodule.c): which one runs on this thread, or for which one an executor's thread works,
//! and who awaits it.
//!
//! A coroutine that is awaited by another of the same Task is no task of its own. A Task that is awaited has a callback, whose kind
//! depends on how it is awaited: the built-in function that wakes another Task; a function whose closure holds a Future, which in
//! turn is awaited (gather, wait, shield, executors); a `functools.partial` with such a Future (wait_for before 3.12); a method or
//! a closure that belongs to a TaskGroup (asyncio's, anyio's), which knows its Task.
//!
//! A Task that nobody awaits yet may be a variable of one who awaits another ([`held`]).
//!
//! What an executor's thread works off has an owner even if nobody waits for it yet: the one who submitted it, which a probe tells
//! ([`submit`]).
//!
//! The event loop reads a response while no Task runs: then the Task that wrote to the socket last is told as the first that
//! waits. It may have found somebody who awaits it only meanwhile.
//!
//! All objects begin with a reference count and, at 8, their type (Include/object.h).

mod chain;
mod held;
mod objects;
pub mod submit;
mod work;

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use tracer_common::{Direction, MAX_AWAITERS, MESSAGE_PROGRAMS, PythonOffsets, REUSED_TASK, RuntimeKind};

use self::{
    chain::next,
    objects::{TASK, TYPE, follow, kind, word},
    work::python_work,
};
use super::{TASKS, Tasks, has_recipe, thread_pointer};
use crate::{buffers::read_user, relay, unit::Thread};

/// `PyContext.ctx_prev`.
const CONTEXT_PREVIOUS: u64 = 16;

/// Running Tasks looked at, and steps along a chain.
const RUNNING: u64 = 6;
const STEPS: usize = 8;

/// Where a walk along the chain is. By [`crate::message::Moved::scratch`], like [`TASKS`].
///
/// The functions below work one after the other on it, and do not call each other where they need not: the kernel gives a program and
/// all that it calls 512 bytes of stack.
#[repr(C)]
struct Walk {
    offsets: PythonOffsets,
    /// The Future or Task at which it is.
    at: u64,
    /// Tasks found that wait.
    found: u64,
    /// The last Task that it has come to, and its identity.
    task: [u64; 2],
    /// Who awaits that one and is looked through for others, likewise.
    holder: [u64; 2],
    /// The two innermost frames of the holder, the inner one first.
    frames: [u64; 2],
    /// Tasks in one of the holder's collections: where the first is, the bytes to the next, and how many.
    items: [u64; 3],
    /// The thread's `PyThreadState`.
    state: u64,
    /// The Future (of concurrent.futures) of what an executor's thread works on; 0 if it is none, or works on nothing.
    work: u64,
    /// Whose walk it is: programs in a process's own functions may be preempted.
    thread: u64,
}

#[map]
static WALKS: PerCpuArray<Walk> = PerCpuArray::with_max_entries(CONNECT as u32 + 1, 0);

/// The slots for programs that see no messages.
const PROBE: u64 = MESSAGE_PROGRAMS as u64;
const CONNECT: u64 = PROBE + 1;

/// By socket cookie: the Task that wrote to it last, its address and its identity.
#[map]
static WRITERS: LruHashMap<u64, [u64; 2]> = LruHashMap::with_max_entries(8_192, 0);

/// What [`python_begin`] and [`python_work`] say: nothing is known, or what comes next.
const NOTHING: u64 = 0;
const CHAIN: u64 = 1;
const WORK: u64 = 2;

/// What [`python_step`] says: who waits may hold others. Never the address of an object.
const HOLDER: u64 = 1;

#[inline(always)]
fn walk(scratch: u64) -> Option<&'static mut Walk> {
    if !has_recipe(RuntimeKind::PYTHON) {
        return None;
    }
    // SAFETY: this CPU's slot of this scratch; nobody else uses it meanwhile.
    WALKS
        .get_ptr_mut(scratch as u32)
        .map(|slot| unsafe { &mut *slot })
}

#[inline(always)]
fn offsets(scratch: u64) -> Option<&'static PythonOffsets> {
    walk(scratch).map(|walk| &walk.offsets)
}

/// Keeps what [`find`] needs.
#[inline(always)]
pub fn prepare(offsets: &PythonOffsets, scratch: u64) {
    if let Some(walk) = walk(scratch) {
        walk.offsets = *offsets;
    }
}

/// Fills in the tasks: 0 if there are none. `thread` is thread group and thread, as `bpf_get_current_pid_tgid` tells them.
#[inline(always)]
pub fn find(thread: u64, scratch: u64, cookie: u64) -> u64 {
    let mut next = python_begin(thread, scratch, cookie);
    if next == WORK {
        next = python_work(scratch);
        if next == NOTHING {
            return submit::python_submitters(thread >> 32, scratch);
        }
    }
    if next == CHAIN {
        for _ in 0..STEPS {
            match python_step(scratch) {
                0 => break,
                HOLDER => _ = held::python_hold(scratch),
                _ => {}
            }
        }
    }
    next
}

/// A Task that connects calls only later: who awaits it may hold others, which call before it.
#[inline(always)]
pub fn connects(thread: Thread) {
    let both = u64::from(thread.tgid) << 32 | u64::from(thread.tid);
    if has_recipe(RuntimeKind::PYTHON) && held::python_connect(both) == HOLDER {
        held::python_hold(CONNECT);
    }
}

/// Finds the Task that runs, or the one that waits for the bytes that are read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_begin(thread: u64, scratch: u64, cookie: u64) -> u64 {
    let (Some(walk), Some(tasks)) = (walk(scratch), tasks(scratch)) else {
        return NOTHING;
    };
    let state = follow(thread_pointer().wrapping_add(u64::from(walk.offsets.thread_state)));
    if state == 0 {
        return NOTHING;
    }
    walk.state = state;
    walk.thread = thread;
    walk.found = 0;
    walk.work = 0;
    walk.task = [0; 2];
    walk.at = python_running(scratch, state);
    if walk.at != 0 {
        tasks.task = python_identity(scratch, walk.at);
        walk.task = [walk.at, tasks.task];
        if relay::direction(scratch) == Direction::Send as u64 {
            note_writer(cookie, [walk.at, tasks.task]);
        }
        return CHAIN;
    }
    if relay::direction(scratch) == Direction::Recv as u64
        // SAFETY: a copy; a torn one names no Task, or none of that identity.
        && let Some(&[writer, identity]) = unsafe { WRITERS.get(cookie) }
        && kind(&walk.offsets, writer) == TASK
        && python_identity(scratch, writer) == identity
    {
        tasks.awaiters[0] = identity;
        walk.found = 1;
        walk.at = writer;
        walk.task = [writer, identity];
        return CHAIN;
    }
    // The first thread is nobody's worker.
    if thread >> 32 != thread & 0xffff_ffff && walk.offsets.data_stack != 0 {
        return WORK;
    }
    NOTHING
}

/// Goes one step along the chain: 0 where it ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_step(scratch: u64) -> u64 {
    let (Some(walk), Some(tasks)) = (walk(scratch), tasks(scratch)) else {
        return 0;
    };
    let mut next = next(&walk.offsets, scratch, walk.at);
    let is_awaited = next != 0;
    if !is_awaited {
        next = held::python_holder(scratch);
    }
    walk.at = next;
    if next == 0 || kind(&walk.offsets, next) != TASK {
        return next;
    }
    let identity = python_identity(scratch, next);
    let found = walk.found as usize;
    if let Some(place) = tasks.awaiters.get_mut(found) {
        *place = identity;
    }
    walk.found += 1;
    walk.holder = [next, identity];
    if found + 1 >= MAX_AWAITERS {
        return 0;
    }
    if is_awaited && held::is_new(walk) {
        return HOLDER;
    }
    walk.task = walk.holder;
    next
}

#[inline(always)]
fn tasks(scratch: u64) -> Option<&'static mut Tasks> {
    // SAFETY: as in `walk`.
    TASKS
        .get_ptr_mut(scratch as u32)
        .map(|tasks| unsafe { &mut *tasks })
}

#[inline(always)]
fn note_writer(cookie: u64, writer: [u64; 2]) {
    // SAFETY: a copy.
    if unsafe { WRITERS.get(cookie) }.copied() != Some(writer) {
        let _ = WRITERS.insert(cookie, writer, 0);
    }
}

/// The Task that runs on the thread with that state: the one that it names, or the one of the running Tasks whose context the thread is in.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_running(scratch: u64, state: u64) -> u64 {
    let Some(o) = offsets(scratch) else {
        return 0;
    };
    if o.running_task != 0 {
        let task = follow(state.wrapping_add(u64::from(o.running_task)));
        return if task != 0 && kind(o, task) == TASK {
            task
        } else {
            0
        };
    }
    /// `PyDictObject.ma_keys`.
    const KEYS: u64 = 32;
    let keys = follow(o.current_tasks.get().wrapping_add(KEYS));
    let count = word(keys.wrapping_add(u64::from(o.keys_entries)));
    if keys == 0 || count == 0 || count > 128 {
        return 0;
    }
    let size = word(keys.wrapping_add(8));
    let indices = if o.keys_logarithm != 0 {
        1 << ((size >> 8) & 7)
    } else {
        size
    };
    // Entries of 24 bytes: hash, key, value. What was entered last stands last.
    let entries = keys.wrapping_add(u64::from(o.keys_indices)).wrapping_add(indices);
    let mut context = follow(state.wrapping_add(u64::from(o.context)));
    if context == 0 {
        return 0;
    }
    // Code that a Task runs in a context of its own is still that Task's.
    let outer = [context, follow(context.wrapping_add(CONTEXT_PREVIOUS))];
    for back in 1..=RUNNING {
        if back > count {
            break;
        }
        let task = follow(entries.wrapping_add((count - back) * 24 + 16));
        if task == 0 || kind(o, task) != TASK {
            continue;
        }
        context = word(task.wrapping_add(u64::from(o.task_context)));
        if context != 0 && (context == outer[0] || context == outer[1]) {
            return task;
        }
    }
    0
}

/// The number in the name that asyncio gives ("Task-17"), which no other Task of the process has; the address of one that was
/// named by hand.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_identity(scratch: u64, task: u64) -> u64 {
    let Some(o) = offsets(scratch) else {
        return 0;
    };
    let by_hand = task | REUSED_TASK;
    let name = follow(task.wrapping_add(u64::from(o.task_name)));
    if name == 0 {
        return by_hand;
    }
    if word(name.wrapping_add(TYPE)) == o.int_type.get() {
        /// `_PyLongValue`: sign and number of digits (of 30 bits), digits.
        const DIGITS: u64 = 24;
        let digits = word(name.wrapping_add(DIGITS));
        let more = word(name.wrapping_add(16)) >> 3 > 1;
        let high = if more { (digits >> 32) << 30 } else { 0 };
        return high | (digits & 0x3fff_ffff);
    }
    const PREFIX: u64 = u64::from_le_bytes(*b"\0\0\0Task-");
    let text = name.wrapping_add(u64::from(o.text));
    let length = word(name.wrapping_add(16));
    let Some(start) = read_user::<[u64; 2]>(text) else {
        return by_hand;
    };
    if start[0] << 24 != PREFIX || !(6..=16).contains(&length) {
        return by_hand;
    }
    // The digits, the first in the lowest byte.
    let mut low = start[0] >> 40 | start[1] << 24;
    let mut high = start[1] >> 40;
    let mut number = 0_u64;
    for at in 5..16 {
        if at >= length {
            break;
        }
        let digit = (low & 0xff).wrapping_sub(u64::from(b'0'));
        if digit > 9 {
            return by_hand;
        }
        number = number * 10 + digit;
        low = low >> 8 | (high & 0xff) << 56;
        high >>= 8;
    }
    number
}
