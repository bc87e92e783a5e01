//! E4: the same thread, in processes whose threads serve one request at a time.
//!
//! What shows that they don't, and silences this evidence: one thread has requests of several connections open (an event
//! loop, see E5); a serving thread reads the response to a call that another thread wrote; threads that read and
//! answer requests answer each other's (work-stealing runtimes, virtual threads on carriers); a Go process whose
//! goroutines could not be read, and a program with Rust's tokio in it.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::model::{Confidence, Language, Nanos};

/// How long a process is distrusted once its requests were seen to move between threads.
const MIGRATION: Nanos = 60_000_000_000;
/// How long after the loss of a request the worker that serves it may still make calls which look like another's.
const LOSS: Nanos = 1_000_000_000;

impl Correlator {
    pub(super) fn judge_thread(&self, case: &Case) -> Option<Confidence> {
        let call = self.records.get(case.call)?;
        let request = self.records.get(case.request)?;
        if request.service.language == Language::Go || request.service.tasks_move {
            return None;
        }
        let process = self.units.processes.get(request.process)?;
        if process.migrates_until > self.now {
            return None;
        }
        let blocked = call.responder == case.unit || (call.responder == Key::NONE && call.ended);
        match case.claim {
            // The thread has not answered: it may still wait for the call.
            Claim::Read => (blocked || call.responder == Key::NONE).then_some(Confidence::Likely),
            Claim::Wrote if !blocked => None,
            // A runtime whose tasks move between threads shows that at its first move only; until then nothing tells it from a
            // thread that waits for its call.
            Claim::Wrote if request.unit == case.unit => Some(match request.service.language {
                Language::Rust | Language::Java | Language::DotNet => Confidence::Likely,
                _ => Confidence::Certain,
            }),
            // Another thread read the request and queued it. What the worker still does for the request before would
            // look the same, so this is never certain, and nothing where a request was lost meanwhile.
            Claim::Wrote => {
                let doubtful = process.lost != 0 && process.lost.saturating_add(LOSS) > request.start();
                (!doubtful).then_some(Confidence::Likely)
            }
        }
    }

    /// A response to a call was read by `reader`, the call was written by `writer`.
    pub(in crate::correlate) fn watch_call_threads(&mut self, writer: Key, reader: Key) {
        if writer == reader {
            return;
        }
        let serving = self
            .units
            .units
            .get(reader)
            .is_some_and(|u| !u.id.is_task && (u.reads || u.answers));
        if serving {
            self.note_migration(reader);
        }
    }

    /// A request was read by `reader` and answered by `writer`.
    pub(in crate::correlate) fn watch_request_threads(&mut self, reader: Key, writer: Key) {
        if writer == reader {
            return;
        }
        let units = &self.units.units;
        let moves = units.get(writer).is_some_and(|u| !u.id.is_task && u.reads)
            && units.get(reader).is_some_and(|u| !u.id.is_task && u.answers);
        if moves {
            self.note_migration(writer);
        }
    }

    fn note_migration(&mut self, unit: Key) {
        let until = self.now.saturating_add(MIGRATION);
        if let Some(process) = self.units.units.get(unit).map(|u| u.process)
            && let Some(process) = self.units.processes.get_mut(process)
        {
            process.migrates_until = until;
        }
    }
}
