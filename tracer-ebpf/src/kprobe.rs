//! The back end `fentry` where there are no trampolines (aarch64 before Linux 6.4) or they are refused: the same functions, by
//! kprobe and kretprobe.
//!
//! Hooks: those of [`crate::fentry`]. A function's end does not know its arguments, so its entry leaves them in a table, by thread:
//! no thread is in two of these functions at the same time, but where sending takes memory that is swapped out over a socket;
//! then the outer call is counted as lost.

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{kprobe, kretprobe, map},
    maps::HashMap,
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{Direction, counter};

use crate::{
    access::{Untyped, load},
    arrival::arrived,
    conns::count,
    identity,
    iter::Behind,
    layout,
    message::{Moved, message},
    socket::Socket,
};

/// Calls that are under way, by thread.
#[map]
static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(MAX_CALLS, BPF_F_NO_PREALLOC);

/// Threads that can be blocked in a receive or a send; entries take memory only while they are used.
const MAX_CALLS: u32 = 65_536;
const BPF_F_NO_PREALLOC: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

/// Arguments of a call.
#[derive(Clone, Copy)]
#[repr(C)]
struct Call {
    socket: u64,
    /// `struct msghdr *`, 0 if there is none.
    msg: u64,
    /// `MSG_*` of a receive.
    flags: u64,
}

#[kprobe]
pub fn kprobe_send(ctx: ProbeContext) -> u32 {
    begin(&ctx, 1, None);
    0
}

#[kprobe]
pub fn kprobe_recv(ctx: ProbeContext) -> u32 {
    begin(&ctx, 1, Some(3));
    0
}

/// `sendpage` and `splice_read`: no message of a process.
#[kprobe]
pub fn kprobe_pages(ctx: ProbeContext) -> u32 {
    begin(&ctx, usize::MAX, None);
    0
}

#[kretprobe]
pub fn kretprobe_send(ctx: RetProbeContext) -> u32 {
    end(&ctx, Direction::Send);
    0
}

#[kretprobe]
pub fn kretprobe_recv(ctx: RetProbeContext) -> u32 {
    end(&ctx, Direction::Recv);
    0
}

#[kprobe]
pub fn kprobe_sock_def_readable(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg::<*const u8>(0) {
        // SAFETY: the first argument is a `struct sock *`.
        arrived(unsafe { Socket::<Untyped>::new(sk) });
    }
    0
}

/// `sk_alloc` and `sk_clone_lock`.
#[kretprobe]
pub fn kretprobe_new_socket(ctx: RetProbeContext) -> u32 {
    identity::forget(ctx.ret());
    0
}

#[inline(always)]
fn begin(ctx: &ProbeContext, msg: usize, flags: Option<usize>) {
    let Some(socket) = ctx.arg::<u64>(0) else {
        return;
    };
    let call = Call {
        socket,
        msg: ctx.arg(msg).unwrap_or(0),
        flags: flags.and_then(|at| ctx.arg::<u64>(at)).unwrap_or(0),
    };
    // SAFETY: no arguments.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    if CALLS.insert(thread, call, 0).is_err() {
        count(counter::MAP_FULL);
    }
}

#[inline(always)]
fn end(ctx: &RetProbeContext, direction: Direction) -> Option<()> {
    // SAFETY: no arguments.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    // SAFETY: only this thread writes its entry.
    let call = *unsafe { CALLS.get(thread) }?;
    let _ = CALLS.remove(thread);
    let result: i32 = ctx.ret();
    // SAFETY: any address will do.
    let sk: *const u8 = unsafe { load::<Untyped, _, _>(call.socket as *const u8, layout::SOCKET__SK) };
    if sk.is_null() {
        return None;
    }
    let moved = Moved {
        // SAFETY: `sock->sk` is a `struct sock *`.
        socket: unsafe { Socket::<Untyped>::new(sk) },
        direction,
        result,
        flags: call.flags as u32,
        later: 0,
        scratch: direction as u32,
    };
    let place = Behind::<Untyped>::new(call.msg as *const u8, result);
    message(ctx, moved, place)
}
