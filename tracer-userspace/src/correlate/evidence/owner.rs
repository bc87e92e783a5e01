//! What E3 and E4 share: a request is owned by the unit that **writes its response**, and so are the calls that this unit
//! made after the request was read and since the unit's previous response.
//!
//! Ownership is often known only then (pollers and reader threads read requests that others serve), so calls wait on the
//! units that might own them, and are joined backwards.

use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::record::Parent;
use crate::correlate::unit::{Pending, UnitId, UnitState, Via};
use crate::model::{Confidence, Evidence, Language, Nanos, PLACE_UNIT, Task, Unit};

/// How a request may claim calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::correlate) enum Claim {
    /// The unit wrote the request's response.
    Wrote,
    /// The unit read the request, no other, and the response was not seen (yet).
    Read,
}

/// A call and the unit that might own it.
pub(super) struct Case {
    pub call: Key,
    pub request: Key,
    pub unit: Key,
    pub claim: Claim,
    pub hops: u8,
    pub born: Nanos,
    pub via: Via,
}

impl Case {
    pub fn of(pending: Pending, request: Key, unit: Key, claim: Claim) -> Self {
        let Pending {
            call,
            hops,
            born,
            via,
        } = pending;
        Self {
            call,
            request,
            unit,
            claim,
            hops,
            born,
            via,
        }
    }
}

/// Goroutines between the caller and the serving goroutine that are looked through.
const MAX_HOPS: u8 = 4;

impl Correlator {
    /// Notes the call with every unit that might own it: who moved its bytes, as `moved` tells, the tasks that wait for that
    /// one, and those that created the outermost of them.
    pub(in crate::correlate) fn await_owner(&mut self, call: Key, moved: &Unit) {
        let Some(record) = self.records.get(call) else {
            return;
        };
        let now = self.now;
        let mut outermost = record.unit;
        if moved.tasks().next().is_none() {
            self.await_unit(outermost, Pending::of(call));
        }
        let Task {
            id,
            creator,
            held_since,
            ..
        } = moved.task();
        for task in moved.chain() {
            outermost = self.units.unit(UnitId::task(moved.tgid, task), 0, now);
            let pending = if held_since == 0 || task == id {
                Pending::of(call)
            } else {
                Pending::held(call, held_since)
            };
            self.await_unit(outermost, pending);
        }
        if creator != 0 && held_since == 0 {
            self.makers_known(moved, outermost);
        }
        self.await_makers(call, (moved.tgid, creator), outermost);
        self.await_at_places(call, moved);
        if held_since == 0 {
            self.note_late_call(call, outermost);
        }
    }

    /// Where it is told who created tasks, each one behind the caller has created the one before it, for whose end it waits. What others
    /// that the same one has created did before anybody knew that was for the outermost of them, too.
    fn makers_known(&mut self, moved: &Unit, outermost: Key) {
        if !self.units.units.get(outermost).is_some_and(UnitState::serves) {
            return;
        }
        let makers = moved.task().awaiters.into_iter().skip(1);
        for maker in makers.take_while(|&task| task != 0 && task & PLACE_UNIT == 0) {
            let Some(state) = self
                .units
                .find(UnitId::task(moved.tgid, maker))
                .filter(|&key| key != outermost)
                .and_then(|key| self.units.units.get_mut(key))
            else {
                return;
            };
            let first_seen = state.first_seen;
            for pending in std::mem::take(&mut state.pending) {
                let of_maker = pending.via == Via::Task && pending.hops > 0 && pending.hops < MAX_HOPS;
                if of_maker {
                    let born = pending.born.min(first_seen);
                    let hops = pending.hops + 1;
                    self.await_unit(
                        outermost,
                        Pending {
                            hops,
                            born,
                            ..pending
                        },
                    );
                }
            }
        }
    }

    /// Notes the call with those that created the outermost of the tasks that are known to be at it.
    fn await_makers(&mut self, call: Key, (tgid, mut creator): (u32, u64), mut outermost: Key) {
        let mut born = Nanos::MAX;
        for hops in 1..=MAX_HOPS {
            let Some(state) = self.units.units.get_mut(outermost).filter(|u| u.id.is_task) else {
                return;
            };
            if creator == 0 {
                creator = state.creator;
            }
            state.creator = creator;
            born = born.min(state.first_seen);
            let is_server = state.serves();
            let id = UnitId::task(tgid, creator);
            // For whom the caller's maker works may be told later.
            let may_be_told = creator != 0 && !is_server && hops == 1;
            let next = match self.units.find(id) {
                None if may_be_told => self.units.unit(id, 0, self.now),
                None => return,
                Some(next) => next,
            };
            let Some(maker) = self.units.units.get(next) else {
                return;
            };
            // Other ancestors that serve nothing (the accepting goroutine) would only collect calls.
            if maker.serves() {
                let serves_since = (maker.open == 1)
                    .then(|| Some(self.records.get(maker.open_request)?.start()))
                    .flatten();
                if let Some(record) = self.records.get_mut(call)
                    && serves_since.is_some_and(|since| since <= born)
                {
                    record.made_for = next;
                }
                self.await_unit(next, Pending::made(call, hops, born));
            } else if may_be_told && maker.creator == 0 {
                self.await_unit(next, Pending::made(call, hops, born));
            }
            (outermost, creator) = (next, 0);
        }
    }

    /// Who waits for the response may be told only when it is read. That counts if it is the same task's read, or one's that works for
    /// the same caller: on a connection that carries several calls at once, whoever wrote last is told. Go's client has two goroutines for a
    /// connection, which carries one call at a time: if the one that wrote did not know for whom, the one that reads does.
    pub(in crate::correlate) fn await_owner_again(&mut self, call: Key, moved: &Unit) {
        let told = moved.task().awaiters;
        if told[0] == 0 {
            return;
        }
        let Some(record) = self.records.get(call) else {
            return;
        };
        let began = &record.begin.start.unit;
        let was_unknown = began.task().awaiters[0] == 0 && record.service.language == Language::Go;
        let is_same = was_unknown
            || began.tasks().next() == moved.tasks().next()
            || began.task().awaiters[0] == told[0];
        if began.task().awaiters != told && is_same {
            self.await_owner(call, moved);
        }
    }

    /// Who holds a task is known only now: it may own what the task has called already.
    pub(in crate::correlate) fn held(&mut self, moved: &Unit) {
        let Task {
            id,
            awaiters,
            held_since,
            ..
        } = moved.task();
        let Some(state) = self
            .units
            .find(UnitId::task(moved.tgid, id))
            .and_then(|task| self.units.units.get(task))
        else {
            return;
        };
        let own = |pending: &&Pending| pending.via == Via::Task && pending.hops == 0;
        let calls: Vec<Key> = state.pending.iter().filter(own).map(|p| p.call).collect();
        for holder in awaiters.into_iter().take_while(|&task| task != 0) {
            let holder = self.units.unit(UnitId::task(moved.tgid, holder), 0, self.now);
            for &call in &calls {
                self.await_unit(holder, Pending::held(call, held_since));
            }
        }
    }

    /// The unit may own the call.
    pub(super) fn await_unit(&mut self, unit: Key, pending: Pending) {
        let Some(state) = self.units.units.get_mut(unit).filter(|u| !u.is_loop) else {
            return;
        };
        if state.pending.len() == state.pending.capacity() && state.pending.len() >= 16 {
            let records = &self.records;
            state
                .pending
                .retain(|p| records.get(p.call).is_some_and(|r| !r.emitted));
        }
        state.pending.push(pending);
    }

    /// A call of a unit that has answered all that it served comes after its last answer.
    fn note_late_call(&mut self, call: Key, unit: Key) {
        if let Some(state) = self.units.units.get(unit)
            && state.open == 0
            && state.last_answer != 0
            && !state.is_loop
            && !state.id.may_be_another()
            && let Some(record) = self.records.get_mut(call)
        {
            record.late_of = state.last_answered;
        }
    }

    /// The request claims the calls that wait on the unit; the others stop waiting on it.
    #[inline]
    pub(in crate::correlate) fn claim(&mut self, unit: Key, request: Key, claim: Claim) {
        if let Some(state) = self.units.units.get(unit)
            && !state.pending.is_empty()
        {
            self.claim_pending(unit, request, claim);
        }
    }

    fn claim_pending(&mut self, unit: Key, request: Key, claim: Claim) {
        let Some(state) = self.units.units.get_mut(unit) else {
            return;
        };
        let mut pending = std::mem::take(&mut state.pending);
        if !state.is_loop {
            for pending in pending.drain(..) {
                self.claim_one(Case::of(pending, request, unit, claim));
            }
        }
        pending.clear();
        if let Some(state) = self.units.units.get_mut(unit) {
            state.pending = pending;
        }
    }

    pub(super) fn claim_one(&mut self, case: Case) {
        let (Some(call), Some(request)) = (self.records.get(case.call), self.records.get(case.request))
        else {
            return;
        };
        if call.start() < request.start() || !self.contexts_agree(case.call, case.request) {
            return;
        }
        let Some(evidence) = self.judge(&case) else {
            if self.may_be_late(&case)
                && let Some(call) = self.records.get_mut(case.call)
            {
                call.ambiguous = true;
            }
            return;
        };
        if !call.is_decided() {
            self.decide(case.call, Parent::Local(case.request), Some(evidence));
        } else if call.trace.is_some() && call.expired {
            self.link(case.request, case.call, "late_child");
        }
    }

    fn judge(&self, case: &Case) -> Option<(Evidence, Confidence)> {
        if case.via == Via::Submitted {
            return self.judge_submitted(case).map(|c| (Evidence::Task, c));
        }
        if case.via == Via::Held {
            return self.judge_held(case).map(|c| (Evidence::Task, c));
        }
        if case.via == Via::Born {
            return self.judge_born(case).map(|c| (Evidence::Thread, c));
        }
        if matches!(case.via, Via::Place | Via::Answered(_)) {
            return self.judge_place(case).map(|c| (Evidence::Task, c));
        }
        if case.via != Via::Task {
            return self.judge_acquirer(case).map(|c| (Evidence::Acquirer, c));
        }
        if self.units.units.get(case.unit)?.id.is_task {
            self.judge_task(case).map(|c| (Evidence::Task, c))
        } else {
            self.judge_thread(case).map(|c| (Evidence::Thread, c))
        }
    }

    /// The call can wait no longer for its owner to answer: the only request that its unit has read and not answered is
    /// the owner, if there is exactly one.
    pub(in crate::correlate) fn claim_forward(&mut self, call: Key) {
        let Some(record) = self.records.get(call) else {
            return;
        };
        let unit = record.begin.start.unit;
        let key = match unit.chain().last() {
            Some(task) => self.units.find(UnitId::task(unit.tgid, task)).unwrap_or_default(),
            None => record.unit,
        };
        let Some(state) = self.units.units.get(key) else {
            return;
        };
        if state.open != 1 || state.is_loop {
            return;
        }
        let case = Case {
            call,
            request: state.open_request,
            unit: key,
            claim: Claim::Read,
            hops: 0,
            born: 0,
            via: Via::Task,
        };
        self.claim_one(case);
    }
}
