//! E3 through a place where outcomes are awaited: a worker makes calls on behalf of others, who wait for its reply at a channel or a
//! semaphore (Go's worker pools), and the kernel side tells that place, and who waits there if somebody does already.
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
            let Some(record) = self.records.get_mut(call).filter(|r| !r.is_decided()) else {
                continue;
            };
            let is_other = |known: Key| known != Key::NONE && known != unit;
            record.several_wait |= is_other(record.waits) || is_other(record.made_for);
            record.waits = unit;
            self.await_unit(unit, Pending::at_place(call, self.now));
        }
    }

    pub(super) fn judge_place(&self, case: &Case) -> Option<Confidence> {
        let (call, request) = (self.records.get(case.call)?, self.records.get(case.request)?);
        let is_its_own = case.claim == Claim::Wrote && case.born >= request.start() && !call.several_wait;
        is_its_own.then_some(Confidence::Likely)
    }
}
