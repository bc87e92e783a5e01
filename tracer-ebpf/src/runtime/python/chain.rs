//! From a Future or a Task to who awaits it.

use tracer_common::PythonOffsets;

use super::{
    objects::{FIRST, FUTURE, ITEMS, TASK, TYPE, TYPE_SIZE, follow, is_named, kind, values, word},
    offsets,
};
use crate::opaque::opaque;

/// `FutureObj_HEAD`: fut_callback0, fut_callbacks.
const CALLBACK: u64 = 24;
const CALLBACKS: u64 = 40;
/// `PyCellObject.ob_ref`; `PyMethodObject.im_self`; `partialobject.args`.
const CELL: u64 = 16;
const METHOD_SELF: u64 = 24;
const PARTIAL_ARGUMENTS: u64 = 24;

/// Bounds of the searches.
const CELLS: u64 = 8;
const ATTRIBUTES: u64 = 10;
const SLOTS: u64 = 16;
// The searches' indices are opaque, or the compiler lets a pointer run along: such a loop may go back by falling through, which 5.10 refuses.

/// What is woken when the Future or Task is done: the Task that awaits it, or a Future that stands between; 0 if there is none.
#[inline(always)]
pub fn next(o: &PythonOffsets, scratch: u64, future: u64) -> u64 {
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
            callbacks[at as usize + 1] = follow(pair.wrapping_add(u64::from(o.tuple_items)));
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
            let cell = follow(cells.wrapping_add(u64::from(o.tuple_items) + at * 8));
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
        let object = follow(arguments.wrapping_add(u64::from(o.tuple_items) + at * 8));
        if object != from && kind(o, object) == FUTURE {
            return object;
        }
    }
    0
}

/// The Future in a function's closure. Tasks there are whatever the function cares for.
#[inline(always)]
pub fn closure(o: &PythonOffsets, function: u64, from: u64) -> u64 {
    let cells = follow(function.wrapping_add(u64::from(o.closure)));
    if cells == 0 {
        return 0;
    }
    let count = word(cells.wrapping_add(ITEMS));
    for at in 0..CELLS {
        if at >= count {
            break;
        }
        let cell = follow(cells.wrapping_add(u64::from(o.tuple_items) + at * 8));
        let object = follow(cell.wrapping_add(CELL));
        if object != 0 && object != from && kind(o, object) == FUTURE {
            return object;
        }
    }
    0
}

/// The Task that waits for a TaskGroup: asyncio's is an attribute of the group, anyio's one of its CancelScope, which is an attribute
/// of the group.
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
    for at in 0..ATTRIBUTES {
        let scope = follow(values.wrapping_add(opaque(at) * 8));
        if is_named(scope, b"CancelSc") {
            return of_scope(o, scope);
        }
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
    first_task(
        o,
        scope.wrapping_add(16),
        if slots < SLOTS { slots } else { SLOTS },
    )
}

#[inline(always)]
fn first_task(o: &PythonOffsets, values: u64, count: u64) -> u64 {
    for at in 0..SLOTS {
        if at >= count {
            break;
        }
        let value = follow(values.wrapping_add(opaque(at) * 8));
        if value != 0 && kind(o, value) == TASK {
            return value;
        }
    }
    0
}
