//! Objects of CPython: what they are, and their attributes.

use tracer_common::{PythonOffsets, attributes};

use crate::{buffers::read_user, runtime::pointer};

/// `PyObject.ob_type`; `PyTypeObject`: tp_name, tp_basicsize, tp_flags, tp_base, tp_dictoffset (Include/cpython/object.h).
pub const TYPE: u64 = 8;
const TYPE_NAME: u64 = 24;
pub const TYPE_SIZE: u64 = 32;
const TYPE_FLAGS: u64 = 168;
const TYPE_BASE: u64 = 256;
const TYPE_DICT: u64 = 288;
/// `Py_TPFLAGS_INLINE_VALUES`, `Py_TPFLAGS_MANAGED_DICT`.
const INLINE_VALUES: u64 = 1 << 2;
const MANAGED_DICT: u64 = 1 << 4;
/// `PyListObject` and `PyTupleObject`: number of items; the list's array.
pub const ITEMS: u64 = 16;
pub const FIRST: u64 = 24;

/// What an object is.
pub const FUTURE: u64 = 1;
pub const TASK: u64 = 2;

#[inline(always)]
pub fn word(address: u64) -> u64 {
    read_user(address).unwrap_or(0)
}

/// The pointer there, 0 if it can't be one.
#[inline(always)]
pub fn follow(address: u64) -> u64 {
    pointer(address).unwrap_or(0)
}

/// The object that a place in a frame refers to (`_PyStackRef`, the lowest bits of which say who counts references from 3.14 on).
#[inline(always)]
pub fn reference(address: u64) -> u64 {
    let object = word(address) & !3;
    if object >= 4096 && object >> 56 == 0 && object & 4 == 0 {
        object
    } else {
        0
    }
}

/// Whether the object is a Future, a Task, or of a type made from one of these.
#[inline(always)]
pub fn kind(o: &PythonOffsets, object: u64) -> u64 {
    let of = follow(object.wrapping_add(TYPE));
    if of == 0 {
        return 0;
    }
    let exact = kind_of_type(o, of);
    if exact != 0 {
        return exact;
    }
    kind_of_type(o, word(of.wrapping_add(TYPE_BASE)))
}

#[inline(always)]
fn kind_of_type(o: &PythonOffsets, of: u64) -> u64 {
    if of == o.task_type.get() {
        TASK
    } else if of == o.future_type.get() {
        FUTURE
    } else {
        0
    }
}

/// Whether the name of the object's type begins with these characters.
#[inline(always)]
pub fn is_named(object: u64, name: &[u8; 8]) -> bool {
    if object == 0 {
        return false;
    }
    let of = follow(object.wrapping_add(TYPE));
    let text = word(of.wrapping_add(TYPE_NAME));
    of != 0 && word(text) == u64::from_le_bytes(*name)
}

/// Where the values of an instance's attributes stand, in the order in which they were set first (from 3.14 on in that of their names); 0 if that is
/// not known.
#[inline(always)]
pub fn values(o: &PythonOffsets, object: u64) -> u64 {
    let of = follow(object.wrapping_add(TYPE));
    if of == 0 {
        return 0;
    }
    if o.attributes == attributes::DICTIONARY {
        let at = word(of.wrapping_add(TYPE_DICT));
        if at == 0 || at > 512 {
            return 0;
        }
        /// `PyDictObject.ma_values`.
        const VALUES: u64 = 40;
        let dictionary = follow(object.wrapping_add(at));
        return follow(dictionary.wrapping_add(VALUES));
    }
    let flags = word(of.wrapping_add(TYPE_FLAGS));
    if o.attributes == attributes::INLINE {
        if flags & INLINE_VALUES == 0 {
            return 0;
        }
        /// `PyDictValues`: capacity, size, embedded, valid, a byte each.
        const VALID: u64 = 1 << 24;
        let values = object.wrapping_add(word(of.wrapping_add(TYPE_SIZE)));
        return if word(values) & VALID == 0 {
            0
        } else {
            values.wrapping_add(8)
        };
    }
    if flags & MANAGED_DICT == 0 {
        return 0;
    }
    if o.attributes == attributes::POINTER {
        return follow(object.wrapping_sub(32));
    }
    let tagged = word(object.wrapping_sub(24));
    if tagged & 1 == 0 {
        0
    } else {
        tagged.wrapping_add(1)
    }
}
