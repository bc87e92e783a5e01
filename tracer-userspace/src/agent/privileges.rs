//! Gives up what the daemon does not need any more once its programs are attached.

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet};

/// What stays: map updates and feature probes (`BPF`, and `SYS_ADMIN` only on kernels before 5.8, which the plan refuses);
/// reading other users' `/proc/PID` (`SYS_PTRACE` for `exe`, `environ` and `root`, `DAC_READ_SEARCH` for their files); reading Go
/// binaries' layout needs no more than these; attaching what sees event loops, once a process is traced that has one (`PERFMON`).
const KEPT: &[Capability] = &[
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Keeps the least capabilities for the rest of this process's life: for this thread and every thread that it starts later.
///
/// `probes`: keeps what placing probes in processes takes (`SYS_ADMIN`; kernel/events/core.c: `perf_uprobe_event_init`).
pub fn shed(probes: bool) -> anyhow::Result<()> {
    let held = caps::read(None, CapSet::Permitted).context("reading the daemon's own capabilities")?;
    let for_probes = probes.then_some(Capability::CAP_SYS_ADMIN);
    let kept: CapsHashSet = KEPT
        .iter()
        .copied()
        .chain(for_probes)
        .filter(|cap| held.contains(cap))
        .collect();
    caps::clear(None, CapSet::Ambient).context("clearing ambient capabilities")?;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for cap in caps::all() {
            if !kept.contains(&cap) && caps::has_cap(None, CapSet::Bounding, cap).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, cap).with_context(|| format!("dropping {cap}"))?;
            }
        }
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).context("clearing inheritable capabilities")?;
    caps::set(None, CapSet::Effective, &kept).context("shedding effective capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).context("shedding permitted capabilities")?;
    Ok(())
}
