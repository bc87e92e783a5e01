//! E3 through a place where outcomes are awaited: a worker makes calls on behalf of others, who wait for its reply at a channel or a
//! semaphore (Go's worker pools), and the kernel side tells that place, and who waits there if somebody does already. A future (Java) is such
//! a place, too: who waits for one of several that it has together takes them all.
//!
//! Places are units: calls are noted with them, and pass to the task that is seen to wait there later, be it when another call for the same
//! place is made. A place has one owner at a time; its address may be used again. So a call whose places show several that wait
//! belongs to none of them, and one that was made before the request came in is not that request's. Nor does one belong to anybody whose task
//! was created by one that served a request then, if another one waits: a task that was used again, or a place that was.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::unit::{Pending, UnitId};
use crate::model::{Confidence, PLACE_UNIT, Unit};

impl Correlator {
    /// Notes the call with the places where its outcome is awaited, and with those that wait there.
    pub(super) fn await_at_places(&mut self, call: Key, moved: &Unit) {
        let mut place = Key::NONE;
        for task in moved.tasks().skip_while(|task| task & PLACE_UNIT == 0) {
            let unit = self.units.unit(UnitId::task(moved.tgid, task), 0, self.now);
            if task & PLACE_UNIT != 0 {
                self.await_unit(unit, Pending::at_place(call, self.now));
                place = unit;
            } else {
                self.waits_at(unit, std::mem::take(&mut place));
            }
        }
    }

    /// The unit waits there: what was noted with the place is for it.
    fn waits_at(&mut self, unit: Key, place: Key) {
        let Some(state) = self.units.units.get_mut(place) else {
            return;
        };
        for Pending { call, .. } in std::mem::take(&mut state.pending) {
            self.waits_for(unit, call);
        }
    }

    /// The unit takes what is there, and so may others that have it: all are noted.
    pub(super) fn takes_from(&mut self, unit: Key, place: Key) {
        // It may still have what it has taken for the request before.
        let done = self.units.units.get(unit).map_or(0, |unit| unit.last_answer);
        let Some(state) = self.units.units.get(place) else {
            return;
        };
        let is_later = |call: &Key| self.records.get(*call).is_some_and(|call| call.start() > done);
        let calls: Vec<Key> = state
            .pending
            .iter()
            .map(|pending| pending.call)
            .filter(is_later)
            .collect();
        for call in calls {
            self.waits_for(unit, call);
        }
    }

    /// The unit waits for the outcome of the call, if nobody is known to own that.
    fn waits_for(&mut self, unit: Key, call: Key) {
        let Some(record) = self.records.get_mut(call).filter(|r| !r.is_decided()) else {
            return;
        };
        let is_other = |known: Key| known != Key::NONE && known != unit;
        record.several_wait |= is_other(record.waits) || is_other(record.made_for);
        record.waits = unit;
        self.await_unit(unit, Pending::at_place(call, self.now));
    }

    pub(super) fn judge_place(&self, case: &Case) -> Option<Confidence> {
        let (call, request) = (self.records.get(case.call)?, self.records.get(case.request)?);
        let is_its_own = case.claim == Claim::Wrote && case.born >= request.start() && !call.several_wait;
        if !is_its_own {
            return None;
        }
        if !self.units.units.get(case.unit)?.id.is_task {
            let process = self.units.processes.get(request.process)?;
            if process.migrates_until > self.now || request.unit != case.unit && self.may_be_late(case) {
                return None;
            }
        }
        Some(Confidence::Likely)
    }
}
