//! E4: the same thread, in processes whose threads serve one request at a time.
//!
//! What shows that they don't, and silences this evidence: one thread has requests of several connections open (an event
//! loop, see E5); a serving thread reads the response to a call that another thread wrote; threads that read and
//! answer requests answer each other's (work-stealing runtimes, virtual threads on carriers); a Go process whose
//! goroutines could not be read, and a program with Rust's tokio in it. Where requests wait in a queue, what a worker does
//! after an answer looks like the next request's: it is believed to be that only where workers that had nothing to do
//! were seen to do nothing.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::model::{Confidence, Language, Nanos};

/// How long a process is distrusted once its requests were seen to move between threads.
const MIGRATION: Nanos = 60_000_000_000;
/// How long a process is known to call after its answers once one of its workers did.
const LATE: Nanos = 600_000_000_000;
/// How many turns of workers without such a call show that there are none, and for how long a worker must have had nothing to
/// do for that.
const PROMPT: u16 = 32;
const IDLE: Nanos = 5_000_000;
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
                let lost = process.lost != 0 && process.lost.saturating_add(LOSS) > request.start();
                let doubtful = lost || self.may_be_late(case);
                (!doubtful).then_some(Confidence::Likely)
            }
        }
    }

    /// The thread that writes the response had another one do the call, which worked for it alone.
    pub(super) fn judge_worked_for(&self, case: &Case) -> Option<Confidence> {
        let request = self.records.get(case.request)?;
        let process = self.units.processes.get(request.process)?;
        if process.migrates_until > self.now {
            None
        } else if request.unit == case.unit {
            Some(Confidence::Certain)
        } else {
            // Another thread read it: what this one did after its answer before looks the same.
            (!self.may_be_late(case)).then_some(Confidence::Likely)
        }
    }

    /// Whether the call may be what the worker did after its answer before: the request came while the worker was busy or a moment
    /// later, and nothing shows that it does nothing then; or it is among as many calls as such workers were seen to make.
    pub(super) fn may_be_late(&self, case: &Case) -> bool {
        let units = &self.units.units;
        let (Some(worker), Some(request), Some(call)) = (
            units.get(case.unit),
            self.records.get(case.request),
            self.records.get(case.call),
        ) else {
            return false;
        };
        let queued = case.claim == Claim::Wrote && !worker.id.is_task && request.unit != case.unit;
        if !queued || worker.last_answer == 0 || worker.last_answered == case.request {
            return false;
        }
        let Some(process) = self.units.processes.get(request.process) else {
            return true;
        };
        let waited = request.start() < worker.last_answer.saturating_add(IDLE);
        waited
            && if process.late_until > self.now {
                call.since_answer < process.late_calls
            } else {
                process.prompt_turns < PROMPT
            }
    }

    /// The unit is about to answer a request that another one read. What it called between its last answer and the request
    /// was a call after that answer; such calls can't be told from the request's own where requests wait for workers.
    pub(in crate::correlate) fn watch_late_calls(&mut self, unit: Key, request: Key) {
        let Some(start) = self.records.get(request).map(|r| r.start()) else {
            return;
        };
        let Some(worker) = self.units.units.get(unit) else {
            return;
        };
        if worker.id.is_task || worker.is_loop || worker.last_answer == 0 {
            return;
        }
        let late = worker.pending.iter().filter_map(|p| self.records.get(p.call));
        let late = late.filter(|call| worker.last_answer < call.start() && call.start() < start);
        let late = u16::try_from(late.count()).unwrap_or(u16::MAX);
        let idle = worker.last_answer.saturating_add(IDLE) < start;
        let now = self.now;
        if let Some(process) = self.units.processes.get_mut(worker.process) {
            if process.late_until <= now {
                process.late_calls = 0;
            }
            if late > 0 {
                process.prompt_turns = 0;
                process.late_calls = process.late_calls.max(late);
                process.late_until = now.saturating_add(LATE);
            } else if idle {
                process.prompt_turns = process.prompt_turns.saturating_add(1);
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
            .is_some_and(|u| !u.id.is_task && u.serves());
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
