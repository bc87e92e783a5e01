//! The execution unit: the thread that runs. Its runtime's own task is [`crate::runtime`]'s subject.

use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;

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
