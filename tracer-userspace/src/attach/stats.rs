//! What the programs cost, as the kernel counts it.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::Context as _;
use aya::{Ebpf, programs::ProgramInfo, sys::Stats};

use crate::kernel::Hook;

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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Missed {
    /// Of programs that see messages, opens or closes: as many of them may be lost.
    pub runs: u64,
    /// Of those that see bytes arrive: receives that do not know how long theirs waited.
    pub arrivals: u64,
}

pub(super) fn missed(ebpf: &Ebpf, hooks: &[Hook]) -> Missed {
    let missed = |program: &str| {
        let fd = ebpf.program(program)?.fd().ok()?.as_fd().as_raw_fd();
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        recursion_misses(&text)
    };
    sum(hooks, missed)
}

/// What a program and all that stand in for it missed is lost: no more than any one of them missed.
fn sum(hooks: &[Hook], missed: impl Fn(&str) -> Option<u64>) -> Missed {
    // By hook where there are stand-ins, else by program: one may serve several hooks.
    let mut least: BTreeMap<(bool, &str), u64> = BTreeMap::new();
    for hook in hooks {
        let Some(runs) = missed(hook.program) else {
            continue;
        };
        if runs > 0 {
            tracing::debug!("the kernel left {} out {runs} times", hook.program);
        }
        let key = if hook.stand_ins.is_empty() {
            (false, hook.program)
        } else {
            (true, hook.target)
        };
        let least = least.entry(key).or_insert(runs);
        *least = runs.min(*least);
    }
    let mut sums = Missed::default();
    for ((_, name), runs) in least {
        let sum = if name.ends_with("sk_data_ready") || name.ends_with("sock_def_readable") {
            &mut sums.arrivals
        } else {
            &mut sums.runs
        };
        *sum = sum.wrapping_add(runs);
    }
    sums
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
    use super::*;
    use crate::kernel::Attach;

    #[test]
    fn what_a_stand_in_saw_is_not_missed() {
        let hook = |program, target, stand_ins| Hook {
            attach: Attach::BtfTracepoint,
            program,
            target,
            stand_ins,
        };
        const OTHERS: &[&str] = &["sent_second"];
        let hooks = [
            hook("sent", "send", OTHERS),
            hook("sent_second", "send", OTHERS),
            hook("state", "state", &[]),
            hook("state", "other state", &[]),
            hook("sk_data_ready", "sk_data_ready", &[]),
        ];
        let check = |counts: &[(&str, u64)], runs, arrivals| {
            let missed = |program: &str| Some(counts.iter().find(|(name, _)| *name == program)?.1);
            assert_eq!(sum(&hooks, missed), Missed { runs, arrivals }, "{counts:?}");
        };
        check(&[], 0, 0);
        check(&[("sent", 7), ("sent_second", 0)], 0, 0);
        check(&[("sent", 7), ("sent_second", 2)], 2, 0);
        check(&[("state", 3)], 3, 0);
        check(&[("sk_data_ready", 4), ("state", 1)], 1, 4);
    }

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
