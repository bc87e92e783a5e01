//! Where the running system call keeps its buffer: read from the registers that it saved on entry.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

use crate::buffers::{Buffers, Find, Vectors, read_user};

#[cfg(bpf_target_arch = "x86_64")]
mod abi {
    /// Offsets in `struct pt_regs` (arch/x86/include/asm/ptrace.h; user-visible ABI as `struct user_regs_struct`).
    pub const NUMBER: usize = 120; // orig_ax
    pub const ARG1: usize = 104; // si
    pub const ARG2: usize = 96; // dx

    // arch/x86/entry/syscalls/syscall_64.tbl. Calls of 32-bit programs have other numbers; none of those that
    // move bytes over sockets has one of these, so they are unavailable and never misread.
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const RECVMMSG: u64 = 299;
    pub const SENDMMSG: u64 = 307;
    pub const PREADV2: u64 = 327;
    pub const PWRITEV2: u64 = 328;
}

#[cfg(bpf_target_arch = "aarch64")]
mod abi {
    /// Offsets in `struct pt_regs` (arch/arm64/include/asm/ptrace.h): `regs[31]`, `sp`, `pc`, `pstate`, `orig_x0`,
    /// `syscallno`.
    pub const NUMBER: usize = 280;
    pub const ARG1: usize = 8; // regs[1]
    pub const ARG2: usize = 16; // regs[2]

    // include/uapi/asm-generic/unistd.h
    pub const READ: u64 = 63;
    pub const WRITE: u64 = 64;
    pub const READV: u64 = 65;
    pub const WRITEV: u64 = 66;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const SENDMSG: u64 = 211;
    pub const RECVMSG: u64 = 212;
    pub const RECVMMSG: u64 = 243;
    pub const SENDMMSG: u64 = 269;
    pub const PREADV2: u64 = 286;
    pub const PWRITEV2: u64 = 287;
}

/// One register that the system call saved.
///
/// # Safety
/// `regs` is typed and `offset` lies in it.
#[inline(always)]
unsafe fn register(regs: *const u8, offset: usize) -> u64 {
    // SAFETY: as the caller promises.
    let register = unsafe { regs.add(offset) };
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(register.cast()) }
}

/// The buffers of the system call that the current thread is in.
pub struct OfCall;

impl Find for OfCall {
    #[inline(always)]
    fn buffers(self) -> Buffers {
        buffers()
    }
}

#[inline(always)]
fn buffers() -> Buffers {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: takes the typed current task; its result is typed `struct pt_regs`.
    let regs = unsafe { bpf_task_pt_regs(task) } as *const u8;
    // On aarch64 `syscallno` is an `int`; the upper half of the word is another field.
    #[cfg(bpf_target_arch = "x86_64")]
    // SAFETY: a field of the typed struct.
    let number = unsafe { register(regs, abi::NUMBER) };
    #[cfg(bpf_target_arch = "aarch64")]
    // SAFETY: a field of the typed struct.
    let number = u64::from(unsafe { core::ptr::read_volatile(regs.add(abi::NUMBER).cast::<u32>()) });
    // SAFETY: a field of the typed struct.
    let first = unsafe { register(regs, abi::ARG1) };
    if first == 0 {
        // Kernel workers have empty registers (number 0 means `read`).
        return Buffers::Unavailable;
    }
    match number {
        abi::READ | abi::WRITE | abi::SENDTO | abi::RECVFROM => Buffers::One { base: first },
        abi::READV | abi::WRITEV | abi::PREADV2 | abi::PWRITEV2 => {
            // SAFETY: a field of the typed struct.
            let count = unsafe { register(regs, abi::ARG2) };
            Buffers::Many(Vectors::of_process(first, count))
        }
        abi::SENDMSG | abi::RECVMSG => message_header(first),
        abi::SENDMMSG | abi::RECVMMSG => {
            // Which of several messages this one is cannot be told from the registers.
            // SAFETY: a field of the typed struct.
            let messages = unsafe { register(regs, abi::ARG2) } as u32;
            if messages == 1 {
                message_header(first)
            } else {
                Buffers::Unavailable
            }
        }
        _ => Buffers::Unavailable,
    }
}

/// The vectors of a `struct user_msghdr` (include/linux/socket.h): `msg_iov` at 16, `msg_iovlen` at 24.
#[inline(always)]
fn message_header(address: u64) -> Buffers {
    match read_user::<[u64; 2]>(address.wrapping_add(16)) {
        Some([iovecs, count]) => Buffers::Many(Vectors::of_process(iovecs, count)),
        None => Buffers::Unavailable,
    }
}
