//! Where the bytes of a message lie that has moved already, from what is left of its `struct iov_iter` (include/linux/uio.h).
//!
//! The iterator has advanced by what moved: the message's first byte is found by going back as far. So nothing is kept from the
//! entry of the call to its end.

use core::marker::PhantomData;

use crate::{
    access::{Access, Untyped, load},
    buffers::{Buffers, Find, Vectors, read_kernel},
    layout,
    opaque::opaque,
};

/// `UIO_MAXIOV` (include/uapi/linux/uio.h): no message has more vectors.
const MOST: u64 = 1024;

/// The buffers of the bytes before the place where the iterator of a `struct msghdr` stands.
pub struct Behind<A> {
    msg: *const u8,
    moved: i32,
    access: PhantomData<A>,
}

impl<A> Behind<A> {
    /// The `moved` bytes behind the iterator of `msg`, a `struct msghdr *` that is typed if `A` is, or null.
    #[inline(always)]
    pub fn new(msg: *const u8, moved: i32) -> Self {
        Self {
            msg,
            moved,
            access: PhantomData,
        }
    }
}

impl<A: Access> Find for Behind<A> {
    #[inline(always)]
    fn buffers(self) -> Buffers {
        if self.msg.is_null() {
            Buffers::Unavailable
        } else {
            behind::<A>(self.msg, self.moved)
        }
    }
}

/// The buffers of the bytes that begin where an iterator stands, the one of a `struct msghdr` at that address.
#[inline(always)]
pub fn ahead(msg: u64) -> Buffers {
    let msg = msg as *const u8;
    // SAFETY: `Untyped` reads any address.
    let kind: u8 = unsafe { load::<Untyped, _, _>(msg, layout::MSGHDR__KIND) };
    let kind = u32::from(kind) & layout::ITER_KIND_MASK.load();
    // SAFETY: as above.
    let offset: u64 = unsafe { load::<Untyped, _, _>(msg, layout::MSGHDR__OFFSET) };
    if kind == layout::ITER_UBUF.load() {
        // SAFETY: as above.
        let base: u64 = unsafe { load::<Untyped, _, _>(msg, layout::MSGHDR__BUFFER) };
        return Buffers::One {
            base: base.wrapping_add(offset),
        };
    }
    if kind != layout::ITER_IOVEC.load() {
        return Buffers::Unavailable;
    }
    Buffers::Many(Vectors {
        // SAFETY: as above.
        first: unsafe { load::<Untyped, _, _>(msg, layout::MSGHDR__VECTORS) },
        // SAFETY: as above.
        count: unsafe { load::<Untyped, _, _>(msg, layout::MSGHDR__SEGMENTS) },
        skip: offset,
        in_kernel: true,
        narrow: false,
    })
}

#[inline(always)]
fn behind<A: Access>(msg: *const u8, moved: i32) -> Buffers {
    let moved = moved as u32 as u64;
    // SAFETY: `msg` is a `struct msghdr *`, typed if `A` is.
    let kind: u8 = unsafe { load::<A, _, _>(msg, layout::MSGHDR__KIND) };
    let kind = u32::from(kind) & layout::ITER_KIND_MASK.load();
    // SAFETY: as above.
    let offset: u64 = unsafe { load::<A, _, _>(msg, layout::MSGHDR__OFFSET) };
    if kind == layout::ITER_UBUF.load() {
        // Its place is that of several pointers: the verifier would take it for the first of them, and refuse to count with it.
        // SAFETY: as above.
        let base: u64 = unsafe { load::<Untyped, _, _>(msg, layout::MSGHDR__BUFFER) };
        return Buffers::One {
            base: base.wrapping_add(offset).wrapping_sub(moved),
        };
    }
    if kind != layout::ITER_IOVEC.load() {
        return Buffers::Unavailable;
    }
    // As above.
    // SAFETY: as above.
    let vectors: u64 = unsafe { load::<Untyped, _, _>(msg, layout::MSGHDR__VECTORS) };
    let Some(vector) = read_kernel::<[u64; 2]>(if moved <= offset {
        vectors
    } else {
        vectors.wrapping_sub(16)
    }) else {
        return Buffers::Unavailable;
    };
    let [base, size] = vector;
    // Nearly always the message ends inside a vector and began there too, or both ends of both are the same.
    if moved <= offset {
        return Buffers::One {
            base: base.wrapping_add(offset - moved),
        };
    }
    if offset == 0 && moved <= size {
        return Buffers::One {
            base: base.wrapping_add(size - moved),
        };
    }
    // SAFETY: as above.
    let after: u64 = unsafe { load::<A, _, _>(msg, layout::MSGHDR__SEGMENTS) };
    let walked = walk_back(vectors, offset, moved);
    let back = walked >> SKIP_BITS;
    if back == 0 {
        return Buffers::Unavailable;
    }
    Buffers::Many(Vectors {
        first: vectors.wrapping_sub(back * 16),
        count: back + after,
        skip: walked & ((1 << SKIP_BITS) - 1),
        in_kernel: true,
        narrow: false,
    })
}

/// No vector is as long as this many bits can say.
const SKIP_BITS: u32 = 48;

/// Walks from `offset` bytes into the vector at `at` back to where `moved` bytes begin: over how many vectors, and in the
/// lower [`SKIP_BITS`] how far into the last of them they begin. 0 if the kernel's memory does not give them.
///
/// A function of its own, that the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_back(at: u64, offset: u64, moved: u64) -> u64 {
    let (mut at, mut left, mut inside) = (at, moved, offset);
    let mut back = 0;
    while back < MOST {
        left -= inside;
        at = at.wrapping_sub(16);
        let Some([_, size]) = read_kernel::<[u64; 2]>(at) else {
            return 0;
        };
        inside = size;
        back = opaque(back + 1); // or the compiler writes the loop out
        if left <= inside {
            return back << SKIP_BITS | (inside - left);
        }
    }
    0
}
