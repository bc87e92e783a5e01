//! How the tracer itself is: what its stages say of themselves now and then.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How full a queue is, and what it holds at most.
pub type Level = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

/// What one BPF program costs, while the kernel counts it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Name.
    pub name: String,
    /// Nanoseconds spent in it.
    pub run_time: u64,
    /// How often it ran.
    pub runs: u64,
}

/// The budget of processor time, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Cores that may be used, and that were in the last second.
    pub cores: [u64; 2],
    /// Shares that are kept of the traces, and of the connections that can be shed.
    pub kept: [u64; 2],
}

/// Readings of the stages.
#[derive(Default)]
pub struct Health {
    /// Bytes that wait in the ring buffers.
    pub ring_used: AtomicU64,
    /// Bytes that they hold.
    pub ring_size: AtomicU64,
    /// Connections that are followed.
    pub connections: AtomicU64,
    /// Traces that the head sampler decided on because too many waited for the tail sampler.
    pub sampling_overflow: AtomicU64,
    budget: Mutex<Option<Budget>>,
    queues: Mutex<Vec<(&'static str, Level)>>,
    disks: Mutex<Vec<(&'static str, Level)>>,
    programs: Mutex<Vec<Program>>,
}

impl Health {
    /// The rings as they are now.
    pub fn rings(&self, used: u64, size: u64) {
        self.ring_used.store(used, Relaxed);
        self.ring_size.store(size, Relaxed);
    }

    /// A connection is followed from now on.
    pub fn opened(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// A connection is followed no longer.
    pub fn closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// The budget as it stands: cores, cores used, and the shares of traces and of connections that are kept.
    pub fn set_budget(&self, cores: f64, used: f64, traces: f64, connections: f64) {
        let millionths = |share: f64| (share * 1e6).round() as u64;
        *lock(&self.budget) = Some(Budget {
            cores: [cores, used].map(millionths),
            kept: [traces, connections].map(millionths),
        });
    }

    /// The budget, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<Budget> {
        *lock(&self.budget)
    }

    /// So many traces did not get the tail sampler's decision.
    pub fn sampling_overflowed(&self, traces: u64) {
        self.sampling_overflow.fetch_add(traces, Relaxed);
    }

    /// Has a queue looked at whenever somebody asks.
    pub fn watch_queue(&self, name: &'static str, level: Level) {
        lock(&self.queues).push((name, level));
    }

    /// All queues: name, how full, how large.
    #[must_use]
    pub fn queues(&self) -> Vec<(&'static str, u64, u64)> {
        levels(&self.queues)
    }

    /// Has a disk queue looked at whenever somebody asks.
    pub fn watch_disk(&self, name: &'static str, level: Level) {
        lock(&self.disks).push((name, level));
    }

    /// All disk queues: name, bytes used, bytes at most.
    #[must_use]
    pub fn disks(&self) -> Vec<(&'static str, u64, u64)> {
        levels(&self.disks)
    }

    /// What the programs have cost so far.
    pub fn set_programs(&self, programs: Vec<Program>) {
        *lock(&self.programs) = programs;
    }

    /// What the programs had cost when it was last looked at.
    #[must_use]
    pub fn programs(&self) -> Vec<Program> {
        lock(&self.programs).clone()
    }
}

fn levels(watched: &Mutex<Vec<(&'static str, Level)>>) -> Vec<(&'static str, u64, u64)> {
    lock(watched)
        .iter()
        .map(|(name, level)| {
            let (used, size) = level();
            (*name, used, size)
        })
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
