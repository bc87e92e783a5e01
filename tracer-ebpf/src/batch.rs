//! Which message of a `sendmmsg` or `recvmmsg` a hook inside the call sees.
//!
//! The registers tell where all messages of the call lie, not which one is moving: that is counted, by thread. A count must end with
//! its call, whose end no hook tells, so it ends where the kernel's loop does (net/socket.c: `__sys_sendmmsg`, `do_recvmmsg`): at the
//! last message, at an error, and at a message that was sent in part. Where that cannot be told the message has no index.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::MAX_IOVECS;

use crate::{
    buffers::Buffers,
    calls::{Call, Kind},
    flag::Flag,
    opaque::opaque,
    unit::Thread,
};

/// Threads inside such a call.
#[map]
static BATCHES: LruHashMap<u32, Batch> = LruHashMap::with_max_entries(1_024, 0);

/// Set from the first such call on: nobody is looked up before.
#[unsafe(link_section = ".data.batches")]
#[unsafe(no_mangle)]
static BATCHES_IN_USE: Flag = Flag::new();

#[derive(Clone, Copy)]
#[repr(C)]
struct Batch {
    /// Address and number of the call's messages.
    messages: u64,
    count: u64,
    /// The message that comes next.
    next: u64,
    /// Bytes of the one before.
    bytes: u64,
}

/// That message cannot be told.
const UNKNOWN: u64 = u64::MAX;

/// Whether any process makes such calls.
#[inline(always)]
pub fn in_use() -> bool {
    BATCHES_IN_USE.is_set()
}

/// Takes note that one does.
#[inline(always)]
pub fn begin_use() {
    BATCHES_IN_USE.set(true);
}

/// Whether the call moves several messages.
#[inline(always)]
pub fn is_batch(call: &Call) -> bool {
    call.kind.is_many() && call.messages() > 1
}

/// Counts a message of such a call, whose function returned `result`; its index, if that can be told.
#[inline(always)]
pub fn step(call: &Call, result: i32) -> Option<u64> {
    if call.kind == Kind::RECVMMSG && call.arguments[4] != 0 {
        return None; // it may time out
    }
    let thread = Thread::current().tid;
    let mut batch = Batch {
        messages: call.arguments[1],
        count: call.messages(),
        next: 0,
        bytes: 0,
    };
    if let Some(found) = BATCHES.get_ptr_mut(thread) {
        // SAFETY: only this thread uses its entry.
        let found = unsafe { *found };
        if (found.messages, found.count) == (batch.messages, batch.count) {
            if found.next == UNKNOWN {
                return None;
            }
            // The kernel has written down what the message before had.
            if call.message_bytes(found.next.wrapping_sub(1)).map(u64::from) == Some(found.bytes) {
                batch.next = found.next;
            }
        }
    }
    let index = batch.next;
    if index + 1 >= batch.count || result < 0 {
        let _ = BATCHES.remove(thread);
        return Some(index);
    }
    batch.next = index + 1;
    batch.bytes = u64::from(result as u32);
    if call.kind == Kind::SENDMMSG {
        match offered(call, index) {
            Some(bytes) if bytes == batch.bytes => {}
            Some(_) => {
                let _ = BATCHES.remove(thread);
                return Some(index);
            }
            None => batch.next = UNKNOWN,
        }
    }
    let _ = BATCHES.insert(thread, &batch, 0);
    Some(index)
}

/// Bytes that the process offered in a message, unless it has more vectors than are followed.
#[inline(always)]
fn offered(call: &Call, index: u64) -> Option<u64> {
    let Buffers::Many(vectors) = call.buffers(index) else {
        return None;
    };
    if vectors.count > MAX_IOVECS as u64 {
        return None;
    }
    let mut bytes = 0;
    let mut at = 0;
    while at < MAX_IOVECS as u64 && at < vectors.count {
        let [_, size] = vectors.entry(at)?;
        bytes = opaque(size.wrapping_add(bytes));
        at = opaque(at + 1); // or the compiler writes the loop out
    }
    Some(bytes)
}
