//! Requests of io_uring: where the bytes lie of a message that no system call of its thread moves.
//!
//! Hooks, as BTF tracepoints (include/trace/events/io_uring.h), which run for nobody but users of io_uring:
//! - `io_uring_submit_req(struct io_kiocb *req)`: the thread takes up a request, and does it at once if that can be;
//! - `io_uring_poll_arm(struct io_kiocb *req, int mask, int events)`: it cannot, and waits for its socket;
//! - `io_uring_complete(struct io_ring_ctx *ctx, void *req, ...)`: it is over (`req` is null for all but the last result of a
//!   request that has several).
//!
//! A socket's tracepoint does not tell which request moves the message, so [`request`] asks who may:
//! - a worker thread (`io_uring/io-wq.c`) has the one that it does in hand;
//! - else it is one that this thread has just taken up, or one that waits for this socket and direction, done in task work.
//!
//! Only if that leaves one request, its bytes are told: two that wait for one socket in the same direction cannot be told apart. Nothing here is
//! a proof of the past alone: a request is taken only if it names the socket and the direction now.

use core::arch::asm;

use aya_ebpf::{
    helpers::generated::bpf_get_current_task,
    macros::{btf_tracepoint, map},
    maps::{HashMap, LruHashMap},
    programs::BtfTracePointContext,
};
use tracer_common::Direction;

use crate::{
    access::{Untyped, load},
    buffers::{Buffers, Find, read_kernel},
    descriptor::File,
    flag::Flag,
    iter, layout,
    unit::Thread,
};

/// Requests that wait for a socket, and which: see [`waiting_key`].
#[map]
static RING_WAITS: HashMap<u64, u64> = HashMap::with_max_entries(WAITS, BPF_F_NO_PREALLOC);

/// By [`waiting_key`]: how many requests wait, and the sum of their addresses: that of the only one, if it is one.
#[map]
static RING_SOCKETS: HashMap<u64, Waiting> = HashMap::with_max_entries(WAITS, BPF_F_NO_PREALLOC);

/// What threads have taken up of late, the youngest first. As many as a chain of linked requests may have, of which the first is done
/// after all were taken up.
#[map]
static RING_TAKEN: LruHashMap<u32, [u64; TAKEN]> = LruHashMap::with_max_entries(1_024, 0);

/// Set from the first request on.
#[unsafe(link_section = ".data.rings")]
#[unsafe(no_mangle)]
static RINGS_IN_USE: Flag = Flag::new();

/// Set once a request did not find room: then nothing is known for certain.
#[unsafe(link_section = ".data.rings_lost")]
#[unsafe(no_mangle)]
static RINGS_INCOMPLETE: Flag = Flag::new();

const WAITS: u32 = 65_536;
const TAKEN: usize = 4;
/// include/uapi/linux/bpf.h.
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_NOEXIST: u64 = 1;
/// `PF_IO_WORKER` (include/linux/sched.h, since Linux 5.12).
const PF_IO_WORKER: u32 = 0x10;
/// `REQ_F_FORCE_ASYNC`, which is `IOSQE_ASYNC` (include/uapi/linux/io_uring.h): such a request is done by a worker.
const FORCE_ASYNC: u64 = 1 << 4;

#[derive(Clone, Copy)]
#[repr(C)]
struct Waiting {
    sum: u64,
    count: u64,
}

/// `enum io_uring_op` (include/uapi/linux/io_uring.h).
mod op {
    pub const READV: u8 = 1;
    pub const WRITEV: u8 = 2;
    pub const READ_FIXED: u8 = 4;
    pub const WRITE_FIXED: u8 = 5;
    pub const SENDMSG: u8 = 9;
    pub const RECVMSG: u8 = 10;
    pub const READ: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const SEND: u8 = 26;
    pub const RECV: u8 = 27;
    pub const SEND_ZC: u8 = 47;
    pub const SENDMSG_ZC: u8 = 48;
    pub const READ_MULTISHOT: u8 = 49;
}

/// Which way a request moves bytes.
#[inline(always)]
fn direction_of(code: u8) -> Option<Direction> {
    match code {
        op::RECV | op::RECVMSG | op::READ | op::READV | op::READ_FIXED | op::READ_MULTISHOT => {
            Some(Direction::Recv)
        }
        op::SEND | op::SENDMSG | op::SEND_ZC | op::SENDMSG_ZC | op::WRITE | op::WRITEV | op::WRITE_FIXED => {
            Some(Direction::Send)
        }
        _ => None,
    }
}

/// Whether its buffers are in a `struct io_async_rw`, else in a `struct io_async_msghdr`.
#[inline(always)]
fn is_of_files(code: u8) -> bool {
    code <= op::WRITE_FIXED || code == op::READ || code == op::WRITE || code == op::READ_MULTISHOT
}

#[btf_tracepoint(function = "io_uring_submit_req")]
pub fn io_uring_submit_req(ctx: BtfTracePointContext) -> i32 {
    take_up(number_of(ctx.arg(0)));
    0
}

#[btf_tracepoint(function = "io_uring_poll_arm")]
pub fn io_uring_poll_arm(ctx: BtfTracePointContext) -> i32 {
    wait(number_of(ctx.arg(0)));
    0
}

#[btf_tracepoint(function = "io_uring_complete")]
pub fn io_uring_complete(ctx: BtfTracePointContext) -> i32 {
    let request = number_of(ctx.arg(1));
    if request != 0 {
        withdraw(request);
        forget_taken(request);
    }
    0
}

/// A pointer as a number: what takes numbers takes no pointers that the verifier knows.
#[inline(always)]
fn number_of(pointer: *const u8) -> u64 {
    let place = pointer;
    read_kernel::<u64>(&raw const place as u64).unwrap_or(0)
}

#[inline(always)]
fn take_up(request: u64) -> Option<()> {
    direction_of(code(request))?;
    RINGS_IN_USE.set(true);
    // Its end may have passed unseen, if it was before.
    withdraw(request);
    let thread = Thread::current().tid;
    let mut taken = [0; TAKEN];
    if let Some(before) = RING_TAKEN.get_ptr(thread) {
        // SAFETY: only this thread uses its entry.
        let before = unsafe { *before };
        taken = [0, before[0], before[1], before[2]];
    }
    taken[0] = request;
    let _ = RING_TAKEN.insert(thread, &taken, 0);
    Some(())
}

#[inline(always)]
fn forget_taken(request: u64) -> Option<()> {
    let taken = RING_TAKEN.get_ptr_mut(Thread::current().tid)?;
    // SAFETY: only this thread uses its entry.
    let taken = unsafe { &mut *taken };
    for slot in taken {
        if *slot == request {
            *slot = 0;
        }
    }
    Some(())
}

/// A socket and a direction in one number: sockets lie at even addresses.
#[inline(always)]
fn waiting_key(socket: u64, direction: Direction) -> u64 {
    socket + direction as u64
}

/// The request waits for its socket.
#[inline(always)]
fn wait(request: u64) -> Option<()> {
    let direction = direction_of(code(request))?;
    let key = waiting_key(socket_of(request)?, direction);
    if let Some(before) = RING_WAITS.get_ptr(request) {
        // SAFETY: an entry stays memory of this map while the program runs.
        if unsafe { *before } == key {
            return None; // again: its socket had nothing for it
        }
        withdraw(request);
    }
    if RING_WAITS.insert(request, &key, BPF_NOEXIST).is_err() {
        RINGS_INCOMPLETE.set(true);
        return None;
    }
    if RING_SOCKETS.get_ptr(key).is_none() {
        let _ = RING_SOCKETS.insert(key, &Waiting { sum: 0, count: 0 }, BPF_NOEXIST);
    }
    match RING_SOCKETS.get_ptr_mut(key) {
        Some(waiting) => add(waiting, request, 1),
        None => RINGS_INCOMPLETE.set(true),
    }
    Some(())
}

/// The request waits no longer.
#[inline(always)]
fn withdraw(request: u64) -> Option<()> {
    // SAFETY: an entry stays memory of this map while the program runs.
    let key = unsafe { *RING_WAITS.get_ptr(request)? };
    if RING_WAITS.remove(request).is_err() {
        return None; // somebody else did
    }
    add(RING_SOCKETS.get_ptr_mut(key)?, request.wrapping_neg(), u64::MAX);
    Some(())
}

/// Another CPU may do the same meanwhile.
#[inline(always)]
fn add(waiting: *mut Waiting, request: u64, one: u64) {
    // SAFETY: the entry is memory of its map while the program runs; each addition is one instruction.
    unsafe {
        asm!("lock *(u64 *)({at} + 0) += {value}", at = in(reg) waiting, value = in(reg) request, options(nostack))
    };
    // SAFETY: as above.
    unsafe {
        asm!("lock *(u64 *)({at} + 8) += {value}", at = in(reg) waiting, value = in(reg) one, options(nostack))
    };
}

/// The socket is closed: what lies at its address later is another one.
#[inline(always)]
pub fn closed(socket: *const u8) {
    if RINGS_IN_USE.is_set() {
        let socket = number_of(socket);
        let _ = RING_SOCKETS.remove(waiting_key(socket, Direction::Send));
        let _ = RING_SOCKETS.remove(waiting_key(socket, Direction::Recv));
    }
}

/// Where the bytes lie that the current thread has just moved over that socket, for a request of io_uring.
#[inline(always)]
pub fn buffers(socket: *const u8, direction: Direction, moved: i32) -> Buffers {
    if !RINGS_IN_USE.is_set() {
        return Buffers::Unavailable;
    }
    let request = request(number_of(socket), direction as u64);
    if request == 0 {
        return Buffers::Unavailable;
    }
    let code = code(request);
    // SAFETY: `Untyped` reads any address.
    let data: u64 = unsafe { load::<Untyped, _, _>(request as *const u8, layout::IO_KIOCB__ASYNC_DATA) };
    if data == 0 {
        return Buffers::Unavailable;
    }
    // Iterators of both kinds are read as that of a `struct msghdr`.
    let offset = if is_of_files(code) {
        layout::IO_ASYNC_RW__OFFSET.load()
    } else {
        layout::IO_ASYNC_MSGHDR__OFFSET.load()
    };
    let message = data
        .wrapping_add(u64::from(offset))
        .wrapping_sub(u64::from(layout::MSGHDR__OFFSET.load()));
    let found = if is_of_files(code) {
        // The socket has moved a copy of it (net/socket.c: `sock_read_iter`, `sock_write_iter`).
        iter::ahead(message)
    } else {
        iter::Behind::<Untyped>::new(message as *const u8, moved).buffers()
    };
    match (found, code) {
        // Registered buffers: the address is where the process has them.
        (Buffers::Unavailable, op::READ_FIXED | op::WRITE_FIXED) => Buffers::One {
            // SAFETY: as above.
            base: unsafe { load::<Untyped, _, _>(request as *const u8, layout::IO_RW__ADDR) },
        },
        (Buffers::Unavailable, op::SEND_ZC) => Buffers::One {
            // SAFETY: as above.
            base: unsafe { load::<Untyped, _, _>(request as *const u8, layout::IO_SR_MSG__BUF) },
        },
        (found, _) => found,
    }
}

/// Address of the request for which the current thread moves bytes over that socket; 0 if that cannot be told.
///
/// A function of its own, that the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn request(socket: u64, direction: u64) -> u64 {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    // SAFETY: `Untyped` reads any address.
    let flags: u32 = unsafe { load::<Untyped, _, _>(task, layout::TASK__FLAGS) };
    if flags & PF_IO_WORKER != 0 {
        // SAFETY: as above.
        let worker: u64 = unsafe { load::<Untyped, _, _>(task, layout::TASK__WORKER) };
        // The thread that polls a ring has none.
        if worker != 0 {
            // SAFETY: as above.
            let work: u64 = unsafe { load::<Untyped, _, _>(worker as *const u8, layout::IO_WORKER__WORK) };
            let inside = layout::IO_KIOCB__WORK
                .load()
                .wrapping_sub(layout::IO_WORK__LIST.load());
            let request = work.wrapping_sub(u64::from(inside));
            return if work != 0 && moves(request, socket, direction) {
                request
            } else {
                0
            };
        }
    }
    if RINGS_INCOMPLETE.is_set() {
        return 0;
    }
    let (mut alone, mut waiting) = (0, 0);
    // SAFETY: an entry stays memory of this map while the program runs.
    if let Some(found) = RING_SOCKETS.get_ptr(socket.wrapping_add(direction)) {
        // SAFETY: as above; another CPU may change it.
        let found = unsafe { found.read_volatile() };
        (alone, waiting) = (found.sum, found.count);
    }
    let begun = taken_up(socket, direction);
    if begun != 0 && RING_WAITS.get_ptr(begun).is_none() {
        return if waiting == 0 { begun } else { 0 };
    }
    if waiting == 1 && RING_WAITS.get_ptr(alone).is_some() && moves(alone, socket, direction) {
        alone
    } else {
        0
    }
}

/// The youngest request that the thread has taken up and that may move these bytes.
#[inline(always)]
fn taken_up(socket: u64, direction: u64) -> u64 {
    let Some(taken) = RING_TAKEN.get_ptr(Thread::current().tid) else {
        return 0;
    };
    // SAFETY: only this thread uses its entry.
    let taken = unsafe { *taken };
    for request in taken {
        // Those of a chain that are not begun have no file yet.
        if request != 0 && moves(request, socket, direction) {
            // SAFETY: `Untyped` reads any address.
            let flags: u64 = unsafe { load::<Untyped, _, _>(request as *const u8, layout::IO_KIOCB__FLAGS) };
            if flags & FORCE_ASYNC == 0 {
                return request;
            }
        }
    }
    0
}

/// Whether the request is about that socket and direction.
#[inline(always)]
fn moves(request: u64, socket: u64, direction: u64) -> bool {
    direction_of(code(request)).is_some_and(|own| own as u64 == direction)
        && socket_of(request) == Some(socket)
}

#[inline(always)]
fn code(request: u64) -> u8 {
    // SAFETY: `Untyped` reads any address.
    unsafe { load::<Untyped, _, _>(request as *const u8, layout::IO_KIOCB__OPCODE) }
}

/// Address of the `struct sock` of its file, if that is a socket and known already.
#[inline(always)]
fn socket_of(request: u64) -> Option<u64> {
    // SAFETY: `Untyped` reads any address.
    let file: u64 = unsafe { load::<Untyped, _, _>(request as *const u8, layout::IO_KIOCB__FILE) };
    if file == 0 {
        return None;
    }
    File(file).socket().map(|socket| socket.address() as u64)
}
