//! E6: pools whose threads call for others, told by what happens around a call.
//!
//! A thread of the client's own writes the call, so who wrote says nothing. But somebody took the connection for it (a read
//! that finds nothing on an idle connection, or a connect), and threads wake each other:
//! - *took*: a unit that serves a request took the connection itself (a synchronous call through an asynchronous client);
//! - *handed*: a thread of the client's pool took it, and a unit that serves a request had woken it for that. Such pools hand each task to
//!   a thread that waits for one, so the last waker is whose task it is. That says nothing of a thread that the arrival of a response
//!   woke: it may have had nothing to do, and have got its next task while it was awake;
//! - *woken*: a thread that serves nobody made the call, and when it was over woke a thread that had a request open since before. It is
//!   the last call before the wake alone that this can be said of, and not if another one that serves had woken the caller for its work,
//!   or the woken one was seen to run after the call began: a wake may mean a lock, too.
//!
//! All of it is decided when the unit that is named writes its response, as with E3 and E4.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::unit::{Pending, UnitId, UnitState, Via};
use crate::model::{Confidence, Nanos, STALE, Taken, Unit, Wake};

impl Correlator {
    /// Notes the call with the unit that may own it, by who took its connection; `writer` began it.
    pub(in crate::correlate) fn await_acquirer(&mut self, call: Key, writer: Key) {
        let Some(record) = self.records.get(call) else {
            return;
        };
        let Some(taken) = record.begin.taken.as_deref().copied() else {
            return self.note_last_call(call, writer);
        };
        let now = self.now;
        let acquirer = self.units.mover(&taken.stamp.unit, now);
        if self.units.units.get(acquirer).is_some_and(UnitState::serves) {
            self.await_through(call, acquirer, Via::Took, taken.stamp.ts);
        } else if let Some((unit, since)) = self.owner_before(&taken) {
            match taken.waiter {
                Some(place) if self.units.units.get(unit).is_some_and(|unit| unit.is_loop) => {
                    self.await_loop_answer(call, taken.stamp.unit.tgid, place);
                }
                _ => self.await_through(call, unit, Via::Handed, since),
            }
        } else if let Some(waiter) = taken.waiter {
            let by_another = taken.handed.filter(|_| taken.by_client_thread);
            let worker = by_another.map_or(taken.stamp.unit, |by| by.unit);
            self.await_submitter(call, &worker, waiter);
            if waiter.1 == STALE && !taken.by_client_thread {
                self.note_last_call(call, acquirer);
            }
        } else if !taken.by_client_thread {
            self.note_last_call(call, acquirer);
        }
    }

    fn await_through(&mut self, call: Key, unit: Key, via: Via, since: Nanos) {
        if let Some(record) = self.records.get_mut(call) {
            record.taken_for = unit;
            record.taken_at = since;
        }
        let born = since;
        self.await_unit(
            unit,
            Pending {
                born,
                via,
                ..Pending::of(call)
            },
        );
    }

    /// Who handed the thread its work, and when.
    fn owner_before(&self, taken: &Taken) -> Option<(Key, Nanos)> {
        let serving = |unit: Unit| {
            let key = self.units.find_mover(&unit)?;
            self.units
                .units
                .get(key)
                .is_some_and(UnitState::serves)
                .then_some(key)
        };
        let handed = taken.handed.and_then(|by| Some((serving(by.unit)?, by.ts)));
        let before = taken.before.and_then(serving);
        if before.is_some_and(|before| handed.is_none_or(|(unit, _)| unit != before)) {
            // Whose work it does can't be told: one of the two may have woken it for a lock.
            return None;
        }
        handed
    }

    fn note_last_call(&mut self, call: Key, unit: Key) {
        // Where it is told who waits for its work, nothing better is to be had from whom it wakes.
        if let Some(state) = self.units.units.get_mut(unit)
            && !state.works_for_others
        {
            state.last_call = call;
        }
    }

    /// One thread woke another, and both had last received.
    pub(in crate::correlate) fn woke(&mut self, wake: &Wake) {
        let Wake {
            waker,
            woken,
            before,
            asleep_since,
        } = wake;
        let thread = |tid| UnitId::thread(waker.unit.tgid, tid);
        let Some(caller) = self.units.find(thread(waker.unit.tid)) else {
            return;
        };
        let Some(woken) = self.units.find(thread(*woken)) else {
            return;
        };
        let before = before.and_then(|before| self.units.find(thread(before)));
        let call = match self.units.units.get(caller) {
            Some(state) if !state.serves() => state.last_call,
            _ => return,
        };
        if !self.units.units.get(woken).is_some_and(UnitState::serves) {
            return;
        }
        // A wake may also mean a lock. Then somebody else has given the waker its work, or the other one ran while the call was made.
        let works_for_another = before
            .and_then(|before| Some((before, self.units.units.get(before)?)))
            .is_some_and(|(before, unit)| before != woken && unit.serves());
        let Some(record) = self.records.get_mut(call) else {
            return;
        };
        if !record.ended || record.is_decided() || record.taken_for != Key::NONE || record.woken == woken {
            return;
        }
        let did_not_wait = *asleep_since > record.start();
        record.woke_several |= record.woken != Key::NONE || works_for_another || did_not_wait;
        record.woken = woken;
        let born = record.taken_at;
        self.await_unit(
            woken,
            Pending {
                born,
                via: Via::Woken,
                ..Pending::of(call)
            },
        );
    }

    pub(super) fn judge_acquirer(&self, case: &Case) -> Option<Confidence> {
        let call = self.records.get(case.call)?;
        let request = self.records.get(case.request)?;
        let owner = self.units.units.get(case.unit)?;
        if case.claim != Claim::Wrote || case.born < request.start() {
            return None;
        }
        let process = self.units.processes.get(request.process)?;
        // Who reads requests and writes the answer to one that another has read may have worked for any.
        let serves_others = owner.reads && request.unit != case.unit;
        if !owner.id.is_task && (process.migrates_until > self.now || serves_others) {
            return None;
        }
        match case.via {
            Via::Task | Via::Submitted | Via::Held | Via::Place | Via::Answered(_) | Via::Born => None,
            // Who read the request and answers it had it open in between.
            Via::Took if owner.id.is_task || request.unit == case.unit => Some(Confidence::Certain),
            Via::Woken if call.woke_several || call.woken != case.unit => None,
            Via::Took | Via::Handed | Via::Woken => Some(Confidence::Likely),
        }
    }
}
