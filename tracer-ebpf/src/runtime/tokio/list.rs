//! Tasks that are spawned together and awaited one after the other: `for task in tasks { task.await }`. While the first is awaited nobody waits
//! for the others, which are known as what the iterator of the one that waits has still to give. Where that lies belongs to the types of the
//! futures, so to the program: user space finds it ([`tracer_common::TokioList`]), asked by [`ActKind::SOUGHT`].

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::LruHashMap};
use tracer_common::{ActKind, EventKind, MAX_TOKIO_STEPS, RuntimeKind, TokioOffsets};

use super::{HEADER_VTABLE, LIST, MORE, task_id, tasks, walk};
use crate::{
    buffers::read_user,
    emit,
    runtime::{
        entry,
        held::{Holder, holder, nobody_holds, remember},
        pointer, whole,
    },
};

/// By the address of the `Vtable` of tasks that are awaited, and the process.
#[map]
static TOKIO_SOUGHT: LruHashMap<[u64; 2], Asked> = LruHashMap::with_max_entries(1_024, 0);

/// How often user space was asked, and when it was last (in nanoseconds, CLOCK_MONOTONIC).
#[derive(Clone, Copy)]
#[repr(C)]
struct Asked {
    times: u64,
    last: u64,
}

/// User space has to come while the task still waits, so it is asked more than once: so often with so much time between, in
/// nanoseconds, and after that with twice as much each time.
const OFTEN: u64 = 64;
const INTERVAL: u64 = 5_000_000;
/// Members of a list that are looked at.
const MEMBERS: u64 = 16;

/// Who holds the task, which nobody awaits: the address of its `Header`, 0 if that is not known. `thread` is thread group and thread.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tokio_holder(thread: u64, scratch: u64, task: u64) -> u64 {
    let Some(entry) = entry(thread >> 32, RuntimeKind::TOKIO) else {
        return 0;
    };
    if of_type(&entry.tokio, vtable(task)).is_none() {
        return 0;
    }
    let id = task_id(task);
    let Some(Holder {
        task: by,
        identity,
        since,
    }) = holder(thread, id)
    else {
        if id != 0 {
            nobody_holds(thread, id);
        }
        return 0;
    };
    if by == 0 || by == task || task_id(by) != identity {
        return 0;
    }
    if let Some(tasks) = tasks(scratch) {
        tasks.held(since);
    }
    by
}

/// The walk has come to a task that awaits another one: [`LIST`] if the others that it will await are to be looked for.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tokio_joined(thread: u64, scratch: u64) -> u64 {
    let (Some(walk), Some(entry)) = (walk(scratch), entry(thread >> 32, RuntimeKind::TOKIO)) else {
        return MORE;
    };
    let of = vtable(walk.awaited);
    let Some(list) = of_type(&entry.tokio, of) else {
        return seek(thread, of, walk.by);
    };
    walk.list = list;
    let by = task_id(walk.by);
    match holder(thread, task_id(walk.awaited)) {
        Some(holder) if holder.identity == by => MORE,
        _ => LIST,
    }
}

/// Remembers the tasks that are awaited after the one to which the walk has come.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tokio_hold(thread: u64, scratch: u64) -> u64 {
    if tokio_iterator(thread, scratch) != 0 {
        for _ in 0..MEMBERS {
            if tokio_member(thread, scratch) == 0 {
                break;
            }
        }
    }
    1
}

/// Finds the iterator: 0 if it is not there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokio_iterator(thread: u64, scratch: u64) -> u64 {
    let (Some(walk), Some(entry)) = (walk(scratch), entry(thread >> 32, RuntimeKind::TOKIO)) else {
        return 0;
    };
    remember(thread, [walk.by, task_id(walk.by)], task_id(walk.awaited));
    let Some(list) = entry.tokio.lists.get(walk.list as usize) else {
        return 0;
    };
    let mut block = walk.by;
    let mut has_iterator = walk.by;
    for step in 0..MAX_TOKIO_STEPS {
        if step as u32 >= list.count {
            break;
        }
        let Some(next) = pointer(block.wrapping_add(u64::from(list.steps[step]))) else {
            return 0;
        };
        block = next;
        if step as u32 + 1 == list.depth {
            has_iterator = block;
        }
    }
    if read_user(block.wrapping_add(u64::from(list.handle))) != Some(walk.awaited) {
        return 0;
    }
    walk.element = pointer(has_iterator.wrapping_add(u64::from(list.first))).unwrap_or(0);
    walk.last = pointer(has_iterator.wrapping_add(u64::from(list.last))).unwrap_or(0);
    walk.stride = u64::from(list.stride);
    walk.handle = u64::from(list.element);
    walk.element
}

/// Remembers the next task that the iterator will give: 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokio_member(thread: u64, scratch: u64) -> u64 {
    let Some(walk) = walk(scratch).filter(|walk| walk.element < walk.last) else {
        return 0;
    };
    let task = pointer(walk.element.wrapping_add(walk.handle)).unwrap_or(0);
    walk.element = walk.element.wrapping_add(walk.stride);
    if task == walk.awaited || vtable(task) != vtable(walk.awaited) {
        return 0;
    }
    let (id, by) = (task_id(task), task_id(walk.by));
    // Tokio numbers tasks: who made it is older.
    if by != 0 && id > by {
        remember(thread, [walk.by, by], id);
    }
    1
}

/// Which list has tasks of that type.
#[inline(always)]
fn of_type(offsets: &TokioOffsets, vtable: u64) -> Option<u64> {
    let mut found = None;
    for (at, list) in offsets.lists.iter().enumerate() {
        if vtable != 0 && whole(list.vtable) == vtable {
            found = Some(at as u64);
        }
    }
    found
}

#[inline(always)]
fn vtable(task: u64) -> u64 {
    pointer(task.wrapping_add(HEADER_VTABLE)).unwrap_or(0)
}

/// Asks user space where tasks of that type are.
#[inline(always)]
fn seek(thread: u64, vtable: u64, by: u64) -> u64 {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = [vtable, thread >> 32];
    let mut asked = 0;
    if let Some(known) = TOKIO_SOUGHT.get_ptr_mut(key) {
        // SAFETY: an entry stays memory of this map while the program runs; what two CPUs lose of each other asks once more.
        let known = unsafe { &mut *known };
        asked = known.times;
        let doublings = asked.saturating_sub(OFTEN) & 31;
        if now.wrapping_sub(known.last) < INTERVAL << doublings {
            return MORE;
        }
    }
    let asks = Asked {
        times: if asked < OFTEN + 31 { asked + 1 } else { asked },
        last: now,
    };
    if vtable == 0 || TOKIO_SOUGHT.insert(key, asks, 0).is_err() {
        return MORE;
    }
    let Some(mut record) = emit::reserve(0) else {
        return MORE;
    };
    let fields = record.blank();
    fields.ts = now;
    fields.creator = vtable;
    fields.awaiters[0] = by;
    fields.tgid = (thread >> 32) as u32;
    fields.tid = thread as u32;
    fields.kind = EventKind::ACT.0;
    fields.state = ActKind::SOUGHT.0;
    record.submit();
    MORE
}
