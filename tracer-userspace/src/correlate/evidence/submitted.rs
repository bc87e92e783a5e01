//! E3 for executors: a thread works off what another unit has submitted, and the kernel side tells who that was, and when.
//!
//! The call belongs to the request that the submitter served at that moment: the one whose response it writes next, if that request
//! had come in before. Work that is done after the response was submitted before the next request, and so is not taken for the next one's.
//! Submitted work may submit more: the submitter's own submitter is told, too.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::unit::{Pending, UnitId, Via};
use crate::model::{Confidence, Nanos, THREAD_UNIT, Unit};

impl Correlator {
    /// Notes the call with those who submitted the work that it is a part of.
    pub(in crate::correlate) fn await_submitters(&mut self, call: Key, moved: &Unit) {
        for by in moved.submitters() {
            self.await_submitter(call, moved, by);
        }
        if moved.submitters().next().is_none() {
            return;
        }
        let mover = self.units.mover(moved, self.now);
        if let Some(state) = self.units.units.get_mut(mover) {
            // Whom it wakes from now on waits for this work, not for what it called before.
            (state.works_for_others, state.last_call) = (true, Key::NONE);
        }
    }

    /// Notes the call with a unit of the process of who moved bytes, as [`Submitters`](crate::model::Submitters) names it, and a moment at which
    /// it had submitted the work, or was seen to wait for it.
    pub(super) fn await_submitter(&mut self, call: Key, moved: &Unit, (unit, at): (u64, Nanos)) {
        let id = UnitId {
            tgid: moved.tgid,
            is_task: unit & THREAD_UNIT == 0,
            id: unit & !THREAD_UNIT,
        };
        let unit = self.units.unit(id, 0, self.now);
        self.await_unit(
            unit,
            Pending {
                born: at,
                via: Via::Submitted,
                ..Pending::of(call)
            },
        );
    }

    /// Who waits for what a thread works on may be told only when the response is read: by the same thread, which has blocked for it.
    pub(in crate::correlate) fn await_submitters_again(&mut self, call: Key, moved: &Unit) {
        let Some(by) = moved.submitters().next() else {
            return;
        };
        let Some(record) = self.records.get(call) else {
            return;
        };
        let began = &record.begin.start.unit;
        let is_news = began.submitters().next().is_none_or(|(unit, _)| unit != by.0);
        if is_news && began.tid == moved.tid {
            self.await_submitters(call, moved);
        }
    }

    pub(super) fn judge_submitted(&self, case: &Case) -> Option<Confidence> {
        let request = self.records.get(case.request)?;
        if case.claim != Claim::Wrote || case.born < request.start() {
            return None;
        }
        if self.units.units.get(case.unit)?.id.is_task {
            return Some(Confidence::Certain);
        }
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
}
