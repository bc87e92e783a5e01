//! E3 for event loops whose callbacks carry ids (Node.js): the thread runs everybody's callbacks, and what runs is told by
//! the ids of asynchronous resources and by the dispatch in which they run.
//!
//! 1. A read, or the look for events, ends a segment; ids given out in it belong to its owner, who is the request that was read or
//!    the one whose call was answered ([`segments`]).
//! 2. A call is written on behalf of the segment's owner, unless the ids say that another resource's callback runs; then on
//!    behalf of whom that resource's id was given out for, or of a group that nobody knows yet ([`groups`]). The first write on a
//!    connection is on behalf of who opened it.
//! 3. Where a call's turn tells the socket on which the response will be written that waits for this call, that one's open request is it,
//!    and for calls to that callee the ids are believed more or less, as they say the same or not.
//! 4. The answer to a request tells whose group its segment is. If the only request that is answered after a call's response was
//!    read is another one than the ids say, the answer is right; the more often that happens to a callee's calls, the less are the ids believed.
//!
//! So an owner is often known late: a call is decided when its response was read, the segment that began with it is over, and its
//! request was answered. What nobody can own any more has no parent.

mod groups;
mod segments;

use std::collections::{HashMap, VecDeque};

pub(in crate::correlate) use groups::Group;
use groups::Groups;
use segments::{Cut, Segments};

use super::event_loop::{down, up};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::record::{Parent, Record};
use crate::model::{Act, Confidence, Deed, Endpoint, Evidence, Nanos, Unit};

/// Where nothing tells that a segment is over, it is after so long.
const PATIENCE: Nanos = 20_000_000;
/// Most callees remembered.
const MAX_CALLEES: usize = 256;
/// Calls looked at, at the end of each segment, whether anybody can own them.
const LOOKS: usize = 4;

/// One event loop.
#[derive(Default)]
pub(in crate::correlate) struct Loop {
    groups: Groups,
    segments: Segments,
    /// On whose behalf the last write was.
    writing: Group,
    /// Requests answered, and calls that ended, in the open segment.
    answered: Vec<Key>,
    ended: Vec<Key>,
    /// Undecided calls.
    undecided: VecDeque<Key>,
    /// How far the ids are believed, by whom calls go to: a pool or a semaphore that hands work on is one callee's.
    beliefs: HashMap<Endpoint, Belief>,
    /// It was seen to look for events: other threads' results, which no read announces, are seen too.
    is_seen: bool,
    /// A look after [`PATIENCE`] is under way.
    is_watched: bool,
}

impl Correlator {
    /// A thread did something.
    pub(in crate::correlate) fn act(&mut self, act: &Act) {
        let Some(turn) = act.stamp.unit.turn() else {
            return;
        };
        let unit = self.units.mover(&act.stamp.unit, self.now);
        let Some(state) = self.units.units.get_mut(unit) else {
            return;
        };
        state.is_loop = true;
        let mut event_loop = state.ids.take().unwrap_or_default();
        let cut = match act.deed {
            Deed::Waits => {
                event_loop.is_seen = true;
                Some(Cut::Waits)
            }
            Deed::Woken => Some(Cut::Woken),
            Deed::Held | Deed::ReadsEnd(_) => None,
            Deed::Receives(conn) => {
                let last = event_loop.segments.last_on(conn);
                let group = self.records.get(last).map(|r| r.group).unwrap_or_default();
                Some(Cut::Reads(conn, group))
            }
            Deed::Sends(conn) | Deed::Connects(conn) => {
                let records = &self.records;
                let alive = |key| records.get(key).is_some();
                let Loop { groups, segments, .. } = &mut *event_loop;
                let mut group = segments.write(&turn, conn, groups, |groups| groups.add(Key::NONE, alive));
                if let Deed::Connects(_) = act.deed {
                    if group == Group::NONE {
                        group = groups.add(Key::NONE, alive);
                    }
                    segments.opened(conn, group);
                }
                event_loop.writing = group;
                None
            }
        };
        if let Some(cut) = cut {
            self.settle_segment(&mut event_loop);
            event_loop.segments.cut(&turn, cut);
            if let Deed::Receives(conn) = act.deed {
                let last = event_loop.segments.last_on(conn);
                if self.records.get(last).is_some_and(Record::is_outbound) {
                    event_loop.segments.guess_read(last);
                }
            }
        }
        self.keep_loop(unit, event_loop);
    }

    fn take_loop(&mut self, unit: Key) -> Option<Box<Loop>> {
        self.units.units.get_mut(unit)?.ids.take()
    }

    fn keep_loop(&mut self, unit: Key, event_loop: Box<Loop>) {
        if let Some(state) = self.units.units.get_mut(unit) {
            state.ids = Some(event_loop);
        }
    }

    /// Whether the unit is an event loop that tells ids.
    pub(in crate::correlate) fn tells_ids(&self, unit: Key) -> bool {
        self.units.units.get(unit).is_some_and(|u| u.ids.is_some())
    }

    /// A request was read.
    pub(in crate::correlate) fn ids_request(&mut self, request: Key, unit: Key) {
        let Some(mut event_loop) = self.take_loop(unit) else {
            return;
        };
        let records = &self.records;
        let group = event_loop.groups.add(request, |key| records.get(key).is_some());
        event_loop.segments.own(group);
        if let Some(record) = self.records.get_mut(request) {
            record.group = group;
            if let Some(turn) = record.begin.start.unit.turn() {
                let conn = record.begin.conn.id;
                event_loop.segments.began(conn, request, &turn, true);
                let is_open = |key| self.records.get(key).is_some_and(Record::is_open);
                event_loop.segments.serves(request, &turn, is_open);
            }
        }
        self.keep_loop(unit, event_loop);
    }

    /// A call was written.
    pub(in crate::correlate) fn ids_call(&mut self, call: Key, unit: Key) {
        let Some(mut event_loop) = self.take_loop(unit) else {
            return;
        };
        let mut group = event_loop.groups.root(event_loop.writing);
        let label = event_loop.groups.label(group);
        let is_late = self
            .records
            .get(label)
            .is_some_and(|r| r.responded != 0 || r.ended);
        // After its answer a request owns nothing; the call may be another's all the same.
        if group == Group::NONE || is_late {
            let records = &self.records;
            group = event_loop.groups.add(Key::NONE, |key| records.get(key).is_some());
        }
        let told = self.told_request(&mut event_loop, call);
        let is_late = is_late && told == Key::NONE;
        if let Some(record) = self.records.get(told) {
            group = record.group;
            if let Some(called) = self.records.get(call)
                && self.records.get(label).is_some()
            {
                event_loop.belief(called.begin.conn.remote).learn(told == label);
            }
        }
        event_loop.groups.add_call(group, call);
        if let Some(record) = self.records.get_mut(call) {
            (record.group, record.told) = (group, told);
            if is_late {
                record.late_of = label;
            }
            if let Some(turn) = record.begin.start.unit.turn() {
                event_loop
                    .segments
                    .began(record.begin.conn.id, call, &turn, false);
            }
        }
        let undecided = &mut event_loop.undecided;
        // Behind a request that stays open they would pile up, decided or not.
        if undecided.len() == undecided.capacity() && undecided.len() >= 64 {
            let records = &self.records;
            undecided.retain(|&key| records.get(key).is_some_and(|r| !r.is_decided()));
        }
        undecided.push_back(call);
        self.keep_loop(unit, event_loop);
    }

    /// The open request to whose response the call leads.
    fn told_request(&self, event_loop: &mut Loop, call: Key) -> Key {
        let Some(record) = self.records.get(call) else {
            return Key::NONE;
        };
        let Some(turn) = record.begin.start.unit.turn().filter(|turn| turn.request != 0) else {
            return Key::NONE;
        };
        let told = event_loop.segments.told(&turn);
        let fits = self
            .records
            .get(told)
            .is_some_and(|request| request.is_open() && request.start() <= record.start());
        if fits { told } else { Key::NONE }
    }

    /// A request is answered by `unit`, or is over without an answer (`by` is `None`).
    pub(in crate::correlate) fn ids_answer(&mut self, request: Key, unit: Key, by: Option<&Unit>) {
        let Some(mut event_loop) = self.take_loop(unit) else {
            return;
        };
        let group = self.records.get(request).map(|r| r.group).unwrap_or_default();
        if let Some(turn) = by.and_then(Unit::turn) {
            event_loop.segments.answer(request, &turn);
            let writing = event_loop.groups.root(event_loop.writing);
            let label = event_loop.groups.label(writing);
            if label == Key::NONE {
                event_loop.groups.merge(writing, group);
            }
        }
        event_loop.answered.push(request);
        if !std::mem::replace(&mut event_loop.is_watched, true) {
            self.segment_ends
                .push_back((self.now.saturating_add(PATIENCE), unit));
        }
        self.keep_loop(unit, event_loop);
    }

    /// (A part of) the response to a call was read.
    pub(in crate::correlate) fn ids_response(&mut self, call: Key, unit: Key) {
        let Some(group) = self.records.get(call).map(|r| r.group) else {
            return;
        };
        if let Some(state) = self.units.units.get_mut(unit)
            && let Some(event_loop) = &mut state.ids
        {
            let Loop { groups, segments, .. } = &mut **event_loop;
            segments.tell_read(call, group, groups);
        }
    }

    /// A call is over, with or without a response.
    pub(in crate::correlate) fn ids_end(&mut self, call: Key, unit: Key) {
        if let Some(state) = self.units.units.get_mut(unit)
            && let Some(event_loop) = &mut state.ids
        {
            event_loop.ended.push(call);
        }
    }

    /// Nothing has told that the segment is over.
    pub(in crate::correlate) fn end_segment(&mut self, unit: Key) {
        if let Some(mut event_loop) = self.take_loop(unit) {
            event_loop.is_watched = false;
            self.settle_segment(&mut event_loop);
            self.keep_loop(unit, event_loop);
        }
    }

    /// The segment is over: what it has shown is made use of.
    fn settle_segment(&mut self, event_loop: &mut Loop) {
        if let Some((call, request)) = event_loop.segments.take_backward() {
            self.point_back(event_loop, call, request);
        }
        let mut ended = std::mem::take(&mut event_loop.ended);
        for call in ended.drain(..) {
            if let Some(record) = self.records.get_mut(call) {
                record.response_over = true;
            }
            self.decide_by_ids(event_loop, call);
        }
        event_loop.ended = ended;
        let mut answered = std::mem::take(&mut event_loop.answered);
        for request in answered.drain(..) {
            let group = self.records.get(request).map(|r| r.group).unwrap_or_default();
            let mut calls = event_loop.groups.take_calls(group);
            calls.retain(|&call| {
                self.decide_by_ids(event_loop, call);
                self.records.get(call).is_some_and(|r| !r.is_decided())
            });
            event_loop.groups.put_calls(group, calls);
            event_loop.groups.end(group);
        }
        event_loop.answered = answered;
        self.decide_what_nobody_owns(event_loop);
    }

    /// The request was the only one answered after the call's response was read.
    fn point_back(&mut self, event_loop: &mut Loop, call: Key, request: Key) {
        let (Some(called), Some(asked)) = (self.records.get(call), self.records.get(request)) else {
            return;
        };
        let callee = called.begin.conn.remote;
        if called.start() < asked.start() {
            event_loop.belief(callee).learn(false);
            return;
        }
        if self.records.get(called.told).is_some() {
            return;
        }
        let (group, whole) = (called.group, asked.group);
        let label = event_loop.groups.label(group);
        if label == Key::NONE {
            event_loop.groups.merge(group, whole);
        } else {
            event_loop.belief(callee).learn(label == request);
        }
        if let Some(record) = self.records.get_mut(call) {
            record.answered_by = request;
        }
    }

    /// Decides a call whose response was read, if its request is known and answered.
    fn decide_by_ids(&mut self, event_loop: &mut Loop, call: Key) {
        let Some(record) = self.records.get(call) else {
            return;
        };
        if record.is_decided() || !record.response_over {
            return;
        }
        let (start, backward, told) = (record.start(), record.answered_by, record.told);
        let callee = record.begin.conn.remote;
        let label = event_loop.groups.label(record.group);
        let is_backward = self.records.get(backward).is_some();
        let is_told = self.records.get(told).is_some();
        let request = match (is_told, is_backward) {
            (true, _) => told,
            (false, true) => backward,
            (false, false) => label,
        };
        let Some(owner) = self.records.get(request) else {
            return;
        };
        if (owner.responded == 0 && !owner.ended) || start < owner.start() {
            return;
        }
        if !self.contexts_agree(call, request) {
            return;
        }
        let belief = *event_loop.belief(callee);
        let confidence = match (is_backward, label == request, belief.is_doubted) {
            _ if is_told && (label == request || backward == request) => Confidence::Certain,
            _ if is_told => Confidence::Likely,
            (true, true, false) => Confidence::Certain,
            (false, true, false) if event_loop.is_seen => Confidence::Certain,
            (false, _, true) if belief.score < 0 => {
                if let Some(record) = self.records.get_mut(call) {
                    (record.late_of, record.ambiguous) = (request, true);
                }
                self.decide_unowned(call);
                return;
            }
            _ => Confidence::Likely,
        };
        self.decide(
            call,
            Parent::Local(request),
            Some((Evidence::AsyncIds, confidence)),
        );
    }

    /// Calls that no open request can own, and no answered one does.
    fn decide_what_nobody_owns(&mut self, event_loop: &mut Loop) {
        let mut looks = LOOKS.min(event_loop.undecided.len());
        while let Some(&call) = event_loop.undecided.front() {
            let Some(record) = self.records.get(call).filter(|r| !r.is_decided()) else {
                event_loop.undecided.pop_front();
                continue;
            };
            if looks == 0 {
                return;
            }
            looks -= 1;
            let (start, process) = (record.start(), record.process);
            let label = event_loop.groups.label(record.group);
            if self.records.get(label).is_some() {
                // Decided when it is over; until then it stands in nobody's way.
                event_loop.undecided.rotate_left(1);
                continue;
            }
            if self.open_since(process).is_some_and(|oldest| oldest <= start) {
                return;
            }
            self.decide_unowned(call);
        }
    }

    /// The call can wait no longer: the request that the ids name, if they do, is likely its own.
    pub(in crate::correlate) fn claim_by_ids(&mut self, call: Key) {
        let Some(record) = self.records.get(call) else {
            return;
        };
        let (unit, group, told) = (record.unit, record.group, record.told);
        let callee = record.begin.conn.remote;
        let Some(mut event_loop) = self.take_loop(unit) else {
            return;
        };
        let label = event_loop.groups.label(group);
        let is_told = self.records.get(told).is_some();
        let is_believed = is_told || event_loop.belief(callee).score >= 0;
        self.keep_loop(unit, event_loop);
        if is_believed && self.records.get(label).is_some() && self.contexts_agree(call, label) {
            self.decide(
                call,
                Parent::Local(label),
                Some((Evidence::AsyncIds, Confidence::Likely)),
            );
        }
    }
}

impl Loop {
    fn belief(&mut self, callee: Endpoint) -> &mut Belief {
        if self.beliefs.len() >= MAX_CALLEES && !self.beliefs.contains_key(&callee) {
            self.beliefs.clear();
        }
        self.beliefs.entry(callee).or_default()
    }
}

/// How far the ids are believed.
#[derive(Clone, Copy, Default)]
struct Belief {
    /// Rises where something else says the same, falls where it says another thing; below 0 the ids alone are not believed.
    score: i8,
    /// It fell at least once.
    is_doubted: bool,
}

impl Belief {
    fn learn(&mut self, agrees: bool) {
        if agrees {
            up(&mut self.score);
        } else {
            down(&mut self.score);
            self.is_doubted = true;
        }
    }
}
