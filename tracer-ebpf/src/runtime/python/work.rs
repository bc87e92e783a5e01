//! What an executor's thread works on.

use super::{
    CHAIN, NOTHING,
    chain::closure,
    objects::{FIRST, FUTURE, ITEMS, TYPE, follow, is_named, kind, reference, values, word},
    offsets, walk,
};

/// The first frame in a thread's first `_PyStackChunk`.
const FIRST_FRAME: u64 = 32;

/// Frames looked at.
const FRAMES: u64 = 6;

/// Finds the Future of what an executor's thread works on. It lies among the variables of the functions that such a thread runs first: of
/// anyio's `WorkerThread.run`, or in the `_WorkItem` of concurrent.futures, whose own Future hands its result on to asyncio's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn python_work(scratch: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return NOTHING;
    };
    let o = &walk.offsets;
    let mut chunk = follow(walk.state.wrapping_add(u64::from(o.data_stack)));
    for _ in 0..4 {
        // `_PyStackChunk.previous` is its first field.
        let previous = follow(chunk);
        if previous == 0 {
            break;
        }
        chunk = previous;
    }
    let first = u64::from(o.frame_locals);
    let mut frame = chunk.wrapping_add(FIRST_FRAME);
    for depth in 0..FRAMES {
        let code = reference(frame.wrapping_add(u64::from(o.frame_code)));
        if code == 0 {
            return NOTHING;
        }
        let locals = word(code.wrapping_add(u64::from(o.code_locals))) & 0xffff_ffff;
        let stack = word(code.wrapping_add(u64::from(o.code_stack))) & 0xffff_ffff;
        if locals > 256 || stack > 1024 {
            return NOTHING;
        }
        if depth == 2 {
            for at in 1..12 {
                if at >= locals {
                    break;
                }
                let object = reference(frame.wrapping_add(first + at * 8));
                if object != 0 && kind(o, object) == FUTURE {
                    walk.at = object;
                    return CHAIN;
                }
            }
        }
        if depth >= 3 {
            let future = python_item(scratch, reference(frame.wrapping_add(first)));
            if future != 0 {
                walk.at = future;
                return CHAIN;
            }
            if walk.work != 0 {
                return NOTHING;
            }
        }
        // Variables and stack stand at the end of a frame (FRAME_SPECIALS_SIZE).
        frame = frame.wrapping_add(8 * (locals + stack) + first);
    }
    NOTHING
}

/// The asyncio Future that gets the result of a `_WorkItem`, whose own Future is noted.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn python_item(scratch: u64, item: u64) -> u64 {
    let Some(o) = offsets(scratch) else {
        return 0;
    };
    if !is_named(item, b"_WorkIte") {
        return 0;
    }
    // Its first attribute is the future.
    let of_item = values(o, item);
    if of_item == 0 {
        return 0;
    }
    let future = follow(of_item);
    if future == 0 {
        return 0;
    }
    if let Some(walk) = walk(scratch) {
        walk.work = future;
    }
    let of_future = values(o, future);
    if of_future == 0 {
        return 0;
    }
    let callbacks = follow(of_future.wrapping_add(u64::from(o.done_callbacks)));
    let count = word(callbacks.wrapping_add(ITEMS));
    let items = follow(callbacks.wrapping_add(FIRST));
    for at in 0..2 {
        if items == 0 || at >= count || count > 8 {
            break;
        }
        let function = follow(items.wrapping_add(at * 8));
        if function != 0 && word(function.wrapping_add(TYPE)) == o.function_type.get() {
            let found = closure(o, function, 0);
            if found != 0 {
                return found;
            }
        }
    }
    0
}
