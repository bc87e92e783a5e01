//! What event loops do that moves no bytes (`tracer-ebpf/src/loops.rs`).
//!
//! Tracepoints of system calls: while one is attached, every system call of the host costs some nanoseconds more. So they are
//! attached while a process is traced whose runtime makes use of them, and taken away afterwards.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{ProgramFd, TracePoint},
};

use super::perf;

/// Programs and their tracepoints.
const HOOKS: [(&str, &str); 2] = [
    ("loop_waits", "sys_enter_epoll_pwait"),
    ("loop_woken", "sys_enter_read"),
];

/// The programs, loaded; attached or not.
pub struct Loops {
    hooks: Vec<(ProgramFd, u64)>,
    attached: Vec<OwnedFd>,
}

impl Loops {
    /// Loads the programs.
    pub fn load(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let numbers = perf::numbers(HOOKS.map(|(_, tracepoint)| tracepoint))?;
        let mut hooks = Vec::with_capacity(HOOKS.len());
        for ((name, _), number) in HOOKS.into_iter().zip(numbers) {
            let program: &mut TracePoint = ebpf
                .program_mut(name)
                .with_context(|| format!("the object has no program {name}"))?
                .try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
            hooks.push((program.fd()?.try_clone()?, number));
        }
        Ok(Self {
            hooks,
            attached: Vec::new(),
        })
    }

    /// Attaches or detaches them. Costs nothing where that is so already.
    pub fn watch(&mut self, wanted: bool) -> anyhow::Result<()> {
        if !wanted {
            self.attached.clear();
        } else if self.attached.is_empty() {
            self.attached = self
                .hooks
                .iter()
                .map(|(program, number)| perf::attach(program, *number))
                .collect::<anyhow::Result<_>>()?;
        }
        Ok(())
    }
}
