//! Tasks that nobody awaits yet, but whose maker can be told: a coroutine makes several, keeps them in variables, and awaits one
//! after the other. While it awaits the first, the others are found among the variables of its frame.
//!
//! Who awaits a Task is looked through once, when that Task is first seen to connect or to move bytes: the two innermost frames of its
//! coroutines (the one that awaits and its caller, as `wait_for` has a frame of its own) with what lies on their stacks, and one list,
//! tuple or dictionary of Tasks there. What is found is remembered ([`crate::runtime::held`]).

use tracer_common::{REUSED_TASK, RuntimeKind};

use super::{
    CONNECT, HOLDER, Walk,
    chain::next,
    objects::{FIRST, ITEMS, TASK, TYPE, follow, kind, reference, word},
    python_identity, python_running, tasks, walk,
};
use crate::runtime::{
    entry,
    held::{Holder, holder, nobody_holds, remember},
    thread_pointer,
};

/// `_PyInterpreterFrame`: stacktop, from 3.14 on stackpointer.
const FRAME_TOP: u64 = 64;
/// `_PyListIterObject.it_seq`.
const ITERATED: u64 = 24;
/// `PyDictObject.ma_keys`.
const KEYS: u64 = 32;

/// Coroutines that await one another, variables of a frame, and Tasks of a collection that are looked at.
const COROUTINES: u64 = 32;
const VARIABLES: u64 = 20;
const MEMBERS: u64 = 16;

/// Whether the holder was not looked through yet for the sake of the Task that it awaits.
#[inline(always)]
pub fn is_new(walk: &Walk) -> bool {
    if walk.offsets.coroutine_type.get() == 0 || walk.task[1] == 0 {
        return false;
    }
    holder(walk.thread, walk.task[1]).is_none_or(|holder| holder.identity != walk.holder[1])
}

/// Who holds the Task that the walk has come to and that nobody awaits; 0 if that is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn python_holder(scratch: u64) -> u64 {
    let (Some(walk), Some(tasks)) = (walk(scratch), tasks(scratch)) else {
        return 0;
    };
    // A Future that nobody awaits is nobody's variable.
    if walk.at != walk.task[0] {
        return 0;
    }
    let Some(Holder {
        task,
        identity,
        since,
    }) = holder(walk.thread, walk.task[1])
    else {
        if walk.offsets.coroutine_type.get() != 0 {
            nobody_holds(walk.thread, walk.task[1]);
        }
        return 0;
    };
    if task == 0
        || task == walk.at
        || kind(&walk.offsets, task) != TASK
        || python_identity(scratch, task) != identity
    {
        return 0;
    }
    tasks.held(since);
    task
}

/// Finds who awaits the Task that runs: [`HOLDER`] if that one is to be looked through. `thread` is thread group and thread.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn python_connect(thread: u64) -> u64 {
    let Some(walk) = walk(CONNECT) else {
        return 0;
    };
    let Some(entry) = entry(thread >> 32, RuntimeKind::PYTHON) else {
        return 0;
    };
    if entry.kind != RuntimeKind::PYTHON.0 || entry.python.coroutine_type.get() == 0 {
        return 0;
    }
    walk.offsets = entry.python;
    walk.thread = thread;
    walk.state = follow(thread_pointer().wrapping_add(u64::from(walk.offsets.thread_state)));
    if walk.state == 0 {
        return 0;
    }
    walk.at = python_running(CONNECT, walk.state);
    if walk.at == 0 {
        return 0;
    }
    walk.task = [walk.at, python_identity(CONNECT, walk.at)];
    // A Future may stand between.
    for _ in 0..2 {
        walk.at = next(&walk.offsets, CONNECT, walk.at);
        if walk.at != 0 && kind(&walk.offsets, walk.at) == TASK {
            walk.holder = [walk.at, python_identity(CONNECT, walk.at)];
            return if is_new(walk) { HOLDER } else { 0 };
        }
    }
    0
}

/// Remembers what the one who waits holds, besides what it awaits. The walk goes on from there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn python_hold(scratch: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return 0;
    };
    remember(walk.thread, walk.holder, walk.task[1]);
    walk.task = walk.holder;
    walk.frames = [0; 2];
    walk.items = [0; 3];
    // `TaskObj.task_coro` lies before its name.
    walk.at = follow(walk.holder[0].wrapping_add(u64::from(walk.offsets.task_name) - 8));
    for _ in 0..COROUTINES {
        if python_descend(scratch) == 0 {
            break;
        }
    }
    walk.at = walk.holder[0];
    for at in 0..VARIABLES {
        if python_variable(scratch, walk.frames[0], at) == 0 {
            break;
        }
    }
    for at in 0..VARIABLES {
        if python_variable(scratch, walk.frames[1], at) == 0 {
            break;
        }
    }
    for at in 0..MEMBERS {
        if python_member(scratch, at) == 0 {
            break;
        }
    }
    1
}

/// Goes from a coroutine to the one that it awaits: 0 if that is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_descend(scratch: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return 0;
    };
    if walk.at == 0 || word(walk.at.wrapping_add(TYPE)) != walk.offsets.coroutine_type.get() {
        return 0;
    }
    let frame = walk.at.wrapping_add(u64::from(walk.offsets.coroutine_frame));
    let first = u64::from(walk.offsets.frame_locals);
    let top = depth(walk, frame);
    if top == 0 {
        return 0;
    }
    walk.frames = [frame, walk.frames[0]];
    // What a coroutine awaits is on top of its stack.
    walk.at = reference(frame.wrapping_add(first + (top - 1) * 8));
    walk.at
}

/// Words of a suspended frame that are in use, variables and stack; 0 if it runs, or is no frame.
#[inline(always)]
fn depth(walk: &Walk, frame: u64) -> u64 {
    let top = word(frame.wrapping_add(FRAME_TOP));
    let top = if walk.offsets.frame_pointer != 0 {
        let first = frame.wrapping_add(u64::from(walk.offsets.frame_locals));
        top.wrapping_sub(first) >> 3
    } else {
        top & 0xffff_ffff
    };
    if top <= 512 { top } else { 0 }
}

/// Looks at one variable of a frame: 0 if there are no more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_variable(scratch: u64, frame: u64, at: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return 0;
    };
    // The topmost is what is awaited.
    if frame == 0 || at + 1 >= depth(walk, frame) {
        return 0;
    }
    let first = u64::from(walk.offsets.frame_locals);
    let object = reference(frame.wrapping_add(first + at * 8));
    if object == 0 {
        return 1;
    }
    if word(object.wrapping_add(TYPE)) == walk.offsets.task_type.get() {
        hold(scratch, object);
    } else if walk.items[0] == 0 {
        walk.items = collection(walk, object);
    }
    1
}

/// The Tasks in a collection, as [`Walk::items`] has them; zeros if it is none, or one of other things.
#[inline(always)]
fn collection(walk: &Walk, mut object: u64) -> [u64; 3] {
    let o = &walk.offsets;
    let mut of = word(object.wrapping_add(TYPE));
    if of == o.list_iterator_type.get() {
        object = follow(object.wrapping_add(ITERATED));
        of = word(object.wrapping_add(TYPE));
    }
    let (first, stride) = if of == o.list_type.get() {
        (follow(object.wrapping_add(FIRST)), 8)
    } else if of == o.tuple_type.get() {
        (object.wrapping_add(u64::from(o.tuple_items)), 8)
    } else if of == o.dictionary_type.get() {
        values(walk, follow(object.wrapping_add(KEYS)))
    } else {
        return [0; 3];
    };
    let task = follow(first);
    if task == 0 || word(task.wrapping_add(TYPE)) != o.task_type.get() {
        return [0; 3];
    }
    // `ob_size`; `PyDictObject.ma_used`.
    [first, stride, word(object.wrapping_add(ITEMS))]
}

/// The first value in a dictionary, and the bytes to the next.
#[inline(always)]
fn values(walk: &Walk, keys: u64) -> (u64, u64) {
    let size = word(keys.wrapping_add(8));
    let entries = keys
        .wrapping_add(u64::from(walk.offsets.keys_indices))
        .wrapping_add(1 << ((size >> 8) & 15));
    // dk_kind: a table for any keys has their hashes, too.
    if (size >> 16) & 0xff == 0 {
        (entries.wrapping_add(16), 24)
    } else {
        (entries.wrapping_add(8), 16)
    }
}

/// Looks at one member of the collection: 0 if there are no more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_member(scratch: u64, at: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return 0;
    };
    let [first, stride, count] = walk.items;
    if first == 0 || at >= count {
        return 0;
    }
    let object = follow(first.wrapping_add(at * stride));
    if object != 0 && word(object.wrapping_add(TYPE)) == walk.offsets.task_type.get() {
        hold(scratch, object);
    }
    1
}

/// The holder has that Task. It has made it only if it is younger: asyncio numbers Tasks.
#[inline(always)]
fn hold(scratch: u64, task: u64) {
    let Some(walk) = walk(scratch) else {
        return;
    };
    let [holder, by] = walk.holder;
    if task == holder {
        return;
    }
    let identity = python_identity(scratch, task);
    let are_numbers = (identity | by) & REUSED_TASK == 0;
    if !are_numbers || identity > by {
        remember(walk.thread, walk.holder, identity);
    }
}
