//! The life of one exchange: begin, respond, end.

use std::sync::Arc;

use super::Correlator;
use super::arena::{Arena, Key};
use super::evidence::async_ids::Group;
use super::evidence::owner::Claim;
use super::index::Index;
use super::record::{Candidates, Parent, Record, Trace};
use super::unit::Last;
use crate::model::{
    Begin, Evidence, Exchange, ExchangeId, Language, Nanos, Outcome, Role, Service, Stamp, Unit,
};
use crate::telemetry::Reason;

/// The record of an open exchange.
#[inline]
fn find<'a>(by_id: &Index, records: &'a mut Arena<Record>, id: ExchangeId) -> Option<(Key, &'a mut Record)> {
    let key = by_id.find(id.0)?;
    Some((key, records.get_mut(key)?))
}

/// A response that the sender of the request has read to its end at `read` had been sent before, whenever the system call
/// that sent it returned. That is so where the response ended the exchange: not where the request's last bytes, taken
/// after it at `requested`, or a failure did.
fn end_before_reader(exchange: &mut Exchange, requested: Nanos, read: Nanos) {
    if read == 0 || read >= exchange.end.ts || requested >= exchange.end.ts {
        return;
    }
    if exchange.role == Role::Server && exchange.outcome == Outcome::Unset {
        exchange.end.ts = read.max(requested);
        if let Some(first) = &mut exchange.first_byte {
            first.ts = first.ts.min(exchange.end.ts);
        }
    }
}

impl Correlator {
    #[inline(never)]
    pub(super) fn begin(&mut self, begin: Begin, services: &mut dyn FnMut(u32) -> Arc<Service>) {
        let id = begin.id;
        let mover = begin.start.unit;
        let tgid = if mover.tgid == 0 {
            begin.conn.tgid
        } else {
            mover.tgid
        };
        if self.records.len() >= self.config.max_open && !self.make_room() {
            // Counted when it ends: it may yet be dropped for another reason, which counts it.
            self.refused += 1;
            return;
        }
        let unit = self.units.mover(&mover, self.now);
        let process = self.units.process_of(unit, tgid, self.now);
        let (service, serves) = match self.units.processes.get_mut(process) {
            Some(state) => {
                let service = match &state.service {
                    Some((turn, known)) if *turn == self.turn => Arc::clone(known),
                    _ => {
                        let told = services(tgid);
                        state.service = Some((self.turn, Arc::clone(&told)));
                        told
                    }
                };
                (service, state.serves)
            }
            None => (services(tgid), true),
        };
        let is_inbound = begin.role.is_inbound();
        if service.language == Language::NodeJs
            && let Some(state) = self.units.units.get_mut(unit)
        {
            state.is_loop = true;
        }
        let span_id = self.ids.span();
        let mut record = Record::new(begin, service, span_id, unit, process);
        let has_context = record.begin.context.is_some();
        let key = self.records.next_key();
        if is_inbound {
            self.open_request(key, &mut record);
        } else if !serves && !has_context {
            // Nobody can own what a process calls that serves nobody.
            record.parent = Parent::Root;
            record.trace = Some(self.traces.insert(Trace::new(self.ids.trace(), record.start())));
        }
        self.records.insert(record);
        self.by_id.insert(id.0, key);
        if is_inbound {
            self.begin_inbound(key, unit, has_context);
        } else {
            self.begin_outbound(key, &mover, (unit, process), has_context, serves);
        }
    }

    fn begin_inbound(&mut self, key: Key, unit: Key, has_context: bool) {
        if let Some(state) = self.units.units.get_mut(unit) {
            state.work = None;
        }
        if has_context {
            self.context_arrived(key);
        }
        self.ids_request(key, unit);
        self.queue_request(unit, key);
        self.order_event(unit, Last::ReadRequest(key));
        if self.match_message(key) {
            let wait = self.config.peer_wait_ms.saturating_mul(1_000_000);
            self.peer_waits.push_back((self.now.saturating_add(wait), key));
        } else {
            self.sender_unseen(key);
        }
    }

    fn begin_outbound(
        &mut self,
        key: Key,
        mover: &Unit,
        (unit, process): (Key, Key),
        has_context: bool,
        serves: bool,
    ) {
        if let Some(record) = self.records.get_mut(key) {
            let of = self.units.processes.get(process);
            record.amid_requests = of.is_some_and(|p| p.first_open != Key::NONE);
            if let Some(state) = self.units.units.get_mut(unit) {
                state.calls_out += 1;
                record.since_answer = state.since_answer;
                state.since_answer = state.since_answer.saturating_add(1);
            }
        }
        if self.config.explain {
            self.note_candidates(key, process);
        }
        self.call_for_job(key, mover);
        self.queue_call(unit, key);
        self.order_call(unit, key);
        if has_context {
            self.context_called(key);
        }
        if serves || has_context {
            let decided = has_context && self.records.get(key).is_some_and(|r| r.is_decided());
            if !decided && serves {
                if self.tells_ids(unit) {
                    self.ids_call(key, unit);
                } else {
                    self.await_owner(key, mover);
                    self.await_submitters(key, mover);
                    self.await_acquirer(key, unit);
                    self.await_decision(key, process);
                }
            } else if !decided {
                self.decide_unowned(key);
            }
        }
        self.match_message(key);
    }

    /// Notes which requests of the process are open: one of them has caused the call, if any has.
    fn note_candidates(&mut self, call: Key, process: Key) {
        let mut candidates = Candidates::default();
        let mut next = self
            .units
            .processes
            .get(process)
            .map_or(Key::NONE, |p| p.first_open);
        while let Some(request) = self.records.get(next)
            && candidates.count < Candidates::MOST_COUNTED
        {
            candidates.count += 1;
            if candidates.spans.len() < Candidates::MOST_TOLD {
                candidates.spans.push(request.span_id);
            }
            next = request.next_open;
        }
        if let Some(record) = self.records.get_mut(call) {
            record.candidates = Some(Box::new(candidates));
        }
    }

    /// The call waits until no open request of its process can own it.
    fn await_decision(&mut self, call: Key, process: Key) {
        let Some(process) = self.units.processes.get_mut(process) else {
            return;
        };
        let undecided = &mut process.undecided;
        // Behind a request that stays open (a stream of an hour) they would pile up, decided or not.
        if undecided.len() == undecided.capacity() && undecided.len() >= 64 {
            let records = &self.records;
            undecided.retain(|&key| records.get(key).is_some_and(|r| !r.is_decided()));
        }
        undecided.push_back(call);
    }

    /// The request, which is about to be remembered as `key`, enters its process's list, and its unit's.
    fn open_request(&mut self, key: Key, record: &mut Record) {
        let conn = record.begin.conn.id;
        if let Some(process) = self.units.processes.get_mut(record.process) {
            process.serves = true;
            let last = std::mem::replace(&mut process.last_open, key);
            if last == Key::NONE {
                process.first_open = key;
            }
            if let Some(before) = self.records.get_mut(last) {
                before.next_open = key;
            }
            record.previous_open = last;
        }
        if let Some(state) = self.units.units.get_mut(record.unit) {
            state.reads = true;
            if state.open == 0 {
                (state.open_conn, state.open_request) = (conn, key);
            } else if state.open_conn != conn {
                state.is_loop = true;
            }
            state.open += 1;
            record.open_on_unit = true;
        }
    }

    /// The request leaves its process's list. Calls that only it could have owned are nobody's.
    fn close_request(&mut self, key: Key, process: Key, (previous, next): (Key, Key)) {
        if let Some(record) = self.records.get_mut(previous) {
            record.next_open = next;
        }
        if let Some(record) = self.records.get_mut(next) {
            record.previous_open = previous;
        }
        let Some(state) = self.units.processes.get_mut(process) else {
            return;
        };
        if state.last_open == key {
            state.last_open = previous;
        }
        if state.first_open == key {
            state.first_open = next;
            if !state.undecided.is_empty() {
                self.decide_unowned_calls(process);
            }
        }
    }

    /// No longer open on the unit that read it, if it was.
    #[inline]
    fn answered(&mut self, key: Key, unit: Key, was_open: bool) {
        if was_open && let Some(state) = self.units.units.get_mut(unit) {
            state.open = state.open.saturating_sub(1);
            if state.open_request == key {
                // Pipelined: the next of the same connection (which one is found when it is answered).
                state.open_request = Key::NONE;
            }
        }
    }

    #[inline(never)]
    pub(super) fn request_end(&mut self, id: ExchangeId, stamp: &Stamp) {
        let Some((key, record)) = find(&self.by_id, &mut self.records, id) else {
            return;
        };
        record.requested = record.requested.max(stamp.ts);
        let event = if record.begin.role.is_inbound() {
            Last::ReadRequest(key)
        } else {
            Last::WroteCall(key)
        };
        let unit = self.units.mover_of(record, &stamp.unit, self.now);
        self.order_event(unit, event);
    }

    #[inline(never)]
    pub(super) fn respond(&mut self, id: ExchangeId, stamp: &Stamp) {
        if let Some(key) = self.by_id.find(id.0) {
            self.response_began(key, stamp);
        }
    }

    /// The first byte of the response was moved.
    fn response_began(&mut self, key: Key, stamp: &Stamp) {
        let Some(record) = self.records.get_mut(key).filter(|r| r.responded == 0) else {
            return;
        };
        let unit = self.units.mover_of(record, &stamp.unit, self.now);
        record.responded = stamp.ts.max(1);
        record.responder = unit;
        let begun_by = record.unit;
        if record.begin.role.is_inbound() {
            let was_open = std::mem::take(&mut record.open_on_unit);
            self.answered(key, begun_by, was_open);
            self.watch_request_threads(begun_by, unit);
            if begun_by != unit {
                self.watch_late_calls(unit, key);
            }
            self.claim(unit, key, Claim::Wrote);
            self.claim_for_connection(key, false);
            self.ids_answer(key, unit, Some(&stamp.unit));
            self.order_event(unit, Last::WroteResponse(key));
            self.queue_answer(unit, key);
            if let Some(state) = self.units.units.get_mut(unit) {
                state.answers = true;
                state.last_answered = key;
                state.last_answer = stamp.ts;
                state.since_answer = 0;
            }
        } else {
            if let Some(state) = self.units.units.get_mut(begun_by) {
                state.calls_out = state.calls_out.saturating_sub(1);
            }
            self.watch_call_threads(begun_by, unit);
            self.await_owner_again(key, &stamp.unit);
            self.await_submitters_again(key, &stamp.unit);
            self.ids_response(key, unit);
            self.queue_response(unit, key);
            self.order_event(unit, Last::ReadResponse(key));
        }
    }

    #[inline(never)]
    pub(super) fn end(&mut self, mut exchange: Box<Exchange>, services: &mut dyn FnMut(u32) -> Arc<Service>) {
        let Some(key) = self.by_id.take(exchange.id.0) else {
            if self.refused > 0 {
                self.refused -= 1;
                self.counters.full += 1;
                let service = services(exchange.start.unit.tgid);
                self.ledger
                    .dropped(Some(&service.name), Reason::CorrelationFull, 1);
            }
            return;
        };
        if let Some(first) = &exchange.first_byte {
            self.response_began(key, first);
        }
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        let unit = self.units.mover_of(record, &exchange.end.unit, self.now);
        if let (Parent::Local(sender), Some((Evidence::Message, _))) = (record.parent, record.evidence) {
            let (requested, sender) = (record.requested, self.records.get(sender));
            end_before_reader(&mut exchange, requested, sender.map_or(0, |s| s.ended_at));
        }
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        record.ended = true;
        record.ended_at = exchange.end.ts;
        if record.jobs.is_some() && exchange.outcome != Outcome::Unset {
            self.put_failed(key);
        }
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        record.exchange = Some(exchange);
        let (begun_by, responder, responded) = (record.unit, record.responder, record.responded != 0);
        let has_context = record.begin.context.is_some();
        if record.begin.role.is_inbound() {
            let was_open = std::mem::take(&mut record.open_on_unit);
            let neighbours = (record.previous_open, record.next_open);
            let process = record.process;
            if responded {
                // Calls made while the response was being written.
                self.claim(responder, key, Claim::Wrote);
                self.claim_for_connection(key, true);
            } else {
                let reader = self.units.units.get(begun_by);
                if reader.is_some_and(|u| u.open == 1 && u.open_request == key) {
                    self.claim(begun_by, key, Claim::Read);
                }
                self.answered(key, begun_by, was_open);
                self.ids_answer(key, begun_by, None);
            }
            if has_context {
                self.context_left(key);
            }
            self.enter_window(key);
            self.close_request(key, process, neighbours);
        } else {
            self.enter_window(key);
            self.ids_end(key, begun_by);
            if responded {
                self.ids_response(key, unit);
                self.order_event(unit, Last::ReadResponse(key));
            } else if let Some(state) = self.units.units.get_mut(begun_by) {
                state.calls_out = state.calls_out.saturating_sub(1);
            }
            self.decide_if_nobody_can_own(key);
        }
        if !self.hand_on(key) {
            let hold = self.config.max_hold_ms.saturating_mul(1_000_000);
            self.holds.push_back((self.now.saturating_add(hold), key));
        }
    }

    /// The exchange was dropped: it will have no span, so it is nobody's parent.
    #[inline(never)]
    pub(super) fn lose(&mut self, id: ExchangeId) {
        let Some(key) = self.by_id.take(id.0) else {
            self.refused = self.refused.saturating_sub(1);
            return;
        };
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        let (unit, process, responded) = (record.unit, record.process, record.responded != 0);
        let (is_inbound, trace) = (record.begin.role.is_inbound(), record.trace);
        if let Some(trace) = trace
            .and_then(|trace| self.traces.get(trace))
            .map(|trace| trace.id)
        {
            self.tear(trace);
        }
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        if is_inbound {
            let was_open = std::mem::take(&mut record.open_on_unit);
            let neighbours = (record.previous_open, record.next_open);
            self.answered(key, unit, was_open);
            self.context_left(key);
            if let Some(process) = self.units.processes.get_mut(process) {
                process.lost = self.now;
            }
            self.close_request(key, process, neighbours);
        } else if !responded && let Some(state) = self.units.units.get_mut(unit) {
            state.calls_out = state.calls_out.saturating_sub(1);
        }
        self.put_failed(key);
        self.forget(key);
    }

    /// When the first of the process's open requests came in: what began before that is none of theirs.
    pub(super) fn open_since(&self, process: Key) -> Option<Nanos> {
        let first = self.units.processes.get(process)?.first_open;
        self.records.get(first).map(Record::start)
    }

    /// Decides the calls of a process that none of its open requests can own: all requests that were open when they
    /// began have ended.
    fn decide_unowned_calls(&mut self, process: Key) {
        loop {
            let Some(state) = self.units.processes.get(process) else {
                return;
            };
            let Some(&call) = state.undecided.front() else {
                return;
            };
            let oldest = self.open_since(process);
            if let Some(record) = self.records.get(call)
                && !record.is_decided()
            {
                if oldest.is_some_and(|start| start <= record.start()) {
                    return;
                }
                if !record.is_on_probation() && !self.await_thread_end(call) {
                    self.decide_unowned(call);
                }
            }
            if let Some(state) = self.units.processes.get_mut(process) {
                state.undecided.pop_front();
            }
        }
    }

    /// The same for one call.
    pub(super) fn decide_if_nobody_can_own(&mut self, call: Key) {
        let Some(record) = self.records.get(call) else {
            return;
        };
        if record.is_decided() || record.is_on_probation() || record.group != Group::NONE {
            return;
        }
        if self
            .open_since(record.process)
            .is_none_or(|oldest| oldest > record.start())
            && !self.await_thread_end(call)
        {
            self.decide_unowned(call);
        }
    }

    /// No request of this process caused the call.
    pub(super) fn decide_unowned(&mut self, call: Key) {
        let Some(record) = self.records.get(call) else {
            return;
        };
        // What a loop answered last says little about what it calls next.
        let is_loop = self.units.units.get(record.unit).is_some_and(|unit| unit.is_loop);
        let is_late = !is_loop && self.records.get(record.late_of).is_some();
        if !is_late && self.await_window(call) {
            return;
        }
        let Some(record) = self.records.get(call) else {
            return;
        };
        let evidence = (crate::model::Evidence::Header, crate::model::Confidence::Likely);
        let parent = if record.begin.context.is_some() {
            Parent::Context
        } else if self.records.get(record.late_of).is_some() {
            let reason = if record.ambiguous {
                "ambiguous"
            } else {
                "after_response"
            };
            Parent::Linked(record.late_of, reason)
        } else {
            Parent::Root
        };
        self.decide(call, parent, Some(evidence));
    }

    /// An ended exchange was held long enough: whatever keeps it from having a trace is decided with what is known.
    pub(super) fn hold_expired(&mut self, key: Key) {
        if self.records.get(key).is_none_or(|r| !r.ended || r.emitted) {
            return;
        }
        // Each turn decides one ancestor.
        while self.records.get(key).is_some_and(|r| r.trace.is_none()) {
            let top = self.undecided_above(key);
            let Some(record) = self.records.get(top).filter(|r| !r.is_decided()) else {
                break;
            };
            if !record.is_outbound() {
                self.sender_unseen(top);
                continue;
            }
            self.claim_forward(top);
            self.claim_by_ids(top);
            if let Some(record) = self.records.get_mut(top)
                && !record.is_decided()
            {
                record.expired = true;
                self.counters.expired += 1;
                self.decide_unowned(top);
            }
        }
        self.await_jobs_no_more(key);
    }

    /// Makes room for one exchange: forgets one that was handed on, or hands on the one that is held longest.
    fn make_room(&mut self) -> bool {
        while let Some((_, key)) = self.lingering.pop_front() {
            if self.records.get(key).is_some() {
                self.forget(key);
                return true;
            }
        }
        while let Some((_, key)) = self.holds.pop_front() {
            if self.records.get(key).is_some_and(|r| !r.emitted) {
                self.hold_expired(key);
                if let Some((_, key)) = self.lingering.pop_front() {
                    self.forget(key);
                    return true;
                }
            }
        }
        false
    }
}
