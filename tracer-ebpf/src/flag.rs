//! Flags: one look costs two instructions.

use core::cell::UnsafeCell;

/// Set unless it is 0. Each is in a section of its own (`.data.NAME`), which is a map of one element to user space.
#[repr(transparent)]
pub struct Flag(UnsafeCell<u32>);

// SAFETY: read and written as a whole, in one instruction.
unsafe impl Sync for Flag {}

impl Flag {
    pub const fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    #[inline(always)]
    pub fn is_set(&self) -> bool {
        // SAFETY: memory of a map, which is there as long as the program.
        unsafe { self.0.get().read_volatile() != 0 }
    }

    #[inline(always)]
    pub fn set(&self, value: bool) {
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(u32::from(value)) };
    }
}
