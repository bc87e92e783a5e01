//! Opens, closes, resets and retransmits of TCP connections.
//!
//! Hooks, as BTF tracepoints:
//! - `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)` (include/trace/events/sock.h,
//!   Linux 4.16), from `inet_sk_state_store` and `tcp_set_state`;
//! - `tcp_receive_reset(struct sock *sk)` (include/trace/events/tcp.h, Linux 4.15), from `tcp_reset`;
//! - `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, ...)`, likewise; `sk` may be null;
//! - `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, ...)`, likewise, from `tcp_retransmit_skb`.
//!
//! Emits `STATE`, `RESET` and `RETRANSMIT`; the payload of a connect (`SYN_SENT`) is the thread's name, because the process may be gone
//! before anybody can look it up. [`probed`] emits `PROBE` for [`crate::message`]. The others run in whatever context the packet was handled in: only a connect (`SYN_SENT`) is
//! known to run in its own process, so the others name none.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_comm, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use tracer_common::{COMM_BYTES, Direction, EventFlags, EventKind, Family, MAX_AWAITERS, PolicyNumber};

use crate::{
    access::{Access, Typed},
    buffers::{Find, Nowhere},
    conns, emit, identity, layout, process, runtime,
    socket::{Socket, Stream, tcp_state},
    unit::Thread,
    uring,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the first argument of the prototype above.
    let socket = unsafe { Socket::<Typed>::new(ctx.arg(0)) };
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    state_changed(socket, old as u8, new as u8);
    0
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the first argument of the prototype above.
    let socket = unsafe { Socket::<Typed>::new(ctx.arg(0)) };
    reset(socket);
    0
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the first argument of the prototype above.
    let socket = unsafe { Socket::<Typed>::new(ctx.arg(0)) };
    if !socket.is_null() {
        reset(socket);
    }
    0
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the first argument of the prototype above.
    let socket = unsafe { Socket::<Typed>::new(ctx.arg(0)) };
    retransmitted(socket);
    0
}

/// `tcp_destroy_sock(struct sock *sk)` (include/trace/events/tcp.h, Linux 4.15), from `inet_csk_destroy_sock` and its like: for back
/// ends that keep our own identities.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn tcp_destroy_sock(ctx: BtfTracePointContext) -> i32 {
    identity::forget(ctx.arg(0));
    0
}

#[inline(always)]
pub fn state_changed<A: Access>(socket: Socket<A>, old: u8, new: u8) -> Option<()> {
    // What lies between (SYN_RECV, FIN_WAIT2, CLOSING) says nothing that the others do not say.
    if !matches!(
        new,
        tcp_state::SYN_SENT
            | tcp_state::ESTABLISHED
            | tcp_state::FIN_WAIT1
            | tcp_state::CLOSE_WAIT
            | tcp_state::LAST_ACK
            | tcp_state::CLOSE
    ) {
        return None;
    }
    let family = socket.family();
    if socket.stream(family)? != Stream::Tcp {
        return None;
    }
    let mut thread = Thread { tgid: 0, tid: 0 };
    let cookie = if new == tcp_state::CLOSE {
        uring::closed(socket.address());
        // A socket without a cookie was never seen: a listener, or a bound socket that is closed again.
        let cookie = socket.known_cookie();
        if cookie == 0 {
            return None;
        }
        cookie
    } else {
        socket.cookie()
    };
    if new == tcp_state::SYN_SENT {
        thread = Thread::current();
        let decided = if thread.tgid == layout::OWN_TGID.load() {
            PolicyNumber::IGNORE
        } else {
            process::introduce(u64::from(thread.tgid), 0);
            PolicyNumber::UNDECIDED
        };
        conns::create(cookie, decided, true);
    } else if new == tcp_state::ESTABLISHED {
        // From here on arrivals are noted, so that the first request has its own.
        conns::create(cookie, PolicyNumber::UNDECIDED, true);
    }
    let ignored = conns::find(cookie).is_some_and(|conn| conns::is_ignored(conn));
    if new == tcp_state::CLOSE {
        conns::remove(cookie);
    }
    if ignored {
        return None;
    }
    emit_fact::<A, Nowhere>(socket, family, cookie, EventKind::STATE, thread, old, new)
}

#[inline(always)]
pub fn reset<A: Access>(socket: Socket<A>) -> Option<()> {
    let family = socket.family();
    if family != Family::INET.0 && family != Family::INET6.0 {
        return None;
    }
    let cookie = socket.known_cookie();
    if cookie == 0 {
        return None;
    }
    // Time-wait and request sockets come here too, and only full sockets are in the table; a socket that resets its peer
    // has left it already (`tcp_disconnect` closes first).
    let state = socket.state();
    match conns::find(cookie) {
        Some(conn) if conns::is_ignored(conn) => return None,
        None if state != tcp_state::CLOSE => return None,
        _ => {}
    }
    emit_fact::<A, Nowhere>(
        socket,
        family,
        cookie,
        EventKind::RESET,
        Thread { tgid: 0, tid: 0 },
        state,
        state,
    )
}

/// Where nothing is lost on the way, this never runs.
#[inline(always)]
pub fn retransmitted<A: Access>(socket: Socket<A>) -> Option<()> {
    let family = socket.family();
    if family != Family::INET.0 && family != Family::INET6.0 {
        return None;
    }
    let cookie = socket.known_cookie();
    if cookie == 0 || conns::is_ignored(conns::find(cookie)?) {
        return None;
    }
    let state = socket.state();
    emit_fact::<A, Nowhere>(
        socket,
        family,
        cookie,
        EventKind::RETRANSMIT,
        Thread { tgid: 0, tid: 0 },
        state,
        state,
    )
}

/// A receive found nothing. Told if it may be a client that takes the connection from a pool: its last bytes had come in, and
/// were read by another thread (which reads until nothing is left).
#[inline(always)]
pub fn probed<A: Access, P: Find>(socket: Socket<A>) -> Option<()> {
    let family = socket.family();
    if family != Family::INET.0 && family != Family::INET6.0 {
        return None;
    }
    let cookie = socket.cookie();
    let thread = Thread::current();
    if !runtime::hand_off::followed(thread.tgid) {
        return None;
    }
    // A connection that is not known was idle since before the tracer came.
    if let Some(conn) = conns::find(cookie)
        && (conns::is_ignored(conn) || conn.run_dir != Direction::Recv as u32 || conn.reader == thread.tid)
    {
        return None;
    }
    let state = socket.state();
    emit_fact::<A, P>(socket, family, cookie, EventKind::PROBE, thread, state, state)
}

#[inline(always)]
fn emit_fact<A: Access, P: Find>(
    socket: Socket<A>,
    family: u16,
    cookie: u64,
    kind: EventKind,
    thread: Thread,
    old: u8,
    new: u8,
) -> Option<()> {
    let mut bits = 0;
    let (written, read) = match socket.tcp_positions() {
        Some(positions) => {
            bits |= EventFlags::HAS_POSITION;
            positions
        }
        None => (0, 0),
    };
    // SAFETY: no arguments.
    let ts = unsafe { bpf_ktime_get_ns() };
    let connects = kind == EventKind::STATE && new == tcp_state::SYN_SENT;
    let record = emit::reserve(if connects { COMM_BYTES } else { 0 })?;
    // Here the connecting thread itself runs.
    let turn = if connects { runtime::turn(thread) } else { None };
    let mut captured = 0;
    // SAFETY: a record with room for COMM_BYTES.
    if connects && unsafe { bpf_get_current_comm(record.payload().cast(), COMM_BYTES as u32) } == 0 {
        captured = COMM_BYTES as u32;
    }
    let header = record.header();
    socket.describe(family, cookie, header);
    // SAFETY: ring memory reserved for a whole header.
    let fields = unsafe { &mut *header };
    fields.ts = ts;
    fields.arrival = 0;
    fields.task = 0;
    fields.creator = 0;
    fields.awaiters = match turn {
        Some(turn) => {
            bits |= EventFlags::TURN;
            turn.pack()
        }
        None => [0; MAX_AWAITERS],
    };
    fields.tgid = thread.tgid;
    fields.tid = thread.tid;
    fields.len = 0;
    fields.captured = captured;
    fields.tail = 0;
    fields.pos = written;
    fields.peer_pos = read;
    fields.flags = bits;
    fields.kind = kind.0;
    fields.dir = 0;
    fields.state = new;
    fields.old_state = old;
    fields.error = socket.error();
    if (connects || kind == EventKind::PROBE) && runtime::in_use() {
        let taken = runtime::hand_off::take(thread, fields);
        fields.flags |= taken;
        // On the stacks of the client's own threads lie futures of requests before, now and then: for these, whoever handed them their work tells.
        if taken == EventFlags::TAKEN && P::FOLLOWS_WAITERS {
            [fields.awaiters[2], fields.awaiters[3]] = runtime::java::waits::waiter_of_taker(thread);
        }
        if connects {
            runtime::python::connects(thread);
        }
    }
    record.submit();
    Some(())
}
