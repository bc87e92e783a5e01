//! What the programs cost, as the kernel counts it.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{Program, ProgramInfo},
    sys::Stats,
};

/// Run statistics of one program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramStats {
    /// Name of the program.
    pub name: String,
    /// Time spent in it.
    pub run_time: Duration,
    /// How often it ran.
    pub run_count: u64,
    /// Instructions that the verifier walked through when it was loaded, if the kernel tells (Linux 5.16).
    pub verified_instructions: Option<u32>,
}

/// Keeps the kernel's run statistics on (about 20 ns a run) for as long as it lives.
pub struct RunTimeStats(#[expect(dead_code, reason = "closing it turns statistics off")] OwnedFd);

impl RunTimeStats {
    /// Turns them on, for all programs of the host.
    pub fn enable() -> anyhow::Result<Self> {
        Ok(Self(
            aya::sys::enable_stats(Stats::RunTime).context("turning run statistics on")?,
        ))
    }
}

pub(super) fn read(ebpf: &Ebpf) -> anyhow::Result<Vec<ProgramStats>> {
    let mut all = Vec::new();
    for (name, program) in ebpf.programs() {
        // A program that the plan left out is not loaded.
        let Ok(info) = program.info() else { continue };
        all.push(one(name, &info));
    }
    Ok(all)
}

/// Runs that the kernel left out, because the program was under way on that CPU already and had been preempted
/// (kernel/trace/bpf_trace.c: `__bpf_trace_run`; kernel/bpf/trampoline.c). Linux 5.12 and later count them.
pub(super) fn missed_runs(ebpf: &Ebpf) -> u64 {
    let missed = |program: &Program| {
        let fd = program.fd().ok()?.as_fd().as_raw_fd();
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        recursion_misses(&text)
    };
    let each = ebpf.programs().filter_map(|(_, program)| missed(program));
    each.fold(0, u64::wrapping_add)
}

/// From the text that the kernel gives of a program's descriptor (kernel/bpf/syscall.c: `bpf_prog_show_fdinfo`).
fn recursion_misses(text: &str) -> Option<u64> {
    let field = text
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    field.trim().parse().ok()
}

fn one(name: &str, info: &ProgramInfo) -> ProgramStats {
    ProgramStats {
        name: name.to_owned(),
        run_time: info.run_time(),
        run_count: info.run_count(),
        verified_instructions: info.verified_instruction_count(),
    }
}

#[cfg(test)]
mod tests {
    use super::recursion_misses;

    #[test]
    fn missed_runs_are_read() {
        for (text, expected) in [
            (
                "pos:\t0\nrun_cnt:\t2\nrecursion_misses:\t3\nverified_insns:\t9\n",
                Some(3),
            ),
            ("recursion_misses:\t0", Some(0)),
            ("recursion_misses:\tmany\n", None),
            ("pos:\t0\nrun_cnt:\t2\n", None),
            ("", None),
        ] {
            assert_eq!(recursion_misses(text), expected, "{text}");
        }
    }
}
