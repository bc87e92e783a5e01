//! What is remembered of one exchange while it matters.

use std::sync::Arc;

use super::arena::Key;
use super::evidence::async_ids::Group;
use super::evidence::timing::Standing;
use crate::model::{
    Address, Begin, Confidence, Evidence, Exchange, Link, Nanos, Service, SpanId, TraceId, Unit,
};

/// Where an exchange hangs in its trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parent {
    /// Not known yet.
    Undecided,
    /// Nobody caused it; it starts a trace.
    Root,
    /// It starts a trace that links to the record's span.
    Linked(Key, &'static str),
    /// The context that its request carries ([`Begin::context`]).
    Context,
    /// The record's span.
    Local(Key),
}

/// One exchange, from its [`Begin`] until a while after its span was handed on.
pub(super) struct Record {
    pub begin: Begin,
    pub service: Arc<Service>,
    pub span_id: SpanId,
    pub parent: Parent,
    pub evidence: Option<(Evidence, Confidence)>,
    /// Links that the span carries.
    pub links: Vec<Link>,
    /// Known once the parents of all ancestors are.
    pub trace: Option<Key>,
    /// The parent's span, set together with `trace`.
    pub parent_span: Option<SpanId>,
    pub parent_is_remote: bool,
    /// Records that wait for `trace`: head of a list through `next_waiting`.
    pub waiting: Key,
    pub next_waiting: Key,

    /// The thread or task that moved the request's first byte.
    pub unit: Key,
    /// The process that it belongs to.
    pub process: Key,
    /// The unit that moved the response's first byte, and when (0: not yet).
    pub responder: Key,
    pub responded: Nanos,
    /// When the request's last byte was moved, as far as it was told.
    pub requested: Nanos,
    /// When the other end of the message began, if that was earlier: what was read there had been sent.
    pub seen_by_peer: Nanos,
    /// When it ended (0: not yet).
    pub ended_at: Nanos,
    /// The exchange, from its end until it is handed on.
    pub exchange: Option<Box<Exchange>>,
    /// Its end was signalled.
    pub ended: bool,
    /// It was decided without knowledge of its owner because it could be held no longer.
    pub expired: bool,
    /// Its span was handed on (or, if nobody wants the process, counted).
    pub emitted: bool,
    /// Where the record stands in the table of messages whose other end was not seen.
    pub message: Option<u64>,
    /// Inbound: neighbours in the process's list of open requests.
    pub previous_open: Key,
    pub next_open: Key,
    /// Inbound: counted in its unit's open requests.
    pub open_on_unit: bool,

    /// Outbound: who else might have been its parent, if that is to be told.
    pub candidates: Option<Box<Candidates>>,
    /// Outbound: when its connection was taken, or else when it began; and the unit that may own it through who took it.
    pub taken_at: Nanos,
    pub taken_for: Key,
    /// Outbound: who was seen to wait at the place where its outcome is awaited.
    pub waits: Key,
    /// Outbound: who served a request when it created the task that called, or one that waits for it.
    pub made_for: Key,
    /// Outbound: several were seen to wait, or another one than it was made for.
    pub several_wait: bool,
    /// Outbound: who was woken when it was over.
    pub woken: Key,
    /// Outbound: several were.
    pub woke_several: bool,
    /// Outbound: the request that the unit's order of reads and writes points to (E5).
    pub forward: Key,
    /// Outbound: the next call with the same `forward`. Inbound: head of that list.
    pub forward_next: Key,
    /// Outbound: the request that stood first in its loop's queue (E7).
    pub queued: Key,
    /// Outbound: the connection was opened for it, by a loop with such a queue.
    pub opened: bool,
    /// Outbound: it is the first on its connection, and a loop may go on with its response only when that has ended.
    pub may_end: bool,
    /// Outbound: `queued` may own it, if its loop comes to be believed.
    pub awaits_trust: bool,
    /// Outbound: the call whose response was read right before this one was written (E5).
    pub after: Key,
    /// Outbound: what came after it in its chain was answered for another request than `forward`.
    pub contested: bool,
    /// Outbound: the owner that an event loop's order suggests, not yet believed.
    pub tentative: Key,
    /// Outbound: it has waited, or does, for the end of the thread that made it.
    pub awaits_end: bool,
    /// Outbound: a request of its process was open when it began.
    pub amid_requests: bool,
    /// Outbound: how many calls its unit had made since it answered last.
    pub since_answer: u16,
    /// What it has to do with jobs, if it has.
    pub jobs: Option<Box<super::jobs::Errand>>,
    /// Outbound: `late_of` is a guess that was given up.
    pub ambiguous: bool,
    /// The group of work that it belongs to, on an event loop that tells ids.
    pub group: Group,
    /// Outbound: how it stands with its process's window.
    pub standing: Standing,
    /// Outbound: the only request that was answered after its response was read; what was read of it is over.
    pub answered_by: Key,
    pub response_over: bool,
    /// Outbound: the request for whose response it is made, as the runtime itself tells.
    pub told: Key,
    /// Outbound: the request that its unit had answered before the call began.
    pub late_of: Key,
}

impl Record {
    #[inline]
    pub fn new(begin: Begin, service: Arc<Service>, span_id: SpanId, unit: Key, process: Key) -> Self {
        Self {
            requested: begin.start.ts,
            taken_at: begin
                .taken
                .as_ref()
                .map_or(begin.start.ts, |taken| taken.stamp.ts),
            taken_for: Key::NONE,
            waits: Key::NONE,
            made_for: Key::NONE,
            several_wait: false,
            woken: Key::NONE,
            woke_several: false,
            seen_by_peer: Nanos::MAX,
            ended_at: 0,
            begin,
            service,
            span_id,
            parent: Parent::Undecided,
            evidence: None,
            links: Vec::new(),
            trace: None,
            parent_span: None,
            parent_is_remote: false,
            waiting: Key::NONE,
            next_waiting: Key::NONE,
            unit,
            process,
            responder: Key::NONE,
            responded: 0,
            exchange: None,
            ended: false,
            expired: false,
            emitted: false,
            message: None,
            previous_open: Key::NONE,
            next_open: Key::NONE,
            open_on_unit: false,
            forward: Key::NONE,
            forward_next: Key::NONE,
            queued: Key::NONE,
            opened: false,
            may_end: false,
            awaits_trust: false,
            after: Key::NONE,
            contested: false,
            tentative: Key::NONE,
            awaits_end: false,
            late_of: Key::NONE,
            candidates: None,
            group: Group::NONE,
            standing: Standing::Apart,
            answered_by: Key::NONE,
            told: Key::NONE,
            response_over: false,
            amid_requests: false,
            since_answer: 0,
            jobs: None,
            ambiguous: false,
        }
    }

    /// Whether that unit moved the request's first byte.
    #[inline]
    pub fn begun_by(&self, unit: &Unit) -> bool {
        let begun = &self.begin.start.unit;
        (unit.tid, unit.task().id, unit.tgid) == (begun.tid, begun.task().id, begun.tgid)
    }

    pub fn start(&self) -> Nanos {
        self.begin.start.ts
    }

    /// Whether it waits for its response.
    pub fn is_open(&self) -> bool {
        self.responded == 0 && !self.ended
    }

    pub fn is_decided(&self) -> bool {
        self.parent != Parent::Undecided
    }

    /// Somebody may own it, and is believed soon or never (E5, E7).
    pub fn is_on_probation(&self) -> bool {
        self.tentative != Key::NONE || self.awaits_trust
    }

    /// Whether it came over a Unix socket, before anything else.
    pub fn is_first_over_unix_socket(&self) -> bool {
        let is_first = self.begin.identity.is_some_and(|identity| identity.pos == 0);
        is_first && matches!(self.begin.conn.local.address, Address::Unix(_))
    }

    pub fn is_outbound(&self) -> bool {
        !self.begin.role.is_inbound()
    }
}

/// The requests of its process that were open when a call began: each of them might have caused it.
#[derive(Default)]
pub(super) struct Candidates {
    /// How many there were, up to [`Self::MOST_COUNTED`].
    pub count: u16,
    /// The spans of the first of them, oldest first.
    pub spans: Vec<SpanId>,
}

impl Candidates {
    pub const MOST_COUNTED: u16 = 256;
    pub const MOST_TOLD: usize = 16;
}

/// A trace of which something is still remembered.
pub(super) struct Trace {
    pub id: TraceId,
    /// Records that point here.
    pub records: u32,
    /// Spans that it has got so far.
    pub spans: u32,
    /// When its first span began.
    pub start: Nanos,
}

impl Trace {
    /// Of its first span.
    pub fn new(id: TraceId, start: Nanos) -> Self {
        Self {
            id,
            records: 1,
            spans: 1,
            start,
        }
    }
}
