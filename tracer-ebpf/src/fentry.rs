//! The back end `fentry` (Linux 5.10 and later): the ends of the functions that `struct proto_ops` points to.
//!
//! Hooks (net/ipv4/af_inet.c, net/ipv6/af_inet6.c, net/unix/af_unix.c), each with `fexit`, whose arguments are those of the
//! function and then what it returned:
//! - `int F(struct socket *sock, struct msghdr *msg, size_t size)`: `inet_sendmsg`, `inet6_sendmsg`, `unix_stream_sendmsg`;
//! - `int F(struct socket *sock, struct msghdr *msg, size_t size, int flags)`: `inet_recvmsg`, `inet6_recvmsg`,
//!   `unix_stream_recvmsg`;
//! - `ssize_t F(struct socket *sock, struct page *page, int offset, size_t size, int flags)`: `inet_sendpage`,
//!   `unix_stream_sendpage` (before Linux 6.5);
//! - `ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len, unsigned int flags)`;
//!
//! for identities of our own, likewise (net/core/sock.c):
//! - `struct sock *sk_alloc(struct net *net, int family, gfp_t priority, struct proto *prot, int kern)`;
//! - `struct sock *sk_clone_lock(const struct sock *sk, const gfp_t priority)`;
//!
//! and for the time of arrival, with `fentry`: `void sock_def_readable(struct sock *sk)`.
//!
//! Whatever moves bytes goes through one of these, once: a system call of a 64-bit or 32-bit process, one message of
//! `sendmmsg`, io_uring, splice, the kernel.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use tracer_common::Direction;

use crate::{
    access::{Typed, load},
    arrival::arrived,
    buffers::{Find, Nowhere},
    identity,
    iter::Behind,
    layout,
    message::{Moved, message},
    socket::Socket,
};

macro_rules! ends {
    ($($program:ident $function:literal $seen:ident)+) => {
        $(
            #[fexit(function = $function)]
            pub fn $program(ctx: FExitContext) -> i32 {
                $seen(&ctx);
                0
            }
        )+
    };
}

ends! {
    fexit_inet_sendmsg "inet_sendmsg" sent
    fexit_inet6_sendmsg "inet6_sendmsg" sent
    fexit_unix_stream_sendmsg "unix_stream_sendmsg" sent
    fexit_inet_recvmsg "inet_recvmsg" received
    fexit_inet6_recvmsg "inet6_recvmsg" received
    fexit_unix_stream_recvmsg "unix_stream_recvmsg" received
    fexit_inet_sendpage "inet_sendpage" sent_page
    fexit_unix_stream_sendpage "unix_stream_sendpage" sent_page
    fexit_tcp_splice_read "tcp_splice_read" spliced
}

#[fentry(function = "sock_def_readable")]
pub fn fentry_sock_def_readable(ctx: FEntryContext) -> i32 {
    // SAFETY: the first argument of the prototype above.
    let socket = unsafe { Socket::<Typed>::new(ctx.arg(0)) };
    arrived(socket);
    0
}

#[fexit(function = "sk_alloc")]
pub fn fexit_sk_alloc(ctx: FExitContext) -> i32 {
    identity::forget(ctx.arg(5));
    0
}

#[fexit(function = "sk_clone_lock")]
pub fn fexit_sk_clone_lock(ctx: FExitContext) -> i32 {
    identity::forget(ctx.arg(2));
    0
}

#[inline(always)]
fn sent(ctx: &FExitContext) {
    let (msg, moved) = (ctx.arg(1), ctx.arg(3));
    tell(ctx, Direction::Send, moved, 0, Behind::<Typed>::new(msg, moved));
}

#[inline(always)]
fn received(ctx: &FExitContext) {
    let (msg, flags, moved) = (ctx.arg(1), ctx.arg(3), ctx.arg(4));
    tell(ctx, Direction::Recv, moved, flags, Behind::<Typed>::new(msg, moved));
}

#[inline(always)]
fn sent_page(ctx: &FExitContext) {
    tell(ctx, Direction::Send, ctx.arg(5), 0, Nowhere);
}

#[inline(always)]
fn spliced(ctx: &FExitContext) {
    tell(ctx, Direction::Recv, ctx.arg(5), 0, Nowhere);
}

#[inline(always)]
fn tell(ctx: &FExitContext, direction: Direction, result: i32, flags: u32, place: impl Find) {
    let socket: *const u8 = ctx.arg(0);
    // SAFETY: the first argument of the prototypes above is a `struct socket *`.
    let sk: *const u8 = unsafe { load::<Typed, _>(socket, &layout::SOCKET__SK) };
    if sk.is_null() {
        return;
    }
    let moved = Moved {
        // SAFETY: `sk` is typed by BTF.
        socket: unsafe { Socket::<Typed>::new(sk) },
        direction,
        result,
        flags,
        later: 0,
    };
    message(ctx, moved, place);
}
