//! From decided parents to spans: trace ids are carried down, and what is whole is handed on.

use std::fmt::Write as _;

use super::arena::Key;
use super::evidence::timing;
use super::record::{Candidates, Parent, Trace};
use super::{Correlator, Infer};
use crate::model::{Confidence, Evidence, Exchange, Key as Attribute, Link, Nanos, Span, TraceId, Unit};
use crate::telemetry::Reason;

/// How long a record outlives its span: the other end of its message may be seen late, and late work links to it.
const LINGER: Nanos = 100_000_000;

impl Correlator {
    /// Settles the parent of a record, once.
    pub(super) fn decide(&mut self, key: Key, mut parent: Parent, evidence: Option<(Evidence, Confidence)>) {
        if let Parent::Local(above) | Parent::Linked(above, _) = parent
            && self.records.get(above).is_some_and(|r| r.trace.is_none())
            && self.descends(above, key)
        {
            parent = Parent::Root;
        }
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        if record.is_decided() {
            return;
        }
        record.parent = parent;
        record.evidence = match parent {
            Parent::Local(_) | Parent::Context => evidence,
            Parent::Undecided | Parent::Root | Parent::Linked(..) => None,
        };
        self.count_for_hand_offs(key);
        self.settle(key);
    }

    /// Whether `below` hangs under `above`. Only what has no trace yet can: ancestors get theirs first.
    fn descends(&self, below: Key, above: Key) -> bool {
        let mut key = below;
        while let Some(record) = self.records.get(key) {
            if key == above {
                return true;
            }
            match record.parent {
                Parent::Local(up) | Parent::Linked(up, _) if record.trace.is_none() => key = up,
                _ => return false,
            }
        }
        false
    }

    /// The undecided ancestor (or the record itself) that keeps a record from having a trace.
    pub(super) fn undecided_above(&self, mut key: Key) -> Key {
        while let Some(record) = self.records.get(key) {
            match record.parent {
                Parent::Local(up) | Parent::Linked(up, _) if record.trace.is_none() => key = up,
                _ => break,
            }
        }
        key
    }

    /// Gives the record its trace if its ancestors have theirs, then those that waited for it.
    pub(super) fn settle(&mut self, key: Key) {
        if !self.enter_trace(key) {
            return;
        }
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        let waiting = std::mem::take(&mut record.waiting);
        let (ended, has_jobs) = (record.ended, record.jobs.is_some());
        if has_jobs {
            self.tell_takers(key);
        }
        if ended {
            self.hand_on(key);
        }
        if waiting != Key::NONE {
            self.settle_waiting(waiting);
        }
    }

    /// Those that waited for a record's trace, and those that wait for theirs.
    fn settle_waiting(&mut self, first: Key) {
        let mut stack = std::mem::take(&mut self.stack);
        let mut waiting = first;
        loop {
            while let Some(child) = self.records.get_mut(waiting) {
                stack.push(waiting);
                waiting = std::mem::take(&mut child.next_waiting);
            }
            let Some(key) = stack.pop() else {
                break;
            };
            if self.enter_trace(key) {
                if let Some(record) = self.records.get_mut(key) {
                    waiting = std::mem::take(&mut record.waiting);
                    if record.jobs.is_some() {
                        self.tell_takers(key);
                    }
                }
                self.hand_on(key);
            }
        }
        self.stack = stack;
    }

    /// Whether the record's trace became known now.
    #[inline]
    fn enter_trace(&mut self, key: Key) -> bool {
        let Some(record) = self.records.get(key) else {
            return false;
        };
        if record.trace.is_some() {
            return false;
        }
        let start = record.start();
        let (above, link) = match record.parent {
            Parent::Undecided => return false,
            Parent::Root => {
                let id = self.ids.trace();
                return self.start_trace(key, id);
            }
            Parent::Context => return self.enter_context(key),
            Parent::Local(above) => (above, None),
            Parent::Linked(above, reason) => (above, Some(reason)),
        };
        let Some(parent) = self.records.get(above) else {
            // The parent was lost before it could be told.
            let id = self.ids.trace();
            self.tear(id);
            return self.start_trace(key, id);
        };
        let Some(trace_key) = parent.trace else {
            let head = parent.waiting;
            if let Some(record) = self.records.get_mut(key) {
                record.next_waiting = head;
            }
            if let Some(parent) = self.records.get_mut(above) {
                parent.waiting = key;
            }
            return false;
        };
        let Some(trace) = self.traces.get_mut(trace_key) else {
            return false;
        };
        let span_id = if parent.service.selected {
            Some(parent.span_id)
        } else {
            parent.parent_span
        };
        let is_remote = parent.process != record.process;
        let full = if trace.spans >= self.config.max_trace_spans {
            Some("trace_full")
        } else if start.saturating_sub(trace.start) > self.config.max_trace_age_ms.saturating_mul(1_000_000) {
            Some("trace_old")
        } else {
            None
        };
        if let Some(reason) = link.or(full) {
            if full.is_some() {
                self.counters.split += 1;
            }
            let trace_id = trace.id;
            let id = self.ids.trace();
            if let Some(record) = self.records.get_mut(key) {
                record.evidence = None;
                if let Some(span_id) = span_id {
                    record.links.push(Link {
                        trace_id,
                        span_id,
                        reason,
                    });
                }
            }
            return self.start_trace(key, id);
        }
        trace.spans += 1;
        trace.records += 1;
        if let Some(record) = self.records.get_mut(key) {
            record.trace = Some(trace_key);
            record.parent_span = span_id;
            record.parent_is_remote = span_id.is_some() && is_remote;
        }
        true
    }

    fn enter_context(&mut self, key: Key) -> bool {
        let Some(record) = self.records.get_mut(key) else {
            return false;
        };
        let is_inbound = record.begin.role.is_inbound();
        let Some(context) = &record.begin.context else {
            return false;
        };
        record.parent_span = context.span_id;
        record.parent_is_remote = is_inbound && context.span_id.is_some();
        let id = context.trace_id;
        self.start_trace(key, id)
    }

    fn start_trace(&mut self, key: Key, id: TraceId) -> bool {
        let Some(record) = self.records.get_mut(key) else {
            return false;
        };
        record.trace = Some(self.traces.insert(Trace::new(id, record.begin.start.ts)));
        true
    }

    /// Hands the span on if the exchange has ended and its trace is known. Returns whether it has been handed on.
    pub(super) fn hand_on(&mut self, key: Key) -> bool {
        let Some(record) = self.records.get_mut(key) else {
            return true;
        };
        let Some(trace_id) = record.trace.and_then(|t| self.traces.get(t)).map(|t| t.id) else {
            return false;
        };
        if record.jobs.as_ref().is_some_and(|errand| errand.awaited > 0) {
            return record.emitted;
        }
        let Some(mut exchange) = record.exchange.take() else {
            return record.emitted;
        };
        // What the peer has read had been sent before, whenever the system call that sent it returned.
        exchange.start.ts = exchange.start.ts.min(record.seen_by_peer);
        record.emitted = true;
        let linger = if self.config.infer == Infer::Off {
            LINGER
        } else {
            timing::LINGER
        };
        self.lingering.push_back((self.now.saturating_add(linger), key));
        if !record.service.selected {
            self.ledger
                .dropped(Some(&record.service.name), Reason::NotSelected, 1);
            return true;
        }
        let evidence = record.evidence.filter(|_| record.parent_span.is_some());
        match evidence {
            Some((evidence, _)) => self.counters.by_evidence[evidence as usize] += 1,
            None => self.counters.roots += 1,
        }
        let trace_state = match &record.begin.context {
            Some(context) if context.trace_id == trace_id => context.trace_state.clone(),
            _ => Box::default(),
        };
        if self.config.explain {
            explain(&mut exchange, record.candidates.take().as_deref());
        }
        self.ready.push(Span {
            trace_id,
            span_id: record.span_id,
            parent: record.parent_span,
            parent_is_remote: record.parent_is_remote,
            evidence,
            trace_state,
            links: std::mem::take(&mut record.links),
            exchange,
            service: record.service.clone(),
        });
        true
    }

    /// Links `from` to `to`, if `to` has a trace and `from` was not handed on.
    pub(super) fn link(&mut self, from: Key, to: Key, reason: &'static str) {
        let Some(target) = self.records.get(to).filter(|r| r.service.selected) else {
            return;
        };
        let Some(trace_id) = target.trace.and_then(|t| self.traces.get(t)).map(|t| t.id) else {
            return;
        };
        let span_id = target.span_id;
        if let Some(record) = self.records.get_mut(from)
            && !record.emitted
            && record.links.len() < MAX_LINKS
        {
            record.links.push(Link {
                trace_id,
                span_id,
                reason,
            });
        }
    }

    /// Takes a record out of the list in which it waits for its parent's trace.
    fn stop_waiting(&mut self, key: Key) {
        let Some(record) = self.records.get(key) else {
            return;
        };
        let (Parent::Local(above) | Parent::Linked(above, _)) = record.parent else {
            return;
        };
        if record.trace.is_some() {
            return;
        }
        let next = record.next_waiting;
        let Some(parent) = self.records.get_mut(above) else {
            return;
        };
        if parent.waiting == key {
            parent.waiting = next;
            return;
        }
        let mut before = parent.waiting;
        while let Some(sibling) = self.records.get_mut(before) {
            if sibling.next_waiting == key {
                sibling.next_waiting = next;
                return;
            }
            before = sibling.next_waiting;
        }
    }

    /// Forgets a record. Those that waited for its trace go on without it.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        let (trace, message) = (record.trace, record.message);
        if record.jobs.is_some() {
            self.leave_jobs(key);
        }
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        let mut waiting = std::mem::take(&mut record.waiting);
        if let Some(name) = message {
            self.messages.remove(name, key);
        }
        if trace.is_none() {
            self.stop_waiting(key);
        }
        self.records.remove(key);
        if let Some(trace_key) = trace
            && let Some(trace) = self.traces.get_mut(trace_key)
        {
            trace.records -= 1;
            if trace.records == 0 {
                self.traces.remove(trace_key);
            }
        }
        while let Some(child) = self.records.get_mut(waiting) {
            let orphan = std::mem::replace(&mut waiting, std::mem::take(&mut child.next_waiting));
            self.settle(orphan);
        }
    }
}

/// Most links that a request collects from calls that were handed on before their owner was known.
const MAX_LINKS: usize = 32;

/// Who moved the first byte of the request, and of the response.
const REQUEST: (Attribute, Attribute) = ("thread.id", "tracer.task.id");
const RESPONSE: (Attribute, Attribute) = ("tracer.response.thread.id", "tracer.response.task.id");

/// How many requests of its process were open when a call began, and the spans of the first of them.
const CANDIDATES: (Attribute, Attribute) = ("tracer.parent.candidates.count", "tracer.parent.candidates");

/// Adds to the exchange's attributes who moved the first bytes, and which parents there were to choose from.
fn explain(exchange: &mut Exchange, candidates: Option<&Candidates>) {
    if let Some(candidates) = candidates {
        let (count, spans) = CANDIDATES;
        let attributes = &mut exchange.attributes;
        attributes.push_int(count, candidates.count.into());
        attributes.push_with(spans, |text| {
            for span in &candidates.spans {
                if !text.is_empty() {
                    text.push(' ');
                }
                for byte in span.0 {
                    _ = write!(text, "{byte:02x}");
                }
            }
        });
    }
    let attributes = &mut exchange.attributes;
    let mut tell = |unit: &Unit, (thread, task)| {
        attributes.push_int(thread, i64::from(unit.tid));
        let id = unit.task().id;
        if id != 0 {
            attributes.push_int(task, id.cast_signed());
        }
    };
    tell(&exchange.start.unit, REQUEST);
    if let Some(response) = &exchange.first_byte {
        tell(&response.unit, RESPONSE);
    }
}
