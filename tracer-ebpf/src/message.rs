//! Bytes moved over sockets: what all back ends have in common.
//!
//! Emits `DATA`, and `EOF` for a receive that found the peer's end.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_ktime_get_ns};
use aya_log_ebpf::debug;
use tracer_common::{Direction, EventFlags, EventKind, MAX_AWAITERS, PolicyNumber, counter};

use crate::{
    access::Access,
    buffers::Find,
    conns::{self, count},
    emit, layout, lifecycle,
    opaque::{self, blur, smaller},
    payload::{Missing, Wanted},
    process, runtime,
    socket::{Socket, Stream, tcp_state},
    unit::Thread,
};

/// `MSG_OOB | MSG_PEEK | MSG_ERRQUEUE` (include/linux/socket.h): receives that do not advance the stream.
const NOT_CONSUMING: u32 = 0x1 | 0x2 | 0x2000;
/// `-EAGAIN`.
const NOTHING_THERE: i32 = -11;
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
    /// Number of the scratch memory: no program that may run while this one is preempted or interrupted has the same.
    pub scratch: u32,
    /// Bytes that have moved the same way after it when the back end tells of it: a call may move several messages.
    pub later: u32,
}

/// What every back end calls, once for each message that moved, after the copy and in the context of the thread that moved it.
///
/// `place` says where the bytes lie; it is asked only if they are wanted.
#[inline(always)]
pub fn message<A: Access, P: Find>(ctx: &impl EbpfContext, message: Moved<A>, place: P) -> Option<()> {
    let Moved {
        socket,
        direction,
        result: moved,
        flags,
        later,
        scratch,
    } = message;
    if direction == Direction::Recv && flags & NOT_CONSUMING != 0 {
        return None;
    }
    if moved == NOTHING_THERE && direction == Direction::Recv && runtime::in_use() {
        return lifecycle::probed::<A, P>(socket);
    }
    if moved < 0 || (moved == 0 && direction == Direction::Send) {
        return None;
    }
    let family = socket.family();
    let stream = socket.stream(family)?;
    if moved == 0 && !socket.receive_finished() {
        return None; // a read of no bytes
    }
    let cookie = socket.cookie();
    // A closed connection has left the table; the reads that find its end do not bring it back.
    let closed = stream == Stream::Tcp && socket.state() == tcp_state::CLOSE;
    let found = if closed {
        conns::find(cookie)
    } else {
        conns::find_or_create(cookie, stream == Stream::Tcp)
    };
    let conn = match found {
        Some(conn) => conn,
        None if closed => conns::unlisted()?,
        None => {
            debug!(ctx, "no room for connection {}", cookie);
            count(counter::MAP_FULL);
            return None;
        }
    };
    let decided = conns::decided(conn);
    if decided == PolicyNumber::IGNORE {
        count(counter::IGNORED);
        return None;
    }
    if conns::is_paused() {
        if stream == Stream::Unix {
            // Both ends have to come to the same count, whenever messages are told again.
            conns::count_unix_bytes(cookie, direction as usize, moved as u32);
        }
        conn.arrival = 0;
        count(counter::IGNORED);
        return None;
    }

    let thread = Thread::current();
    if conn.checked != thread.tgid {
        // Once for each connection, and whenever another process goes on with it.
        if thread.tgid == layout::OWN_TGID.load() || !socket.has_file() {
            conns::ignore(conn);
            return None;
        }
        conn.checked = thread.tgid;
        process::introduce(u64::from(thread.tgid), 0);
    }

    let side = direction as usize;
    let len = moved as u32;
    let arrival = match direction {
        Direction::Recv => {
            conn.reader = thread.tid;
            core::mem::take(&mut conn.arrival)
        }
        Direction::Send => 0,
    };
    if conn.run_dir != side as u32 {
        conn.run_dir = side as u32;
        conn.run_bytes = 0;
    }
    // SAFETY: a field of the entry; read from memory, so that the verifier does not know it on one of two ways.
    let passed = u64::from(unsafe { core::ptr::read_volatile(&raw const conn.run_bytes) });
    conn.run_bytes = smaller(passed + u64::from(len), u64::from(u32::MAX)) as u32;
    let limits = conns::limits(decided)?;
    let of_chunk = limits.chunk[side];
    let run_limit = u64::from(limits.run[side]);
    let zero = opaque::zero();
    let of_run = run_limit - smaller(passed, run_limit);
    let head = blur(
        smaller(smaller(u64::from(len), u64::from(of_chunk)), of_run),
        zero,
    );
    let arrival = blur(arrival, zero);

    let (wanted, missing) = if len == 0 || of_chunk == 0 {
        (Wanted::NOTHING, Missing::Nothing)
    } else if direction == Direction::Recv && flags & MSG_TRUNC != 0 {
        (Wanted::NOTHING, Missing::Unavailable)
    } else {
        Wanted::new(place.buffers(), u64::from(len), head, scratch)
    };
    // Many ways meet here, and below.
    let wanted = wanted.blurred(zero);
    let missing = blur(missing as u64, zero);

    let mut positioned = 0;
    let (own, other) = match stream {
        Stream::Tcp => match socket.tcp_positions() {
            Some((written, read)) => {
                positioned = EventFlags::HAS_POSITION;
                match direction {
                    Direction::Send => (written.wrapping_sub(len).wrapping_sub(later), read),
                    Direction::Recv => (read.wrapping_sub(len).wrapping_sub(later), written),
                }
            }
            None => (0, 0),
        },
        Stream::Unix => {
            let [sent, received] = conns::count_unix_bytes(cookie, side, len);
            positioned = EventFlags::HAS_POSITION;
            match direction {
                Direction::Send => (sent, received),
                Direction::Recv => (received, sent),
            }
        }
        Stream::Udp => {
            positioned = EventFlags::DATAGRAM;
            (0, 0)
        }
    };

    // SAFETY: no arguments.
    let ts = unsafe { bpf_ktime_get_ns() };
    let positioned = blur(u64::from(positioned), zero) as u16;
    let own = blur(u64::from(own), zero) as u32;
    let other = blur(u64::from(other), zero) as u32;
    let family = blur(u64::from(family), zero) as u16;
    let record = emit::reserve(wanted.room())?;
    let (captured, tail, missing) = match wanted.copy(&record, scratch) {
        Some((captured, tail)) => (captured, tail, missing),
        None => (0, 0, Missing::Fault as u64),
    };
    let captured = blur(captured, zero) as u32;
    let tail = blur(tail, zero) as u32;
    let missing = blur(missing, zero);
    let mut bits = positioned;
    if missing != Missing::Nothing as u64 {
        bits |= EventFlags::PAYLOAD_MISSING;
        debug!(ctx, "connection {}: none of {} bytes could be read", cookie, len);
        count(if missing == Missing::Fault as u64 {
            counter::PAYLOAD_FAULT
        } else {
            counter::PAYLOAD_UNAVAILABLE
        });
    }
    let bits = blur(u64::from(bits), zero) as u16;
    let tasks = runtime::tasks::<P>(thread, scratch, socket.address(), cookie);
    if tasks.is_some() && runtime::hand_off::followed(thread.tgid) {
        let received = if direction == Direction::Recv { cookie } else { 0 };
        runtime::hand_off::moved(thread.tid, received, ts);
    }
    let header = record.header();
    socket.describe(family, cookie, header);
    // SAFETY: ring memory reserved for a whole header.
    let fields = unsafe { &mut *header };
    fields.ts = ts;
    fields.arrival = arrival;
    fields.flags = bits;
    match tasks {
        Some(tasks) => {
            fields.task = tasks.task;
            fields.creator = tasks.creator;
            fields.awaiters = tasks.awaiters;
            fields.flags |= tasks.flags as u16;
        }
        None => {
            const { assert!(MAX_AWAITERS == 4) };
            emit::clear!(&raw mut fields.task, 0);
            emit::clear!(&raw mut fields.creator, 0);
            emit::clear!(fields.awaiters.as_mut_ptr(), 0, 1, 2, 3);
        }
    }
    fields.tgid = thread.tgid;
    fields.tid = thread.tid;
    fields.len = len;
    fields.captured = captured;
    fields.tail = tail;
    fields.pos = own;
    fields.peer_pos = other;
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
