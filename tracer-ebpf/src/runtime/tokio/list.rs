//! Tasks that are spawned together and awaited one after the other: `for task in tasks { task.await }`. While the first is awaited nobody waits
//! for the others, which are known as what the iterator of the one that waits has still to give, or as its variables. Where these lie belongs to the
//! types of the futures, so to the program: user space finds it ([`TokioList`]), asked by [`ActKind::SOUGHT`].

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::LruHashMap};
use tracer_common::{ActKind, EventKind, MAX_TOKIO_LISTS, MAX_TOKIO_STEPS, RuntimeKind, TokioList, TokioOffsets};

use super::{HEADER_VTABLE, JOIN_WAKER, LIST, MORE, task_id, tasks, walk};
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
const OFTEN: u64 = 128;
const INTERVAL: u64 = 5_000_000;
/// `JOIN_INTEREST` in `Header.state` (tokio/src/runtime/task/state.rs): somebody has the handle.
const JOIN_INTEREST: u64 = 1 << 3;
/// Members of a list that are looked at.
const MEMBERS: u64 = 16;

/// Who holds the task, which nobody awaits: the address of its `Header`, 0 if that is not known. `thread` is thread group and thread.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tokio_holder(thread: u64, scratch: u64, task: u64) -> u64 {
    let Some(entry) = entry(thread >> 32, RuntimeKind::TOKIO) else {
        return 0;
    };
    if !has(&entry.tokio, vtable(task), |list| list.member) {
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
    walk.of = vtable(walk.awaited);
    if !has(&entry.tokio, walk.of, |list| list.vtable) {
        return seek(thread, walk.of, walk.by);
    }
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
    if tokio_is_held(thread, scratch) == 0 {
        return 0;
    }
    for list in 0..MAX_TOKIO_LISTS as u64 {
        if tokio_list(thread, scratch, list) != 0 {
            for _ in 0..MEMBERS {
                if tokio_member(thread, scratch) == 0 {
                    break;
                }
            }
        }
    }
    1
}

/// That who awaits the task to which the walk has come has it: 0 if that one is not known.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokio_is_held(thread: u64, scratch: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return 0;
    };
    walk.by_id = task_id(walk.by);
    walk.awaited_id = task_id(walk.awaited);
    remember(thread, [walk.by, walk.by_id], walk.awaited_id);
    walk.by_id
}

/// Finds one of the lists: 0 if it is not there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokio_list(thread: u64, scratch: u64, list: u64) -> u64 {
    let (Some(walk), Some(entry)) = (walk(scratch), entry(thread >> 32, RuntimeKind::TOKIO)) else {
        return 0;
    };
    let Some(list) = entry.tokio.lists.get(list as usize) else {
        return 0;
    };
    if whole(list.vtable) != walk.of {
        return 0;
    }
    let mut block = walk.by;
    let mut has_list = walk.by;
    for step in 0..MAX_TOKIO_STEPS {
        if step as u32 >= list.count {
            break;
        }
        let Some(next) = pointer(block.wrapping_add(u64::from(list.steps[step]))) else {
            return 0;
        };
        block = next;
        if step as u32 + 1 == list.depth {
            has_list = block;
        }
    }
    if read_user(block.wrapping_add(u64::from(list.handle))) != Some(walk.awaited) {
        return 0;
    }
    walk.element = has_list.wrapping_add(u64::from(list.first));
    walk.last = walk.element.wrapping_add(8);
    walk.stride = 8;
    // Tokio numbers tasks. What is left over in a variable is older than what is awaited now.
    walk.least = walk.awaited_id;
    if list.stride != 0 {
        walk.least = walk.by_id;
        walk.element = pointer(walk.element).unwrap_or(0);
        walk.last = pointer(has_list.wrapping_add(u64::from(list.last))).unwrap_or(0);
        walk.stride = u64::from(list.stride);
    }
    walk.handle = u64::from(list.element);
    walk.member = whole(list.member);
    walk.element
}

/// Remembers the next task in the list: 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokio_member(thread: u64, scratch: u64) -> u64 {
    let Some(walk) = walk(scratch).filter(|walk| walk.element < walk.last) else {
        return 0;
    };
    let task = pointer(walk.element.wrapping_add(walk.handle)).unwrap_or(0);
    walk.element = walk.element.wrapping_add(walk.stride);
    let state = read_user::<u64>(task).unwrap_or(0);
    if state & (JOIN_INTEREST | JOIN_WAKER) != JOIN_INTEREST || vtable(task) != walk.member {
        return 0;
    }
    let id = task_id(task);
    if id > walk.least {
        remember(thread, [walk.by, walk.by_id], id);
    }
    1
}

/// Whether some list has that type, as `of` tells it.
#[inline(always)]
fn has(offsets: &TokioOffsets, vtable: u64, of: impl Fn(&TokioList) -> [u32; 2]) -> bool {
    let mut found = false;
    for list in &offsets.lists {
        found |= vtable != 0 && whole(of(list)) == vtable;
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
