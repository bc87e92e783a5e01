//! E3 for executors: a thread works off what another unit has submitted, and the kernel side tells who that was, and when.
//!
//! The call belongs to the request that the submitter served at that moment: the one whose response it writes next, if that request
//! had come in before. Work that is done after the response was submitted before the next request, and so is not taken for the next one's.
//! Submitted work may submit more: the submitter's own submitter is told, too.
//!
//! Where nobody waits yet, the place is told where the outcome will be taken ([`place`](super::place)), and later who takes it from there.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::unit::{Pending, UnitId, Via};
use crate::model::{CONNECTION_UNIT, Confidence, Nanos, PLACE_UNIT, THREAD_UNIT, Unit};

impl Correlator {
    /// Notes the call with those who submitted the work that it is a part of.
    pub(in crate::correlate) fn await_submitters(&mut self, call: Key, moved: &Unit) {
        if let Some(place) = moved.place() {
            self.await_submitter(call, moved, place);
        }
        for by in moved.submitters() {
            self.await_submitter(call, moved, by);
        }
        self.takes_from_places(moved);
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
    /// it had submitted the work, or was seen to wait for it; or with a place.
    pub(super) fn await_submitter(&mut self, call: Key, moved: &Unit, (by, at): (u64, Nanos)) {
        if by & PLACE_UNIT != 0 && by & CONNECTION_UNIT != 0 {
            return self.await_answer(call, moved, (by, at));
        }
        let unit = self.units.unit(id_of(moved.tgid, by), 0, self.now);
        if by & PLACE_UNIT != 0 {
            let since = if at == 0 { self.now } else { at };
            return self.await_unit(unit, Pending::at_place(call, since));
        }
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
        let nearest = |unit: &Unit| unit.place().or(unit.submitters().next()).map(|(unit, _)| unit);
        let Some(by) = nearest(moved) else {
            return;
        };
        let Some(record) = self.records.get(call) else {
            return;
        };
        let began = &record.begin.start.unit;
        if nearest(began) != Some(by) && began.tid == moved.tid {
            self.await_submitters(call, moved);
        } else {
            self.takes_from_places(moved);
        }
    }

    /// Who waits for what the thread works on was seen to have other outcomes, too: what was noted with these places is for it.
    fn takes_from_places(&mut self, moved: &Unit) {
        let Some((unit, _)) = moved.submitters().next() else {
            return;
        };
        for place in moved.other_places() {
            if let Some(place) = self.units.find(UnitId::task(moved.tgid, place)) {
                let unit = self.units.unit(id_of(moved.tgid, unit), 0, self.now);
                self.takes_from(unit, place);
            }
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
        self.judge_worked_for(case)
    }
}

/// The unit of that process that [`Submitters`](crate::model::Submitters) name so.
fn id_of(tgid: u32, unit: u64) -> UnitId {
    UnitId {
        tgid,
        is_task: unit & THREAD_UNIT == 0,
        id: unit & !THREAD_UNIT,
    }
}
