//! When bytes arrived in a socket's buffer.
//!
//! Hook, as a BTF tracepoint (include/trace/events/sock.h, Linux 6.3): `sk_data_ready(const struct sock *sk)`, from
//! `sock_def_readable` and its kin. Emits nothing: the time of the first arrival since the last receive waits in the
//! connection table for that receive.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use tracer_common::Family;

use crate::{
    access::{Access, Typed},
    conns,
    socket::{Socket, Stream},
};

#[btf_tracepoint(function = "sk_data_ready")]
pub fn sk_data_ready(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the first argument of the prototype above.
    let socket = unsafe { Socket::<Typed>::new(ctx.arg(0)) };
    arrived(socket);
    0
}

/// Bytes arrived in that socket's buffer.
#[inline(always)]
pub fn arrived<A: Access>(socket: Socket<A>) -> Option<()> {
    let family = socket.family();
    let conn = if family == Family::INET.0 || family == Family::INET6.0 {
        // A TCP connection has its entry from ESTABLISHED on; what has none (listeners, datagrams) needs no time.
        let cookie = socket.known_cookie();
        if cookie == 0 {
            return None;
        }
        conns::find(cookie)?
    } else {
        // No hook tells that a Unix socket was connected: its first bytes make the entry.
        let stream = socket.stream(family)?;
        if stream != Stream::Unix {
            return None;
        }
        conns::find_or_create(socket.cookie(), false)?
    };
    if conn.arrival == 0 && !conns::is_ignored(conn) {
        // SAFETY: no arguments.
        conn.arrival = unsafe { bpf_ktime_get_ns() };
    }
    Some(())
}
