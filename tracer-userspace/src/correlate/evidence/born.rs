//! E4 for threads that are made for one request: whoever made it while it served a request, and answers after it has ended, has waited for
//! it.
//!
//! A thread of a pool may be made by a request, too, and work for others then: it does not end before the answer, or does only after it
//! has idled for a while. So nothing is told until a thread has ended; then its calls wait for the answer of the thread that made it. That
//! one may itself have been made by another. A thread that serves requests works for these.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::unit::{Pending, UnitId, Via};
use crate::model::{Confidence, Nanos, ThreadEnd};

/// How long after the answer the kernel may still be at the end of a thread that was waited for.
const LATE: Nanos = 20_000_000;
/// What has been idle for so long before its end belongs to a pool: Ruby up to 3.2 keeps native threads for 3 s, Java's cached pools for 60.
const IDLE: Nanos = 1_000_000_000;

impl Correlator {
    /// What the thread has called may be owned by who made it.
    pub(in crate::correlate) fn thread_ended(&mut self, end: &ThreadEnd) {
        let tgid = end.stamp.unit.tgid;
        let Some(helper) = self
            .units
            .find(UnitId::thread(tgid, end.stamp.unit.tid))
            .and_then(|key| self.units.units.get_mut(key))
            .filter(|helper| !(helper.serves() || helper.pending.is_empty()))
        else {
            return;
        };
        let calls = std::mem::take(&mut helper.pending);
        if helper.last_seen.saturating_add(IDLE) < end.stamp.ts {
            return;
        }
        let maker = self.units.unit(UnitId::thread(tgid, end.creator), 0, self.now);
        for Pending { call, hops, via, .. } in calls {
            let is_own = via == Via::Born || (via == Via::Task && hops == 0);
            let began = self.records.get(call).map(|call| call.start());
            if !is_own || began.is_none_or(|began| began < end.born) {
                continue;
            }
            let pending = Pending {
                born: end.born,
                via: Via::Born,
                ..Pending::of(call)
            };
            self.await_unit(maker, pending);
            self.claim_for_answered(maker, pending, end.stamp.ts);
        }
    }

    /// Whether the call waits for the end of the thread that made it, which may be told a moment after the answer. Each call does once, if
    /// its thread is young: threads of pools mostly are not.
    pub(in crate::correlate) fn await_thread_end(&mut self, call: Key) -> bool {
        let now = self.now;
        let Some(record) = self.records.get_mut(call).filter(|call| !call.awaits_end) else {
            return false;
        };
        let Some(unit) = self.units.units.get(record.unit) else {
            return false;
        };
        let serves = self.units.processes.get(unit.process).is_some_and(|p| p.serves);
        let is_young = unit.first_seen.saturating_add(IDLE) > now;
        if !serves || !is_young || unit.id.is_task || unit.is_loop || unit.serves() {
            return false;
        }
        record.awaits_end = true;
        self.thread_ends.push_back((now.saturating_add(LATE), call));
        true
    }

    /// The answer came a moment before the end of a thread that had been waited for was told.
    fn claim_for_answered(&mut self, maker: Key, pending: Pending, ended: Nanos) {
        let Some(state) = self.units.units.get(maker) else {
            return;
        };
        if state.last_answer < pending.born || state.last_answer.saturating_add(LATE) < ended {
            return;
        }
        self.claim_one(Case::of(pending, state.last_answered, maker, Claim::Wrote));
    }

    pub(super) fn judge_born(&self, case: &Case) -> Option<Confidence> {
        let request = self.records.get(case.request)?;
        let call = self.records.get(case.call)?;
        let is_within = request.start() <= case.born && call.start() < request.responded;
        if case.claim != Claim::Wrote || !is_within {
            return None;
        }
        self.judge_worked_for(case)
    }
}
