//! The execution unit: the thread that runs. Its runtime's own task is [`crate::runtime`]'s subject.

use aya_ebpf::{Global, helpers::generated::bpf_get_current_pid_tgid};

/// Whether this kernel has `bpf_get_current_task_btf` (Linux 5.11).
#[unsafe(no_mangle)]
pub static HAS_TASK_BTF: Global<u32> = Global::new(1);

/// Whether it has `bpf_task_pt_regs` (Linux 5.15).
#[unsafe(no_mangle)]
pub static HAS_TASK_REGISTERS: Global<u32> = Global::new(1);

/// Thread group and thread.
#[derive(Clone, Copy)]
pub struct Thread {
    pub tgid: u32,
    pub tid: u32,
}

impl Thread {
    /// The current one.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments.
        let both = unsafe { bpf_get_current_pid_tgid() };
        Self {
            tgid: (both >> 32) as u32,
            tid: both as u32,
        }
    }
}
