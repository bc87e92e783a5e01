//! Where the bytes of a message lie: what a back end tells the core, which copies from there.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};

/// A buffer, or a list of buffers.
#[derive(Clone, Copy)]
pub enum Buffers {
    /// One buffer in the memory of the current process; the message begins at its start.
    One { base: u64 },
    /// Several buffers in the memory of the current process.
    Many(Vectors),
    /// No buffer of a process: splice, io_uring, several messages in one call.
    Unavailable,
}

/// Where a back end looks for the buffers, if the bytes are wanted. A trait and not a closure: nothing makes the compiler inline a
/// closure, and types like these in a function's signature are type information that kernels refuse (a Rust enum is a union whose
/// members do not start at 0).
pub trait Find {
    /// Whether the program has stack left to follow who waits for whom through several steps: all that it calls has 512 bytes
    /// together.
    const FOLLOWS_WAITERS: bool = true;

    fn buffers(self) -> Buffers;
}

/// There are none.
pub struct Nowhere;

impl Find for Nowhere {
    #[inline(always)]
    fn buffers(self) -> Buffers {
        Buffers::Unavailable
    }
}

/// An array of `struct iovec`.
#[derive(Clone, Copy)]
pub struct Vectors {
    /// Address of the first entry that holds bytes of the message.
    pub first: u64,
    /// Entries from there on.
    pub count: u64,
    /// Bytes at the start of the first entry that belong to an earlier message.
    pub skip: u64,
    /// Whether the array lies in the kernel's memory (its copy), and not in the process's own.
    pub in_kernel: bool,
    /// Whether its entries are those of a 32-bit program (`struct compat_iovec`).
    pub narrow: bool,
}

impl Vectors {
    /// The array that the process itself passed in.
    #[inline(always)]
    pub fn of_process(first: u64, count: u64, narrow: bool) -> Self {
        Self {
            first,
            count,
            skip: 0,
            in_kernel: false,
            narrow,
        }
    }

    /// From numbers, for functions that take nothing else.
    #[inline(always)]
    pub fn new(first: u64, count: u64, skip: u64, bits: u64) -> Self {
        Self {
            first,
            count,
            skip,
            in_kernel: bits & 1 != 0,
            narrow: bits & 2 != 0,
        }
    }

    /// What is yes or no of it, as [`Self::new`] takes it.
    #[inline(always)]
    pub fn bits(&self) -> u64 {
        u64::from(self.in_kernel) | u64::from(self.narrow) << 1
    }

    /// Entry `index`: [address, bytes].
    #[inline(always)]
    pub fn entry(&self, index: u64) -> Option<[u64; 2]> {
        if self.narrow {
            let [base, size] = read_user::<[u32; 2]>(self.first.wrapping_add(index * 8))?;
            return Some([u64::from(base), u64::from(size)]);
        }
        let address = self.first.wrapping_add(index * 16);
        let [base, size] = if self.in_kernel {
            read_kernel::<[u64; 2]>(address)?
        } else {
            read_user::<[u64; 2]>(address)?
        };
        if index == 0 {
            Some([base.wrapping_add(self.skip), size.saturating_sub(self.skip)])
        } else {
            Some([base, size])
        }
    }
}

/// Reads `T` from the current process's memory.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the destination is as large as the size says; the helper refuses bad addresses.
    let failed = unsafe {
        bpf_probe_read_user(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    // SAFETY: the helper filled it.
    (failed == 0).then(|| unsafe { value.assume_init() })
}

/// Reads `T` from the kernel's memory.
#[inline(always)]
pub fn read_kernel<T: Copy>(address: u64) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the destination is as large as the size says; the helper refuses bad addresses.
    let failed = unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    // SAFETY: the helper filled it.
    (failed == 0).then(|| unsafe { value.assume_init() })
}
