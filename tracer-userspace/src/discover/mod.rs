//! Who is behind a process: services, their names, languages and resources, and which of them are traced.
//!
//! A process is read from procfs once, when the kernel side tells that it uses a socket ([`told`]) or its first connection is seen,
//! and kept until it is gone. What it was is then known even if it is gone already. Processes of one
//! service that were forked from one main process (nginx and its workers, gunicorn, PostgreSQL's backends) share one
//! [`Service`], that of the main process: same name, same `service.instance.id`, and a resource that does not multiply with
//! every backend. `process.pid` and `process.command_args` are then the main process's.

mod cgroup;
mod container;
mod declared;
mod elf;
pub mod go;
mod host;
mod language;
mod name;
mod procfs;
mod resource;
mod runtimes;
mod search;
mod secrets;
mod selection;
mod tasks;
mod told;
mod words;

#[cfg(test)]
mod tests;

use crate::model::{Language, Nanos, Resource, Service};
use hashbrown::HashMap;
use language::Binary;
use name::Sources;
use procfs::{FileId, Identity, Snapshot};
use resource::Main;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tasks::Search;
use tracer_common::{ProcessFacts, RuntimeEntry};

pub use host::Host;
pub use selection::{Command, Glob, Rules, Selection};

/// Processes remembered. Those that were asked about longest ago leave first.
const MAX_PROCESSES: usize = 16_384;
/// Executables remembered.
const MAX_BINARIES: usize = 1_024;
/// Parents climbed to find a main process.
const MAX_CLIMB: usize = 4;
/// A process is not looked at again within this time. Ids are not reused and programs not replaced that fast.
const RECHECK: Duration = Duration::from_millis(250);
/// Times that tasks which were not found are looked for again.
const TRIES: u8 = 8;
/// Looks at a moment's notice, each a little after the one before: a process at work is changing what is looked at.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_micros(300);
/// A process that is gone is remembered this long: what it did last is still on its way through the pipeline.
const KEEP_GONE: Duration = Duration::from_secs(30);
/// Programs remembered that a process has run before its current one.
const MAX_BEFORE: usize = 4;
/// Processes looked at by one [`Processes::sweep`].
const SWEEP: usize = 256;

/// The processes of this host, as services.
pub struct Processes {
    host: Host,
    selection: Selection,
    known: HashMap<u32, Known>,
    binaries: HashMap<FileId, Arc<Binary>>,
    groups: told::Groups,
    /// Where the next sweep goes on.
    swept: u32,
}

struct Known {
    /// `None`: the process was gone before we could look.
    identity: Option<Identity>,
    service: Arc<Service>,
    main: Main,
    /// The process that it was forked from, by way of others perhaps, with no program executed since; its own id if it was not.
    origin: u32,
    tasks: Option<RuntimeEntry>,
    /// How often its tasks are still looked for: a runtime may not have come up when its process was first seen.
    tries: u8,
    /// What is looked for there, or was.
    search: Option<Search>,
    checked: Instant,
    used: Instant,
    gone: Option<Instant>,
    /// The program as the kernel side told it. Then its end and its successor are told, too.
    told: Option<told::Program>,
    /// What it ran before, and until when: what it did then is still on its way through the pipeline.
    before: Vec<(Nanos, Arc<Service>)>,
}

impl Known {
    /// Whether something of its runtime is still looked for.
    fn is_searched(&self) -> bool {
        self.search.as_ref().is_some_and(|search| !search.is_over())
    }
}

/// What runs on this host.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Census {
    /// How many processes of a language are visible, by `telemetry.sdk.language`.
    pub languages: BTreeMap<&'static str, usize>,
    /// How many have a runtime whose tasks can be read, by the kind of task.
    pub tasks: BTreeMap<&'static str, usize>,
    /// Why the tasks of others can't, and an example of a process.
    pub unread_tasks: BTreeMap<String, u32>,
}

impl Processes {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(selection: Selection, host: Host) -> Self {
        Self {
            host,
            selection,
            known: HashMap::new(),
            binaries: HashMap::new(),
            groups: told::Groups::default(),
            swept: 0,
        }
    }

    /// The service behind a process id. Reads procfs on the first call only; a process that is gone already gets a service
    /// named [`name::UNKNOWN`].
    pub fn service(&mut self, tgid: u32) -> Arc<Service> {
        if let Some(known) = self.known.get_mut(&tgid) {
            known.used = Instant::now();
            return Arc::clone(&known.service);
        }
        self.learn(tgid, 0)
    }

    /// The service that was behind a process id at that time, as far as it is remembered.
    pub fn service_at(&mut self, tgid: u32, at: Nanos) -> Arc<Service> {
        let now = self.service(tgid);
        let Some(known) = self.known.get(&tgid) else {
            return now;
        };
        let before = known.before.iter().find(|(until, _)| at < *until);
        before.map_or(now, |(_, service)| Arc::clone(service))
    }

    /// The kernel side tells who a process is, at that time: it uses a socket for the first time, or runs another program now.
    /// Returns whether something else was known under that id.
    pub fn told(&mut self, facts: &ProcessFacts<'_>, at: Nanos) -> bool {
        let program = told::Program::of(facts);
        let mut before = Vec::new();
        if let Some(known) = self.known.remove(&facts.tgid) {
            if known.told == Some(program) && !facts.is_exec {
                self.known.insert(facts.tgid, known);
                return false;
            }
            before = known.before;
            // Nobody knew who it was: then this one.
            if known.identity.is_some() || known.told.is_some() {
                if before.len() >= MAX_BEFORE {
                    before.remove(0);
                }
                before.push((at, known.service));
            }
        }
        let process = told::snapshot(&self.host, &mut self.groups, facts);
        let known = self.describe(&process, 0);
        let replaced = !before.is_empty();
        self.keep(
            facts.tgid,
            Known {
                told: Some(program),
                before,
                ..known
            },
        );
        replaced
    }

    /// A process has ended.
    pub fn ended(&mut self, tgid: u32) {
        if let Some(known) = self.known.get_mut(&tgid) {
            known.gone.get_or_insert_with(Instant::now);
        }
    }

    /// Like [`Processes::service`], for a connection that is new: notices an id that was reused and a process that replaced
    /// its program (`exec`). Costs one small file and one link, at most four times a second for each process.
    pub fn service_of_new_connection(&mut self, tgid: u32) -> Arc<Service> {
        let now = Instant::now();
        if let Some(known) = self.known.get_mut(&tgid)
            && now.duration_since(known.checked) >= RECHECK
        {
            known.checked = now;
            // What is told needs no looking for, and comes in the order in which it was.
            let current = match known.told {
                Some(_) => known.identity,
                None => Identity::read(&self.host.proc_root, tgid),
            };
            // Gone is not replaced: its last connections keep its name.
            if current.is_some() && current != known.identity {
                self.known.remove(&tgid);
            } else {
                self.look_again(tgid);
            }
        }
        self.service(tgid)
    }

    /// A process that has just begun something, by the name of its thread (`comm`). Looks at it now; where it is gone already,
    /// that name is all there is to call it by.
    pub fn introduce(&mut self, tgid: u32, comm: &str) {
        self.service_of_new_connection(tgid);
        if let Some(known) = self.known.get_mut(&tgid)
            && known.identity.is_none()
            && &*known.service.name == name::UNKNOWN
            && !comm.is_empty()
        {
            known.service = Arc::new(gone(tgid, comm, known.service.selected));
        }
    }

    /// Where the kernel side finds the runtime's tasks of this process, if it is known to [`Processes::service`] and has a
    /// runtime that we read.
    #[must_use]
    pub fn runtime(&self, tgid: u32) -> Option<RuntimeEntry> {
        self.known.get(&tgid)?.tasks
    }

    /// Whether a connection of a selected process is traced.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Forgets a process (it is known to have ended).
    pub fn forget(&mut self, tgid: u32) {
        self.known.remove(&tgid);
    }

    /// Looks whether some of the known processes are gone and forgets those that have been for a while. Call it about once
    /// a second; the work of one call is bounded. Returns the processes forgotten.
    pub fn sweep(&mut self) -> Vec<u32> {
        let now = Instant::now();
        let mut ids: Vec<u32> = self
            .known
            .keys()
            .copied()
            .filter(|&id| id >= self.swept)
            .collect();
        if ids.len() > SWEEP {
            ids.select_nth_unstable(SWEEP);
            ids.truncate(SWEEP);
            self.swept = ids.iter().max().map_or(0, |last| last.saturating_add(1));
        } else {
            self.swept = 0;
        }
        let mut forgotten = Vec::new();
        for id in ids {
            let Some(known) = self.known.get_mut(&id) else {
                continue;
            };
            if known.gone.is_none() && !self.host.proc_root.join(id.to_string()).exists() {
                known.gone = Some(now);
            }
            let unused = now.duration_since(known.used);
            if known
                .gone
                .is_some_and(|gone| now.duration_since(gone).min(unused) >= KEEP_GONE)
            {
                self.known.remove(&id);
                forgotten.push(id);
            }
        }
        forgotten
    }

    /// Counts the processes of this host by language and by runtime, the unknown ones and the tracer itself left out.
    pub fn census(&mut self) -> Census {
        let mut census = Census::default();
        let entries = std::fs::read_dir(&self.host.proc_root)
            .into_iter()
            .flatten()
            .flatten();
        for pid in entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
            let Some(process) = Snapshot::read(&self.host.proc_root, pid) else {
                continue;
            };
            if pid == self.host.own_pid || process.identity.exe.is_none() {
                continue;
            }
            let binary = self.binary(&process);
            let language = binary.language_of(&process);
            let count = |counts: &mut BTreeMap<_, usize>, name| {
                let count = counts.entry(name).or_default();
                *count = count.saturating_add(1);
            };
            if let Some(name) = language.as_str() {
                count(&mut census.languages, name);
            }
            let subject = binary.subject(&process, language);
            match tasks::find(&subject) {
                Some((kind, Ok(_))) => count(&mut census.tasks, kind),
                Some((kind, Err(why))) => {
                    census.unread_tasks.insert(format!("{kind}: {why}"), pid);
                }
                None => {}
            }
        }
        census
    }

    fn learn(&mut self, tgid: u32, climbed: usize) -> Arc<Service> {
        let now = Instant::now();
        let known = match Snapshot::read(&self.host.proc_root, tgid) {
            Some(process) => self.describe(&process, climbed),
            None => Known {
                identity: None,
                service: Arc::new(gone(tgid, name::UNKNOWN, self.takes_unknown())),
                main: Main {
                    pid: tgid,
                    start_time: 0,
                },
                origin: tgid,
                tasks: None,
                tries: 0,
                search: None,
                checked: now,
                used: now,
                gone: None,
                told: None,
                before: Vec::new(),
            },
        };
        self.keep(tgid, known)
    }

    fn keep(&mut self, tgid: u32, known: Known) -> Arc<Service> {
        if self.known.len() >= MAX_PROCESSES {
            self.evict();
        }
        let service = Arc::clone(&known.service);
        self.known.insert(tgid, known);
        self.search(tgid);
        service
    }

    fn describe(&mut self, process: &Snapshot, climbed: usize) -> Known {
        let now = Instant::now();
        let binary = self.binary(process);
        let placement = cgroup::parse(&process.cgroup);
        let container = container::look_up(&self.host, process, &placement);
        let declared = declared::Declared::read(process);
        let sources = Sources {
            process,
            declared: &declared,
            placement: &placement,
            container: &container,
            go: binary.go.as_ref(),
        };
        let name = name::name(&sources);
        let own = Main {
            pid: process.pid,
            start_time: process.identity.start_time,
        };
        let language = binary.language_of(process);
        // Of a process that is gone there is nothing to be read.
        let tasks = match process.identity.exe {
            Some(_) => tasks_of(process, language, &binary),
            None => Ok(None),
        };
        let is_final = tasks
            .as_ref()
            .is_ok_and(|found| found.is_some() || !tasks::may_come_later(language));
        let tries = if is_final { 0 } else { TRIES };
        let tasks = tasks.unwrap_or_else(|why| {
            tracing::info!("process {}: {why}", process.pid);
            None
        });
        let parent = self
            .parent_of(process, climbed)
            .map(|known| (known.main, known.origin, Arc::clone(&known.service)));
        let origin = match &parent {
            Some((_, origin, _)) if process.is_fork => *origin,
            _ => process.pid,
        };
        let known = |service: Arc<Service>, main| Known {
            identity: Some(process.identity),
            search: tasks.as_ref().filter(|_| service.selected).and_then(Search::of),
            service,
            main,
            origin,
            tasks,
            tries,
            checked: now,
            used: now,
            gone: None,
            told: None,
            before: Vec::new(),
        };
        // One of its parent's workers: of the same name, too.
        if let Some((main, _, service)) =
            parent.filter(|(_, _, service)| name.of_parent || *service.name == *name.name)
        {
            let selected = self.selects(process, [main.pid, origin]);
            if service.selected == selected {
                return known(service, main);
            }
            return known(
                Arc::new(Service {
                    selected,
                    tgid: process.pid,
                    ..(*service).clone()
                }),
                main,
            );
        }
        let resource = resource::resource(&self.host, &sources, &name, own, language);
        let selected = self.selects(process, [own.pid, origin]);
        let service = Service {
            name: name.name.as_str().into(),
            tgid: process.pid,
            language,
            resource,
            selected,
            tasks_move: binary.tokio.is_some(),
        };
        known(Arc::new(service), own)
    }

    /// A process that nobody could look at matches no rule.
    fn takes_unknown(&self) -> bool {
        !self.selection.include.names_processes()
    }

    /// The parent, if it has the same executable.
    fn parent_of(&mut self, process: &Snapshot, climbed: usize) -> Option<&Known> {
        if climbed >= MAX_CLIMB || process.ppid <= 1 {
            return None;
        }
        let parent = Identity::read(&self.host.proc_root, process.ppid)?;
        // `None` is no executable that two processes could share.
        if parent.exe.is_none() || parent.exe != process.identity.exe {
            return None;
        }
        if self
            .known
            .get(&process.ppid)
            .is_none_or(|known| known.identity != Some(parent))
        {
            self.learn(process.ppid, climbed.saturating_add(1));
        }
        self.known.get(&process.ppid)
    }

    fn selects(&self, process: &Snapshot, forebears: [u32; 2]) -> bool {
        process.pid != self.host.own_pid && self.selection.process_decides(process, &forebears)
    }

    fn binary(&mut self, process: &Snapshot) -> Arc<Binary> {
        let Some(id) = process.identity.exe else {
            return Arc::new(Binary::read(process)); // by its name, if that says something
        };
        if let Some(binary) = self.binaries.get(&id) {
            return Arc::clone(binary);
        }
        if self.binaries.len() >= MAX_BINARIES {
            // Rare, and reading an executable again is cheap.
            self.binaries.clear();
        }
        let binary = Arc::new(Binary::read(process));
        self.binaries.insert(id, Arc::clone(&binary));
        binary
    }

    /// Makes room: forgets the sixteenth that was used longest ago.
    fn evict(&mut self) {
        let mut ages: Vec<(Instant, u32)> = self.known.iter().map(|(&id, known)| (known.used, id)).collect();
        let count = (ages.len() / 16).max(1);
        ages.sort_unstable();
        for (_, id) in ages.into_iter().take(count) {
            self.known.remove(&id);
        }
    }
}

/// The tasks of a process's runtime, if it has one that we know; or why they can't be read.
fn tasks_of(process: &Snapshot, language: Language, binary: &Binary) -> Result<Option<RuntimeEntry>, String> {
    let subject = binary.subject(process, language);
    let mut looks = 1;
    loop {
        match tasks::find(&subject) {
            None => return Ok(None),
            Some((_, Ok(entry))) => return Ok(Some(entry)),
            Some((kind, Err(why))) if looks == LOOKS => {
                return Err(format!("{kind} tasks are not read: {why}"));
            }
            Some((_, Err(_))) => std::thread::sleep(BETWEEN_LOOKS),
        }
        looks += 1;
    }
}

/// A process that was gone before anybody looked.
fn gone(tgid: u32, name: &str, selected: bool) -> Service {
    let text = [
        ("service.name", name),
        ("telemetry.sdk.name", "opentelemetry"),
        ("os.type", "linux"),
    ];
    Service {
        name: name.into(),
        tgid,
        language: Language::Unknown,
        resource: Resource {
            text: text.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            ints: vec![("process.pid".into(), i64::from(tgid))],
            lists: Vec::new(),
        },
        selected,
        tasks_move: false,
    }
}
