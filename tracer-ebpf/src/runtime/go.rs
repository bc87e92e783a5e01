//! Goroutines (runtime/runtime2.go: g, hchan, sudog). A pooled HTTP client writes on the connection's `writeLoop`; who asked
//! waits for that goroutine's write-error channel.

use tracer_common::{Direction, GoOffsets};

use super::{Tasks, pointer, thread_pointer};
use crate::buffers::read_user;

#[inline(always)]
pub fn read(offsets: &GoOffsets, direction: u64, tasks: &mut Tasks) {
    let slot = thread_pointer().wrapping_add_signed(i64::from(offsets.g_tls));
    let Some(g) = pointer(slot) else {
        return;
    };
    tasks.task = id(g, offsets);
    let mut outermost = g;
    if direction == Direction::Send as u64
        && offsets.write_loop_chan != 0
        && let Some(caller) = waiter(g, offsets)
    {
        tasks.awaiters[0] = id(caller, offsets);
        outermost = caller;
    }
    if offsets.parent_goid != 0 {
        tasks.creator = read_user(outermost.wrapping_add(u64::from(offsets.parent_goid))).unwrap_or(0);
    }
}

/// The goroutine that waits to receive from the channel kept at the top of `g`'s stack.
#[inline(always)]
fn waiter(g: u64, offsets: &GoOffsets) -> Option<u64> {
    let top = pointer(g.wrapping_add(u64::from(offsets.stack_hi)))?;
    let channel = pointer(top.wrapping_sub(u64::from(offsets.write_loop_chan)))?;
    let sudog = pointer(channel.wrapping_add(u64::from(offsets.chan_recvq)))?;
    // runtime.sudog.g is its first field.
    let caller = pointer(sudog)?;
    (caller != g).then_some(caller)
}

#[inline(always)]
fn id(g: u64, offsets: &GoOffsets) -> u64 {
    read_user(g.wrapping_add(u64::from(offsets.goid))).unwrap_or(0)
}
