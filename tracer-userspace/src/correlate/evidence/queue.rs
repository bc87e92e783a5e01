//! E7: loops that read from many connections and then write to many, in the same order (HAProxy).
//!
//! A proxy makes one call for each request and one answer for each response. Where it works in batches, neither the read
//! before a write (E5) nor the thread (E4) says whose it is; the order does: the first call belongs to the request
//! that was read first, the first answer to the response that was read first. Neither is believed alone. A call whose
//! response is the next to be answered, and whose request by the first order is the one that is answered, was paired
//! twice by different orders: by chance they agree about once in as many times as there are requests waiting.
//! A loop keeps score of how often they agree, and is believed while they nearly always do.
//!
//! A request for which a new connection is opened keeps its place in the order: it is passed on when that connection is there, after others
//! that came later. The first response on such a connection is passed on later than others that were read with it, but in the order of its like.

use std::collections::VecDeque;

use super::noted::{MAX_NOTED, Noted};
use crate::correlate::Correlator;
use crate::correlate::arena::{Arena, Key};
use crate::correlate::record::{Parent, Record};
use crate::correlate::unit::UnitState;
use crate::model::{Confidence, ConnId, Evidence, Nanos, Unit};

/// What waits on a loop to be passed on, the oldest first.
#[derive(Default)]
pub(in crate::correlate) struct Queue {
    /// Requests that were read, for which no call was made.
    requests: VecDeque<Key>,
    /// Connections that were opened, and for which request ([`Key::NONE`]: for none that waited).
    opened: Noted<Key>,
    /// Calls whose response was read, for which no answer was written.
    responses: VecDeque<Key>,
    /// The same for the first responses on new connections, which come later than others that were read with them.
    first_responses: VecDeque<Key>,
    /// Rises by 1 with each pair on which the orders agree, falls by [`PENALTY`] with each on which they don't.
    score: i16,
    /// Pairs (call, request) that agreed before the loop was believed.
    early: Vec<(Key, Key)>,
}

/// On which connections responses come.
#[derive(Clone, Copy)]
enum On {
    Kept,
    New,
}

const PENALTY: i16 = 16;
const WORST: i16 = -128;
const BEST: i16 = 256;
/// Score from which a loop is believed.
const TRUSTED: i16 = 12;
/// How long pairs wait for the loop to be believed.
const PROBATION: Nanos = 100_000_000;
/// Most entries of each list. What is longer has lost its order.
const MAX_WAITING: usize = 4_096;

impl Queue {
    /// What waits may have been passed on unseen.
    pub(in crate::correlate) fn forget(&mut self) {
        self.clear();
        self.score = self.score.max(0);
    }

    /// A pair on which the orders don't agree. One is left out: a call that waited for its connection was overtaken. Where
    /// that goes on, nothing that waits is in order.
    fn disagree(&mut self, on: On) {
        self.responses_mut(on).pop_front();
        self.score = (self.score - PENALTY).max(WORST);
        if self.score < TRUSTED {
            self.clear();
        }
    }

    fn responses_mut(&mut self, on: On) -> &mut VecDeque<Key> {
        match on {
            On::Kept => &mut self.responses,
            On::New => &mut self.first_responses,
        }
    }

    fn clear(&mut self) {
        self.requests.clear();
        self.opened.clear();
        self.responses.clear();
        self.first_responses.clear();
        self.early.clear();
    }

    fn agree(&mut self) {
        self.score = (self.score + 1).min(BEST);
    }

    fn push(list: &mut VecDeque<Key>, key: Key) {
        if list.len() >= MAX_WAITING {
            list.clear();
        }
        list.push_back(key);
    }
}

/// The unit's queue, if it is a loop of which nothing better is known.
fn queue_of<'a>(
    units: &'a mut Arena<UnitState>,
    records: &Arena<Record>,
    unit: Key,
) -> Option<&'a mut Queue> {
    let state = units.get_mut(unit).filter(|u| u.is_loop && u.ids.is_none())?;
    if state.queue.is_none() {
        let mut queue = Queue::default();
        // What made it a loop was that this one was open already.
        let first = state.open_request;
        if let Some(conn) = state.order.opened_after(first) {
            queue.opened.push(conn, first, MAX_NOTED);
        } else if first != Key::NONE && records.get(first).is_some_and(|r| r.forward_next == Key::NONE) {
            queue.requests.push_back(first);
        }
        state.queue = Some(Box::new(queue));
    }
    state.queue.as_deref_mut()
}

impl Correlator {
    /// The loop has read a request.
    pub(in crate::correlate) fn queue_request(&mut self, unit: Key, request: Key) {
        if let Some(queue) = queue_of(&mut self.units.units, &self.records, unit)
            && queue.requests.back() != Some(&request)
        {
            Queue::push(&mut queue.requests, request);
        }
    }

    /// A unit opens a connection.
    pub(in crate::correlate) fn queue_connect(&mut self, moved: &Unit, conn: ConnId) {
        let Some(unit) = self.units.find_mover(moved) else {
            return;
        };
        let Some(queue) = queue_of(&mut self.units.units, &self.records, unit) else {
            return;
        };
        let request = queue.requests.pop_front().unwrap_or_default();
        queue.opened.push(conn, request, MAX_NOTED);
    }

    /// The loop has made a call.
    pub(in crate::correlate) fn queue_call(&mut self, unit: Key, call: Key) {
        let Some(conn) = self.records.get(call).map(|record| record.begin.conn.id) else {
            return;
        };
        let Some(queue) = queue_of(&mut self.units.units, &self.records, unit) else {
            return;
        };
        let opened_for = queue.opened.take(conn);
        let request = opened_for.unwrap_or_else(|| queue.requests.pop_front().unwrap_or_default());
        if let Some(record) = self.records.get_mut(call) {
            record.queued = request;
            record.opened = opened_for.is_some();
        }
    }

    /// The loop has read the first byte of the response to a call.
    pub(in crate::correlate) fn queue_response(&mut self, unit: Key, call: Key) {
        let is_first = self.records.get(call).is_some_and(|call| call.opened);
        if let Some(queue) = queue_of(&mut self.units.units, &self.records, unit) {
            let on = if is_first { On::New } else { On::Kept };
            Queue::push(queue.responses_mut(on), call);
        }
    }

    /// The loop has written the first byte of the answer to a request.
    pub(in crate::correlate) fn queue_answer(&mut self, unit: Key, request: Key) {
        let Some(queue) = queue_of(&mut self.units.units, &self.records, unit) else {
            return;
        };
        // Answered without a call.
        queue.opened.forget(&request);
        if let Some(at) = queue.requests.iter().position(|&key| key == request) {
            queue.requests.remove(at);
            return;
        }
        let records = &self.records;
        let mut next = [On::Kept, On::New].map(|on| {
            let list = queue.responses_mut(on);
            // What was called before the loop was known to be one says nothing.
            while let Some(call) = list.front()
                && records.get(*call).is_none_or(|call| call.queued == Key::NONE)
            {
                list.pop_front();
            }
            list.front()
                .and_then(|&call| records.get(call).map(|record| (on, call, record)))
        });
        // Both orders name the request, and nothing stronger named another.
        next.sort_by_key(|next| !matches!(next, Some((_, _, record)) if record.queued == request));
        let Some((on, call, record)) = next.into_iter().flatten().next() else {
            return;
        };
        let parent = record.parent;
        if record.queued != request
            || !matches!(parent, Parent::Undecided) && parent != Parent::Local(request)
        {
            queue.disagree(on);
            return;
        }
        queue.responses_mut(on).pop_front();
        queue.agree();
        if queue.score < TRUSTED {
            if parent == Parent::Undecided && queue.early.len() < MAX_WAITING {
                queue.early.push((call, request));
                self.await_trust(call);
            }
            return;
        }
        let early = std::mem::take(&mut queue.early);
        for (call, request) in early {
            self.believe_queue(call, request);
        }
        self.believe_queue(call, request);
    }

    /// Keeps the call from being decided as nobody's until its loop is believed, or has not been for too long.
    fn await_trust(&mut self, call: Key) {
        if let Some(record) = self.records.get_mut(call) {
            record.awaits_trust = true;
            self.queue_probation
                .push_back((self.now.saturating_add(PROBATION), call));
        }
    }

    /// The loop has not been believed in time.
    pub(in crate::correlate) fn end_queue_probation(&mut self, call: Key) {
        let Some(record) = self.records.get_mut(call) else {
            return;
        };
        record.awaits_trust = false;
        if !record.is_decided() && record.late_of == Key::NONE {
            record.late_of = record.queued;
            record.ambiguous = true;
        }
        self.decide_if_nobody_can_own(call);
    }

    fn believe_queue(&mut self, call: Key, request: Key) {
        if self.contexts_agree(call, request) {
            let evidence = Some((Evidence::Queue, Confidence::Likely));
            self.decide(call, Parent::Local(request), evidence);
        }
    }
}
