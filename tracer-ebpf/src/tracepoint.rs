//! The back end `tracepoint` (Linux 6.3 and later): one program for each direction, nothing at the entry of a call.
//!
//! Hooks, as BTF tracepoints (include/trace/events/sock.h):
//! - `sock_send_length(struct sock *sk, int ret, int flags)`, from `sock_sendmsg_nosec` in net/socket.c;
//! - `sock_recv_length(struct sock *sk, int ret, int flags)`, from `sock_recvmsg_nosec`.
//!
//! Both fire after the copy, once for every message on every socket family, whatever system call moved it. The bytes are found
//! from the registers of the system call that is running ([`OfCall`]), or from the request of io_uring ([`crate::uring`]). Where the programs are preempted they have stand-ins
//! ([`crate::relay`]).

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_common::Direction;

use crate::{
    access::Typed,
    batch,
    buffers::{Buffers, Find},
    calls::Call,
    message::{Moved, message},
    registers::Registers,
    relay::{self, Place},
    socket::Socket,
    uring,
};

#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    if Place::First.takes_over() {
        moved(
            &ctx,
            Direction::Send,
            relay::scratch(Place::First as u32, Direction::Send),
        );
    }
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    if Place::First.takes_over() {
        moved(
            &ctx,
            Direction::Recv,
            relay::scratch(Place::First as u32, Direction::Recv),
        );
    }
    0
}

macro_rules! stand_ins {
    ($($program:ident $function:literal $direction:ident $place:ident)+) => {
        $(
            #[btf_tracepoint(function = $function)]
            pub fn $program(ctx: BtfTracePointContext) -> i32 {
                if Place::$place.takes_over() {
                    let scratch = relay::scratch(Place::$place as u32, Direction::$direction);
                    moved_meanwhile(ctx.as_ptr(), Direction::$direction as u64, u64::from(scratch));
                }
                0
            }
        )+
    };
}

stand_ins! {
    sock_send_length_second "sock_send_length" Send Second
    sock_send_length_last "sock_send_length" Send Last
    sock_recv_length_second "sock_recv_length" Recv Second
    sock_recv_length_last "sock_recv_length" Recv Last
}

/// What the stand-ins share, so that the object holds it once.
#[inline(never)]
fn moved_meanwhile(ctx: *mut c_void, direction: u64, scratch: u64) {
    let direction = if direction == Direction::Send as u64 {
        Direction::Send
    } else {
        Direction::Recv
    };
    moved(&BtfTracePointContext::new(ctx), direction, scratch as u32);
}

#[inline(always)]
fn moved(ctx: &BtfTracePointContext, direction: Direction, scratch: u32) {
    let result: i32 = ctx.arg(1);
    // Which message of several: only where a process moves several at once.
    let mut counted = None;
    if batch::in_use()
        && let Some(call) = running()
        && batch::is_batch(&call)
    {
        counted = Some(batch::step(&call, result));
    }
    let moved = Moved {
        // SAFETY: the first argument of the prototypes above.
        socket: unsafe { Socket::<Typed>::new(ctx.arg(0)) },
        direction,
        result,
        flags: ctx.arg(2),
        later: 0,
        scratch,
    };
    let place = OfCall {
        counted,
        result,
        socket: moved.socket.address(),
        direction,
    };
    message(ctx, moved, place);
}

/// The call that moves the message. None if it is not one that concerns sockets, or is over: then a ring does.
#[inline(always)]
fn running() -> Option<Call> {
    let registers = Registers::current();
    if registers.are_of_running_call() {
        Call::of(registers)
    } else {
        None
    }
}

/// The bytes in the memory that the running call names. No closure: what calls those is not always inlined.
struct OfCall {
    counted: Option<Option<u64>>,
    result: i32,
    socket: *const u8,
    direction: Direction,
}

impl Find for OfCall {
    #[inline(always)]
    fn buffers(self) -> Buffers {
        let Some(call) = running() else {
            return uring::buffers(self.socket, self.direction, self.result);
        };
        if !batch::is_batch(&call) {
            return call.buffers(0);
        }
        let index = match self.counted {
            Some(index) => index,
            None => {
                // The first of the host.
                batch::begin_use();
                batch::step(&call, self.result)
            }
        };
        match index {
            Some(index) => call.buffers(index),
            None => Buffers::Unavailable,
        }
    }
}
