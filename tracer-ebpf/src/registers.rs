//! The registers that a system call saved on entry: its number and its arguments.

use core::arch::asm;

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

/// A `struct pt_regs` that the verifier knows by its type.
#[derive(Clone, Copy)]
pub struct Registers(*const u8);

/// Offsets in `struct pt_regs` (arch/x86/include/asm/ptrace.h; user-visible ABI as `struct user_regs_struct`).
#[cfg(bpf_target_arch = "x86_64")]
mod at {
    pub const NUMBER: usize = 120; // orig_ax
    pub const RESULT: usize = 80; // ax
    pub const ARGUMENTS: [usize; 5] = [112, 104, 96, 56, 72]; // di, si, dx, r10, r8
    pub const NARROW_ARGUMENTS: [usize; 5] = [40, 88, 96, 104, 112]; // bx, cx, dx, si, di
    pub const CODE_SEGMENT: usize = 136; // cs
    pub const STACK_POINTER: usize = 152; // sp
}

/// Offsets in `struct pt_regs` (arch/arm64/include/asm/ptrace.h): `regs[31]`, `sp`, `pc`, `pstate`, `orig_x0`, `syscallno`.
#[cfg(bpf_target_arch = "aarch64")]
mod at {
    pub const NUMBER: usize = 280;
    pub const RESULT: usize = 0;
    pub const ARGUMENTS: [usize; 5] = [272, 8, 16, 24, 32]; // orig_x0: x0 holds the result once there is one
    pub const NARROW_ARGUMENTS: [usize; 5] = ARGUMENTS;
    pub const STATE: usize = 264;
    pub const STACK_POINTER: usize = 248;
}

impl Registers {
    /// # Safety
    /// `regs` is a `struct pt_regs *` that the verifier knows as one, of a thread inside a system call.
    #[inline(always)]
    pub unsafe fn new(regs: *const u8) -> Self {
        Self(regs)
    }

    /// Those of the current thread (Linux 5.15).
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments.
        let task = unsafe { bpf_get_current_task_btf() };
        // SAFETY: the typed current task.
        unsafe { Self::of(task.cast_const().cast()) }
    }

    /// Those of a thread that sleeps (Linux 5.15).
    ///
    /// # Safety
    /// `task` is a `struct task_struct *` that the verifier knows as one.
    #[inline(always)]
    pub unsafe fn of(task: *const u8) -> Self {
        // SAFETY: takes a typed task; its result is typed `struct pt_regs`.
        Self(unsafe { bpf_task_pt_regs(task.cast_mut().cast()) } as *const u8)
    }

    /// Number of the system call.
    #[inline(always)]
    pub fn number(self) -> u64 {
        // An `int` on aarch64, where the upper half of the word is another field; on x86_64 the x32 ABI's numbers have bit 30 set.
        self.load::<4, { at::NUMBER }>()
    }

    /// The program's stack pointer.
    #[inline(always)]
    pub fn stack_pointer(self) -> u64 {
        self.load::<8, { at::STACK_POINTER }>()
    }

    /// Whether the call is still under way: once it is over, what io_uring has left to the thread goes on before it returns to the
    /// program (task work), and moves messages that the registers say nothing of. Until then the result is -ENOSYS
    /// (arch/x86/entry/entry_64.S).
    #[cfg(bpf_target_arch = "x86_64")]
    #[inline(always)]
    pub fn are_of_running_call(self) -> bool {
        self.load::<4, { at::RESULT }>() as i32 == -38
    }

    /// Likewise; here the result takes the place of the first argument (arch/arm64/kernel/syscall.c: `invoke_syscall`), so that one that
    /// is the same number hides it: a descriptor whose number is the number of bytes.
    #[cfg(bpf_target_arch = "aarch64")]
    #[inline(always)]
    pub fn are_of_running_call(self) -> bool {
        self.load::<4, { at::RESULT }>() == self.load::<4, { at::ARGUMENTS[0] }>()
    }

    /// One of its arguments.
    #[inline(always)]
    pub fn argument<const N: usize>(self) -> u64 {
        match N {
            0 => self.load::<8, { at::ARGUMENTS[0] }>(),
            1 => self.load::<8, { at::ARGUMENTS[1] }>(),
            2 => self.load::<8, { at::ARGUMENTS[2] }>(),
            3 => self.load::<8, { at::ARGUMENTS[3] }>(),
            _ => self.load::<8, { at::ARGUMENTS[4] }>(),
        }
    }

    /// One of the arguments of a 32-bit program's call.
    #[inline(always)]
    pub fn narrow_argument<const N: usize>(self) -> u64 {
        match N {
            0 => self.load::<4, { at::NARROW_ARGUMENTS[0] }>(),
            1 => self.load::<4, { at::NARROW_ARGUMENTS[1] }>(),
            2 => self.load::<4, { at::NARROW_ARGUMENTS[2] }>(),
            3 => self.load::<4, { at::NARROW_ARGUMENTS[3] }>(),
            _ => self.load::<4, { at::NARROW_ARGUMENTS[4] }>(),
        }
    }

    /// Whether the code that made the call is 32-bit: its code segment is `__USER32_CS` (0x23, 0xe023 under Xen). A 64-bit program
    /// that uses the 32-bit entry (`int 0x80`) is taken for what it is not; none is known to move bytes so.
    #[cfg(bpf_target_arch = "x86_64")]
    #[inline(always)]
    pub fn are_narrow(self) -> bool {
        self.load::<1, { at::CODE_SEGMENT }>() == 0x23
    }

    /// Whether the code that made the call is 32-bit (`PSR_MODE32_BIT`).
    #[cfg(bpf_target_arch = "aarch64")]
    #[inline(always)]
    pub fn are_narrow(self) -> bool {
        self.load::<4, { at::STATE }>() & 0x10 != 0
    }

    /// `N` bytes. Nobody changes them while the thread is in the call, so that the compiler may leave out what is not used.
    #[inline(always)]
    fn load<const N: usize, const OFFSET: usize>(self) -> u64 {
        let value: u64;
        macro_rules! load {
            ($size:literal) => {
                // SAFETY: by the promise of `new`, a field of the struct; changes the one register that it says.
                unsafe {
                    asm!(
                        concat!("{value} = *(", $size, " *)({registers} + {offset})"),
                        value = lateout(reg) value,
                        registers = in(reg) self.0,
                        offset = const OFFSET,
                        options(pure, readonly, nostack, preserves_flags),
                    )
                }
            };
        }
        match N {
            1 => load!("u8"),
            4 => load!("u32"),
            _ => load!("u64"),
        }
        value
    }
}
