//! What is not known yet of a process's tasks when it is first seen: looked for again, while it is at work, and when the kernel side or the correlation stage asks.

use tracer_common::RuntimeEntry;

use super::procfs::Snapshot;
use super::tasks::{self, Search, Subject};
use super::{Processes, tasks_of};

impl Processes {
    /// Looks once more for what is not known yet of a process's tasks, if anything.
    pub(super) fn look_again(&mut self, tgid: u32) {
        match self.known.get_mut(&tgid) {
            Some(known) if known.tries > 0 => {
                known.tries -= 1;
                self.look_for_tasks(tgid);
            }
            Some(known) if known.is_searched() => self.search(tgid),
            _ => {}
        }
    }

    /// Looks once more for what only a process at work shows of its runtime.
    pub(super) fn search(&mut self, tgid: u32) {
        self.search_with(tgid, Search::look);
    }

    /// The kernel side asks for what [`Search::seek`] finds.
    pub fn seek(&mut self, tgid: u32, of: u64, by: u64) {
        self.search_with(tgid, |search, subject, entry| search.seek(subject, entry, of, by));
    }

    fn search_with(
        &mut self,
        tgid: u32,
        look: impl FnOnce(&mut Search, &Subject, &mut RuntimeEntry) -> bool,
    ) {
        let Some(known) = self.known.get_mut(&tgid) else {
            return;
        };
        let (Some(mut search), Some(mut entry)) = (known.search.take(), known.tasks) else {
            return;
        };
        let language = known.service.language;
        let Some(process) = Snapshot::read(&self.host.proc_root, tgid) else {
            return;
        };
        let binary = self.binary(&process);
        let subject = binary.subject(&process, language);
        if look(&mut search, &subject, &mut entry) {
            tracing::debug!("process {tgid}: {entry:?}");
        }
        if let Some(known) = self.known.get_mut(&tgid) {
            known.tasks = Some(entry);
            known.search = Some(search);
        }
    }

    /// Looks once more at every process of which something is not known yet. Call it about once a second; returns these processes.
    pub fn search_all(&mut self) -> Vec<u32> {
        let ids: Vec<u32> = self
            .known
            .iter()
            .filter(|(_, known)| (known.is_searched() || known.tries > 0) && known.gone.is_none())
            .map(|(&tgid, _)| tgid)
            .collect();
        for &tgid in &ids {
            // A process that keeps its connections has no new one to be looked at for.
            self.look_again(tgid);
        }
        ids
    }

    /// Once more, for a process whose tasks were not found.
    fn look_for_tasks(&mut self, tgid: u32) {
        let Some(process) = Snapshot::read(&self.host.proc_root, tgid) else {
            return;
        };
        let binary = self.binary(&process);
        let tasks = tasks_of(&process, binary.language_of(&process), &binary);
        if let Some(known) = self.known.get_mut(&tgid)
            && let Ok(tasks @ Some(_)) = tasks
        {
            let wanted = tasks.as_ref().filter(|_| known.service.selected);
            known.search = wanted.and_then(Search::of);
            (known.tasks, known.tries) = (tasks, 0);
        }
    }

    /// From now on the kernel side is told of a process that has nothing but threads, or (false) not any more.
    pub fn follow_threads(&mut self, tgid: u32, is_worth_while: bool) {
        let Some(known) = self.known.get_mut(&tgid) else {
            return;
        };
        if is_worth_while {
            known.tasks.get_or_insert_with(tasks::threads::entry);
        } else if known.tasks == Some(tasks::threads::entry()) {
            known.tasks = None;
        }
    }
}
