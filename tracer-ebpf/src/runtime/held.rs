//! Tasks that nobody awaits yet, and who holds them: one that makes several and awaits one after the other has the rest among its variables
//! meanwhile. A runtime's own file finds them there; what it has found is remembered here, and told with what those tasks move
//! ([`EventFlags::HELD`](tracer_common::EventFlags::HELD)) as long as nobody awaits them. What they have moved before is told apart
//! ([`ActKind::HELD`]). Two that hold the same task have not both made it: then nobody is told.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::LruHashMap};
use tracer_common::{ActKind, EventFlags, EventKind};

use crate::emit;

/// Who holds a task.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Holder {
    /// Its address; 0 if several do.
    pub task: u64,
    /// Its identity; 0 if nobody is known who does, and the task has moved bytes.
    pub identity: u64,
    /// When it was seen first, in nanoseconds (CLOCK_MONOTONIC).
    pub since: u64,
}

const NOBODY: Holder = Holder {
    task: 0,
    identity: 0,
    since: 0,
};

/// By a task's identity and its process.
#[map]
static HELD: LruHashMap<[u64; 2], Holder> = LruHashMap::with_max_entries(4_096, 0);

/// Who holds that task; `None` if that was never asked. `thread` is thread group and thread.
#[inline(always)]
pub fn holder(thread: u64, identity: u64) -> Option<Holder> {
    // SAFETY: a copy; a torn one names no task, or none of that identity.
    unsafe { HELD.get([identity, thread >> 32]) }.copied()
}

/// That a task has moved bytes, and nobody is known who holds it.
#[inline(always)]
pub fn nobody_holds(thread: u64, identity: u64) {
    let _ = HELD.insert([identity, thread >> 32], NOBODY, 0);
}

/// That the holder, given by address and identity, has that task. Told at once if what that one has moved already waits for it.
#[inline(always)]
pub fn remember(thread: u64, [holder, identity]: [u64; 2], task: u64) {
    let known = self::holder(thread, task);
    let was_known = known.is_some();
    let known = known.unwrap_or(NOBODY);
    if known.identity == identity {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let held = Holder {
        task: if known.identity == 0 { holder } else { 0 },
        identity,
        since: now,
    };
    // A task that has not moved anything yet is not known at all.
    let waits = was_known && known.identity == 0;
    if HELD.insert([task, thread >> 32], held, 0).is_ok() && waits {
        tell_held(thread, task, identity, now);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_held(thread: u64, task: u64, holder: u64, now: u64) -> u64 {
    let Some(mut record) = emit::reserve(0) else {
        return 0;
    };
    let fields = record.blank();
    fields.ts = now;
    fields.task = task;
    fields.creator = now;
    fields.awaiters[0] = holder;
    fields.tgid = (thread >> 32) as u32;
    fields.tid = thread as u32;
    fields.flags = EventFlags::HELD;
    fields.kind = EventKind::ACT.0;
    fields.state = ActKind::HELD.0;
    record.submit();
    1
}
