//! Leaves whole traces out while the tracer is above its budget of processor time.
//!
//! First a share of the traces, by their ids and with the sampler's own rule, so that tracers on several hosts keep the same ones.
//! Then connections: all of them, in turns ([`super::turns`]). Some of them alone would not do. A process that serves requests on
//! some connections unseen makes calls that belong to nothing; and where the order of a thread's reads and writes tells who called,
//! requests that are seen lose theirs.
//!
//! A trace is kept in turns only if it is whole: it began while a turn took traces in, each of its spans has its parent, no exchange of
//! it was given up when the turn ended, and it began with a request, or in a process that serves none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};

use super::head::by_threshold;
use super::threshold::Threshold;
use super::verdict::{Verdict, Verdicts};
use crate::model::{Evidence, Nanos, Span, SpanId, TraceId};
use crate::telemetry::{Ledger, Reason};

/// Spans that wait for the rest of their trace.
const MAX_WAITING: usize = 20_000;
/// How long they wait for the span that the trace began with, while connections are always followed.
const WAIT: Nanos = 1_000_000_000;
/// How long after the end of a turn something may still come of it.
const SETTLE: Nanos = 2_000_000_000;
/// How long after the last turn what comes may be part of a trace that was not seen to begin.
const AFTERMATH: Nanos = 10_000_000_000;
/// Turns of which is known when they took traces in.
const MAX_WINDOWS: usize = 4;
/// Processes that are kept in mind.
const MAX_PROCESSES: usize = 16_384;

/// What is kept: shares from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shed {
    /// Of the traces.
    pub traces: f64,
    /// Of the time in which connections are followed.
    pub connections: f64,
}

impl Shed {
    /// Everything is kept.
    pub const NOTHING: Self = Self {
        traces: 1.0,
        connections: 1.0,
    };
}

/// A time in which connections are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Traces that begin from then on can be whole.
    pub opens: Nanos,
    /// Traces that begin from then on can't.
    pub closes: Nanos,
    /// When connections are followed no longer.
    pub ends: Nanos,
}

impl Window {
    const ALWAYS: Self = Self {
        opens: 0,
        closes: Nanos::MAX,
        ends: Nanos::MAX,
    };
}

/// What is shed at the moment, shared by who decides that and who does it.
#[derive(Clone)]
pub struct Shedding(Arc<Shared>);

struct Shared {
    traces: AtomicU64,
    connections: AtomicU64,
    /// Since when connections are not followed; 0: they are.
    paused: AtomicU64,
    turns: Mutex<Turns>,
}

struct Turns {
    /// The last ones; the youngest may lie in the future.
    windows: VecDeque<Window>,
    /// When they ended for good, or `MAX` while they go on; 0: there were none.
    until: Nanos,
}

impl Default for Shedding {
    fn default() -> Self {
        let all = || AtomicU64::new(1.0f64.to_bits());
        Self(Arc::new(Shared {
            traces: all(),
            connections: all(),
            paused: AtomicU64::new(0),
            turns: Mutex::new(Turns {
                windows: VecDeque::from([Window::ALWAYS]),
                until: 0,
            }),
        }))
    }
}

impl Shedding {
    /// From now on.
    pub fn set(&self, shed: Shed) {
        self.0.traces.store(shed.traces.to_bits(), Relaxed);
        self.0.connections.store(shed.connections.to_bits(), Relaxed);
    }

    /// What is kept now.
    #[must_use]
    pub fn get(&self) -> Shed {
        Shed {
            traces: f64::from_bits(self.0.traces.load(Relaxed)),
            connections: f64::from_bits(self.0.connections.load(Relaxed)),
        }
    }

    /// The turn that goes on ends then.
    pub fn end_turn(&self, closes: Nanos, ends: Nanos) {
        let mut turns = self.turns();
        turns.until = Nanos::MAX;
        if let Some(window) = turns.windows.back_mut() {
            (window.closes, window.ends) = (closes, ends);
        }
    }

    /// Connections are not followed from now on.
    pub fn pause(&self, now: Nanos) {
        self.0.paused.store(now, Relaxed);
    }

    /// They are again, so long.
    pub fn resume(&self, window: Window) {
        let mut turns = self.turns();
        if turns.windows.len() >= MAX_WINDOWS {
            turns.windows.pop_front();
        }
        turns.windows.push_back(window);
        self.0.paused.store(0, Relaxed);
    }

    /// The turn that goes on is the last one: connections are always followed.
    pub fn stay(&self, now: Nanos) {
        let mut turns = self.turns();
        turns.until = now;
        if let Some(window) = turns.windows.back_mut() {
            (window.closes, window.ends) = (Nanos::MAX, Nanos::MAX);
        }
    }

    /// Since when connections are not followed.
    #[must_use]
    pub fn paused_since(&self) -> Option<Nanos> {
        Some(self.0.paused.load(Relaxed)).filter(|&since| since != 0)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How traces are dealt with at present.
#[derive(Clone, Copy)]
struct Rule {
    shed: Shed,
    /// Connections are or were followed in turns: what comes may be parts.
    in_turns: bool,
    /// When all that a turn shows has come, if it will end.
    settled: Option<Nanos>,
}

/// The stage.
pub struct Shedder {
    shedding: Shedding,
    verdicts: Verdicts,
    waiting: HashMap<TraceId, Vec<Span>>,
    order: VecDeque<(Nanos, TraceId)>,
    held: usize,
    /// Processes that answered requests while something was shed.
    serving: HashSet<u32>,
    /// The turn whose beginning was told by [`Self::turn_began`].
    told: Nanos,
}

impl Shedder {
    /// Sheds what that handle says.
    #[must_use]
    pub fn new(shedding: Shedding, ledger: Arc<Ledger>) -> Self {
        Self {
            shedding,
            verdicts: Verdicts::new(ledger, Reason::Shed),
            waiting: HashMap::new(),
            order: VecDeque::new(),
            held: 0,
            serving: HashSet::new(),
            told: 0,
        }
    }

    /// Whether a turn has begun to take traces in since the last call. What was seen before of the order in which threads work has holes.
    pub fn turn_began(&mut self, now: Nanos) -> bool {
        let opens = self.shedding.turns().windows.back().map_or(0, |w| w.opens);
        let begins = opens <= now && opens != self.told;
        if begins {
            self.told = opens;
        }
        begins
    }

    /// These traces lost an exchange: what is left of them is not whole. Where connections are always followed, that was not for shedding.
    pub fn torn(&mut self, traces: impl IntoIterator<Item = TraceId>, now: Nanos, kept: &mut Vec<Span>) {
        if self.rule(now).in_turns {
            for trace in traces {
                self.leave(trace, kept);
            }
        }
    }

    fn leave(&mut self, trace: TraceId, kept: &mut Vec<Span>) {
        if self.verdicts.of(trace).is_none() {
            let spans = self.take(trace);
            self.verdicts.decide(trace, spans, Verdict::Leave, kept);
        }
    }

    /// Takes finished spans; those of traces that are kept go to `kept`, now or later. Leaves `spans` empty.
    pub fn offer(&mut self, spans: &mut Vec<Span>, now: Nanos, kept: &mut Vec<Span>) {
        let rule = self.rule(now);
        let decides_at_once = rule.shed == Shed::NOTHING && !rule.in_turns;
        if decides_at_once {
            self.serving.clear();
        }
        for span in spans.drain(..) {
            if !decides_at_once && span.exchange.role.is_inbound() && self.serving.len() < MAX_PROCESSES {
                self.serving.insert(span.exchange.conn.tgid);
            }
            let trace = span.trace_id;
            if let Some(verdict) = self.verdicts.of(trace) {
                self.verdicts.carry_out(vec![span], verdict, kept);
                continue;
            }
            let is_waited_for = self.waiting.contains_key(&trace);
            if !is_waited_for
                && (decides_at_once || sampled(std::slice::from_ref(&span), rule) == Verdict::Leave)
            {
                self.decide(trace, vec![span], rule, kept);
                continue;
            }
            let is_whole_with_it = !rule.in_turns && is_entry(&span);
            self.hold(span, rule, now);
            if is_whole_with_it {
                self.release(trace, rule, kept);
            }
        }
        while let Some(&(due, trace)) = self.order.front()
            && (due <= now || self.held > MAX_WAITING)
        {
            self.order.pop_front();
            if due > now && rule.in_turns {
                // Nobody knows yet whether it is whole.
                self.leave(trace, kept);
            } else {
                self.release(trace, rule, kept);
            }
        }
    }

    /// Decides on everything that still waits.
    pub fn finish(&mut self, now: Nanos, kept: &mut Vec<Span>) {
        let rule = self.rule(now);
        while let Some((_, trace)) = self.order.pop_front() {
            self.release(trace, rule, kept);
        }
    }

    fn rule(&self, now: Nanos) -> Rule {
        let turns = self.shedding.turns();
        let ends = turns.windows.back().map_or(Nanos::MAX, |window| window.ends);
        Rule {
            shed: self.shedding.get(),
            in_turns: turns.until != 0 && now < turns.until.saturating_add(AFTERMATH),
            settled: (ends != Nanos::MAX).then(|| ends.saturating_add(SETTLE)),
        }
    }

    fn hold(&mut self, span: Span, rule: Rule, now: Nanos) {
        let trace = span.trace_id;
        self.held += 1;
        let waiting = self.waiting.entry(trace).or_default();
        if waiting.is_empty() {
            let wait = now.saturating_add(WAIT);
            self.order
                .push_back((rule.settled.map_or(wait, |at| at.max(now)), trace));
        }
        waiting.push(span);
    }

    fn take(&mut self, trace: TraceId) -> Vec<Span> {
        let spans = self.waiting.remove(&trace).unwrap_or_default();
        self.held -= spans.len();
        spans
    }

    fn release(&mut self, trace: TraceId, rule: Rule, kept: &mut Vec<Span>) {
        let spans = self.take(trace);
        if !spans.is_empty() {
            self.decide(trace, spans, rule, kept);
        }
    }

    fn decide(&mut self, trace: TraceId, spans: Vec<Span>, rule: Rule, kept: &mut Vec<Span>) {
        let verdict = if rule.in_turns && !self.is_whole(&spans) {
            Verdict::Leave
        } else {
            sampled(&spans, rule)
        };
        self.verdicts.decide(trace, spans, verdict, kept);
    }

    fn is_whole(&self, spans: &[Span]) -> bool {
        let turns = self.shedding.turns();
        let is_seen_from_start = |entry: &Span| {
            let start = entry.exchange.start.ts;
            let role = entry.exchange.role;
            turns.windows.iter().any(|w| w.opens <= start && start < w.closes)
                && (role.is_inbound() || !self.serving.contains(&entry.exchange.conn.tgid))
        };
        let ids: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
        let mut entries = 0;
        spans.iter().all(|span| {
            if is_entry(span) {
                entries += 1;
                is_seen_from_start(span)
            } else {
                span.parent.is_some_and(|parent| ids.contains(&parent))
            }
        }) && entries > 0
    }
}

/// Whether the trace begins with the span, as far as this host shows.
fn is_entry(span: &Span) -> bool {
    span.parent.is_none()
        || span
            .evidence
            .is_some_and(|(evidence, _)| evidence == Evidence::Header)
}

fn sampled(spans: &[Span], rule: Rule) -> Verdict {
    if rule.shed.traces < 1.0 {
        by_threshold(spans, Threshold::of(rule.shed.traces))
    } else {
        Verdict::Keep(None)
    }
}
