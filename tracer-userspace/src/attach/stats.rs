//! What the programs cost, as the kernel counts it.

use std::{os::fd::OwnedFd, time::Duration};

use anyhow::Context as _;
use aya::{Ebpf, programs::ProgramInfo, sys::Stats};

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

fn one(name: &str, info: &ProgramInfo) -> ProgramStats {
    ProgramStats {
        name: name.to_owned(),
        run_time: info.run_time(),
        run_count: info.run_count(),
        verified_instructions: info.verified_instruction_count(),
    }
}
