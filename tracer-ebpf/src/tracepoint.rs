//! The back end `tracepoint` (Linux 6.3 and later): one program for each direction, nothing at the entry of a call.
//!
//! Hooks, as BTF tracepoints (include/trace/events/sock.h):
//! - `sock_send_length(struct sock *sk, int ret, int flags)`, from `sock_sendmsg_nosec` in net/socket.c;
//! - `sock_recv_length(struct sock *sk, int ret, int flags)`, from `sock_recvmsg_nosec`.
//!
//! Both fire after the copy, once for every message on every socket family, whatever system call moved it. The bytes are found
//! from the registers of the system call that is running ([`OfCall`]).

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_common::Direction;

use crate::{
    access::Typed,
    message::{Moved, message},
    registers::OfCall,
    socket::Socket,
};

#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    moved(&ctx, Direction::Send);
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    moved(&ctx, Direction::Recv);
    0
}

#[inline(always)]
fn moved(ctx: &BtfTracePointContext, direction: Direction) {
    let moved = Moved {
        // SAFETY: the first argument of the prototypes above.
        socket: unsafe { Socket::<Typed>::new(ctx.arg(0)) },
        direction,
        result: ctx.arg(1),
        flags: ctx.arg(2),
    };
    message(ctx, moved, OfCall);
}
