//! Objects on HotSpot's heap (oops/oop.hpp, oops/klass.hpp): their classes, what they refer to, and what of them tells who waits.

use tracer_common::JavaFutures;

use super::walk::{Walk, walk};
use crate::{buffers::read_user, opaque::opaque};

/// What an object is.
pub const OTHER: u64 = 0;
pub const RUN: u64 = 1;
pub const FUTURE: u64 = 2;
pub const TASK: u64 = 3;
pub const DEPENDENT: u64 = 4;
pub const SECOND: u64 = 5;
pub const SIGNALLER: u64 = 6;

/// Whether objects are moved now: then what was read may be anything.
#[inline(always)]
pub fn is_moving(walk: &Walk) -> bool {
    read_user::<u8>(walk.futures.moving.get()) != Some(0)
}

/// What the object is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_kind(slot: u64, object: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return OTHER;
    };
    let o = &walk.futures;
    if !in_heap(o, object) {
        return OTHER;
    }
    let class = class(o, object);
    if class == 0 {
        return OTHER;
    }
    if class == o.runs[0].get() || class == o.runs[1].get() {
        // What it completes is taken out of it when it begins.
        let [of_run, of_supply] = o.run_dependent;
        let at = if class == o.runs[0].get() {
            of_run
        } else {
            of_supply
        };
        return if at != 0 && reference(o, object, at) == 0 {
            RUN
        } else {
            OTHER
        };
    }
    let Some([first, second, third]) =
        read_user::<[u64; 3]>(class.wrapping_add(u64::from(o.supers)).wrapping_add(8))
    else {
        return OTHER;
    };
    if first == 0 {
        OTHER
    } else if first == o.future.get() {
        FUTURE
    } else if first == o.task.get() {
        TASK
    } else if second == 0 || second != o.completion.get() || third == 0 {
        OTHER
    } else if third == o.dependent.get() {
        DEPENDENT
    } else if third == o.second.get() {
        SECOND
    } else if third == o.signaller.get() {
        SIGNALLER
    } else {
        OTHER
    }
}

/// Whether the object's class is `ancestor`, which has so many above it, or is made from it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_is(slot: u64, object: u64, ancestor: u64, depth: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return 0;
    };
    let class = class(&walk.futures, object);
    let at = u64::from(walk.futures.supers).wrapping_add(depth * 8);
    u64::from(class != 0 && read_user::<u64>(class.wrapping_add(at)) == Some(ancestor))
}

#[inline(always)]
pub fn in_heap(o: &JavaFutures, address: u64) -> bool {
    address % 8 == 0 && address >= o.heap[0].get() && address < o.heap[1].get()
}

/// The object's class, 0 if that can't be read.
#[inline(always)]
pub fn class(o: &JavaFutures, object: u64) -> u64 {
    let Some(number) = read_user::<u32>(object.wrapping_add(u64::from(o.class_at))) else {
        return 0;
    };
    let number = u64::from(number) >> (o.class_low & 31);
    o.class_base.get().wrapping_add(number << (o.class_shift & 31))
}

/// The object that a field names, 0 if there is none.
#[inline(always)]
pub fn reference(o: &JavaFutures, object: u64, field: u32) -> u64 {
    let at = object.wrapping_add(u64::from(field));
    if field == 0 {
        return 0;
    }
    let object = if o.compressed != 0 {
        match read_user::<u32>(at) {
            Some(reference) => decode(o, u64::from(reference)),
            None => 0,
        }
    } else {
        read_user::<u64>(at).unwrap_or(0)
    };
    if in_heap(o, object) { object } else { 0 }
}

/// `Klass._layout_helper`: what objects of the class are, and how large.
#[inline(always)]
pub fn layout(o: &JavaFutures, class: u64) -> u32 {
    read_user(class.wrapping_add(u64::from(o.layout))).unwrap_or(0)
}

/// Where references begin that come behind so many bytes of an object, and the size of one: they lie at multiples of that.
#[inline(always)]
pub fn references_behind(o: &JavaFutures, bytes: u32) -> (u32, u32) {
    let size = if o.compressed != 0 { 4 } else { 8 };
    (bytes.wrapping_add(size - 1) & !(size - 1), size)
}

/// The place, which is below `N`, a power of two: the compiler does not know that, so that the verifier sees it.
#[inline(always)]
pub fn bounded<const N: usize>(place: u64) -> usize {
    const { assert!(N.is_power_of_two()) };
    opaque(place) as usize & (N - 1)
}

/// A compressed reference.
#[inline(always)]
pub fn decode(o: &JavaFutures, reference: u64) -> u64 {
    if reference == 0 {
        return 0;
    }
    o.reference_base
        .get()
        .wrapping_add(reference << (o.reference_shift & 31))
}
