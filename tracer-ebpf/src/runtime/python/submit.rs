//! Who submits work to an executor (concurrent.futures.ThreadPoolExecutor): nothing in the work itself leads back to that one.
//!
//! Hook: a uprobe at the function behind `_queue.SimpleQueue.put(item)`, in processes that have loaded executors and nowhere else;
//! `PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)` (`METH_FASTCALL | METH_KEYWORDS`,
//! Modules/_queuemodule.c). Each `submit` calls it once (Lib/concurrent/futures/thread.py). Emits nothing: the submitter is
//! told with what the work moves ([`EventFlags::SUBMITTED`](tracer_common::EventFlags::SUBMITTED)).

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::{map, uprobe},
    maps::LruHashMap,
    programs::ProbeContext,
};
use tracer_common::{MAX_SUBMITTED, RuntimeKind, Submitters, THREAD_UNIT, counter};

use super::{
    PROBE,
    objects::{follow, is_named, values},
    python_identity, python_running, tasks, thread_pointer, walk,
    work::python_work,
};
use crate::{
    conns::count,
    runtime::{entry, in_use},
    unit::Thread,
};

/// By the work's Future and its process. An entry is overwritten when its address has another Future, whose work is submitted in the same
/// way.
#[map]
static SUBMITTED: LruHashMap<[u64; 2], Submitters> = LruHashMap::with_max_entries(MAX_SUBMITTED, 0);

#[uprobe]
pub fn python_put(ctx: ProbeContext) -> u32 {
    if let Some(arguments) = ctx.arg::<u64>(1)
        && in_use()
    {
        count(counter::PROBED);
        put(arguments);
    }
    0
}

#[inline(always)]
fn put(arguments: u64) -> Option<()> {
    let thread = Thread::current();
    let (tgid, tid) = (u64::from(thread.tgid), u64::from(thread.tid));
    let entry = entry(tgid, RuntimeKind::PYTHON).filter(|entry| entry.kind == RuntimeKind::PYTHON.0)?;
    let walk = walk(PROBE)?;
    walk.offsets = entry.python;
    walk.thread = tgid << 32 | tid;
    walk.work = 0;
    let future = python_put_future(PROBE, arguments);
    walk.state = follow(thread_pointer().wrapping_add(u64::from(walk.offsets.thread_state)));
    if future == 0 || walk.state == 0 {
        return None;
    }
    // SAFETY: no arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    let mut by = Submitters {
        by: THREAD_UNIT | tid,
        at,
        ..Submitters::default()
    };
    let task = python_running(PROBE, walk.state);
    if task != 0 {
        by.by = python_identity(PROBE, task);
    } else if tgid != tid {
        python_work(PROBE);
        // SAFETY: a copy; a torn one names nobody who serves.
        if walk.work != 0
            && let Some(outer) = unsafe { SUBMITTED.get([walk.work, tgid]) }
        {
            (by.before, by.before_at) = (outer.by, outer.at);
        }
    }
    // Nobody else walked here meanwhile.
    if walk.thread == tgid << 32 | tid {
        let _ = SUBMITTED.insert([future, tgid], by, 0);
    }
    Some(())
}

/// The Future of the work that is put into the queue; 0 if it is something else.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_put_future(scratch: u64, arguments: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return 0;
    };
    let item = follow(arguments);
    if !is_named(item, b"_WorkIte") {
        return 0;
    }
    // Its first attribute.
    match values(&walk.offsets, item) {
        0 => 0,
        of_item => follow(of_item),
    }
}

/// Tells who submitted what the executor's thread works on; 0 if that is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn python_submitters(tgid: u64, scratch: u64) -> u64 {
    let (Some(walk), Some(tasks)) = (walk(scratch), tasks(scratch)) else {
        return 0;
    };
    if walk.work == 0 {
        return 0;
    }
    // SAFETY: as above.
    match unsafe { SUBMITTED.get([walk.work, tgid]) } {
        Some(by) => {
            tasks.submitted(*by);
            1
        }
        None => 0,
    }
}
