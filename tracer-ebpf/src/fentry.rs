//! The back end `fentry` (Linux 5.10 and later): the ends of the functions that `struct proto_ops` points to.
//!
//! Hooks (net/ipv4/af_inet.c, net/ipv6/af_inet6.c, net/unix/af_unix.c), each with `fexit`, whose arguments are those of the
//! function and then what it returned:
//! - `int F(struct socket *sock, struct msghdr *msg, size_t size)`: `inet_sendmsg`, `inet6_sendmsg`, `unix_stream_sendmsg`,
//!   `unix_seqpacket_sendmsg`;
//! - `int F(struct socket *sock, struct msghdr *msg, size_t size, int flags)`: `inet_recvmsg`, `inet6_recvmsg`,
//!   `unix_stream_recvmsg`, `unix_seqpacket_recvmsg`;
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

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
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
    relay::{self, Place},
    socket::Socket,
};

// After each program its stand-ins ([`crate::relay`]); then the function, what is seen at its end, and the function's number among
// those of a direction: those from 4 on gather nothing, and have no scratch memory.
macro_rules! ends {
    ($($first:ident $second:ident $last:ident $function:literal $direction:ident $seen:ident $meanwhile:ident $family:literal)+) => {
        $(
            #[fexit(function = $function)]
            pub fn $first(ctx: FExitContext) -> i32 {
                if Place::First.takes_over() {
                    $seen(&ctx, relay::scratch($family * 3 + Place::First as u32, Direction::$direction));
                }
                0
            }

            #[fexit(function = $function)]
            pub fn $second(ctx: FExitContext) -> i32 {
                if Place::Second.takes_over() {
                    $meanwhile(ctx.as_ptr(), relay::scratch($family * 3 + Place::Second as u32, Direction::$direction).into());
                }
                0
            }

            #[fexit(function = $function)]
            pub fn $last(ctx: FExitContext) -> i32 {
                if Place::Last.takes_over() {
                    $meanwhile(ctx.as_ptr(), relay::scratch($family * 3 + Place::Last as u32, Direction::$direction).into());
                }
                0
            }
        )+
    };
}
ends! {
    fexit_inet_sendmsg fexit_inet_sendmsg_second fexit_inet_sendmsg_last "inet_sendmsg" Send sent sent_meanwhile 0
    fexit_inet6_sendmsg fexit_inet6_sendmsg_second fexit_inet6_sendmsg_last "inet6_sendmsg" Send sent sent_meanwhile 1
    fexit_unix_stream_sendmsg fexit_unix_stream_sendmsg_second fexit_unix_stream_sendmsg_last "unix_stream_sendmsg" Send sent sent_meanwhile 2
    fexit_unix_seqpacket_sendmsg fexit_unix_seqpacket_sendmsg_second fexit_unix_seqpacket_sendmsg_last "unix_seqpacket_sendmsg" Send sent sent_meanwhile 3
    fexit_inet_recvmsg fexit_inet_recvmsg_second fexit_inet_recvmsg_last "inet_recvmsg" Recv received received_meanwhile 0
    fexit_inet6_recvmsg fexit_inet6_recvmsg_second fexit_inet6_recvmsg_last "inet6_recvmsg" Recv received received_meanwhile 1
    fexit_unix_stream_recvmsg fexit_unix_stream_recvmsg_second fexit_unix_stream_recvmsg_last "unix_stream_recvmsg" Recv received received_meanwhile 2
    fexit_unix_seqpacket_recvmsg fexit_unix_seqpacket_recvmsg_second fexit_unix_seqpacket_recvmsg_last "unix_seqpacket_recvmsg" Recv received received_meanwhile 3
    fexit_inet_sendpage fexit_inet_sendpage_second fexit_inet_sendpage_last "inet_sendpage" Send sent_page sent_page_meanwhile 4
    fexit_unix_stream_sendpage fexit_unix_stream_sendpage_second fexit_unix_stream_sendpage_last "unix_stream_sendpage" Send sent_page sent_page_meanwhile 5
    fexit_tcp_splice_read fexit_tcp_splice_read_second fexit_tcp_splice_read_last "tcp_splice_read" Recv spliced spliced_meanwhile 4
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

macro_rules! seen {
    ($($seen:ident $meanwhile:ident($ctx:ident, $scratch:ident) $tell:block)+) => {
        $(
            #[inline(always)]
            fn $seen($ctx: &FExitContext, $scratch: u32) $tell

            /// What the stand-ins share, so that the object holds it once.
            #[inline(never)]
            fn $meanwhile(ctx: *mut c_void, scratch: u64) {
                $seen(&FExitContext::new(ctx), scratch as u32);
            }
        )+
    };
}

seen! {
    sent sent_meanwhile(ctx, scratch) {
        let (msg, moved) = (ctx.arg(1), ctx.arg(3));
        tell(ctx, scratch, Direction::Send, moved, 0, Behind::<Typed>::new(msg, moved));
    }
    received received_meanwhile(ctx, scratch) {
        let (msg, flags, moved) = (ctx.arg(1), ctx.arg(3), ctx.arg(4));
        tell(ctx, scratch, Direction::Recv, moved, flags, Behind::<Typed>::new(msg, moved));
    }
    sent_page sent_page_meanwhile(ctx, scratch) {
        tell(ctx, scratch, Direction::Send, ctx.arg(5), 0, Nowhere);
    }
    spliced spliced_meanwhile(ctx, scratch) {
        tell(ctx, scratch, Direction::Recv, ctx.arg(5), 0, Nowhere);
    }
}

#[inline(always)]
fn tell(ctx: &FExitContext, scratch: u32, direction: Direction, result: i32, flags: u32, place: impl Find) {
    let socket: *const u8 = ctx.arg(0);
    // SAFETY: the first argument of the prototypes above is a `struct socket *`.
    let sk: *const u8 = unsafe { load::<Typed, _, _>(socket, layout::SOCKET__SK) };
    if sk.is_null() {
        return;
    }
    let moved = Moved {
        // SAFETY: `sk` is typed by BTF.
        socket: unsafe { Socket::<Typed>::new(sk) },
        direction,
        result,
        flags,
        scratch,
        later: 0,
    };
    message(ctx, moved, place);
}
