//! Event loops: when one looks for events, and when it takes notice of work by other threads.
//!
//! Hooks, as tracepoints of system calls (include/trace/events/syscalls.h), attached only while a process whose runtime makes use of
//! them is known: `sys_enter_epoll_pwait`, `sys_enter_read`. Emits `ACT`.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext};
use tracer_common::{ActKind, EventFlags, EventKind, Turn};

use crate::{emit, layout, runtime, unit::Thread};

/// `struct syscall_trace_enter` (kernel/trace/trace.h): 8 bytes of header, the number, then the arguments from byte 16 on.
const ARGUMENTS: usize = 16;

/// libuv reads its eventfd into a buffer of 1,024 bytes (src/unix/async.c: `uv__async_io`).
const WAKE_UP_BYTES: u64 = 1_024;

#[tracepoint]
pub fn loop_waits(_ctx: TracePointContext) -> u32 {
    act(ActKind::WAITS);
    0
}

#[tracepoint]
pub fn loop_woken(ctx: TracePointContext) -> u32 {
    // SAFETY: the third argument of `read`, in the record of its tracepoint.
    let size = unsafe { ctx.read_at::<u64>(ARGUMENTS + 16) };
    if size == Ok(WAKE_UP_BYTES) {
        act(ActKind::WOKEN);
    }
    0
}

#[inline(always)]
fn act(kind: ActKind) -> Option<()> {
    let thread = Thread::current();
    if thread.tgid == layout::OWN_TGID.load() {
        return None;
    }
    let turn = runtime::turn(thread)?;
    // A file or socket is read in a callback; what other threads have done is noticed by the loop itself.
    if kind == ActKind::WOKEN && turn.execution != 0 {
        return None;
    }
    tell(kind, thread, &turn)
}

#[inline(always)]
fn tell(kind: ActKind, thread: Thread, turn: &Turn) -> Option<()> {
    // SAFETY: no arguments.
    let ts = unsafe { bpf_ktime_get_ns() };
    let mut record = emit::reserve(0)?;
    let fields = record.blank();
    fields.ts = ts;
    fields.awaiters = turn.pack();
    fields.tgid = thread.tgid;
    fields.tid = thread.tid;
    fields.flags = EventFlags::TURN;
    fields.kind = EventKind::ACT.0;
    fields.state = kind.0;
    record.submit();
    Some(())
}
