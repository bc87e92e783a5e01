//! Bytes moved over sockets: what all back ends have in common.
//!
//! Emits `DATA`, and `EOF` for a receive that found the peer's end.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_ktime_get_ns};
use aya_log_ebpf::debug;
use tracer_common::{ConnState, Direction, EventFlags, EventKind, PolicyMode, counter};

use crate::{
    OWN_TGID,
    access::Access,
    buffers::Buffers,
    conns::{self, count},
    emit,
    payload::{Missing, Wanted},
    socket::{Socket, Stream, tcp_state},
    unit::Thread,
};

/// `MSG_OOB | MSG_PEEK | MSG_ERRQUEUE` (include/linux/socket.h): receives that do not advance the stream.
const NOT_CONSUMING: u32 = 0x1 | 0x2 | 0x2000;
/// `MSG_TRUNC`: TCP throws the bytes away instead of copying them.
const MSG_TRUNC: u32 = 0x20;

/// One message, as a back end saw it.
#[derive(Clone, Copy)]
pub struct Moved<A> {
    pub socket: Socket<A>,
    pub direction: Direction,
    /// What the kernel's function returned: bytes, 0, or an error number below 0.
    pub result: i32,
    /// `MSG_*` as the kernel's function got them.
    pub flags: u32,
}

/// What every back end calls, once for each message that moved, after the copy and in the context of the thread that moved it.
///
/// `buffers` says where the bytes lie; it is asked only if they are wanted.
#[inline(always)]
pub fn message<A: Access>(
    ctx: &impl EbpfContext,
    message: Moved<A>,
    buffers: impl FnOnce() -> Buffers,
) -> Option<()> {
    let Moved {
        socket,
        direction,
        result: moved,
        flags,
    } = message;
    if moved < 0 || (moved == 0 && direction == Direction::Send) {
        return None;
    }
    if direction == Direction::Recv && flags & NOT_CONSUMING != 0 {
        return None;
    }
    let family = socket.family();
    let stream = socket.stream(family)?;
    if moved == 0 && !socket.receive_finished() {
        return None; // a read of no bytes
    }
    let thread = Thread::current();
    if thread.tgid == OWN_TGID.load() || !socket.has_file() {
        return None;
    }

    let cookie = socket.cookie();
    // A closed connection has left the table; the reads that find its end do not bring it back.
    let closed = stream == Stream::Tcp && socket.state() == tcp_state::CLOSE;
    let found = if closed {
        conns::find(cookie)
    } else {
        conns::find_or_create(cookie)
    };
    let mut unlisted = ConnState::undecided();
    let conn = match found {
        Some(conn) => conn,
        None if closed => &mut unlisted,
        None => {
            debug!(ctx, "no room for connection {}", cookie);
            count(counter::MAP_FULL);
            return None;
        }
    };
    if conn.mode == PolicyMode::IGNORE.0 {
        count(counter::IGNORED);
        return None;
    }

    let side = direction as usize;
    let len = moved as u32;
    let arrival = match direction {
        Direction::Recv => core::mem::take(&mut conn.arrival),
        Direction::Send => 0,
    };
    if conn.run_dir != side as u32 {
        conn.run_dir = side as u32;
        conn.run_bytes = 0;
    }
    let passed = conn.run_bytes;
    conn.run_bytes = passed.saturating_add(len);
    let of_chunk = conn.chunk_limit[side];
    let of_run = conn.run_limit[side].saturating_sub(passed);
    let head = u64::from(len.min(of_chunk).min(of_run));

    let (wanted, mut missing) = if len == 0 || of_chunk == 0 {
        (Wanted::NOTHING, Missing::Nothing)
    } else if direction == Direction::Recv && flags & MSG_TRUNC != 0 {
        (Wanted::NOTHING, Missing::Unavailable)
    } else {
        Wanted::new(buffers(), u64::from(len), head, direction)
    };

    let mut bits = 0;
    let (own, other) = match stream {
        Stream::Tcp => match socket.tcp_positions() {
            Some((written, read)) => {
                bits |= EventFlags::HAS_POSITION;
                match direction {
                    Direction::Send => (written.wrapping_sub(len), read),
                    Direction::Recv => (read.wrapping_sub(len), written),
                }
            }
            None => (0, 0),
        },
        Stream::Unix => {
            let [sent, received] = conns::count_unix_bytes(cookie, side, len);
            bits |= EventFlags::HAS_POSITION;
            match direction {
                Direction::Send => (sent, received),
                Direction::Recv => (received, sent),
            }
        }
    };

    let tasks = thread.tasks(direction);
    // SAFETY: no arguments.
    let ts = unsafe { bpf_ktime_get_ns() };
    let record = emit::reserve(wanted.room())?;
    let (captured, tail) = match wanted.copy(&record) {
        Some(copied) => copied,
        None => {
            missing = Missing::Fault;
            (0, 0)
        }
    };
    if missing != Missing::Nothing {
        bits |= EventFlags::PAYLOAD_MISSING;
        debug!(ctx, "connection {}: none of {} bytes could be read", cookie, len);
        count(if missing == Missing::Fault {
            counter::PAYLOAD_FAULT
        } else {
            counter::PAYLOAD_UNAVAILABLE
        });
    }
    let header = record.header();
    socket.describe(family, cookie, header);
    // SAFETY: ring memory reserved for a whole header.
    let fields = unsafe { &mut *header };
    fields.ts = ts;
    fields.arrival = arrival;
    fields.task = tasks.running.id;
    fields.task_parent = tasks.running.parent;
    fields.caller = tasks.caller.id;
    fields.caller_parent = tasks.caller.parent;
    fields.tgid = thread.tgid;
    fields.tid = thread.tid;
    fields.len = len;
    fields.captured = captured;
    fields.tail = tail;
    fields.pos = own;
    fields.peer_pos = other;
    fields.flags = bits;
    fields.kind = if len == 0 {
        EventKind::EOF.0
    } else {
        EventKind::DATA.0
    };
    fields.dir = direction as u8;
    fields.old_state = 0;
    fields.error = 0;
    record.submit();
    Some(())
}
