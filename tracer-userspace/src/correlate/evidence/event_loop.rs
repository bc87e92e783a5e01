//! E5: threads that serve many connections at once.
//!
//! All that shows is the order of reads and writes on the thread. Two hints, neither of which is proof:
//! - *forward*: the call was written right after the request was read (or after another call of it, or after the
//!   response to one). False where the write was deferred: to a timer, to a connection's completion.
//! - *backward*: the request's response was written right after the call's response was read. False where the answer was
//!   deferred: to a timer, to the end of a batch of reads.
//!
//! A loop that runs to completion shows it: after the last byte of a call's response it goes on with that request, always (or once it has read that
//! nothing follows, where the connection was opened for the call: nginx before PHP-FPM); and no request is answered out of the blue. Each loop keeps score of both hints. They are believed when both name
//! the same request, or when the backward hint has never or hardly failed on this loop and the forward hint, which
//! disagrees, is known to be noise there. Meanwhile a hint is tentative, and given up if the loop breaks its order.

use super::noted::{MAX_NOTED, Noted};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::record::{Parent, Record};
use crate::correlate::unit::Last;
use crate::model::{Confidence, ConnId, Evidence, Nanos, Unit};

/// What a loop has shown of its order. Scores rise by 1 and fall by [`PENALTY`]: a hint that fails more often than once in
/// seventeen times is never believed for long.
#[derive(Default)]
pub(in crate::correlate) struct Order {
    /// Of the backward hint.
    backward: i8,
    /// Of the forward hint.
    forward: i8,
    /// The order was broken at least once.
    broken: bool,
    /// Calls with a tentative owner.
    tentative: Vec<Key>,
    /// Connections that were opened and over which nothing was written yet, and after what they were opened.
    opened: Noted<Last>,
    /// Connections whose end was not read yet, and the call of each, whose response was.
    ending: Noted<Key>,
}

const PENALTY: i8 = 16;
const BEST: i8 = 64;
/// Scores from which a hint is believed: on a loop that never broke its order, and on one that did.
const TRUSTED: i8 = 6;
const TRUSTED_AGAIN: i8 = 48;
/// How long a tentative owner waits for the loop to break its order before it is believed.
const PROBATION: Nanos = 100_000_000;
/// Most tentative owners per loop.
const MAX_TENTATIVE: usize = 256;
/// Most opened connections that are remembered of a thread or task that is not known to be a loop: there are many.
const MAX_OPENED_ALONE: usize = 8;

impl Order {
    /// Not all was seen: what broke the order meanwhile proves nothing. What is tentative stays so.
    pub(in crate::correlate) fn forget(&mut self) {
        self.ending.clear();
        (self.backward, self.forward, self.broken) = (self.backward.max(0), self.forward.max(0), false);
    }

    fn trusted(&self) -> i8 {
        if self.broken { TRUSTED_AGAIN } else { TRUSTED }
    }

    /// A connection that was opened right after the request was read, if there is one.
    pub(super) fn opened_after(&self, request: Key) -> Option<ConnId> {
        self.opened.find(&Last::ReadRequest(request))
    }
}

pub(super) fn up(score: &mut i8) {
    *score = (*score + 1).min(BEST);
}

pub(super) fn down(score: &mut i8) {
    *score = (*score - PENALTY).max(-BEST);
}

impl Correlator {
    /// The unit did something; `now` is what.
    #[inline]
    pub(in crate::correlate) fn order_event(&mut self, unit: Key, now: Last) {
        let Some(state) = self.units.units.get_mut(unit) else {
            return;
        };
        // What runs is known better there.
        if state.last == now || state.ids.is_some() {
            return;
        }
        let before = std::mem::replace(&mut state.last, now);
        if state.is_loop {
            if let Last::ReadResponse(call) = now
                && let Some(record) = self.records.get_mut(call)
                && std::mem::take(&mut record.may_end)
            {
                state.order.ending.push(record.begin.conn.id, call, MAX_NOTED);
            }
            self.loop_event(unit, before, now);
        }
    }

    /// The unit has begun to write a call.
    pub(in crate::correlate) fn order_call(&mut self, unit: Key, call: Key) {
        let Some(state) = self.units.units.get_mut(unit).filter(|u| u.ids.is_none()) else {
            return;
        };
        let mut before = std::mem::replace(&mut state.last, Last::WroteCall(call));
        let Some(record) = self.records.get_mut(call) else {
            return;
        };
        let conn = record.begin.conn.id;
        record.may_end = record.is_first_over_unix_socket();
        if let Some(opened_after) = state.order.opened.take(conn) {
            record.may_end = true;
            before = opened_after;
        }
        let hung = state.order.ending.take(conn);
        if hung.is_some_and(|hung| self.is_left_hanging(hung)) {
            self.break_order(unit, false);
        }
        self.point_forward(call, before);
    }

    /// A unit has read the end of what comes over a connection: what it has read there before is what it goes on with.
    pub(in crate::correlate) fn order_end(&mut self, moved: &Unit, conn: ConnId) {
        let Some(unit) = self.units.find_mover(moved) else {
            return;
        };
        let state = self.units.units.get_mut(unit);
        if let Some(call) = state.and_then(|state| state.order.ending.take(conn)) {
            self.order_event(unit, Last::ReadResponse(call));
        }
    }

    /// A unit opens a connection.
    pub(in crate::correlate) fn order_connect(&mut self, moved: &Unit, conn: ConnId) {
        let unit = self.units.find_mover(moved);
        let Some(state) = unit.and_then(|unit| self.units.units.get_mut(unit)) else {
            return;
        };
        if state.ids.is_some() || state.last == Last::Nothing {
            return;
        }
        let most = if state.is_loop {
            MAX_NOTED
        } else {
            MAX_OPENED_ALONE
        };
        state.order.opened.push(conn, state.last, most);
    }

    fn loop_event(&mut self, unit: Key, before: Last, now: Last) {
        match now {
            Last::WroteResponse(request) => self.point_backward(unit, request, before),
            Last::ReadRequest(_) | Last::ReadResponse(_) => {
                if let Last::ReadResponse(call) = before
                    && self.is_left_hanging(call)
                    && !self.end_may_come(unit, call)
                {
                    self.break_order(unit, false);
                }
            }
            Last::WroteCall(_) | Last::Nothing => {}
        }
    }

    /// The end of what comes over the call's connection was not read yet.
    fn end_may_come(&self, unit: Key, call: Key) -> bool {
        let state = self.units.units.get(unit);
        state.is_some_and(|state| state.order.ending.find(&call).is_some())
    }

    /// The call is over, nobody owns it, and the loop went on with something else.
    fn is_left_hanging(&self, call: Key) -> bool {
        self.records
            .get(call)
            .is_some_and(|r| r.ended && !r.is_decided() && r.tentative == Key::NONE)
    }

    fn point_forward(&mut self, call: Key, before: Last) {
        let (request, after) = match before {
            Last::ReadRequest(request) => (request, Key::NONE),
            Last::WroteCall(other) => (self.forward_of(other), Key::NONE),
            Last::ReadResponse(other) => (self.forward_of(other), other),
            Last::WroteResponse(_) | Last::Nothing => return,
        };
        let mut next = Key::NONE;
        let owner = self
            .records
            .get_mut(request)
            .filter(|r| r.responded == 0 && !r.ended);
        let found = owner.is_some();
        if let Some(owner) = owner {
            next = std::mem::replace(&mut owner.forward_next, call);
        }
        if let Some(record) = self.records.get_mut(call) {
            record.after = after;
            if found {
                record.forward = request;
                record.forward_next = next;
            }
        }
    }

    fn point_backward(&mut self, unit: Key, request: Key, before: Last) {
        let Some(record) = self.records.get(request) else {
            return;
        };
        let (start, first_call) = (record.start(), record.forward_next);
        match before {
            Last::Nothing => {}
            Last::ReadRequest(read) if read == request => {}
            // Perhaps answered without waiting for the call; perhaps two turns that follow each other.
            Last::WroteCall(call) if self.forward_of(call) == request => {}
            Last::ReadResponse(call) => match self.records.get(call) {
                Some(c) if c.start() >= start => match c.parent {
                    Parent::Undecided if c.tentative == Key::NONE => self.suggest(unit, call, request),
                    Parent::Local(owner) if owner == request => self.keep_order(unit, call, request),
                    Parent::Root | Parent::Context | Parent::Linked(..) => {}
                    Parent::Undecided | Parent::Local(_) => self.break_order(unit, true),
                },
                Some(_) => self.break_order(unit, true),
                None => {}
            },
            Last::ReadRequest(_) | Last::WroteCall(_) | Last::WroteResponse(_) => {
                self.break_order(unit, first_call != Key::NONE);
            }
        }
    }

    fn forward_of(&self, call: Key) -> Key {
        self.records.get(call).map(|r| r.forward).unwrap_or_default()
    }

    /// The order held once more.
    fn keep_order(&mut self, unit: Key, call: Key, request: Key) {
        let forward = self.forward_of(call);
        if let Some(state) = self.units.units.get_mut(unit) {
            up(&mut state.order.backward);
            if forward == request {
                up(&mut state.order.forward);
            } else if forward != Key::NONE {
                down(&mut state.order.forward);
            }
        }
    }

    /// The loop did something that no run to completion does.
    fn break_order(&mut self, unit: Key, forward_too: bool) {
        let Some(state) = self.units.units.get_mut(unit) else {
            return;
        };
        state.order.broken = true;
        down(&mut state.order.backward);
        if forward_too {
            down(&mut state.order.forward);
        }
        if state.order.backward < 0 {
            for call in std::mem::take(&mut state.order.tentative) {
                self.give_up(call);
            }
        }
    }

    /// The request was answered right after the call's response was read.
    fn suggest(&mut self, unit: Key, call: Key, request: Key) {
        self.keep_order(unit, call, request);
        if self.forward_of(call) != request {
            self.contest_chain(call);
        }
        let Some(answered) = self.records.get(request).map(|r| r.start()) else {
            return;
        };
        let Some(state) = self.units.units.get(unit) else {
            return;
        };
        // Nobody else's request was open since this one was read.
        let alone = state.open == 0 && state.last_answer < answered;
        if self.is_believed(unit, call, request, alone) {
            self.believe(unit, call, request, alone);
            return;
        }
        let Some(state) = self.units.units.get_mut(unit) else {
            return;
        };
        if state.order.tentative.len() >= MAX_TENTATIVE {
            return;
        }
        state.order.tentative.push(call);
        if let Some(record) = self.records.get_mut(call) {
            record.tentative = request;
            self.probation
                .push_back((self.now.saturating_add(PROBATION), call, unit));
        }
    }

    fn is_believed(&self, unit: Key, call: Key, request: Key, alone: bool) -> bool {
        if !self.contexts_agree(call, request) {
            return false;
        }
        let (Some(state), Some(owner)) = (self.units.units.get(unit), self.records.get(request)) else {
            return false;
        };
        if self
            .units
            .processes
            .get(owner.process)
            .is_none_or(|p| p.migrates_until > self.now)
        {
            return false;
        }
        let forward = self.forward_of(call);
        let order = &state.order;
        if forward == request {
            alone || order.forward >= order.trusted() || order.backward >= order.trusted()
        } else {
            order.backward >= order.trusted() && (order.forward <= 0 || forward == Key::NONE)
        }
    }

    /// The request owns the call; and the other calls that the forward hint gives it, where that hint is good.
    fn believe(&mut self, unit: Key, call: Key, request: Key, alone: bool) {
        let Some(state) = self.units.units.get(unit) else {
            return;
        };
        let forward_good = alone || state.order.forward >= state.order.trusted();
        let agree = self.forward_of(call) == request;
        let confidence = if agree && forward_good && !state.order.broken {
            Confidence::Certain
        } else {
            Confidence::Likely
        };
        let evidence = Some((Evidence::Loop, confidence));
        self.decide(call, Parent::Local(request), evidence);
        if !(agree && forward_good) {
            return;
        }
        // A call that is still awaited can't be one that the answer waited for: then the hint is wrong here.
        if self
            .forward_list(request)
            .any(|(_, r)| !r.ended && !r.is_decided())
        {
            return;
        }
        let others: Vec<Key> = self
            .forward_list(request)
            .filter(|(_, r)| !r.is_decided() && !r.contested)
            .filter(|(_, r)| r.tentative == Key::NONE || r.tentative == request)
            .map(|(key, _)| key)
            .collect();
        for key in others {
            if self.contexts_agree(key, request) {
                self.decide(key, Parent::Local(request), evidence);
            }
        }
    }

    /// The calls that the forward hint gives to the request.
    fn forward_list(&self, request: Key) -> impl Iterator<Item = (Key, &Record)> {
        let mut next = self
            .records
            .get(request)
            .map(|r| r.forward_next)
            .unwrap_or_default();
        std::iter::from_fn(move || {
            let key = next;
            let record = self.records.get(key)?;
            next = record.forward_next;
            Some((key, record))
        })
        .filter(move |(_, r)| r.forward == request)
    }

    /// The last call of a chain belongs to another request than the forward hint says, and so does the whole chain.
    fn contest_chain(&mut self, call: Key) {
        let mut key = call;
        while let Some(record) = self.records.get_mut(key).filter(|r| !r.contested) {
            record.contested = true;
            key = record.after;
        }
    }

    /// Probation is over; if not served, what the loop has shown has to do.
    pub(in crate::correlate) fn end_probation(&mut self, call: Key, unit: Key, is_served: bool) {
        let Some(record) = self.records.get_mut(call) else {
            return;
        };
        let request = record.tentative;
        if record.is_decided() || request == Key::NONE {
            return;
        }
        let forward = record.forward;
        if let Some(state) = self.units.units.get_mut(unit) {
            let order = &mut state.order;
            order.tentative.retain(|&c| c != call);
            let rival = forward != request && forward != Key::NONE;
            let unbroken = is_served && !order.broken && !rival;
            if (unbroken && self.contexts_agree(call, request))
                || self.is_believed(unit, call, request, false)
            {
                self.believe(unit, call, request, false);
                return;
            }
        }
        self.give_up(call);
    }

    /// The tentative owner stays a guess.
    fn give_up(&mut self, call: Key) {
        let Some(record) = self.records.get_mut(call) else {
            return;
        };
        if !record.is_decided() && record.tentative != Key::NONE {
            record.late_of = record.tentative;
            record.tentative = Key::NONE;
            record.ambiguous = true;
            self.decide_if_nobody_can_own(call);
        }
    }
}
