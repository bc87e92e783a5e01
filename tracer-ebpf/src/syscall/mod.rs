//! The back end `syscall` (Linux 5.10 and later): where neither the socket tracepoints nor probes may be had.
//!
//! Hooks, as BTF tracepoints (include/trace/events/syscalls.h): `sys_enter(struct pt_regs *regs, long id)` and
//! `sys_exit(struct pt_regs *regs, long ret)`, which fire for every system call of every process: a look at a table ends them
//! where a call moves no bytes. They need no mounted tracefs, and unlike the tracepoints of single system calls they see 32-bit
//! programs.
//!
//! At the exit everything is known: what moved, and, from the registers, the descriptor and the buffers. The entry is needed
//! where threads share descriptors: another thread may put a new socket in a descriptor's place meanwhile ([`entry`]).

mod entry;

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::{PerCpuArray, ProgramArray},
    programs::BtfTracePointContext,
};
use tracer_common::{Direction, counter};

use crate::{
    access::Untyped,
    buffers::{Buffers, Find, read_user},
    calls::{Call, Kind},
    conns::count,
    descriptor::{File, Files},
    identity,
    message::{Moved, message},
    opaque::opaque,
    registers::Registers,
    socket::{Socket, Stream},
};
use entry::Entry;

/// `sys_exit_next`, which tells of a message.
#[map]
static NEXT_MESSAGE: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The call of this CPU's thread, and how far it has been told.
#[map]
static PROGRESS: PerCpuArray<Progress> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
struct Progress {
    call: Call,
    /// Address of the socket.
    socket: u64,
    /// [`Direction`] as a number.
    direction: u64,
    /// Messages that moved, where the call moves several, else 0.
    messages: u64,
    /// The message that comes next.
    index: u64,
    /// Bytes of it and of all that come after it.
    left: u64,
}

/// Messages of one call that are told one by one, the rest as one: the kernel allows 33 tail calls (`MAX_TAIL_CALL_CNT`), 32 before
/// Linux 5.16.
const TOLD: u64 = 32;

/// `UIO_MAXIOV` (include/uapi/linux/uio.h): messages of one call.
const MOST_MESSAGES: u64 = 1_024;

/// Number of `io_uring_enter`, the same for all programs of all architectures: what it moves is not among its arguments.
const IO_URING_ENTER: u64 = 426;

#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the first argument of the prototype above.
    let registers = unsafe { Registers::new(ctx.arg(0)) };
    if let Some(call) = Call::of(registers) {
        entry::enter(&call);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the first argument of the prototype above.
    let registers = unsafe { Registers::new(ctx.arg(0)) };
    let result: i64 = ctx.arg(1);
    exit(&ctx, registers, result);
    0
}

/// Tells of the call's next message. A program of its own: what the call is and which socket it is about is found in many ways, and the
/// verifier does not walk this once for each of them.
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit_next(ctx: BtfTracePointContext) -> i32 {
    next(&ctx);
    0
}

#[inline(always)]
fn exit(ctx: &BtfTracePointContext, registers: Registers, result: i64) -> Option<()> {
    let Some(call) = Call::of(registers) else {
        if registers.number() == IO_URING_ENTER && result >= 0 {
            count(counter::RING_CALLS);
        }
        return None;
    };
    if result < 0 || (result == 0 && (call.asks_for_nothing() || call.kind.is_many())) {
        return None;
    }
    if matches!(call.kind, Kind::CONNECT | Kind::SOCKETPAIR) {
        return connected(&call);
    }
    let (socket, direction) = target(&call)?;
    let progress = progress()?;
    let (messages, left) = if call.kind.is_many() {
        let mut left = 0;
        let mut at = 0;
        while at < MOST_MESSAGES && at < result as u64 {
            left += u64::from(call.message_bytes(at)?);
            at = opaque(at + 1); // or the compiler writes the loop out
        }
        (result as u64, left)
    } else {
        (0, result as u64)
    };
    *progress = Progress {
        call,
        socket: socket.address() as u64,
        direction: direction as u64,
        messages,
        index: 0,
        left,
    };
    follow(ctx);
    None // the tail call failed
}

#[inline(always)]
fn next(ctx: &BtfTracePointContext) -> Option<()> {
    let progress = progress()?;
    let (call, index) = (progress.call, progress.index);
    let is_one_of_many = index < progress.messages && index < TOLD;
    progress.index = index + 1;
    let moved = if is_one_of_many {
        u64::from(call.message_bytes(index)?)
    } else {
        progress.left
    };
    progress.left = progress.left.wrapping_sub(moved);
    let direction = if progress.direction == Direction::Recv as u64 {
        Direction::Recv
    } else {
        Direction::Send
    };
    let moved = Moved {
        // SAFETY: the address of a `struct sock`, as `target` found it.
        socket: unsafe { Socket::<Untyped>::new(progress.socket as *const u8) },
        direction,
        result: moved as i32,
        flags: call.flags(),
        later: progress.left as u32,
        scratch: direction as u32,
    };
    message(ctx, moved, OfMessage { call, index });
    if is_one_of_many && index + 1 < progress.messages {
        follow(ctx);
    }
    Some(())
}

/// One message of a call. No closure: what calls those is not always inlined.
struct OfMessage {
    call: Call,
    index: u64,
}

impl Find for OfMessage {
    const FOLLOWS_WAITERS: bool = false;

    #[inline(always)]
    fn buffers(self) -> Buffers {
        if self.index < TOLD {
            self.call.buffers(self.index)
        } else {
            Buffers::Unavailable
        }
    }
}

/// Ends this program if the next one can be had.
#[inline(always)]
fn follow(ctx: &BtfTracePointContext) {
    // SAFETY: user space puts a program of the same kind there.
    unsafe { NEXT_MESSAGE.tail_call(ctx, 0) };
}

#[inline(always)]
fn progress() -> Option<&'static mut Progress> {
    // SAFETY: this CPU's slot; no program of another thread runs here before this one, with those that it calls, has ended.
    PROGRESS.get_ptr_mut(0).map(|progress| unsafe { &mut *progress })
}

/// The socket that a call moved bytes over, and which way.
#[inline(always)]
fn target(call: &Call) -> Option<(Socket<Untyped>, Direction)> {
    let files = Files::of_current();
    let entered = entry::file(&files);
    if call.kind == Kind::SPLICE {
        // One of the two is a pipe.
        let (from, to) = (files.get(call.arguments[0]), files.get(call.arguments[2]));
        return match from.and_then(File::socket) {
            Some(socket) => Some((socket, Direction::Recv)),
            None => Some((to?.socket()?, Direction::Send)),
        };
    }
    let direction = if call.kind.receives() {
        Direction::Recv
    } else {
        Direction::Send
    };
    let file = match entered {
        Some(file) => file,
        None => files.get(call.arguments[0])?,
    };
    Some((file.socket()?, direction))
}

/// Unix sockets that have just been connected are new (and UDP sockets may be), whatever socket had their addresses before.
#[inline(always)]
fn connected(call: &Call) -> Option<()> {
    let begun = Entry::begun()?;
    let files = Files::of_current();
    if call.kind == Kind::SOCKETPAIR {
        let [first, second] = read_user::<[u32; 2]>(call.arguments[3])?;
        for fd in [first, second] {
            let socket = files.get(u64::from(fd))?.socket()?;
            identity::forget_before(socket.address(), begun);
        }
        return Some(());
    }
    let socket = files.get(call.arguments[0])?.socket()?;
    if socket.stream(socket.family()) == Some(Stream::Udp) {
        identity::forget_before(socket.address(), begun);
        return None;
    }
    let peer = socket.unix_peer()?;
    identity::forget_before(socket.address(), begun);
    identity::forget_before(peer.address(), begun);
    Some(())
}
