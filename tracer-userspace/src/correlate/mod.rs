//! Correlation: from exchanges to spans, by deciding who caused each of them.
//!
//! [`Correlator::signal`] takes what the protocol stage says, in time order, of all connections of the host;
//! [`Correlator::advance`] hands on spans whose place in a trace is decided. The rules are in [`evidence`], one file each.
//!
//! - A parent is decided once, and a trace id that was handed on never changes. What comes to light later is a link.
//! - A call's owner is known when it writes its response, so a trace is held until its outermost request has answered;
//!   bounded by [`Config::max_hold_ms`].
//! - Every `End` becomes exactly one span, or is counted in the ledger: as not selected, or because the bound on open
//!   exchanges was reached. What is open when the daemon stops is counted as abandoned. Signals must not get lost on
//!   their way here; an exchange that is said to end twice ends once.
//! - No clock, no I/O: time is what the signals and `advance` say, so recorded signals can be replayed.

mod arena;
mod config;
mod evidence;
mod hand_offs;
mod ids;
mod index;
mod jobs;
pub mod joint;
mod lifecycle;
mod record;
#[cfg(test)]
mod tests;
mod trace;
mod unit;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

pub use config::{Config, Infer};
pub use evidence::timing::{Answers, Question};

use crate::model::{Deed, Nanos, Service, Signal, SignalKind, Span, TraceId};
use crate::telemetry::{Ledger, Reason};
use arena::{Arena, Key};
use evidence::header::{Carriers, ContextId};
use evidence::timing::Windows;
use ids::Ids;
use index::Index;
use record::{Record, Trace};
use unit::Units;

/// What the stage did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Spans handed on without a parent.
    pub roots: u64,
    /// Spans handed on with a parent, by [`crate::model::Evidence`] in its order.
    pub by_evidence: [u64; 9],
    /// Calls that were handed on before their owner was known.
    pub expired: u64,
    /// Spans that started a trace of their own because the trace was full or too old.
    pub split: u64,
    /// Requests whose sender was seen only after they were declared roots.
    pub late_senders: u64,
    /// Exchanges dropped because too many were open.
    pub full: u64,
    /// Links from what was done of a job to what had put it off.
    pub jobs: u64,
    /// Jobs taken whose bytes stood there more than once: nobody knows which was taken.
    pub jobs_alike: u64,
    /// Calls that E8 did not look at because too many waited.
    pub unsolved: u64,
}

/// The correlation stage.
pub struct Correlator {
    config: Config,
    ledger: Arc<Ledger>,
    now: Nanos,
    /// Counts calls of [`Correlator::advance`]: between two of them nobody changes his name.
    turn: u64,
    ids: Ids,
    records: Arena<Record>,
    by_id: Index,
    /// Open exchanges for which there was no room.
    refused: u64,
    traces: Arena<Trace>,
    units: Units,
    /// Ends of messages whose other end was not seen, by [`evidence::message`]'s name for them.
    messages: Index,
    contexts: HashMap<ContextId, Carriers>,
    jobs: jobs::Jobs,
    /// Deadlines, each in order: requests that wait for their sender, loop hints on probation, ended exchanges that are
    /// held, records that outlive their span.
    peer_waits: VecDeque<(Nanos, Key)>,
    probation: VecDeque<(Nanos, Key, Key)>,
    queue_probation: VecDeque<(Nanos, Key)>,
    /// Calls of threads whose end may still be told until then.
    thread_ends: VecDeque<(Nanos, Key)>,
    /// Event loops whose open segment ends at the latest then.
    segment_ends: VecDeque<(Nanos, Key)>,
    holds: VecDeque<(Nanos, Key)>,
    lingering: VecDeque<(Nanos, Key)>,
    windows: Windows,
    next_sweep: Nanos,
    ready: Vec<Span>,
    /// Traces that lost an exchange.
    torn: Vec<TraceId>,
    /// Processes whose hand-offs are to be followed, or not any more.
    follow: Vec<(u32, bool)>,
    stack: Vec<Key>,
    counters: Counters,
}

impl Correlator {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(config: Config, ledger: Arc<Ledger>) -> Self {
        let mut units = Units::default();
        units.max_units = config.max_units;
        Self {
            config,
            ledger,
            now: 0,
            turn: 0,
            ids: Ids::new(),
            records: Arena::default(),
            by_id: Index::default(),
            refused: 0,
            traces: Arena::default(),
            units,
            messages: Index::default(),
            contexts: HashMap::new(),
            jobs: jobs::Jobs::default(),
            peer_waits: VecDeque::new(),
            probation: VecDeque::new(),
            queue_probation: VecDeque::new(),
            thread_ends: VecDeque::new(),
            segment_ends: VecDeque::new(),
            holds: VecDeque::new(),
            lingering: VecDeque::new(),
            windows: Windows::default(),
            next_sweep: 0,
            ready: Vec::new(),
            torn: Vec::new(),
            follow: Vec::new(),
            stack: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes one signal. `services` tells who is behind a process id.
    pub fn signal(&mut self, signal: Signal, services: &mut dyn FnMut(u32) -> Arc<Service>) {
        self.now = self.now.max(signal.ts);
        match signal.kind {
            SignalKind::Act(act) => match act.deed {
                Deed::Held => self.held(&act.stamp.unit),
                Deed::ReadsEnd(conn) => self.order_end(&act.stamp.unit, conn),
                Deed::Connects(conn) => {
                    self.queue_connect(&act.stamp.unit, conn);
                    self.order_connect(&act.stamp.unit, conn);
                    self.act(&act);
                }
                Deed::Waits | Deed::Woken | Deed::Sends(_) | Deed::Receives(_) => self.act(&act),
            },
            SignalKind::Begin(begin) => self.begin(begin, services),
            SignalKind::RequestEnd(id, stamp) => self.request_end(id, &stamp),
            SignalKind::Respond(id, stamp) => self.respond(id, &stamp),
            SignalKind::End(exchange) => self.end(exchange, services),
            SignalKind::Drop(id, _) => self.lose(id),
            SignalKind::Job(id, job) => self.job(id, job),
            SignalKind::Wake(wake) => self.woke(&wake),
            SignalKind::ThreadEnd(end) => self.thread_ended(&end),
            // Services are asked for once in a turn.
            SignalKind::Replaced(_) => self.turn += 1,
        }
    }

    /// Time has come to `now`: no signal before it will come any more. Hands on what is decided.
    pub fn advance(&mut self, now: Nanos, out: &mut Vec<Span>) {
        self.now = self.now.max(now);
        self.turn += 1;
        let now = self.now;
        while let Some(&(_, key)) = self.peer_waits.front().filter(|(due, _)| *due <= now) {
            self.peer_waits.pop_front();
            self.sender_unseen(key);
        }
        self.give_up_jobs(now);
        while let Some(&(_, call, unit)) = self.probation.front().filter(|(due, ..)| *due <= now) {
            self.probation.pop_front();
            self.end_probation(call, unit, true);
        }
        while let Some(&(_, call)) = self.queue_probation.front().filter(|(due, _)| *due <= now) {
            self.queue_probation.pop_front();
            self.end_queue_probation(call);
        }
        while let Some(&(_, call)) = self.thread_ends.front().filter(|(due, _)| *due <= now) {
            self.thread_ends.pop_front();
            self.decide_if_nobody_can_own(call);
        }
        while let Some(&(_, unit)) = self.segment_ends.front().filter(|(due, _)| *due <= now) {
            self.segment_ends.pop_front();
            self.end_segment(unit);
        }
        self.ask_windows(false);
        while let Some(&(_, key)) = self.holds.front().filter(|(due, _)| *due <= now) {
            self.holds.pop_front();
            self.hold_expired(key);
        }
        while let Some(&(_, key)) = self.lingering.front().filter(|(due, _)| *due <= now) {
            self.lingering.pop_front();
            self.forget(key);
        }
        if now >= self.next_sweep {
            self.next_sweep = now.saturating_add(SWEEP);
            self.units.sweep(now, IDLE);
        }
        self.hand_over(out);
    }

    /// The daemon stops: hands on all that has ended; what is open is counted as abandoned.
    pub fn finish(&mut self, out: &mut Vec<Span>) {
        for (_, call, unit) in std::mem::take(&mut self.probation) {
            self.end_probation(call, unit, false);
        }
        for key in self.records.keys() {
            if let Some(record) = self.records.get(key).filter(|r| !r.ended) {
                let id = record.begin.id;
                self.ledger
                    .dropped(Some(&record.service.name), Reason::Abandoned, 1);
                self.lose(id);
            }
        }
        if self.refused > 0 {
            self.ledger
                .dropped(None, Reason::Abandoned, std::mem::take(&mut self.refused));
        }
        for key in self.records.keys() {
            self.hold_expired(key);
        }
        self.hand_over(out);
    }

    /// Spans that are ready, without copying them where that can be.
    fn hand_over(&mut self, out: &mut Vec<Span>) {
        if out.is_empty() {
            std::mem::swap(out, &mut self.ready);
        } else {
            out.append(&mut self.ready);
        }
    }

    /// Traces that lost an exchange since the last call, or in which something stands that belongs under a lost one.
    pub fn take_torn(&mut self) -> Vec<TraceId> {
        std::mem::take(&mut self.torn)
    }

    fn tear(&mut self, trace: TraceId) {
        if self.torn.len() < MAX_TORN {
            self.torn.push(trace);
        }
    }

    /// Not all was seen of what threads did until now: what they have shown of the order in which they work begins again.
    pub fn forget_orders(&mut self) {
        for key in self.units.units.keys() {
            if let Some(unit) = self.units.units.get_mut(key) {
                unit.last = unit::Last::Nothing;
                unit.order.forget();
                unit.work = None;
                if let Some(queue) = &mut unit.queue {
                    queue.forget();
                }
            }
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Exchanges and units that are remembered.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        (self.records.len(), self.units.units.len())
    }
}

/// Most traces that are remembered as torn if nobody asks.
const MAX_TORN: usize = 65_536;
/// How often idle units are looked for, and how long a unit must have been idle to be forgotten.
const SWEEP: Nanos = 1_000_000_000;
const IDLE: Nanos = 30_000_000_000;
