//! Whose work a thread is woken for that waits for some in a `SynchronousQueue` (a pool that makes threads as it needs them), up to JDK 20.
//!
//! Who wakes it need not be who has work for it: a thread that comes to such a queue while another one is handing work over completes that
//! first, wake included (`SynchronousQueue.TransferStack.transfer`); and one that was held up between handing over and waking wakes
//! a thread that has done that work long ago, and waits for more. Who hands over work of its own has made a node for it (`SNode`), the
//! latest object that it has made (gc/shared/threadLocalAllocBuffer.hpp), and the node with which that agreed names the sleeping thread.

use tracer_common::RuntimeKind;

use super::{
    native, native_of,
    objects::{class, in_heap, reference},
};
use crate::{buffers::read_user, runtime::entry};

/// Nothing says whose work it is: the queue is not known.
pub const UNKNOWN: u64 = 0;
/// The current thread's own.
pub const OWN: u64 = 1;
/// Not the current thread's, as far as can be seen.
pub const NOT_OWN: u64 = 2;

/// Whether the work for which the thread with the thread pointer `control` is woken is the current thread's, which is of the thread
/// group `tgid`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_offers(tgid: u64, control: u64) -> u64 {
    let Some(entry) = entry(tgid, RuntimeKind::JAVA) else {
        return UNKNOWN;
    };
    let o = &entry.java.futures;
    if o.offer.get() == 0 || o.made == 0 {
        return UNKNOWN;
    }
    let (Some(waker), Some(woken)) = (native(&entry.java), native_of(&entry.java, control)) else {
        return NOT_OWN;
    };
    let handle = read_user::<u64>(woken.wrapping_add(u64::from(o.object))).unwrap_or(0);
    let sleeper = read_user::<u64>(handle).unwrap_or(0);
    let made = read_user::<u64>(waker.wrapping_add(u64::from(o.made))).unwrap_or(0);
    let offer = made.wrapping_sub(u64::from(o.offer_size));
    if !in_heap(o, sleeper) || !in_heap(o, offer) || class(o, offer) != o.offer.get() {
        return NOT_OWN;
    }
    let taker = reference(o, offer, o.offer_next);
    let agreed = taker != 0 && reference(o, taker, o.offer_match) == offer;
    if agreed && reference(o, taker, o.offer_waiter) == sleeper {
        OWN
    } else {
        NOT_OWN
    }
}
