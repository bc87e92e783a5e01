//! Which processes have a runtime whose execution unit the programs read.

use std::collections::{self, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use tracer_common::RuntimeEntry;

use super::Recipes;

/// [`RuntimeEntry`] as a map value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(RuntimeEntry);

// SAFETY: `RuntimeEntry` is `repr(C)`, holds integers only and has no padding (its size is asserted).
unsafe impl Pod for Value {}

/// Handle on the runtime table of the programs. Clones share it.
#[derive(Clone)]
pub struct Runtimes(Arc<Mutex<Tables>>);

struct Tables {
    entries: HashMap<MapData, u32, Value>,
    in_use: Array<MapData, u32>,
    count: u32,
    /// What the programs read.
    recipes: Recipes,
    /// Processes whose hand-offs are followed.
    hand_offs: HashSet<u32>,
    /// Processes that want a probe, and where ([`tracer_common::PythonOffsets::queue_put`]).
    probes: collections::HashMap<u32, u64>,
}

impl Runtimes {
    pub(super) fn new(entries: Map, in_use: Map, recipes: Recipes) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Tables {
            entries: HashMap::try_from(entries).context("RUNTIMES")?,
            in_use: Array::try_from(in_use).context("RUNTIMES_IN_USE")?,
            count: 0,
            recipes,
            hand_offs: HashSet::new(),
            probes: collections::HashMap::new(),
        }))))
    }

    /// From now on reads the execution unit of this process, if the programs know how to.
    pub fn set_runtime(&self, tgid: u32, entry: RuntimeEntry) -> anyhow::Result<()> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !tables.recipes.has(entry.kind) {
            return Ok(());
        }
        let known = tables.entries.get(&tgid, 0).ok();
        let mut value = entry;
        if let Some(Value(before)) = &known {
            value.tokio.keep_found(&before.tokio);
        }
        tables
            .entries
            .insert(tgid, Value(value), 0)
            .context("storing a runtime")?;
        if entry.hand_offs != 0 {
            tables.hand_offs.insert(tgid);
        }
        if entry.python.queue_put.get() != 0 {
            tables.probes.insert(tgid, entry.python.queue_put.get());
        }
        if known.is_none() {
            tables.count = tables.count.saturating_add(1);
        }
        tables.publish()
    }

    /// Whether there is a process whose hand-offs are followed.
    pub fn want_hand_offs(&self) -> bool {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !tables.hand_offs.is_empty()
    }

    /// Processes that want a probe, and where.
    pub fn want_probes(&self) -> collections::HashMap<u32, u64> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.probes.clone()
    }

    /// Forgets a process.
    pub fn remove_runtime(&self, tgid: u32) -> anyhow::Result<()> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.hand_offs.remove(&tgid);
        tables.probes.remove(&tgid);
        match tables.entries.remove(&tgid) {
            Ok(()) => tables.count = tables.count.saturating_sub(1),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error).context("forgetting a runtime"),
        }
        tables.publish()
    }
}

impl Tables {
    /// Tells the programs how many there are: they look nobody up while there is none.
    fn publish(&mut self) -> anyhow::Result<()> {
        self.in_use
            .set(0, self.count, 0)
            .context("publishing the number of runtimes")
    }
}
