//! Who waits for what comes after a future that the current thread has completed (`thenCompose` and its kin): the thread is in the midst of that, and hands
//! work of its own to others (`HttpClient.sendAsync`).
//!
//! A completion that is carried out lies on the stack: what it waited for is complete, what it completes is not, and leads to the `Signaller` of a
//! thread that waits. One whose function has come back with a future lies in frames that nobody uses any more, and looks the same
//! until that is complete. So all that lie on the part of the stack that is in use are looked at: only if they lead to one thread alone, it is told.
//! Where nobody waits, what will be called then may lead to the connection on which an answer is written ([`jobs`](super::jobs)).

use super::{
    jobs::{connection, java_answers, java_called, java_made_for_others},
    objects::reference,
    reads,
    waits::{NOTHING, is_vain, java_begin, missed, remembered, scan_used, since},
    walk::{STAGES, WAKE, follow, java_unit, walk},
};
use crate::registers::Registers;
use tracer_common::BY_LOOP;

/// The unit that waits for what the current thread's work leads to, or the connection on which that will be answered, as
/// [`tracer_common::Submitters`] names it, and since when; 0 if neither is known. `thread` is its thread group and its own id. `reads`: it has read from a
/// connection, so it completes nothing of others', as far as is known.
#[inline(always)]
pub fn served(thread: u64, reads: bool) -> (u64, u64) {
    if java_begin(thread, WAKE) == NOTHING {
        return (0, 0);
    }
    let stack_pointer = Registers::current().stack_pointer();
    let mut unit = 0;
    if !reads {
        unit = java_stages(thread, stack_pointer);
    }
    if unit == 0 {
        unit = if is_completing() {
            java_called(WAKE)
        } else {
            java_answers(thread, WAKE, stack_pointer)
        };
    }
    (unit, since(WAKE))
}

/// Likewise of an event loop, which has read from the connection `received` and has sent nothing since: what it does is for what it has read, unless it
/// has come to what was left to it. Then a completion that is carried out lies on its stack, or a job that was made, as far as is known, for what was read on another
/// connection. As a loop's stack keeps those of earlier work, too, nothing is told of what they lead to.
#[inline(always)]
pub fn served_by_loop(thread: u64, received: u64) -> (u64, u64) {
    if received == 0 || java_begin(thread, WAKE) == NOTHING {
        return (0, 0);
    }
    let since = since(WAKE);
    let own = connection(received);
    let stack_pointer = Registers::current().stack_pointer();
    look_for_stages(stack_pointer);
    let is_own = if is_completing() {
        java_called(WAKE) == own
    } else {
        java_made_for_others(WAKE, stack_pointer, own) == 0
    };
    reads::serves(received);
    if is_own {
        (own, since | BY_LOOP)
    } else {
        (0, 0)
    }
}

/// Whether the thread is in the midst of what comes after a future.
#[inline(always)]
fn is_completing() -> bool {
    walk(WAKE).is_some_and(|walk| walk.found != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_stages(thread: u64, stack_pointer: u64) -> u64 {
    let Some(walk) = walk(WAKE) else { return 0 };
    let Some(known) = remembered(walk) else {
        return 0;
    };
    if !is_vain(known.misses[STAGES as usize]) {
        look_for_stages(stack_pointer);
    }
    if missed(known, STAGES, !is_completing()) {
        return 0;
    }
    java_unit(thread, WAKE)
}

/// Looks at all of the stack that is in use.
#[inline(always)]
fn look_for_stages(stack_pointer: u64) {
    if let Some(walk) = walk(WAKE) {
        (walk.looks_for, walk.used_from) = (STAGES, stack_pointer);
        scan_used(WAKE, walk);
    }
}

/// Looks at a completion that lies at that address of the stack: if it is carried out, who waits for what it completes is noted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_stage(completion: u64, at: u64) -> u64 {
    let Some(walk) = walk(WAKE) else { return 0 };
    let o = &walk.futures;
    if at < walk.used_from || completion == walk.found {
        return 0;
    }
    let source = reference(o, completion, o.source);
    let dependent = reference(o, completion, o.dependent_at);
    let is_carried_out = source != 0
        && dependent != 0
        && reference(o, source, o.result) != 0
        && reference(o, dependent, o.result) == 0;
    if is_carried_out {
        walk.found = completion;
        walk.begin_at(dependent);
        follow(WAKE);
    }
    1
}
