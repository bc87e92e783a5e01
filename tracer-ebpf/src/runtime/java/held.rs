//! Futures that nobody waits for yet, but whose maker can be told: who makes several waits for one after the other, and has the others among
//! its variables meanwhile.
//!
//! Who waits is looked through once for each future that it waits for: the innermost frames of its stack, for futures, and for arrays and
//! lists of them and what iterates over such. What is found is remembered until objects are moved. Two that hold the same have not both made it: then nobody is told.
//!
//! What is worked on while nobody is known to wait for it is remembered, too, and told as a place: who is seen to wait for another one of the same
//! array later takes that as well, even if it is done by then.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, macros::map, maps::LruHashMap};
use tracer_common::{CONNECTION_UNIT, JAVA_LIST_STEPS, JAVA_LISTS, PLACE_UNIT};

use super::{
    objects::{
        FUTURE, TASK, bounded, class, decode, in_heap, is_moving, java_kind, layout, reference,
        references_behind,
    },
    walk::{SEVERAL, TOGETHER, WINDOW, Walk, walk},
};
use crate::buffers::read_user;

/// Futures that nobody was known to wait for when those who work on them moved bytes, by process and address.
#[map]
static JAVA_WORKED: LruHashMap<[u64; 2], Holder> = LruHashMap::with_max_entries(8_192, 0);

/// Windows of a stack that are looked at (frames that are interpreted are large), and members of an array.
pub const WINDOWS: u64 = 5;
const MEMBERS: u64 = 8;

/// By process and address of the future.
#[map]
static JAVA_HELD: LruHashMap<[u64; 2], Holder> = LruHashMap::with_max_entries(8_192, 0);

/// Who holds a future, or 0.
#[derive(Clone, Copy)]
#[repr(C)]
struct Holder {
    /// [`SEVERAL`] if several do.
    unit: u64,
    /// How often objects had been moved then.
    collections: u64,
    /// When that was seen first.
    since: u64,
}

/// The unit that holds what the thread works on, 0 if that is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_holder(slot: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    if walk.waiter_is_told() || is_moving(walk) {
        return 0;
    }
    // SAFETY: a copy; a torn one is of one who holds it, too, or of no time.
    match unsafe { JAVA_HELD.get([walk.thread >> 32, walk.found]) } {
        Some(holder) if holder.collections == walk.collections && holder.unit > SEVERAL => {
            walk.since = holder.since;
            holder.unit
        }
        _ => 0,
    }
}

/// The place where the outcome of what the thread works on will be taken, if nobody is known to wait for it; 0 = none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_place_of(thread: u64, slot: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| walk.thread == thread) else {
        return 0;
    };
    if walk.found == 0 || walk.waiter_is_told() || is_moving(walk) {
        return 0;
    }
    let worked = Holder {
        unit: 0,
        collections: walk.collections,
        since: walk.since,
    };
    let _ = JAVA_WORKED.insert([walk.thread >> 32, walk.found], worked, 0);
    place(walk, walk.found)
}

/// A future as a place: its address, and how often objects had been moved when it lay there.
#[inline(always)]
fn place(walk: &Walk, future: u64) -> u64 {
    PLACE_UNIT | (walk.collections << 44 | future >> 3) & (CONNECTION_UNIT - 1)
}

/// Places that the unit was seen to have together with what it waits for.
#[inline(always)]
pub fn places(slot: u64) -> [u64; TOGETHER] {
    walk(slot).map_or([0; TOGETHER], |walk| walk.together)
}

/// Whether the unit, which waits for what was found, is to be looked through.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_holds(slot: u64, unit: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    walk.unit = unit;
    if walk.frames == 0 {
        return 0;
    }
    // SAFETY: as above.
    if let Some(holder) = unsafe { JAVA_HELD.get([walk.thread >> 32, walk.found]) }
        && holder.collections == walk.collections
    {
        return 0;
    }
    hold(slot, walk.found);
    1
}

/// Looks at one window of its stack: 0 if that can't be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_held_window(slot: u64, window: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let bytes = 8 * WINDOW as u64;
    // SAFETY: there is room for so many words; the helper refuses bad addresses.
    let failed = unsafe {
        bpf_probe_read_user(
            walk.words.as_mut_ptr().cast(),
            bytes as u32,
            walk.frames.wrapping_add(window * bytes) as *const _,
        )
    };
    if failed != 0 {
        return 0;
    }
    for at in 0..WINDOW {
        if java_held_word(slot, at as u64) != 0 {
            walk.worked = [0; TOGETHER];
            walk.is_listed = 0;
            for member in 0..MEMBERS {
                if java_held_member(slot, member) == 0 {
                    break;
                }
            }
            java_together(slot);
        }
    }
    1
}

/// Looks at one word of the window: whether it is an array.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_held_word(slot: u64, at: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let word = walk.words[bounded::<WINDOW>(at)];
    if in_heap(&walk.futures, word) {
        return java_held_object(slot, word);
    }
    if walk.futures.compressed == 0 || word == 0 || word >> 40 == 0x7f {
        return 0;
    }
    let low = decode(&walk.futures, word & 0xffff_ffff);
    if java_held_object(slot, low) != 0 {
        return 1;
    }
    java_held_object(slot, decode(&walk.futures, word >> 32))
}

/// Remembers a future; notes an array, or that of a list.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_held_object(slot: u64, object: u64) -> u64 {
    /// Of arrays of references, the two highest bits.
    const REFERENCES: u32 = 0b10;
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let o = &walk.futures;
    if !in_heap(o, object) {
        return 0;
    }
    let mut array = object;
    let mut of = class(o, object);
    for _ in 0..JAVA_LIST_STEPS {
        let mut at = 0;
        for list in 0..JAVA_LISTS {
            if of != 0 && of == o.lists[list].get() {
                at = o.elements[list];
            }
        }
        if at == 0 {
            break;
        }
        array = reference(o, array, at);
        of = if array == 0 { 0 } else { class(o, array) };
    }
    if of == 0 {
        return 0;
    }
    if layout(o, of) >> 30 == REFERENCES {
        walk.array = array;
        return 1;
    }
    hold(slot, array);
    0
}

/// Looks at one member of the array: 0 if there are no more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_held_member(slot: u64, member: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let o = &walk.futures;
    let length = read_user::<u32>(walk.array.wrapping_add(u64::from(o.length))).unwrap_or(0);
    if member >= u64::from(length) {
        return 0;
    }
    let (first, size) = references_behind(o, o.length.wrapping_add(4));
    let size = u64::from(size);
    let object = reference(o, walk.array.wrapping_add(member * size), first);
    if object == walk.found {
        walk.is_listed = 1;
    } else if object != 0 {
        hold(slot, object);
        java_worked(slot, object);
    }
    1
}

/// Notes the object if it is a future that was worked on when nobody was known to wait for it, and the unit was not told of.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_worked(slot: u64, object: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    // SAFETY: as above.
    let Some(worked) = (unsafe { JAVA_WORKED.get([walk.thread >> 32, object]) }) else {
        return 0;
    };
    if worked.collections != walk.collections || worked.unit == walk.unit || is_moving(walk) {
        return 0;
    }
    let [first, second] = walk.worked;
    if first == 0 {
        walk.worked[0] = object;
    } else if second == 0 {
        walk.worked[1] = object;
    }
    1
}

/// What is in one array with what the unit waits for is its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_together(slot: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| walk.is_listed != 0 && walk.together[0] == 0) else {
        return 0;
    };
    let holder = Holder {
        unit: walk.unit,
        collections: walk.collections,
        since: walk.since,
    };
    for at in 0..TOGETHER {
        let object = walk.worked[at];
        if object != 0 {
            let _ = JAVA_WORKED.insert([walk.thread >> 32, object], holder, 0);
            walk.together[at] = place(walk, object);
        }
    }
    1
}

#[inline(always)]
fn hold(slot: u64, object: u64) {
    java_hold(slot, object);
}

/// Remembers that the unit holds the object, if that is a future that is not complete.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_hold(slot: u64, object: u64) -> u64 {
    let kind = java_kind(slot, object);
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let o = &walk.futures;
    let is_open = match kind {
        FUTURE => reference(o, object, o.result) == 0,
        TASK => read_user::<u32>(object.wrapping_add(u64::from(o.state))) == Some(0),
        _ => false,
    };
    if !is_open || is_moving(walk) {
        return 0;
    }
    let key = [walk.thread >> 32, object];
    let mut holder = Holder {
        unit: walk.unit,
        collections: walk.collections,
        since: walk.since,
    };
    // SAFETY: as above.
    if let Some(before) = unsafe { JAVA_HELD.get(key) }
        && before.collections == holder.collections
    {
        if before.unit == holder.unit {
            return 1;
        }
        holder.unit = SEVERAL;
    }
    let _ = JAVA_HELD.insert(key, holder, 0);
    1
}
