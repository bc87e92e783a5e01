//! E3 for executors: a thread works off what another unit has submitted, and the kernel side tells who that was, and when.
//!
//! The call belongs to the request that the submitter served at that moment: the one whose response it writes next, if that request
//! had come in before. Work that is done after the response was submitted before the next request, and so is not taken for the next one's.
//! Submitted work may submit more: the submitter's own submitter is told, too.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::unit::{Pending, UnitId, Via};
use crate::model::{Confidence, THREAD_UNIT, Unit};

impl Correlator {
    /// Notes the call with those who submitted the work that it is a part of.
    pub(in crate::correlate) fn await_submitters(&mut self, call: Key, moved: &Unit) {
        for (unit, at) in moved.submitters() {
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
