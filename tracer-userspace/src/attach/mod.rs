//! Loads the programs, attaches what the plan says, and hands out what the other stages need.

mod constants;
mod hooks;
mod kretprobe;
mod load;
mod loops;
mod object;
mod perf;
mod places;
mod policy;
mod probes;
mod recipes;
mod runtimes;
mod stats;
mod types;

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, Map, MapData, PerCpuArray},
    programs::{Program, tp_btf::BtfTracePointLinkId},
};
use aya_log::EbpfLogger;
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};
use tracer_common::{RING_SHARDS, counter};

use crate::{
    kernel::{Attach, Hook, Plan},
    source::Source,
};
use kretprobe::Kretprobe;
use load::Loaded;
use loops::Loops;
use probes::Probes;

pub use load::try_out;
pub use policy::{Limit, Policy};
pub use recipes::Recipes;
pub use runtimes::Runtimes;
pub use stats::{ProgramStats, RunTimeStats};

/// How to capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of each ring buffer: a power of two, at least 256 KiB. There is one for each CPU, at most eight.
    pub ring_bytes: u32,
    /// One ring for all CPUs, which then wait for each other: to see what sharding is worth.
    pub one_ring: bool,
    /// Let the programs log (aya-log).
    pub log: bool,
    /// Place probes in traced processes where nothing cheaper tells who works for whom.
    pub probes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_bytes: 2 << 20,
            one_ring: false,
            log: false,
            probes: false,
        }
    }
}

/// A running capture. Dropping it detaches the programs and frees their maps.
pub struct Capture {
    /// Detached before the programs are unloaded.
    kretprobes: Vec<Kretprobe>,
    /// `None` if this host refuses them.
    loops: Option<Loops>,
    /// `None` if this host refuses them, or they are not wanted.
    probes: Option<Probes>,
    ebpf: Ebpf,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    policy: Policy,
    runtimes: Runtimes,
    counters: PerCpuArray<MapData, u64>,
    source: Option<Source>,
    paused: Array<MapData, u32>,
    /// What the kernel had counted when the programs were detached.
    missed: Option<stats::Missed>,
    hooks: Vec<Hook>,
    /// Programs that are attached when they are needed, and their links while they are.
    on_demand: Vec<(&'static str, Option<BtfTracePointLinkId>)>,
}

impl Capture {
    /// Loads and attaches.
    pub fn start(plan: &Plan, options: Options) -> anyhow::Result<Self> {
        let Loaded {
            mut ebpf,
            hooks: loaded,
            ring_bytes,
            recipes,
        } = load::load(plan, options)?;
        let mut kretprobes = Vec::new();
        for hook in loaded {
            let link = hooks::attach(program_of(&mut ebpf, hook)?, hook).with_context(|| place(hook))?;
            kretprobes.extend(link);
            tracing::debug!("{} is attached to {}", hook.program, hook.target);
            if let Attach::TailCall { map, index } = hook.attach {
                hooks::put_in_slot(&mut ebpf, hook.program, map, index)?;
            }
        }

        let loops = Loops::load(&mut ebpf)
            .inspect_err(|why| tracing::info!("event loops are seen only when they move bytes: {why:#}"))
            .ok();
        let probes = options
            .probes
            .then(|| Probes::load(&mut ebpf))
            .transpose()
            .unwrap_or_else(|why| {
                tracing::info!("who submits work to executors is not seen: {why:#}");
                None
            });
        let logger = options
            .log
            .then(|| EbpfLogger::init(&mut ebpf))
            .transpose()
            .context("logs of the programs")?;
        let policy = Policy::new(
            take(&mut ebpf, "CONNS")?,
            take(&mut ebpf, "MORE_CONNS")?,
            take(&mut ebpf, "POLICIES")?,
        )?;
        let runtimes = Runtimes::new(
            take(&mut ebpf, "RUNTIMES")?,
            take(&mut ebpf, ".data.runtimes")?,
            recipes,
        )?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).context("COUNTERS")?;
        let rings = ring_names();
        let rings = rings
            .iter()
            .take(load::shards(options)?)
            .map(|name| Ok((ring_fd(take(&mut ebpf, name)?)?, ring_bytes as usize)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let paused = Array::try_from(take(&mut ebpf, ".data.paused")?).context("the flag of a pause")?;
        let mut asleep: Array<MapData, u32> =
            Array::try_from(take(&mut ebpf, ".data.asleep")?).context("the flag of the sleeping reader")?;
        let alarm = move || asleep.set(0, 1, 0).map_err(io::Error::other);
        let source = Source::new(rings, Box::new(alarm)).context("mapping the ring buffers")?;
        Ok(Self {
            kretprobes,
            loops,
            probes,
            ebpf,
            logger,
            policy,
            runtimes,
            counters,
            source: Some(source),
            paused,
            missed: None,
            hooks: plan.hooks.clone(),
            on_demand: plan
                .hooks
                .iter()
                .filter(|hook| hook.attach == Attach::OnDemand)
                .map(|hook| (hook.program, None))
                .collect(),
        })
    }

    /// The events. Once.
    pub fn take_source(&mut self) -> Option<Source> {
        self.source.take()
    }

    /// Decides about connections; to be cloned into other threads.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy.clone()
    }

    /// Tells the programs which processes have a runtime; to be cloned into other threads.
    #[must_use]
    pub fn runtimes(&self) -> Runtimes {
        self.runtimes.clone()
    }

    /// Sees from now on (or no more) what event loops do that moves no bytes, which costs every system call of the host some
    /// nanoseconds.
    pub fn watch_loops(&mut self, wanted: bool) {
        if let Some(loops) = &mut self.loops
            && let Err(why) = loops.watch(wanted)
        {
            tracing::warn!("event loops are seen only when they move bytes: {why:#}");
            self.loops = None;
        }
    }

    /// Tells of no message from now on (or of all again): what moves meanwhile is counted as `ignored`. Connections are still seen to
    /// open and to close.
    pub fn pause(&mut self, wanted: bool) -> anyhow::Result<()> {
        self.paused
            .set(0, u32::from(wanted), 0)
            .context("the flag of a pause")
    }

    /// Has probes in the processes that are known to need them. Call it about once a second.
    pub fn place_probes(&mut self) {
        if let Some(probes) = &mut self.probes
            && let Err(why) = probes.place(&mut self.ebpf, &self.runtimes.want_probes())
        {
            tracing::warn!("who submits work to executors is not seen: {why:#}");
            self.probes = None;
        }
    }

    /// Follows hand-offs between threads while a process is known that needs it. Call it about once a second.
    pub fn follow_hand_offs(&mut self) {
        let wanted = self.runtimes.want_hand_offs();
        for (name, link) in &mut self.on_demand {
            let Some(program) = self.ebpf.program_mut(name).filter(|_| wanted != link.is_some()) else {
                continue;
            };
            let done = match link.take() {
                Some(attached) => hooks::detach_now(program, attached),
                None => hooks::attach_now(program).map(|attached| *link = Some(attached)),
            };
            if let Err(why) = done {
                tracing::debug!("{name}: {why:#}");
            }
        }
    }

    /// Stops capturing; what lies in the rings and what was counted can still be read.
    pub fn detach(&mut self) {
        self.kretprobes.clear();
        self.watch_loops(false);
        self.missed
            .get_or_insert_with(|| stats::missed(&self.ebpf, &self.hooks));
        for (name, program) in self.ebpf.programs_mut() {
            if let Err(why) = hooks::detach(program) {
                tracing::debug!("detaching {name}: {why}");
            }
        }
    }

    /// What the programs counted since the start, by the names of [`tracer_common::counter`] in lower case; and `missed_runs` and
    /// `missed_arrivals`, what the kernel counted that they could not see.
    pub fn counters(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        const NAMES: [(&str, u32); counter::COUNT as usize] = [
            ("ring_full", counter::RING_FULL),
            ("map_full", counter::MAP_FULL),
            ("payload_fault", counter::PAYLOAD_FAULT),
            ("payload_unavailable", counter::PAYLOAD_UNAVAILABLE),
            ("events", counter::EVENTS),
            ("ignored", counter::IGNORED),
            ("ring_calls", counter::RING_CALLS),
            ("probed", counter::PROBED),
        ];
        let counted = NAMES.iter().map(|(name, index)| {
            let values = self
                .counters
                .get(index, 0)
                .with_context(|| format!("counter {name}"))?;
            Ok((
                *name,
                values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value)),
            ))
        });
        let missed = self
            .missed
            .unwrap_or_else(|| stats::missed(&self.ebpf, &self.hooks));
        let missed = [("missed_runs", missed.runs), ("missed_arrivals", missed.arrivals)];
        counted.chain(missed.map(Ok)).collect()
    }

    /// Passes on what the programs have logged since the last call, to the `log` crate's logger; nothing unless
    /// [`Options::log`] is set.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Run statistics of the attached programs; zero unless statistics are on ([`RunTimeStats`]).
    pub fn program_stats(&self) -> anyhow::Result<Vec<ProgramStats>> {
        stats::read(&self.ebpf)
    }
}

fn program_of<'a>(ebpf: &'a mut Ebpf, hook: &Hook) -> anyhow::Result<&'a mut Program> {
    ebpf.program_mut(hook.program)
        .with_context(|| format!("the object has no program {}", hook.program))
}

fn place(hook: &Hook) -> String {
    format!("program {} at {}", hook.program, hook.target)
}

fn ring_names() -> [&'static str; RING_SHARDS] {
    [
        "RING0", "RING1", "RING2", "RING3", "RING4", "RING5", "RING6", "RING7",
    ]
}

fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the object has no map {name}"))
}

fn ring_fd(map: Map) -> anyhow::Result<OwnedFd> {
    let Map::RingBuf(data) = map else {
        anyhow::bail!("a ring is no ring buffer")
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .context("duplicating a ring's descriptor")
}
