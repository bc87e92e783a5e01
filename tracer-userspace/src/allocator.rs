//! The daemon's allocator. Spans are made in one thread and let go in another, and each exchange has some memory of its own: mimalloc
//! takes a fifth of the instructions for that which the C library's takes.
//!
//! The `mimalloc` crate asks for the alignment with every request, which sends many of them the long way round; this one asks only
//! where the alignment is unusual, as the standard library does for the C library's.
//!
//! Huge pages are switched off: a daemon of 30 MiB that is spread over a few of them holds twice as much.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_int;

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_option_set, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// mimalloc aligns blocks of at least as many bytes to so many (`MI_MAX_ALIGN_SIZE` of its `types.h`), smaller ones to a word.
const USUAL: usize = 16;

/// `mi_option_purge_delay` of mimalloc.h: for how many milliseconds free pages are kept before the kernel gets them back.
const PURGE_DELAY: c_int = 15;

/// mimalloc.
pub struct Allocator;

/// From now on the kernel gets free pages back at once. The daemon's start needs twice the memory that it ever needs later, each part
/// of it once. Call it before there are other threads.
pub fn give_back() {
    // SAFETY: a word of mimalloc's is written, and nobody reads it meanwhile.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
}

/// From now on free pages are kept for a second: under load they are soon taken again, and each would cost a page fault.
pub fn keep() {
    // SAFETY: a word of mimalloc's is written; a thread that reads it meanwhile sees the old value or the new one.
    unsafe { mi_option_set(PURGE_DELAY, 1_000) };
}

fn is_usual(layout: Layout) -> bool {
    layout.align() <= USUAL && layout.align() <= layout.size()
}

// SAFETY: mimalloc keeps the contract of an allocator, and gives blocks of the alignment that the layout asks for: see `is_usual`, and
// otherwise it is told.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_usual(layout) {
            // SAFETY: any size may be asked for.
            unsafe { mi_malloc(layout.size()) }.cast()
        } else {
            // SAFETY: any size may be asked for, and the alignment of a layout is a power of two.
            unsafe { mi_malloc_aligned(layout.size(), layout.align()) }.cast()
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_usual(layout) {
            // SAFETY: any size may be asked for.
            unsafe { mi_zalloc(layout.size()) }.cast()
        } else {
            // SAFETY: any size may be asked for, and the alignment of a layout is a power of two.
            unsafe { mi_zalloc_aligned(layout.size(), layout.align()) }.cast()
        }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, _layout: Layout) {
        // SAFETY: the caller got the pointer from here.
        unsafe { mi_free(pointer.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_usual(layout) && layout.align() <= size {
            // SAFETY: the caller got the pointer from here.
            unsafe { mi_realloc(pointer.cast(), size) }.cast()
        } else {
            // SAFETY: the caller got the pointer from here, and the alignment of a layout is a power of two.
            unsafe { mi_realloc_aligned(pointer.cast(), size, layout.align()) }.cast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_keep_what_they_hold() {
        for align in [1, 2, 8, 16, 32, 4096] {
            for size in [1usize, 3, 8, 15, 16, 24, 100, 1_000, 5_000, 3_000_000] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: the size is not zero.
                let block = unsafe { Allocator.alloc_zeroed(layout) };
                assert_eq!((block.is_null(), block.addr() % align), (false, 0), "{layout:?}");
                // SAFETY: the block has at least one byte.
                unsafe { block.write(7) };
                // SAFETY: the block is from here, with this layout, and the new size is not zero.
                let block = unsafe { Allocator.realloc(block, layout, size * 2) };
                assert_eq!((block.is_null(), block.addr() % align), (false, 0), "{layout:?}");
                // SAFETY: the block has at least one byte, which was written.
                assert_eq!(unsafe { block.read() }, 7, "{layout:?}");
                let layout = Layout::from_size_align(size * 2, align).expect("a layout");
                // SAFETY: the block is from here, with this layout.
                unsafe { Allocator.dealloc(block, layout) };
            }
        }
    }
}
