//! Who is behind a connection, and whether that is traced: the processes, shared by the stages.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tracer_common::ProcessFacts;

use super::correlation::{Follow, Services};
use super::lane::Selects;
use crate::attach::Runtimes;
use crate::discover::Processes;
use crate::metrics::{Event, Metrics, Side};
use crate::model::{Conn, Nanos, Service};
use crate::sample::Shedding;
use crate::source::monotonic;

/// The processes of this host, and the runtimes that the kernel side knows. Cheap to clone.
#[derive(Clone)]
pub struct People {
    processes: Arc<Mutex<Processes>>,
    runtimes: Runtimes,
    /// Processes whose runtime the kernel side was told.
    told: Arc<Mutex<HashMap<u32, tracer_common::RuntimeEntry>>>,
    metrics: Option<Metrics>,
    shedding: Option<Shedding>,
}

impl People {
    /// Nobody is known yet.
    pub fn new(
        processes: Arc<Mutex<Processes>>,
        runtimes: Runtimes,
        metrics: Option<Metrics>,
        shedding: Option<Shedding>,
    ) -> Self {
        Self {
            processes,
            runtimes,
            told: Arc::default(),
            metrics,
            shedding,
        }
    }

    /// Tells the kernel side every runtime that is known: those of processes that were there before the tracer.
    pub fn tell_runtimes(&self, tgids: &[u32]) {
        for &tgid in tgids {
            self.tell_runtime(tgid);
        }
    }

    /// For the correlator: who was behind a process.
    pub fn services(&self) -> Services {
        let people = self.clone();
        Box::new(move |tgid, at| people.lock().service_at(tgid, at))
    }

    /// What asks the kernel side to follow who wakes whom in a process, or not any more.
    pub fn follow(&self) -> Follow {
        let people = self.clone();
        Box::new(move |tgid, is_worth_while| {
            people.lock().follow_threads(tgid, is_worth_while);
            tracing::debug!("process {tgid}: who wakes whom is worth following: {is_worth_while}");
            people.renew_runtime(tgid);
        })
    }

    /// Forgets processes that have ended. Call it about once a second.
    pub fn sweep(&self) {
        let gone = self.lock().sweep();
        let searched = self.lock().search_all();
        self.tell_runtimes(&searched);
        if let Some(metrics) = &self.metrics {
            metrics.ended(&gone, monotonic());
        }
        for tgid in gone {
            self.forget_runtime(tgid);
        }
    }

    fn forget_runtime(&self, tgid: u32) {
        if locked(&self.told).remove(&tgid).is_some()
            && let Err(why) = self.runtimes.remove_runtime(tgid)
        {
            tracing::debug!("runtime of process {tgid}: {why:#}");
        }
    }

    /// Whether a process is traced whose runtime makes use of what event loops do beside moving bytes.
    pub fn have_loops(&self) -> bool {
        let loops: Vec<u32> = locked(&self.told)
            .iter()
            .filter(|(_, entry)| entry.kind == tracer_common::RuntimeKind::NODE.0)
            .map(|(&tgid, _)| tgid)
            .collect();
        loops.into_iter().any(|tgid| self.lock().service(tgid).selected)
    }

    /// The tracer itself.
    pub fn myself(&self) -> Arc<Service> {
        self.lock().service(std::process::id())
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        locked(&self.processes)
    }

    /// Tells of the process's runtime, or that it has none any more.
    fn renew_runtime(&self, tgid: u32) {
        let has_one = self.lock().runtime(tgid).is_some();
        if has_one {
            self.tell_runtime(tgid);
        } else {
            self.forget_runtime(tgid);
        }
    }

    fn tell_runtime(&self, tgid: u32) {
        let Some(entry) = self.lock().runtime(tgid) else {
            return;
        };
        if locked(&self.told).insert(tgid, entry) == Some(entry) {
            return;
        }
        if let Err(why) = self.runtimes.set_runtime(tgid, entry) {
            tracing::debug!("runtime of process {tgid}: {why:#}");
        }
    }
}

/// Looks at every process of the host, so that names and runtimes are known before the first request. Returns the selected ones.
pub fn look_around(processes: &Mutex<Processes>) -> Vec<u32> {
    process_ids()
        .filter(|&tgid| locked(processes).service(tgid).selected)
        .collect()
}

/// Tells the kernel side at once of those processes that get a probe: placing it may take privileges that are about to be given up.
pub fn tell_probed(processes: &Mutex<Processes>, runtimes: &Runtimes, tgids: &[u32]) {
    for &tgid in tgids {
        let entry = locked(processes).runtime(tgid);
        if let Some(entry) = entry.filter(|entry| entry.python.queue_put.get() != 0)
            && let Err(why) = runtimes.set_runtime(tgid, entry)
        {
            tracing::debug!("runtime of process {tgid}: {why:#}");
        }
    }
}

impl Selects for People {
    fn selects(&self, conn: &Conn) -> bool {
        let mut processes = self.lock();
        let service = processes.service_of_new_connection(conn.tgid);
        let selected = service.selected
            && processes
                .selection()
                .port_decides(conn.local.port, conn.remote.port);
        drop(processes);
        if selected {
            self.tell_runtime(conn.tgid);
        }
        selected
    }

    fn introduce(&self, tgid: u32, comm: &str) {
        self.lock().introduce(tgid, comm);
        self.tell_runtime(tgid);
    }

    fn told(&self, facts: &ProcessFacts<'_>, at: Nanos) -> bool {
        let mut processes = self.lock();
        let replaced = processes.told(facts, at);
        drop(processes);
        self.renew_runtime(facts.tgid);
        replaced
    }

    fn sought(&self, tgid: u32, of: u64, by: u64) {
        self.lock().seek(tgid, of, by);
        self.tell_runtime(tgid);
    }

    fn ended(&self, tgid: u32) {
        self.lock().ended(tgid);
    }

    fn is_alive(&self, tgid: u32) -> bool {
        Path::new("/proc").join(tgid.to_string()).exists()
    }

    fn paused_since(&self) -> Option<Nanos> {
        self.shedding.as_ref().and_then(Shedding::paused_since)
    }

    fn happened(&self, event: Event, side: Option<Side>, conn: &Conn, now: Nanos) {
        let Some(metrics) = &self.metrics else {
            return;
        };
        let service = self.lock().service(conn.tgid);
        if service.selected {
            metrics.connection(event, side, conn, &service, now);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn process_ids() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
