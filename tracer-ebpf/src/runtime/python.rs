//! asyncio Tasks (CPython's Modules/_asynciomodule.c): which one runs on this thread, or for which one an executor's thread works,
//! and who awaits it.
//!
//! A coroutine that is awaited by another of the same Task is no task of its own. A Task that is awaited has a callback, whose kind
//! depends on how it is awaited: the built-in function that wakes another Task; a function whose closure holds a Future, which in
//! turn is awaited (gather, wait, shield, executors); a `functools.partial` with such a Future (wait_for before 3.12); a method or
//! a closure that belongs to a TaskGroup (asyncio's, anyio's), which knows its Task.
//!
//! The event loop reads a response while no Task runs: then the Task that wrote to the socket last is told as the first that
//! waits. It may have found somebody who awaits it only meanwhile.
//!
//! All objects begin with a reference count and, at 8, their type (Include/object.h).

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use tracer_common::{Direction, MAX_AWAITERS, PythonOffsets, REUSED_TASK, attributes};

use super::{TASKS, Tasks, pointer, thread_pointer};
use crate::{buffers::read_user, relay};

/// `PyTypeObject`: tp_name, tp_basicsize, tp_flags, tp_base, tp_dictoffset (Include/cpython/object.h).
const TYPE: u64 = 8;
const TYPE_NAME: u64 = 24;
const TYPE_SIZE: u64 = 32;
const TYPE_FLAGS: u64 = 168;
const TYPE_BASE: u64 = 256;
const TYPE_DICT: u64 = 288;
/// `Py_TPFLAGS_INLINE_VALUES`, `Py_TPFLAGS_MANAGED_DICT`.
const INLINE_VALUES: u64 = 1 << 2;
const MANAGED_DICT: u64 = 1 << 4;

/// `FutureObj_HEAD`: fut_callback0, fut_callbacks.
const CALLBACK: u64 = 24;
const CALLBACKS: u64 = 40;
/// `PyListObject` and `PyTupleObject`: number of items; the list's array, the tuple's first item.
const ITEMS: u64 = 16;
const FIRST: u64 = 24;
/// `PyCellObject.ob_ref`; `PyMethodObject.im_self`; `partialobject.args`; `PyContext.ctx_prev`.
const CELL: u64 = 16;
const METHOD_SELF: u64 = 24;
const PARTIAL_ARGUMENTS: u64 = 24;
const CONTEXT_PREVIOUS: u64 = 16;
/// `_PyInterpreterFrame.localsplus`, and its size in words without them (FRAME_SPECIALS_SIZE).
const FRAME_LOCALS: u64 = 72;
const FRAME_WORDS: u64 = 9;
/// The first frame in a thread's first `_PyStackChunk`.
const FIRST_FRAME: u64 = 32;
/// `_done_callbacks` among the attributes of a `concurrent.futures.Future`.
const DONE_CALLBACKS: u64 = 5 * 8;

/// Bounds of the searches.
const RUNNING: u64 = 6;
const CELLS: u64 = 8;
const ATTRIBUTES: u64 = 8;
const SLOTS: u64 = 16;
const STEPS: usize = 8;
const FRAMES: u64 = 6;

/// What an object is.
const FUTURE: u64 = 1;
const TASK: u64 = 2;

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
    /// The thread's `PyThreadState`.
    state: u64,
}

#[map]
static WALKS: PerCpuArray<Walk> = PerCpuArray::with_max_entries(2, 0);

/// By socket cookie: the Task that wrote to it last, its address and its identity.
#[map]
static WRITERS: LruHashMap<u64, [u64; 2]> = LruHashMap::with_max_entries(8_192, 0);

/// What [`python_begin`] and [`python_work`] say: nothing is known, or what comes next.
const NOTHING: u64 = 0;
const CHAIN: u64 = 1;
const WORK: u64 = 2;

#[inline(always)]
fn walk(scratch: u64) -> Option<&'static mut Walk> {
    // SAFETY: this CPU's slot of this scratch; nobody else uses it meanwhile.
    WALKS
        .get_ptr_mut(scratch as u32)
        .map(|slot| unsafe { &mut *slot })
}

#[inline(always)]
fn offsets(scratch: u64) -> Option<&'static PythonOffsets> {
    walk(scratch).map(|walk| &walk.offsets)
}

#[inline(always)]
fn word(address: u64) -> u64 {
    read_user(address).unwrap_or(0)
}

/// The pointer there, 0 if it can't be one.
#[inline(always)]
fn follow(address: u64) -> u64 {
    pointer(address).unwrap_or(0)
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
    }
    if next == CHAIN {
        for _ in 0..STEPS {
            if python_step(scratch) == 0 {
                break;
            }
        }
    }
    next
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
    walk.found = 0;
    walk.at = python_running(scratch, state);
    if walk.at != 0 {
        tasks.task = python_identity(scratch, walk.at);
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
    let next = next(&walk.offsets, scratch, walk.at);
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
    u64::from(found + 1 < MAX_AWAITERS)
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

/// Whether the object is a Future, a Task, or of a type made from one of these.
#[inline(always)]
fn kind(o: &PythonOffsets, object: u64) -> u64 {
    let of = follow(object.wrapping_add(TYPE));
    if of == 0 {
        return 0;
    }
    let exact = kind_of_type(o, of);
    if exact != 0 {
        return exact;
    }
    kind_of_type(o, word(of.wrapping_add(TYPE_BASE)))
}

#[inline(always)]
fn kind_of_type(o: &PythonOffsets, of: u64) -> u64 {
    if of == o.task_type.get() {
        TASK
    } else if of == o.future_type.get() {
        FUTURE
    } else {
        0
    }
}

/// The Task that runs on the thread with that state: the one of the running Tasks whose context the thread is in.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_running(scratch: u64, state: u64) -> u64 {
    let Some(o) = offsets(scratch) else {
        return 0;
    };
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
    let entries = keys
        .wrapping_add(u64::from(o.keys_indices))
        .wrapping_add(indices);
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

/// What is woken when the Future or Task is done: the Task that awaits it, or a Future that stands between; 0 if there is none.
#[inline(always)]
fn next(o: &PythonOffsets, scratch: u64, future: u64) -> u64 {
    let mut callbacks = [follow(future.wrapping_add(CALLBACK)), 0, 0, 0];
    let list = follow(future.wrapping_add(CALLBACKS));
    if list != 0 {
        let count = word(list.wrapping_add(ITEMS));
        let items = follow(list.wrapping_add(FIRST));
        for at in 0..3 {
            if at >= count {
                break;
            }
            // A tuple of callback and context.
            let pair = follow(items.wrapping_add(at * 8));
            callbacks[at as usize + 1] = follow(pair.wrapping_add(FIRST));
        }
    }
    for callback in callbacks {
        if callback != 0 {
            let task = woken(o, callback);
            if task != 0 && task != future {
                return task;
            }
        }
    }
    for callback in callbacks {
        if callback != 0 {
            let next = python_callback(scratch, callback, future);
            if next != 0 {
                return next;
            }
        }
    }
    0
}

/// The Task that the callback wakes.
#[inline(always)]
fn woken(o: &PythonOffsets, callback: u64) -> u64 {
    if o.wakeup_type.get() != 0 && word(callback.wrapping_add(TYPE)) != o.wakeup_type.get() {
        return 0;
    }
    let task = follow(callback.wrapping_add(u64::from(o.wakeup_task)));
    if task != 0 && kind(o, task) == TASK {
        task
    } else {
        0
    }
}

/// The Future, or the Task of a TaskGroup, that a callback of `from` knows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_callback(scratch: u64, callback: u64, from: u64) -> u64 {
    let Some(o) = offsets(scratch) else {
        return 0;
    };
    let of = word(callback.wrapping_add(TYPE));
    if of == o.function_type.get() {
        let future = closure(o, callback, from);
        if future != 0 {
            return future;
        }
        let cells = follow(callback.wrapping_add(u64::from(o.closure)));
        // anyio's first cell is the TaskGroup or something else; it has few.
        for at in 0..4 {
            if cells == 0 || at >= word(cells.wrapping_add(ITEMS)) {
                break;
            }
            let cell = follow(cells.wrapping_add(FIRST + at * 8));
            let task = python_group(scratch, follow(cell.wrapping_add(CELL)));
            if task != 0 && task != from {
                return task;
            }
        }
        return 0;
    }
    if of == o.method_type.get() {
        let task = python_group(scratch, follow(callback.wrapping_add(METHOD_SELF)));
        return if task == from { 0 } else { task };
    }
    let arguments = follow(callback.wrapping_add(PARTIAL_ARGUMENTS));
    if arguments == 0 || word(arguments.wrapping_add(TYPE)) != o.tuple_type.get() {
        return 0;
    }
    for at in 0..3 {
        if at >= word(arguments.wrapping_add(ITEMS)) {
            break;
        }
        let object = follow(arguments.wrapping_add(FIRST + at * 8));
        if object != from && kind(o, object) == FUTURE {
            return object;
        }
    }
    0
}

/// The Future in a function's closure. Tasks there are whatever the function cares for.
#[inline(always)]
fn closure(o: &PythonOffsets, function: u64, from: u64) -> u64 {
    let cells = follow(function.wrapping_add(u64::from(o.closure)));
    if cells == 0 {
        return 0;
    }
    let count = word(cells.wrapping_add(ITEMS));
    for at in 0..CELLS {
        if at >= count {
            break;
        }
        let cell = follow(cells.wrapping_add(FIRST + at * 8));
        let object = follow(cell.wrapping_add(CELL));
        if object != 0 && object != from && kind(o, object) == FUTURE {
            return object;
        }
    }
    0
}

/// The Task that waits for a TaskGroup: asyncio's is an attribute of the group, anyio's one of its CancelScope, which is the group's
/// first attribute.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_group(scratch: u64, object: u64) -> u64 {
    let Some(o) = offsets(scratch) else {
        return 0;
    };
    if !is_named(object, b"TaskGrou") {
        return 0;
    }
    let values = values(o, object);
    if values == 0 {
        return 0;
    }
    let scope = follow(values);
    if is_named(scope, b"CancelSc") {
        return of_scope(o, scope);
    }
    first_task(o, values, ATTRIBUTES)
}

/// The Task that has entered a CancelScope, whose attributes are slots (`__slots__`) in new versions.
#[inline(always)]
fn of_scope(o: &PythonOffsets, scope: u64) -> u64 {
    let values = values(o, scope);
    if values != 0 {
        return first_task(o, values, 12);
    }
    let of = follow(scope.wrapping_add(TYPE));
    let slots = word(of.wrapping_add(TYPE_SIZE)).saturating_sub(16) / 8;
    first_task(o, scope.wrapping_add(16), if slots < SLOTS { slots } else { SLOTS })
}

#[inline(always)]
fn first_task(o: &PythonOffsets, values: u64, count: u64) -> u64 {
    for at in 0..SLOTS {
        if at >= count {
            break;
        }
        let value = follow(values.wrapping_add(at * 8));
        if value != 0 && kind(o, value) == TASK {
            return value;
        }
    }
    0
}

/// Whether the name of the object's type begins with these characters.
#[inline(always)]
fn is_named(object: u64, name: &[u8; 8]) -> bool {
    if object == 0 {
        return false;
    }
    let of = follow(object.wrapping_add(TYPE));
    let text = word(of.wrapping_add(TYPE_NAME));
    of != 0 && word(text) == u64::from_le_bytes(*name)
}

/// Where the values of an instance's attributes stand, in the order in which they were set first; 0 if that is not known.
#[inline(always)]
fn values(o: &PythonOffsets, object: u64) -> u64 {
    let of = follow(object.wrapping_add(TYPE));
    if of == 0 {
        return 0;
    }
    if o.attributes == attributes::DICTIONARY {
        let at = word(of.wrapping_add(TYPE_DICT));
        if at == 0 || at > 512 {
            return 0;
        }
        /// `PyDictObject.ma_values`.
        const VALUES: u64 = 40;
        let dictionary = follow(object.wrapping_add(at));
        return follow(dictionary.wrapping_add(VALUES));
    }
    let flags = word(of.wrapping_add(TYPE_FLAGS));
    if o.attributes == attributes::INLINE {
        if flags & INLINE_VALUES == 0 {
            return 0;
        }
        /// `PyDictValues`: capacity, size, embedded, valid, a byte each.
        const VALID: u64 = 1 << 24;
        let values = object.wrapping_add(word(of.wrapping_add(TYPE_SIZE)));
        return if word(values) & VALID == 0 {
            0
        } else {
            values.wrapping_add(8)
        };
    }
    if flags & MANAGED_DICT == 0 {
        return 0;
    }
    if o.attributes == attributes::POINTER {
        return follow(object.wrapping_sub(32));
    }
    let tagged = word(object.wrapping_sub(24));
    if tagged & 1 == 0 {
        0
    } else {
        tagged.wrapping_add(1)
    }
}

/// Finds the Future of what an executor's thread works on. It lies among the variables of the functions that such a thread runs first: of
/// anyio's `WorkerThread.run`, or in the `_WorkItem` of concurrent.futures, whose own Future hands its result on to asyncio's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_work(scratch: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return NOTHING;
    };
    let o = &walk.offsets;
    let mut chunk = follow(walk.state.wrapping_add(u64::from(o.data_stack)));
    for _ in 0..4 {
        // `_PyStackChunk.previous` is its first field.
        let previous = follow(chunk);
        if previous == 0 {
            break;
        }
        chunk = previous;
    }
    let mut frame = chunk.wrapping_add(FIRST_FRAME);
    for depth in 0..FRAMES {
        let code = follow(frame.wrapping_add(u64::from(o.frame_code)));
        if code == 0 {
            return NOTHING;
        }
        let locals = word(code.wrapping_add(u64::from(o.code_locals))) & 0xffff_ffff;
        let stack = word(code.wrapping_add(u64::from(o.code_stack))) & 0xffff_ffff;
        if locals > 256 || stack > 1024 {
            return NOTHING;
        }
        if depth == 2 {
            for at in 1..12 {
                if at >= locals {
                    break;
                }
                let object = follow(frame.wrapping_add(FRAME_LOCALS + at * 8));
                if object != 0 && kind(o, object) == FUTURE {
                    walk.at = object;
                    return CHAIN;
                }
            }
        }
        if depth >= 3 {
            let future = python_item(scratch, follow(frame.wrapping_add(FRAME_LOCALS)));
            if future != 0 {
                walk.at = future;
                return CHAIN;
            }
        }
        frame = frame.wrapping_add(8 * (locals + stack + FRAME_WORDS));
    }
    NOTHING
}

/// The asyncio Future that gets the result of a `_WorkItem`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_item(scratch: u64, item: u64) -> u64 {
    let Some(o) = offsets(scratch) else {
        return 0;
    };
    if !is_named(item, b"_WorkIte") {
        return 0;
    }
    // Its first attribute is the future.
    let of_item = values(o, item);
    if of_item == 0 {
        return 0;
    }
    let future = follow(of_item);
    if future == 0 {
        return 0;
    }
    let of_future = values(o, future);
    if of_future == 0 {
        return 0;
    }
    let callbacks = follow(of_future.wrapping_add(DONE_CALLBACKS));
    let count = word(callbacks.wrapping_add(ITEMS));
    let items = follow(callbacks.wrapping_add(FIRST));
    for at in 0..2 {
        if items == 0 || at >= count || count > 8 {
            break;
        }
        let function = follow(items.wrapping_add(at * 8));
        if function != 0 && word(function.wrapping_add(TYPE)) == o.function_type.get() {
            let found = closure(o, function, 0);
            if found != 0 {
                return found;
            }
        }
    }
    0
}
