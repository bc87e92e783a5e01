//! Who asked a pooled client connection for what it reads now (net/http/transport.go: persistConn), where that was not seen when the request
//! was written: a `writeLoop` may write before its caller has come to wait.
//!
//! When the response comes, its caller has left a `requestAndChan` for the connection's `readLoop`, and waits for the answer at a channel that
//! is named there. Nothing but the order of a few fields is taken for granted, and that is verified by what lies there.

use tracer_common::RuntimeKind;

use super::{entry, id, in_heap, read_frame, tasks};
use crate::runtime::{FRAME, pointer};

/// `persistConn.reqch`; behind it `writech` and `closech`. The same from Go 1.21 to 1.26.
const REQUESTS: u64 = 128;
/// Sizes of a `requestAndChan`, and of a `responseAndError`.
const REQUEST: core::ops::RangeInclusive<u64> = 32..=64;
const RESPONSE: u64 = 24;

/// The goroutine that waits for what the current one, a connection's `readLoop`, reads; 0 if none is found.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_asker(tgid: u64, scratch: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let top = pointer(tasks.outermost.wrapping_add(u64::from(entry.go.stack_hi))).unwrap_or(0);
    if read_frame(tasks, top).is_none() {
        return 0;
    }
    for below in 1..=FRAME {
        let found = go_connection(tgid, scratch, tasks.frame[FRAME - below]);
        if found != 0 {
            return found;
        }
    }
    0
}

/// The goroutine that waits for the connection's answer, if that is a connection for which one does; else 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_connection(tgid: u64, scratch: u64, connection: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    if !in_heap(tasks, connection) {
        return 0;
    }
    let Some([requests, writes, closes]) = tasks.read(connection.wrapping_add(REQUESTS)) else {
        return 0;
    };
    if !in_heap(tasks, requests) || !in_heap(tasks, writes) || !in_heap(tasks, closes) {
        return 0;
    }
    // runtime.hchan: qcount, dataqsiz, buf, elemsize (16 bits).
    let Some([_, 1, _, _]) = tasks.read(writes) else {
        return 0;
    };
    let Some([_, 0, _, signal]) = tasks.read(closes) else {
        return 0;
    };
    let Some([1, 1, buffer, request]) = tasks.read(requests) else {
        return 0;
    };
    if signal & 0xffff != 0 || !REQUEST.contains(&(request & 0xffff)) {
        return 0;
    }
    // Before Go 1.23 the channel is the third word.
    let Some([_, one, other]) = tasks.read(buffer) else {
        return 0;
    };
    for channel in [one, other] {
        if in_heap(tasks, channel)
            && let Some([0, 0, _, response]) = tasks.read(channel)
            && response & 0xffff == RESPONSE
            && let Some(sudog) = pointer(channel.wrapping_add(u64::from(entry.go.chan_recvq)))
            // runtime.sudog.g is its first field.
            && let Some(caller) = pointer(sudog)
            && id(caller, &entry.go) != 0
        {
            return caller;
        }
    }
    0
}
