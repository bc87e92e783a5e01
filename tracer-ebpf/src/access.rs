//! How a back end may read kernel memory.
//!
//! Back ends differ in what the verifier knows of their pointers; everything behind them is the same. What reads kernel structs
//! is generic over [`Access`], and each program gets the reads that its kind allows.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::layout::Constant;

/// A way to read kernel memory.
pub trait Access: Copy {
    /// Whether the verifier knows pointers by their BTF type, so that helpers that ask for typed sockets take them.
    const TYPED: bool;

    /// Reads a `T` from a field of the struct at `base`; zeros from a bad address.
    ///
    /// # Safety
    /// `base` is a pointer to the struct that the constant belongs to, which has a `T` there. If [`Self::TYPED`], the verifier must know
    /// its BTF type: it refuses the program otherwise. `T` must be valid for any bits.
    unsafe fn read<T: Copy, const NUMBER: u16>(base: *const u8, field: Constant<NUMBER>) -> T;
}

/// Arguments of BTF tracepoints, fentry and fexit, what helpers return as typed, and pointers loaded from these: direct loads,
/// which the kernel lets survive a bad address.
#[derive(Clone, Copy)]
pub struct Typed;

/// Any kernel address, in any kind of tracing program: a helper call for each read.
#[derive(Clone, Copy)]
pub struct Untyped;

impl Access for Typed {
    const TYPED: bool = true;

    #[inline(always)]
    unsafe fn read<T: Copy, const NUMBER: u16>(base: *const u8, field: Constant<NUMBER>) -> T {
        const { assert!(matches!(size_of::<T>(), 1 | 2 | 4 | 8 | 16)) };
        // SAFETY: as the caller promises, here and below.
        let words = match size_of::<T>() {
            1 => [unsafe { field.of::<1, 0>(base) }, 0],
            2 => [unsafe { field.of::<2, 0>(base) }, 0],
            4 => [unsafe { field.of::<4, 0>(base) }, 0],
            8 => [unsafe { field.of::<8, 0>(base) }, 0],
            // SAFETY: as above.
            _ => [unsafe { field.of::<8, 0>(base) }, unsafe {
                field.of::<8, 8>(base)
            }],
        };
        // SAFETY: no larger than the words, whose first bytes are the field (these machines are little-endian).
        unsafe { core::mem::transmute_copy(&words) }
    }
}

impl Access for Untyped {
    const TYPED: bool = false;

    #[inline(always)]
    unsafe fn read<T: Copy, const NUMBER: u16>(base: *const u8, field: Constant<NUMBER>) -> T {
        let address = base.wrapping_add(field.wide() as usize);
        let mut value = MaybeUninit::<T>::uninit();
        // The helper fills the destination with zeros if it fails.
        // SAFETY: the destination is as large as the size says; the helper refuses bad addresses.
        unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address.cast()) };
        // SAFETY: the helper wrote every byte of it.
        unsafe { value.assume_init() }
    }
}

/// Reads a field of a kernel struct.
///
/// # Safety
/// `base` is a pointer to the struct, typed if `A` is, and the constant the offset of a field of type `T` in it.
#[inline(always)]
pub unsafe fn load<A: Access, T: Copy, const NUMBER: u16>(base: *const u8, field: Constant<NUMBER>) -> T {
    // SAFETY: as the caller promises.
    unsafe { A::read(base, field) }
}
