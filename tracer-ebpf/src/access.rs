//! How a back end may read kernel memory.
//!
//! Back ends differ in what the verifier knows of their pointers; everything behind them is the same. What reads kernel structs
//! is generic over [`Access`], and each program gets the reads that its kind allows.

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};

/// A way to read kernel memory.
pub trait Access: Copy {
    /// Whether the verifier knows pointers by their BTF type, so that helpers that ask for typed sockets take them.
    const TYPED: bool;

    /// Reads a `T`; zeros from a bad address.
    ///
    /// # Safety
    /// If [`Self::TYPED`], `address` must lie in a struct whose BTF type the verifier knows, and hold a `T` there: it refuses
    /// the program otherwise. `T` must be valid for any bits.
    unsafe fn read<T: Copy>(address: *const u8) -> T;
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
    unsafe fn read<T: Copy>(address: *const u8) -> T {
        // SAFETY: as the caller promises.
        unsafe { core::ptr::read_volatile(address.cast::<T>()) }
    }
}

impl Access for Untyped {
    const TYPED: bool = false;

    #[inline(always)]
    unsafe fn read<T: Copy>(address: *const u8) -> T {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
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
/// `base` is a pointer to the struct, typed if `A` is, and `offset` that of a field of type `T` in it.
#[inline(always)]
pub unsafe fn load<A: Access, T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: as the caller promises.
    let field = unsafe { base.add(offset.load() as usize) };
    // SAFETY: as above.
    unsafe { A::read(field) }
}
